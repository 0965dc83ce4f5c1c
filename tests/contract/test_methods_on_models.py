"""PAS and temporal exit on tiny models: identities, references, norms."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tempeval.engine.answer import score
from tempeval.engine.attach import Attachment
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.engine.query_shift import shift_queries
from tempeval.methods.base import Chain
from tempeval.methods.pas import PAS
from tempeval.verification.through_engine import question_logits


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def family(request):
    return request.getfixturevalue(f"tiny_{request.param}")


@torch.no_grad()
def logits(family, make_clip, message, chain, parts=("<video>", "What happens first?")):
    visuals = [family.encode(make_clip(8, 84, 112))] if "<video>" in parts else []
    layout, tail = family.layout(family.tokenize(message(*parts)), visuals)
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        prefix = prefill(attachment, family.embed(layout, visuals))
        return question_logits(attachment, prefix, tail)


@pytest.mark.parametrize("settings", [{}, {"rows": "all"}, {"unit": "position"}])
def test_pas_with_zero_offsets_is_bit_equal_to_baseline(family, make_clip, message, settings):
    baseline = logits(family, make_clip, message, Chain())
    assert torch.equal(
        logits(family, make_clip, message, Chain([PAS(offsets=(0.0, 0.0), **settings)])), baseline
    )
    assert not torch.equal(logits(family, make_clip, message, Chain([PAS(**settings)])), baseline)


def test_pas_leaves_text_only_prompts_unchanged(family, make_clip, message):
    parts = ("What happens first?",)
    assert torch.equal(
        logits(family, make_clip, message, Chain([PAS()]), parts),
        logits(family, make_clip, message, Chain(), parts),
    )


@pytest.mark.parametrize("unit", ["bin", "position"])
@pytest.mark.parametrize("grouping", ["interleaved", "contiguous"])
def test_pas_equals_rotary_at_shifted_temporal_positions(
    family, make_clip, message, unit, grouping
):
    """Reference: rotate the bare query at t + delta, head by head and channel by channel."""
    pas = PAS(offsets=(0.0, 0.5, -0.75), unit=unit, grouping=grouping)
    tokens = family.encode(make_clip(8, 84, 112))
    layout, _ = family.layout(family.tokenize(message("<video>", "What?")), [tokens])
    geometry = family.geometry
    plan = pas.positions(layout.rotary, layout, geometry)
    half, heads, length = geometry.head_dim // 2, geometry.num_heads, layout.length
    raw = torch.randn(1, heads, length, geometry.head_dim)
    angle = layout.rotary.angles(torch.arange(length))
    native = rotate(raw, angle.expand(1, heads, length, half))
    got = shift_queries(native.clone(), plan, plan.shift_scale)

    interval = float(layout.rotary.step[layout.is_visual][0]) if unit == "bin" else 1.0
    expected = torch.empty_like(raw)
    for head in range(heads):
        group = head % 3 if grouping == "interleaved" else head * 3 // heads
        moved = layout.rotary.positions.clone()
        for channel in range(half):
            if layout.rotary.axis[channel] == 0:
                moved[layout.is_visual, channel] += (0.0, 0.5, -0.75)[group] * interval
        shifted = replace(layout.rotary, positions=moved).angles(torch.arange(length))
        expected[:, head] = rotate(raw[:, head], shifted.unsqueeze(0))
    assert (got - expected).abs().max() < 1e-5
    assert (got.norm(dim=-1) - native.norm(dim=-1)).abs().max() < 1e-5
    assert torch.equal(got[:, :, ~layout.is_visual], native[:, :, ~layout.is_visual])
    spatial = (layout.rotary.axis != 0).repeat(2)
    assert torch.equal(got[..., spatial], native[..., spatial])


def rotate(x, angle):
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)


@torch.no_grad()
def test_pas_leaves_keys_and_values_of_the_first_layer(family, make_clip, message):
    held = []
    for chain in (Chain(), Chain([PAS()])):
        visuals = [family.encode(make_clip(8, 84, 112))]
        layout, _ = family.layout(family.tokenize(message("<video>", "What?")), visuals)
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            prefix = prefill(attachment, family.embed(layout, visuals))
        held.append(prefix.layers[0][0].held)
    assert torch.equal(held[0].keys, held[1].keys)
    assert torch.equal(held[0].values, held[1].values)


@torch.no_grad()
def test_bfloat16_stays_close_to_float32(tiny_qwen2_5_vl_folder, load_family, make_clip, message):
    """The same prefix and question in both types; weights and activations round, merges don't."""
    got = {}
    for dtype in ("float32", "bfloat16"):
        family = load_family(tiny_qwen2_5_vl_folder, dtype=dtype)
        visuals = [family.encode(make_clip(8, 84, 112))]
        layout, tail = family.layout(family.tokenize(message("<video>", "What?")), visuals)
        with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
            prefix = prefill(attachment, family.embed(layout, visuals))
            (one,) = score(attachment, prefix, [tail], [torch.tensor([5, 6, 7])])
        got[dtype] = one.log_likelihood
    assert got["bfloat16"] == pytest.approx(got["float32"], rel=0.05)
