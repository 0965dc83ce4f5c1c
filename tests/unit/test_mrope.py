"""Our M-RoPE positions against the installed transformers', and against the 4.x rule by hand."""

import json
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.errors import InvalidSetting
from tempeval.families.mrope import TextSpan, VisualSpan, mrope_positions
from tempeval.stages import VisualTokens

GRIDS = st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
SECONDS = st.one_of(
    st.sampled_from([1 / 24, 0.1, 0.2, 0.625, 1.0, 1.25, 2.5, 1 / 3, 7.3]),
    st.builds(lambda frames, fps: frames / fps, st.integers(1, 200), st.sampled_from([25, 30, 24])),
    st.floats(0.01, 30.0, allow_nan=False),
)
VISUALS = st.lists(
    st.tuples(st.sampled_from(["video", "image"]), GRIDS, SECONDS, st.integers(0, 4)), max_size=4
)


def visual(kind: str, grid: tuple[int, int, int], seconds: float) -> VisualTokens:
    t, h, w = (1, *grid[1:]) if kind == "image" else grid
    return VisualTokens(torch.zeros(t * h * w, 1), (t, h, w), seconds, kind)


def stock_positions(family, layout, question, visuals) -> torch.Tensor:
    """`[3, L]` of the installed `get_rope_index` over prefix and question."""
    ids = torch.cat([layout.input_ids, question])[None]
    kinds = torch.zeros_like(ids)
    kinds[ids == family.model.config.image_token_id] = 1
    kinds[ids == family.model.config.video_token_id] = 2
    grids = {
        kind: [[v.grid[0], 2 * v.grid[1], 2 * v.grid[2]] for v in visuals if v.kind == kind]
        for kind in ("image", "video")
    }
    seconds = [v.seconds_per_grid for v in visuals if v.kind == "video"]
    positions, _ = family.model.model.get_rope_index(
        ids,
        mm_token_type_ids=kinds.int(),
        image_grid_thw=torch.tensor(grids["image"]) if grids["image"] else None,
        video_grid_thw=torch.tensor(grids["video"]) if grids["video"] else None,
        # as the processor's BatchFeature hands it on: float32
        second_per_grid_ts=torch.tensor(seconds) if seconds else None,
    )
    return positions[:, 0]


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen2_5_vl, 25 per second"])
def native(request, load_family, tmp_path_factory):
    model, *rest = request.param.split(", ")
    folder = request.getfixturevalue(f"tiny_{model}_folder")
    if rest:  # not a power of two, so that the order of float32 roundings shows
        folder = shutil.copytree(folder, tmp_path_factory.mktemp("rate") / "model")
        config = json.loads((folder / "config.json").read_text())
        config["vision_config"]["tokens_per_second"] = 25
        (folder / "config.json").write_text(json.dumps(config))
    return load_family(folder, position_rule="native")


@settings(max_examples=150, deadline=None)
@given(parts=VISUALS, tail=st.integers(1, 6))
def test_native_equals_installed_rule(native, parts, tail):
    family = native
    pad = family._placeholders
    ids, visuals = [], []
    for kind, grid, seconds, text in parts:
        # transformers groups neighbouring placeholders of one kind, so a mark lies between
        ids += [10] * (text + 1) + [pad[kind]]
        visuals.append(visual(kind, grid, seconds))
    layout, question = family.layout(ids + [11] * tail, visuals)
    expected = stock_positions(family, layout, question, visuals).double()
    plan = layout.rotary
    prefix = expected[:, : layout.length].T[:, plan.axis]
    assert torch.equal(plan.positions, prefix)
    after = plan.next_position + torch.arange(tail, dtype=torch.float64)
    assert torch.equal(expected[:, layout.length :], after.expand(3, -1))


def test_original_rule_continues_after_the_largest_position():
    spans = [TextSpan(15), VisualSpan(32, 9, 9, interval=2.0), TextSpan(3)]
    positions, following = mrope_positions(spans, "original")
    # reference/transformers.md, section 0: 64 frames of 252 px at 2 fps
    assert positions[0, 15:-3].max() == 77
    assert positions[:, -3].tolist() == [78, 78, 78]
    assert following == 81
    native, _ = mrope_positions(spans, "native")
    assert native[:, -3].tolist() == [24, 24, 24]


def test_original_rule_uses_the_spatial_extent_of_short_videos():
    positions, following = mrope_positions([VisualSpan(2, 3, 7), TextSpan(1)], "original")
    assert positions[:, -1].tolist() == [7, 7, 7]
    assert following == 8


def test_floor_of_float32_intervals():
    positions, _ = mrope_positions([VisualSpan(6, 1, 1, interval=0.4)], "native")
    assert positions[0].tolist() == [0, 0, 0, 1, 1, 2]


def test_no_spans():
    positions, following = mrope_positions([], "native")
    assert positions.shape == (3, 0)
    assert following == 0


def test_unknown_rule():
    with pytest.raises(InvalidSetting, match="position_rule='newest'"):
        mrope_positions([TextSpan(1)], "newest")


@pytest.mark.parametrize("model", ["tiny_qwen2_vl", "tiny_qwen2_5_vl"])
@settings(max_examples=25, deadline=None)
@given(index=st.lists(st.integers(0, 120), min_size=1, max_size=30))
def test_angles_give_the_models_own_cos_and_sin(model, request, index):
    family = request.getfixturevalue(model)
    layout, _ = family.layout(
        [10, 10, family._placeholders["video"], 11], [visual("video", (5, 3, 4), 1.3)]
    )
    plan, rotary = layout.rotary, family.text_model.rotary_emb
    token = torch.tensor(index)
    angles = plan.angles(token)
    # any channel of an axis carries that axis' position
    first = [int((plan.axis == axis).nonzero()[0]) for axis in range(3)]
    inside = token < plan.prefix_length
    table = plan.positions[token.clamp(max=plan.prefix_length - 1)][:, first]
    later = (plan.next_position + token - plan.prefix_length).double()[:, None].expand(-1, 3)
    positions = torch.where(inside[:, None], table, later).T[:, None].long()
    cos, sin = rotary(torch.zeros(1), positions)
    assert torch.equal(torch.cat([angles, angles], -1).cos() * plan.attention_scaling, cos[0])
    assert torch.equal(torch.cat([angles, angles], -1).sin() * plan.attention_scaling, sin[0])
