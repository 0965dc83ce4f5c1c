"""The LanguageBind video tower against the official one's numbers, and against a slow reference."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st
from languagebind_reference import tower_reference
from safetensors import safe_open
from safetensors.torch import load_file

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.languagebind import build_tower
from tempeval.families.languagebind_config import PREFIXES, prefix_of, sizes_from_weights
from tempeval.families.video_llava_original import build_projector
from tempeval.families.video_llava_pixels import official_pixels
from tempeval.families.video_llava_vision import strided_order
from tempeval.verification.tiny_video_llava import random_tower_state

GOLDEN = Path(__file__).parents[1] / "reference" / "languagebind" / "languagebind.safetensors"
TOLERANCE = 1e-4
PREFIX = PREFIXES[0]
OTHER_PREFIXES = (
    "video_tower.",
    "video_tower.video_tower.",
    "model.video_tower.",
    "module.",
    "base_model.model.model.video_tower.video_tower.",
    "model.video_tower.video_tower.vision_model.",
)


@pytest.fixture(scope="module")
def golden():
    return load_file(GOLDEN)


@pytest.fixture(scope="module")
def config():
    with safe_open(GOLDEN, framework="pt") as opened:
        return json.loads(opened.metadata()["config"])


@pytest.fixture(scope="module")
def state(golden):
    return {key: value for key, value in golden.items() if key.startswith("model.")}


@pytest.fixture(scope="module")
def bare(state):
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


def difference(got, expected):
    assert got.shape == expected.shape
    return float((got - expected).abs().max())


@pytest.mark.parametrize("case", ["t8", "t16", "b2"])
def test_features_and_projection_equal_the_official_ones(config, state, golden, case):
    features = build_tower(config, state)(golden[f"{case}.video"])
    assert difference(features, golden[f"{case}.features"]) < TOLERANCE
    weights = {
        k.removeprefix("model.mm_projector."): v for k, v in state.items() if "mm_projector" in k
    }
    projected = build_projector("mlp2x_gelu", weights)(features)
    assert difference(projected, golden[f"{case}.projected"]) < TOLERANCE


@pytest.mark.parametrize("number", range(4))
def test_every_hidden_state_equals_the_official_one(config, state, golden, number):
    for select in (number, number - 4):
        tower = build_tower({**config, "mm_vision_select_layer": select}, state)
        got = tower(golden["t8.video"])
        assert difference(got, golden[f"t8.hidden_states.{number}"]) < TOLERANCE
    if number == 3:
        assert difference(got[0], golden["t8.last_hidden_state"]) < TOLERANCE


def test_rearranged_frames_equal_the_official_ones(config, state, golden):
    tower = build_tower(config, state)
    order = strided_order(16, 2, 8)
    assert order.tolist() == golden["t16.intp_perm"].tolist()
    got = tower(golden["t16.video"][:, :, order])[:, order.argsort()]
    expected = golden["t16.intp_features"]
    assert difference(got, expected) < TOLERANCE
    # Blocks of neighbours, and the inverse left out, would be noticed.
    assert difference(tower(golden["t16.video"]), expected) > 1
    assert difference(tower(golden["t16.video"][:, :, order]), expected) > 1


def test_strided_order_of_the_paper():
    order = strided_order(32, 4, 8)
    assert order.tolist() == [g + 4 * j for g in range(4) for j in range(8)]
    assert order.argsort()[:8].tolist() == [0, 8, 16, 24, 1, 9, 17, 25]
    # A subsequence may be several blocks long.
    assert strided_order(32, 2, 8)[:16].tolist() == list(range(0, 32, 2))


@pytest.mark.parametrize(
    ("frames", "groups", "nearest"), [(12, 1, 16), (24, 2, 32), (30, 4, 32), (0, 1, 8), (16, 0, 16)]
)
def test_groups_that_are_not_blocks_name_the_nearest_number(frames, groups, nearest):
    with pytest.raises(InvalidSetting, match=f"nearest number of frames is {nearest}$"):
        strided_order(frames, groups, 8)


WRONG = {
    "quick_gelu": {"act": lambda x: x * torch.sigmoid(1.702 * x)},
    "tanh gelu": {"act": lambda x: F.gelu(x, approximate="tanh")},
    "temporal embedding in layer 0 only": {"embedding": "first layer"},
    "temporal embedding inside attention only": {"embedding": "inside attention"},
    "time after space": {"order": ("space", "time")},
    "no time": {"order": ("space",)},
    "last layer": {"select": -1},
    "attention over all frames": {"block": 16},
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_towers_are_told_apart(bare, golden, name):
    """The numbers are sharp enough: each known mistake is off by far more than the tolerance."""
    if name == "attention over all frames":
        bare = {
            k: torch.cat([v, v], 1) if k.endswith("temporal_embedding") else v
            for k, v in bare.items()
        }
    got = tower_reference(bare, golden["t16.video"], heads=4, **WRONG[name])
    assert difference(got, golden["t16.features"]) > 10 * TOLERANCE


def test_the_slow_reference_is_right(bare, golden):
    for case in ("t16", "b2"):
        got = tower_reference(bare, golden[f"{case}.video"], heads=4)
        assert difference(got, golden[f"{case}.features"]) < TOLERANCE


def test_shared_norm_is_told_apart(config, bare, golden):
    mixed = dict(bare)
    for key in bare:
        if "temporal_layer_norm1" in key:
            mixed[key] = bare[key.replace("temporal_layer_norm1", "layer_norm1")]
    assert difference(build_tower(config, mixed)(golden["t8.video"]), golden["t8.features"]) > 1


def test_activation_is_exact_gelu_unless_the_configuration_says_otherwise(config, state, golden):
    vision = dict(config["vision_config"])
    del vision["hidden_act"]
    silent = build_tower({**vision, "select_layer": -2}, state)  # flat, without hidden_act
    assert difference(silent(golden["t8.video"]), golden["t8.features"]) < TOLERANCE
    quick = build_tower({**vision, "hidden_act": "quick_gelu"}, state)
    assert difference(quick(golden["t8.video"]), golden["t8.features"]) > 10 * TOLERANCE
    with pytest.raises(UnsupportedModel, match="hidden_act='swish'"):
        build_tower({**vision, "hidden_act": "swish"}, state)


@settings(max_examples=25, deadline=None)
@given(
    layers=st.integers(1, 3),
    heads=st.sampled_from([1, 2, 3]),
    block=st.sampled_from([1, 2, 4, 8]),
    blocks=st.integers(1, 3),
    batch=st.integers(1, 2),
    patches=st.integers(1, 3),
    select=st.integers(-2, 1),
    prefix=st.sampled_from([*PREFIXES, *OTHER_PREFIXES, ""]),
    seed=st.integers(0, 99),
)
def test_any_sizes_equal_the_slow_reference(
    layers, heads, block, blocks, batch, patches, select, prefix, seed
):
    sizes = {"hidden_size": 6 * heads, "num_hidden_layers": layers, "num_attention_heads": heads}
    sizes |= {"intermediate_size": 10, "image_size": 4 * patches, "patch_size": 4}
    weights = random_tower_state(
        width=6 * heads, layers=layers, mlp=10, image=4 * patches, patch=4, block=block, seed=seed
    )
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 3, block * blocks, 4 * patches, 4 * patches)
    video = torch.randn(*shape, generator=generator)
    tower = build_tower(
        {**sizes, "num_frames": block, "mm_vision_select_layer": select},
        {prefix + key: value for key, value in weights.items()},
    )
    expected = tower_reference(weights, video, heads=heads, block=block, select=select)
    assert torch.allclose(tower(video), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prefix", [*PREFIXES, *OTHER_PREFIXES, ""])
def test_prefixes_and_position_ids(config, bare, golden, prefix):
    weights = {prefix + key: value for key, value in bare.items()}
    weights[prefix + "embeddings.position_ids"] = torch.arange(10)[None]
    tower = build_tower(config, weights)
    assert difference(tower(golden["b2.video"]), golden["b2.features"]) < TOLERANCE
    assert not tower.training
    assert not any(p.requires_grad for p in tower.parameters())


@pytest.mark.parametrize("root", ["", "module.", "base_model.model."])
@pytest.mark.parametrize(
    ("place", "others"),
    [
        (
            PREFIX,
            [
                "lm_head.weight",
                "model.embed_tokens.weight",
                "model.layers.0.self_attn.rotary_emb.inv_freq",
                "model.norm.weight",
                "model.mm_projector.0.bias",
                "model.image_tower.image_tower.embeddings.class_embedding",
            ],
        ),
        (
            PREFIXES[1],
            [
                "logit_scale",
                "text_model.embeddings.position_ids",
                "text_projection.weight",
                "visual_projection.weight",
            ],
        ),
    ],
)
def test_other_parts_of_the_two_checkpoints_may_lie_beside(config, bare, root, place, others):
    weights = {root + place + key: value for key, value in bare.items()}
    beside = {root + key: torch.zeros(1) for key in others}
    build_tower(config, weights | beside)
    assert prefix_of(weights | beside) == root + place
    # The parts of one are none of the other, and need their tower's prefix.
    other = {root + key: value for key, value in bare.items()}
    if not root:
        other = {PREFIXES[place == PREFIX] + key: value for key, value in bare.items()}
    with pytest.raises(UnsupportedModel, match=f"unexpected: .*{others[0]}"):
        build_tower(config, other | {root + others[0]: torch.zeros(1)})


def test_a_second_tower_is_named(config, state, bare):
    two = {**state, **{"module." + key: value for key, value in bare.items()}}
    with pytest.raises(
        UnsupportedModel,
        match=r"2 vision towers, under model\.video_tower\.video_tower\., module\.",
    ):
        build_tower(config, two)


LAYER = "encoder.layers.1."


@pytest.mark.parametrize("prefix", [*PREFIXES, ""])
@pytest.mark.parametrize(
    "key",
    [
        LAYER + "temporal_embedding",
        LAYER + "temporal_attn.q_proj.bias",
        LAYER + "self_attn.out_proj.weight",
        "pre_layrnorm.weight",
        "post_layernorm.bias",
        "embeddings.class_embedding",
    ],
)
def test_a_missing_weight_is_named(config, bare, prefix, key):
    weights = {prefix + k: v for k, v in bare.items() if k != key}
    with pytest.raises(UnsupportedModel, match=f"missing: {prefix}{key}"):
        build_tower(config, weights)


@pytest.mark.parametrize("prefix", [*PREFIXES, ""])
@pytest.mark.parametrize(
    "key", [LAYER + "temporal_layer_norm2.weight", "encoder.layers.3.layer_norm1.bias", "logits"]
)
def test_an_unexpected_weight_is_named(config, bare, prefix, key):
    weights = {prefix + k: v for k, v in bare.items()} | {prefix + key: torch.zeros(32)}
    with pytest.raises(UnsupportedModel, match=f"unexpected: {prefix}{key}"):
        build_tower(config, weights)


@pytest.mark.parametrize(
    "key",
    [
        "model.video_tower.extra.weight",
        "encoder.layers.0.temporal_embedding",
        "extra.weight",
        "extra",
        "bogus",
        "extra.tensor",
        "temporal.embedding",
        "t8.features",
        "logit_scale.extra",
        "my_lm_head.weight",
    ],
)
def test_weights_outside_the_prefix_that_nothing_owns_are_named(config, state, key):
    with pytest.raises(UnsupportedModel, match=f"unexpected: {key}"):
        build_tower(config, {**state, key: torch.zeros(3)})


def test_a_weight_of_another_shape_is_named(config, bare):
    key = LAYER + "temporal_embedding"
    with pytest.raises(
        UnsupportedModel, match=r"temporal_embedding \[1, 4, 32\], not \[1, 8, 32\]"
    ):
        build_tower(config, {**bare, key: bare[key][:, :4]})


def test_many_wrong_keys_are_counted(config, bare):
    images = {k: v for k, v in bare.items() if "temporal" not in k}
    with pytest.raises(UnsupportedModel, match=r"missing: .*and 25 more"):  # 3 layers x 11 keys
        build_tower(config, images)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"add_time_attn": False}, "image tower"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_attention_heads": 5}, "does not divide into 5 heads"),
        ({"mm_vision_select_layer": -5}, "select_layer=-5 is not one of the 4 hidden states"),
    ],
)
def test_configurations_that_cannot_be(config, state, changes, message):
    with pytest.raises(UnsupportedModel, match=message):
        build_tower({**config["vision_config"], **changes}, state)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 12, 12, 12), "12 frames do not divide into blocks of 8.*use 16 frames"),
        ((1, 3, 0, 12, 12), "0 frames"),
        ((1, 3, 8, 12, 16), r"takes \[B, 3, T, 12, 12\], not \[1, 3, 8, 12, 16\]"),
        ((1, 8, 3, 12, 12), "takes"),
        ((3, 8, 12, 12), "takes"),
    ],
)
def test_videos_that_do_not_fit(config, state, shape, message):
    with pytest.raises(InvalidSetting, match=message):
        build_tower(config, state)(torch.zeros(shape))


def test_output_has_the_videos_dtype(config, bare, golden):
    tower = build_tower(config, {key: value.half() for key, value in bare.items()})
    assert tower(golden["t8.video"]).dtype == torch.float32
    assert tower(golden["t8.video"].half()).dtype == torch.float16


def test_sizes_are_read_from_the_weights():
    weights = random_tower_state(width=128, layers=2, mlp=32, image=28, patch=14, prefix=PREFIX)
    sizes = sizes_from_weights(weights)
    assert sizes == {
        "hidden_size": 128,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
        "num_channels": 3,
        "num_frames": 8,
    }
    build_tower(sizes, weights)
    odd = random_tower_state(width=32, layers=1, mlp=8, image=28, patch=14)
    with pytest.raises(UnsupportedModel, match="lacks num_attention_heads"):
        build_tower(sizes_from_weights(odd), odd)
    with pytest.raises(UnsupportedModel, match="holds no LanguageBind video tower"):
        sizes_from_weights({"model.norm.weight": torch.zeros(1)})


def test_the_released_tower_has_these_weights():
    wanted = json.loads(GOLDEN.with_name("keys.json").read_text())
    state = {PREFIX + key: torch.empty(shape, device="meta") for key, shape in wanted.items()}
    sizes = sizes_from_weights(state)
    assert (sizes["num_attention_heads"], sizes["num_hidden_layers"]) == (16, 24)
    tower = build_tower(sizes, state)
    assert len(wanted) == len(tower.state_dict()) == 655
    assert sum(p.numel() for p in tower.parameters()) == 404_187_136
    assert (tower.config.num_tokens, tower.config.layers_run) == (257, 23)


def test_official_preprocessing(golden):
    # [3, T, H, W] -> [T, H, W, 3]
    frames = golden["pre.frames_u8"].permute(1, 2, 3, 0).numpy()
    expected = golden["pre.pixel_values"]
    assert difference(official_pixels(frames, 16), expected) < 1e-5
    assert difference(official_pixels(frames[:, :, ::-1].copy(), 16), expected) > 0.1  # no flip


@pytest.mark.parametrize(("height", "width"), [(31, 20), (20, 31), (24, 24), (17, 90), (8, 8)])
def test_preprocessing_of_any_shape(height, width):
    generator = torch.Generator().manual_seed(height)
    frames = torch.randint(0, 256, (2, height, width, 3), generator=generator, dtype=torch.uint8)
    got = official_pixels(frames.numpy(), 16)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1, 1)
    whole = (frames.permute(3, 0, 1, 2).float() / 255 - mean) / std
    short = min(height, width)
    size = [16 if side == short else math.floor(side / short * 16) for side in (height, width)]
    whole = F.interpolate(whole, size, mode="bilinear", align_corners=False)
    top, left = (round((side - 16) / 2.0) for side in size)
    assert difference(got, whole[:, :, top : top + 16, left : left + 16]) < 1e-5


def test_linspace_indices_are_the_official_ones(golden):
    import numpy as np

    from tempeval.video.clip import Sampling
    from tempeval.video.sampling import frame_indices

    for count in (100, 37, 5):
        got = frame_indices(Sampling(num_frames=8), np.arange(count) / 10)
        assert got.tolist() == golden[f"pre.linspace_n{count}_k8"].tolist()
