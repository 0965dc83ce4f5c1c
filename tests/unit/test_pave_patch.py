"""PAVE's patch against the official module's output, and against a frame-by-frame reference."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from pave_reference import reference
from safetensors import safe_open

from tempeval.errors import InvalidSetting
from tempeval.methods.pave import PavePatch
from tempeval.methods.pave_patch import equal_partition
from tempeval.methods.pave_state import RELEASED_PREFIX, PatchSizes

REFERENCE = Path(__file__).parents[1] / "reference" / "pave"
PREFIXES = (
    "",
    "temporal_aggregator.",
    "model.temporal_aggregator.",
    "base_model.model.temporal_aggregator.",
    RELEASED_PREFIX,
)


def golden(case: str, name: str = "pave.safetensors"):
    with safe_open(REFERENCE / name, "pt") as file:
        facts = json.loads(file.metadata()[case])
        tensors = {
            key[len(case) + 1 :]: file.get_tensor(key)
            for key in file.keys()  # noqa: SIM118  (not a dict)
            if key.startswith(f"{case}.")
        }
    state = {k[len("state.") :]: v for k, v in tensors.items() if k.startswith("state.")}
    return facts, state, tensors


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("case", ["case0", "case1", "case2"])
def test_equal_to_the_official_module(case: str, prefix: str) -> None:
    facts, state, tensors = golden(case)
    patch = PavePatch.from_state_dict(
        {prefix + key: value for key, value in state.items()}, num_heads=facts["heads"]
    )
    with torch.no_grad():
        got = patch(tensors["side_channel"], tensors["query_tokens"])
    assert got.shape == tensors["patch_output"].shape
    assert tensors["patch_output"].std() > 0.1
    assert (got - tensors["patch_output"]).abs().max() < 1e-5


@pytest.mark.parametrize("case", ["case0", "case1", "case2"])
def test_equal_to_the_official_module_with_rotary_positions(case: str) -> None:
    facts, state, tensors = golden(case, "pave_rope.safetensors")
    assert facts["use_3d_rope"]
    state = {key: value.float() for key, value in state.items()}  # stored in half precision
    patch = PavePatch.from_state_dict(state, num_heads=facts["heads"], use_3d_rope=True)
    without = PavePatch.from_state_dict(state, num_heads=facts["heads"])
    asked = tensors["side_channel"], tensors["query_tokens"]
    wanted = tensors["patch_output"]
    with torch.no_grad():
        assert (patch(*asked) - wanted).abs().max() < 1e-4
        if case != "case2":  # whose frames have one key each, so that nothing is weighed
            assert (without(*asked) - wanted).abs().max() > 0.1
        side = math.isqrt(asked[1].shape[1])
        assert torch.equal(patch(*asked, grid=(side, side)), patch(*asked))
        near = equal_partition(max(len(asked[0]), len(asked[1])), len(asked[1]))
        if len(asked[0]) >= len(asked[1]):  # as given to a run whose frames have times
            assert torch.equal(patch(*asked, near), patch(*asked))


def test_rotary_positions_need_their_width_and_a_grid() -> None:
    sizes = PatchSizes(side=6, query=5, output=7, hidden=128, layers=1)
    with pytest.raises(InvalidSetting, match=r"needs heads of 128 channels; 2 heads .* have 64"):
        PavePatch(sizes, num_heads=2, use_3d_rope=True)
    patch = PavePatch(sizes, num_heads=1, use_3d_rope=True)
    torch.nn.init.ones_(patch.output_norm.weight)
    side, queries = torch.randn(4, 1, 2, 6), torch.randn(2, 6, 5)
    with pytest.raises(InvalidSetting, match="6 tokens of a frame are no square"):
        patch(side, queries)
    with pytest.raises(InvalidSetting, match="2 x 2 does not hold 6 tokens"):
        patch(side, queries, grid=(2, 2))
    assert not torch.allclose(patch(side, queries, grid=(2, 3)), patch(side, queries, grid=(3, 2)))


def random_patch(layers: int, heads: int, hidden: int, *, kv_share: bool):
    generator = torch.Generator().manual_seed(0)
    sizes = PatchSizes(side=6, query=5, output=7, hidden=hidden, layers=layers)
    patch = PavePatch(sizes, num_heads=heads, kv_share=kv_share)
    for parameter in patch.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4
    return patch


CASES = [
    # T_k, (h, w), T_q, S_q, neighbours
    (8, (1, 1), 4, 9, None),
    (11, (2, 2), 4, 3, None),
    (3, (1, 2), 5, 4, None),
    (1, (3, 1), 6, 2, None),
    (64, (24, 24), 32, 4, None),
    (29, (1, 1), 32, 4, None),
    (5, (1, 1), 1, 4, None),
    (6, (2, 1), 3, 4, (range(3), range(1, 5), range(2, 6))),
    (6, (1, 1), 3, 4, (range(2), range(0), range(5, 6))),
    (2, (1, 1), 4, 4, (range(1), range(1), range(1, 2), range(2, 2))),
]


@pytest.mark.parametrize("kv_share", [True, False])
@pytest.mark.parametrize(("layers", "heads", "hidden"), [(1, 1, 4), (2, 4, 16), (3, 2, 12)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equal_to_a_frame_by_frame_reference(case, layers, heads, hidden, kv_share) -> None:
    steps, cells, frames, tokens, neighbors = case
    patch = random_patch(layers, heads, hidden, kv_share=kv_share)
    side = torch.randn(steps, *cells, 6)
    queries = torch.randn(frames, tokens, 5)
    with torch.no_grad():
        got = patch(side, queries, neighbors)
    wanted = reference(patch.state_dict(), side, queries, heads, neighbors, kv_share=kv_share)
    assert (got - wanted).abs().max() < 1e-4
    for frame, own in enumerate(neighbors or ()):
        assert len(own) or torch.equal(got[frame], torch.zeros(tokens, 7))


def test_values_come_from_the_keys_unless_asked_otherwise() -> None:
    shared = random_patch(2, 4, 16, kv_share=True)
    apart = PavePatch.from_state_dict(shared.state_dict(), kv_share=False)
    side, queries = torch.randn(8, 1, 1, 6), torch.randn(4, 3, 5)
    before = shared(side, queries)
    assert not torch.allclose(before, apart(side, queries))
    for layer in shared.cross_attn_layers:
        layer.attn.v_linear.weight.data.zero_()
    assert torch.equal(shared(side, queries), before)


def test_a_new_patch_adds_exactly_nothing_and_learns() -> None:
    patch = PavePatch(PatchSizes(side=6, query=5, output=7, hidden=16))
    side, queries = torch.randn(8, 2, 2, 6), torch.randn(4, 3, 5)
    out = patch(side, queries)
    assert torch.equal(out, torch.zeros(4, 3, 7))
    (out * torch.randn(4, 3, 7)).sum().backward()
    assert patch.output_norm.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("layers", "output", "parameters"),
    [(2, 3584, 8_996_352), (3, 3584, 10_833_920), (2, 896, 6_235_776)],
)
def test_sizes_of_the_released_patches(layers: int, output: int, parameters: int) -> None:
    with torch.device("meta"):
        patch = PavePatch(PatchSizes(side=1024, query=1152, output=output, layers=layers))
    assert sum(p.numel() for p in patch.parameters()) == parameters


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    patch = random_patch(2, 4, 16, kv_share=True)
    side, queries = torch.randn(11, 2, 2, 6), torch.randn(4, 3, 5)
    with torch.no_grad():
        exact = patch(side, queries)
        half = patch.to(dtype)(side.to(dtype), queries.to(dtype))
    assert half.dtype == dtype
    assert (half.float() - exact).abs().max() < 0.1 * exact.abs().max()


def test_official_partition_by_hand() -> None:
    assert equal_partition(8, 4) == [range(2), range(2, 4), range(4, 6), range(6, 8)]
    assert [len(own) for own in equal_partition(11, 4)] == [3, 3, 3, 2]
    assert equal_partition(32, 32) == [range(n, n + 1) for n in range(32)]


def test_operations_counted_by_hand() -> None:
    """One layer, one head: every matrix product of a small case, two per multiplication."""
    patch = PavePatch(PatchSizes(side=6, query=5, output=7, hidden=4, layers=1), num_heads=1)
    steps, cells, frames, tokens = 4, 2, 2, 3
    queries, keys = frames * tokens, steps * cells
    products = [keys * 6 * 4, queries * 5 * 4]  # both input maps
    products += [queries * 4 * 4, keys * 4 * 4]  # q and k
    products += 2 * [frames * tokens * (keys // frames) * 4]  # scores and sums
    products += 2 * [queries * 4 * 8]  # feed-forward
    products += [queries * 4 * 8, queries * 8 * 7]  # output map
    assert patch.flops((steps, 1, cells, 6), frames, tokens) == 2 * sum(products)


def state_of(patch: PavePatch) -> dict[str, torch.Tensor]:
    return dict(patch.official_state(RELEASED_PREFIX))


def test_foreign_keys_beside_the_patch_are_left_out() -> None:
    patch = random_patch(2, 4, 16, kv_share=True)
    state = state_of(patch) | {"base_model.model.model.mm_projector.0.weight": torch.zeros(1)}
    assert PavePatch.from_state_dict(state).sizes == patch.sizes


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("output_norm.bias", None, r"lack .*output_norm\.bias"),
        ("input_mapping.weight", None, "no patch among"),
        ("cross_attn_layers.0.attn.q_linear.weight", None, "lack .*q_linear"),
        ("rope.weight", torch.zeros(1), "does not know: .*rope"),
        ("output_norm.bias", torch.zeros(3), r"output_norm\.bias has shape \(3,\)"),
        ("output_mapping.2.weight", torch.zeros(3), r"shape \(3,\); accepted: 2 dimensions"),
        ("another.input_mapping.weight", torch.zeros(4, 6), "several patches"),
        ("output_norm.bias", torch.zeros(7, dtype=torch.int64), r"output_norm\.bias is of .*int64"),
        ("output_norm.bias", torch.zeros(7).to_sparse(), r"output_norm\.bias is of .*sparse"),
        ("output_norm.bias", torch.zeros(7, device="meta"), r"output_norm\.bias is of .*meta"),
        ("output_norm.bias", [0.0] * 7, r"output_norm\.bias is a list"),
        ("output_norm.bias", 7, r"output_norm\.bias is a int"),
        ("output_norm.bias", torch.full((7,), math.nan), r"output_norm\.bias .*finite.*7 of 7"),
        ("input_mapping.weight", torch.full((16, 6), math.inf), r"input_mapping\.weight .*finite"),
        ("input_mapping.weight", 3, r"input_mapping\.weight is a int"),
        ("cross_attn_layers.999999999.x", torch.zeros(1), r"lack cross_attn_layers\.2"),
    ],
)
def test_other_weights_are_refused_by_name(key, value, message: str) -> None:
    state = state_of(random_patch(2, 4, 16, kv_share=True))
    state.pop(RELEASED_PREFIX + key, None)
    if value is not None:
        state[RELEASED_PREFIX + key] = value
    with pytest.raises(InvalidSetting, match=message):
        PavePatch.from_state_dict(state)


def test_a_key_that_is_no_name_is_refused() -> None:
    state = state_of(random_patch(2, 4, 16, kv_share=True))
    with pytest.raises(InvalidSetting, match="the key 5"):
        PavePatch.from_state_dict({5: torch.zeros(1), **state})  # type: ignore[dict-item]


def test_the_callers_tensors_stay_its_own() -> None:
    state = random_patch(2, 4, 16, kv_share=True).state_dict()
    before = {key: value.clone() for key, value in state.items()}
    patch = PavePatch.from_state_dict(state)
    for weight in patch.parameters():
        weight.data.add_(1)
    assert all(torch.equal(state[key], value) for key, value in before.items())
    for value in state.values():
        value.zero_()
    after = patch.state_dict()
    assert all(torch.equal(after[key], value + 1) for key, value in before.items())


@pytest.mark.parametrize(
    ("side", "queries", "neighbors", "message"),
    [
        (torch.zeros(4, 1, 1, 9), torch.zeros(4, 3, 5), None, r"\(4, 1, 1, 9\).*last of 6"),
        (torch.zeros(4, 6), torch.zeros(4, 3, 5), None, "takes 4 dimensions"),
        (torch.zeros(0, 1, 1, 6), torch.zeros(4, 3, 5), None, "is empty"),
        (torch.full((4, 1, 1, 6), math.nan), torch.zeros(4, 3, 5), None, "not finite"),
        (torch.zeros(4, 1, 1, 6), torch.zeros(4, 3, 4), None, "query_tokens"),
        (torch.zeros(4, 1, 1, 6), torch.zeros(4, 3, 5), [range(1)], "of 1 frames are given for 4"),
        (torch.zeros(4, 1, 1, 6), torch.zeros(1, 3, 5), [range(3, 5)], "frame 0.*steps 0 to 3"),
    ],
)
def test_bad_input_is_named(side, queries, neighbors, message: str) -> None:
    patch = random_patch(1, 1, 4, kv_share=True)
    with pytest.raises(InvalidSetting, match=message):
        patch(side, queries, neighbors)


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(InvalidSetting, match="num_heads=3 does not divide"):
        PavePatch(PatchSizes(side=6, query=5, output=7, hidden=16), num_heads=3)
