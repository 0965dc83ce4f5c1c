"""INTP's parts: subsequences, rotary scaling, the composite, and the context that it gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tempeval.engine.context import Context, check_planned
from tempeval.errors import (
    ConflictingMethods,
    InvalidSetting,
    PromptTooLong,
    UnknownName,
    UnsupportedModel,
)
from tempeval.families.qwen_vision import strided_order as qwen_order
from tempeval.families.video_llava_vision import strided_order as tower_order
from tempeval.methods.base import Chain
from tempeval.methods.intp import INTP
from tempeval.methods.kv_quantization import KVQuant
from tempeval.methods.pas import PAS
from tempeval.methods.rearrange import Rearrange, strided_permutation
from tempeval.methods.registry import METHODS, parse_chain
from tempeval.methods.rope_scale import RopeScale, scale_frequencies
from tempeval.model_wrappers.arguments import chain_with_settings
from tempeval.stages import Geometry, Layout, RotaryPlan, RunFacts
from tempeval.video.clip import FramePlan, Sampling

VICUNA = Geometry(32, 32, 32, 128, 4096, 11008)


def facts(num_frames=32, *, block=8, grid=1, axes=False, context=4096, per_frame=257):
    return RunFacts(VICUNA, axes, context, block, grid, num_frames, num_frames * per_frame)


# ---------------------------------------------------------------- rearrange


def test_permutation_of_32_frames_is_the_golden_one():
    perm, inv = strided_permutation(32)
    assert perm.tolist() == [*range(0, 32, 4), *range(1, 32, 4), *range(2, 32, 4), *range(3, 32, 4)]
    assert inv[:8].tolist() == [0, 8, 16, 24, 1, 9, 17, 25]
    assert strided_permutation(16)[0][:8].tolist() == list(range(0, 16, 2))


@given(size=st.integers(1, 12), groups=st.integers(1, 12))
def test_permutation_by_its_formula(size, groups):
    frames = size * groups
    perm, inv = strided_permutation(frames, size)
    for g in range(groups):
        for j in range(size):
            assert perm[g * size + j] == g + groups * j
    assert inv.tolist() == [(f % groups) * size + f // groups for f in range(frames)]
    assert perm[inv].tolist() == list(range(frames))
    assert torch.equal(inv, perm.argsort())


@given(groups=st.integers(1, 8), blocks=st.integers(1, 3))
def test_towers_encode_frames_in_this_order(groups, blocks):
    frames = groups * blocks * 8
    perm, _ = strided_permutation(frames, blocks * 8)
    assert torch.equal(tower_order(frames, groups, 8), perm)
    # Qwen-VL joins neighbours of a subsequence into grids and puts grid k of g at k * m + g.
    pairs = perm.view(groups, -1, 2).transpose(0, 1).reshape(-1)
    assert qwen_order(frames, groups, 2).tolist() == pairs.tolist()


@pytest.mark.parametrize(("frames", "off"), [(16, 0.5), (24, 1.0), (32, 1.5), (64, 3.5)])
def test_ids_of_merged_frames_are_as_far_off_as_the_label_says(frames, off):
    """The place of a grid against the mean time of its two frames, in frames."""
    pairs = qwen_order(frames, frames // 8, 2).reshape(-1, 2).mean(1)
    nominal = np.arange(frames).reshape(-1, 2).mean(1)
    assert np.abs(pairs - nominal).max() == off
    (label,) = Rearrange().labels(facts(frames, block=2, grid=2))
    assert label.endswith(f"ids up to {off:g} frames off")


@pytest.mark.parametrize(
    ("frames", "nearest"),
    [(1, "8"), (3, "8"), (7, "8"), (9, "8"), (12, "8 or 16"), (20, "16 or 24"), (30, "32")],
)
def test_other_numbers_of_frames_are_refused_with_the_nearest(frames, nearest):
    with pytest.raises(InvalidSetting, match=rf"num_frames={frames} .* num_frames is {nearest}$"):
        Rearrange().resolve(facts(frames))
    with pytest.raises(InvalidSetting, match=f"is {nearest}$"):
        strided_permutation(frames)


@pytest.mark.parametrize(
    ("block", "grid", "frames", "size", "groups"),
    [(8, 1, 8, 8, 1), (8, 1, 64, 8, 8), (2, 2, 32, 8, 4), (2, 2, 8, 8, 1), (4, 1, 32, 4, 8)],
)
def test_groups_follow_the_tower(block, grid, frames, size, groups):
    run = facts(frames, block=block, grid=grid)
    bound = Rearrange().bind(run)
    expected = {"frames_per_group": size, "num_groups": groups, "inert": False}
    assert bound.resolve(run) == expected
    plan = bound.frames(FramePlan(Sampling(num_frames=frames)))
    assert plan == FramePlan(Sampling(num_frames=frames), num_groups=groups, unit=size)
    off = f"ids up to {(groups - 1) / 2:g} frames off"
    labels = (f"rearranged within temporal grids (ours), {off}",) if grid == 2 else ()
    labels = labels if groups > 1 else ("one group, nothing rearranged",)
    assert bound.labels(run) == Rearrange().labels(run) == labels


def test_it_is_refused_where_frames_are_encoded_alone_unless_that_is_wanted():
    run = facts(block=1)
    for frames in (32, 30):
        with pytest.raises(UnsupportedModel, match="encodes every frame by itself"):
            Rearrange().bind(run).resolve(replace(run, num_frames=frames))
    odd = facts(30, block=1)  # nothing changes, so any number of frames will do
    bound = Rearrange(allow_inert=True).bind(odd)
    assert bound.resolve(odd) == {"frames_per_group": 30, "num_groups": 1, "inert": True}
    plan = FramePlan(Sampling(num_frames=30))
    assert bound.frames(plan) == plan
    assert bound.labels(odd) == ("inert",)


def test_groups_that_no_tower_takes():
    with pytest.raises(InvalidSetting, match="not a multiple of the 8 frames"):
        Rearrange(frames_per_group=4).resolve(facts())
    with pytest.raises(InvalidSetting, match="accepted: 1 or more"):
        Rearrange(frames_per_group=0)
    with pytest.raises(InvalidSetting, match="leave fps out"):
        Rearrange().frames(FramePlan(Sampling("fps", 32, 2.0)))


# ---------------------------------------------------------------- rope_scale


@pytest.mark.parametrize(("scale", "base"), [(2, 20221), (4, 40890), (8, 82685)])
def test_ntk_is_the_papers_base(scale, base):
    channel = torch.arange(64, dtype=torch.float64)
    native = 1e4 ** (-2 * channel / 128)
    scaled = scale_frequencies(native, scale, "ntk")
    exact = 1e4 * scale ** (128 / 126)
    assert round(exact) == base
    assert torch.allclose(scaled, exact ** (-2 * channel / 128), rtol=1e-12, atol=0)
    assert scaled[0] == native[0]
    assert float(native[-1] / scaled[-1]) == pytest.approx(scale)  # the lowest is interpolated
    assert torch.equal(scale_frequencies(native, scale, "linear"), native / scale)
    both = scale_frequencies(native, scale, "ntk_linear")
    assert torch.allclose(both, exact ** (-2 * channel / 128) / scale, rtol=1e-12, atol=0)
    assert float(native[-1] / both[-1]) == pytest.approx(scale**2)


@given(half=st.integers(2, 64), scale=st.floats(1, 32))
def test_frequencies_only_fall(half, scale):
    native = torch.rand(half).sort(descending=True).values + 0.01
    for kind, most in (("ntk", scale), ("linear", scale), ("ntk_linear", scale**2)):
        scaled = scale_frequencies(native, scale, kind)
        assert scaled.dtype == native.dtype
        assert bool((scaled <= native).all())
        assert bool((scaled >= native / most * (1 - 1e-6)).all())
    assert scale_frequencies(native, 1.0, "ntk") is native
    assert scale_frequencies(native, scale, "none") is native


def test_automatic_scale_is_fixed_by_the_planned_tokens():
    # papers.md A3: 16, 32 and 64 frames of 257 tokens in 4096; here with 512 tokens of text.
    scales = {n: RopeScale().bind(facts(n)).factor for n in (8, 16, 32, 64)}
    assert scales == {n: max(1.0, (257 * n + 512) / 4096) for n in scales}
    assert scales[8] == 1.0
    assert scales[32] == 2.1328125
    assert RopeScale(scale=3.5).bind(facts()).scale == 3.5
    assert RopeScale(kind="none").bind(facts()).factor == 1.0
    assert RopeScale().labels(facts(8)) == ("scale 1, unchanged",)
    assert RopeScale().labels(facts(32)) == ("scale 2.133",)
    assert RopeScale(scale=3.5).labels(facts(32)) == ()  # its spelling says it
    assert parse_chain("intp").labels(facts(32)) == ("rope_scale: scale 2.133",)
    assert RopeScale().bind(facts()).resolve(facts()) == {
        "scale": 2.1328125,
        "context_length": 257 * 32 + 512,
    }


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rope_scale[scale=0.5]", "a number from 1"),
        ("rope_scale[scale=inf]", "not a finite number"),
        ("rope_scale[scale=nan]", "not a finite number"),
        ("rope_scale[kind=both]", "not one of"),
        ("rope_scale[kind=none;scale=2]", "no effect with kind=none"),
    ],
)
def test_scales_that_are_refused(spec, message):
    with pytest.raises(InvalidSetting, match=message):
        parse_chain(spec)


def one_dimensional_plan(length=5, half=8):
    return RotaryPlan(
        positions=torch.arange(length).double().unsqueeze(1).expand(length, half),
        axis=torch.full((half,), -1),
        inv_freq=1e4 ** (-torch.arange(half) / half),
        next_position=float(length),
        step=torch.tensor([0.0, 2, 2, 2, 2], dtype=torch.float64),
    )


def layout_of(rotary):
    visual = rotary.step > 0
    count = len(visual)
    index = torch.zeros(count, 4, dtype=torch.long)
    ids = torch.zeros(count, dtype=torch.long)
    return Layout(ids, visual, visual.long(), index, rotary, ((2, 1, 2),), 2)


@pytest.mark.parametrize("kind", ["ntk", "linear"])
def test_pas_shifts_by_the_same_part_of_a_frame_however_the_chain_is_written(kind):
    geometry = Geometry(2, 4, 2, 16, 64, 128)
    native = one_dimensional_plan()
    placed = [
        Chain(methods).positions(native, layout_of(native), geometry)
        for methods in (
            [PAS(), RopeScale(kind=kind, scale=2.0)],
            [RopeScale(kind=kind, scale=2.0), PAS()],
        )
    ]
    for plan in placed:
        assert torch.equal(plan.inv_freq, scale_frequencies(native.inv_freq, 2.0, kind))
        assert torch.equal(plan.positions, native.positions)
        # Half a frame is half the angle from a frame to the next one, scaled or not.
        half = plan.query_shift[1] * plan.shift_scale[1] * plan.inv_freq.double()
        whole = native.step[1] * plan.inv_freq.double()
        assert torch.allclose(half, whole / 2)


def test_linear_scaling_compresses_what_comes_after_the_prefix_too():
    native = one_dimensional_plan()
    scaled = RopeScale(kind="linear", scale=2.0).positions(native, layout_of(native), VICUNA)
    index = torch.arange(20)
    assert torch.allclose(scaled.angles(index), native.angles(index) / 2)


# ---------------------------------------------------------------- intp


def test_intp_stands_for_its_parts():
    chain = parse_chain("intp")  # the paper's accuracies: without quantisation
    assert chain == parse_chain("intp[kv_bits=16]")
    assert "kv_bits" not in chain.spec
    assert chain.name == "intp"
    assert chain.parts == (Rearrange(), RopeScale())
    assert chain.settings()["rope_scale"] == {"kind": "ntk", "scale": None}
    settings = parse_chain("intp[kv_bits=16;kind=linear;scale=2;frames_per_group=16]").parts
    assert settings == (Rearrange(frames_per_group=16), RopeScale("linear", 2.0))
    run = facts()
    bound = chain.bind(run)
    assert bound.parts[1].factor == RopeScale().bind(run).factor > 2
    assert set(bound.resolve(run)) == {"rearrange", "rope_scale"}
    plan = bound.frames(FramePlan(Sampling(num_frames=32)))
    assert plan.num_groups == 4


def test_intp_holds_the_prefix_in_few_bits_when_told(tmp_path):
    path = str(tmp_path / "ranges.safetensors")
    parts = INTP(kv_bits=2, calibration=path).parts()
    assert METHODS["intp"].stages == tuple(
        dict.fromkeys(stage for part in parts for stage in METHODS[part.name].stages)
    )
    store = KVQuant(nbits=2, scheme="static", residual_length=0, calibration=path)
    assert parts == (Rearrange(), RopeScale(), store)
    assert INTP(kv_bits=8, calibration=path).parts()[-1].nbits == 8
    assert INTP(kv_bits=2).without_kv_cache() == INTP() == INTP(kv_bits=16)


def test_intp_without_a_calibration_says_how_to_make_one():
    chain = parse_chain("intp[kv_bits=2]")  # may be named: model arguments come later
    with pytest.raises(InvalidSetting, match=r"tempeval calibrate.*leave intp.kv_bits out"):
        chain.frames(FramePlan())
    assert chain_with_settings("intp", {"kv_bits": "16"}, ()).parts == (Rearrange(), RopeScale())
    # What a calibration is made under is the chain around the store, however it is written.
    around = parse_chain("rearrange+rope_scale")
    for spec in ("intp", "intp[kv_bits=2]"):
        assert parse_chain(spec).without_kv_cache().fingerprint == around.fingerprint


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("intp[kv_bits=2]+kv_quant", "'intp' and 'kv_quant' both modify 'kv_cache'"),
        ("kv_quant+intp[kv_bits=2]", "'kv_quant' and 'intp' both modify 'kv_cache'"),
        ("intp+rope_scale", "'intp' and 'rope_scale' both modify 'inv_freq'"),
        ("rearrange+intp", "'rearrange' and 'intp' both modify 'groups'"),
    ],
)
def test_intp_conflicts_by_name(spec, match):
    with pytest.raises(ConflictingMethods, match=match):
        parse_chain(spec)


def test_intp_composes_with_what_it_leaves_alone():
    assert parse_chain("intp+kv_quant").parts[-1] == KVQuant()
    assert parse_chain("pas+intp").name == "pas+intp"


@pytest.mark.parametrize(
    ("spec", "error", "match"),
    [
        ("intp[kv_bits=3]", InvalidSetting, "not one of 2, 4, 8, 16"),
        ("intp[calibration=x]", InvalidSetting, "no effect with kv_bits=16.*set kv_bits=2"),
        ("intp[bits=16]", UnknownName, "did you mean 'kv_bits'"),
    ],
)
def test_intp_settings_that_are_refused(spec, error, match):
    with pytest.raises(error, match=match):
        parse_chain(spec)


def test_fingerprint_covers_the_parts_and_their_versions(monkeypatch):
    specs = ("intp", "intp[scale=2]", "rearrange+rope_scale")
    prints = {parse_chain(spec).fingerprint for spec in specs}
    assert len(prints) == 3
    assert parse_chain(parse_chain(specs[1]).spec).fingerprint in prints
    monkeypatch.setattr(RopeScale, "version", 2)
    assert parse_chain(specs[0]).fingerprint not in prints


# ---------------------------------------------------------------- context


def test_a_run_that_cannot_fit_is_refused_naming_frames_and_tokens():
    sampling, run = Sampling(num_frames=16), facts(16)
    with pytest.raises(PromptTooLong, match=r"16 frames make 4112 visual tokens.* is 4096;"):
        check_planned(Chain(), run, sampling)
    check_planned(Chain(), facts(15), sampling)
    for spec in ("rope_scale", "rope_scale[kind=linear]", "intp[kv_bits=16]"):
        scale = parse_chain(spec).bind(run).parts[-1].factor
        check_planned(parse_chain(spec).bind(run), run, sampling, scale)
    small = parse_chain("rope_scale[scale=1.001]").bind(run)
    with pytest.raises(PromptTooLong, match=r"4100 \(4096 scaled by 1.001\)"):
        check_planned(small, run, sampling, 1.001)


def test_what_is_not_certain_is_left_to_each_prompt():
    many = facts(64)
    check_planned(Chain(), many, Sampling("fps", 64, 1.0))
    check_planned(Chain(), replace(many, axes=True), Sampling(num_frames=64))
    check_planned(parse_chain("vrope"), many, Sampling(num_frames=64))


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_automatic_scale_makes_room_for_what_was_planned(tokens, context):
    run = replace(facts(), visual_tokens=tokens, context_length=context)
    scaled = Context(context, RopeScale().bind(run).factor)
    assert scaled.positions == max(context, tokens + 512)
