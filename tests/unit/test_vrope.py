"""VRoPE's positions against the official generator, its invariants, and what a layout becomes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tempeval.errors import ConflictingMethods, InvalidSetting, UnsupportedModel
from tempeval.families.qwen_layout import LayoutBuilder, RotaryTable
from tempeval.families.sequence_layout import SequenceLayoutBuilder, grid_run
from tempeval.methods.base import Chain
from tempeval.methods.pas import PAS
from tempeval.methods.registry import parse_chain
from tempeval.methods.vrope import VRoPE, layout_segments, vrope_positions
from tempeval.stages import AXIS_ALL, Geometry, Pathway, RunFacts, VisualTokens

GOLDEN = json.loads((Path(__file__).parents[1] / "reference" / "vrope" / "vrope.json").read_text())
GEOMETRY = Geometry(2, 4, 2, 24, 48, 96)
FACTS = RunFacts(GEOMETRY, True, 4096, 2, 2, 8, 64)
CPU = torch.device("cpu")
VIDEO = 9  # placeholder id


@pytest.mark.parametrize("case", GOLDEN)
def test_positions_equal_the_official_generator(case):
    segments = [tuple(segment) for segment in case["segments"]]
    positions, following = vrope_positions(segments, case["half_head_dim"])
    assert positions.dtype == torch.long
    assert positions.shape == (len(case["positions_first4"]), case["half_head_dim"])
    assert positions[:, :4].tolist() == case["positions_first4"]
    repeated = positions[:, : case["half_head_dim"] - 4]
    assert torch.equal(positions[:, 4:], repeated) == case["periodic"]
    assert following == case["next_position"]


def slow_positions(segments, half, order=(0, 1, 2, 3)):
    """The closed form, token by token and channel by channel."""
    rows, start = [], 0
    for kind, *sizes in segments:
        if kind == "text":
            for _ in range(sizes[0]):
                rows.append([start] * half)
                start += 1
            continue
        frames, height, width = sizes
        for t in range(frames):
            for i in range(height):
                for j in range(width):
                    base = start + t * (height + width - 1)
                    corner = [
                        base + i + j,
                        base + i + (width - 1 - j),
                        base + (height - 1 - i) + j,
                        base + (height - 1 - i) + (width - 1 - j),
                    ]
                    rows.append([corner[order[c % 4]] for c in range(half)])
        start += frames * (height + width - 1)
    return rows, start


videos = st.tuples(st.just("video"), *[st.integers(1, 5)] * 3)
prompts = st.lists(st.one_of(st.tuples(st.just("text"), st.integers(0, 4)), videos), max_size=5)


@given(prompts, st.integers(1, 11))
def test_positions_equal_the_closed_form(segments, half):
    rows, following = slow_positions(segments, half)
    positions, got = vrope_positions(segments, half)
    assert positions.tolist() == rows
    assert positions.shape[1] == half
    assert got == following
    # v1, v2, v3, v4 of the paper are the code's channels 0, 2, 3, 1.
    rows, _ = slow_positions(segments, half, order=(0, 2, 3, 1))
    assert vrope_positions(segments, half, channel_order="paper")[0].tolist() == rows


@given(st.integers(0, 6), videos, st.integers(1, 3), st.sampled_from(["code", "paper"]))
def test_invariants(before, video, after, order):
    _, frames, height, width = video
    length = height + width - 1
    segments = [("text", before), video, ("text", after)]
    positions, following = vrope_positions(segments, 4, channel_order=order)
    shown = positions[before : before + frames * height * width].view(frames, -1, 4)
    starts = before + length * torch.arange(frames).view(frames, 1)
    assert torch.equal(shown.sum(-1), (4 * starts + 2 * (length - 1)).expand(shown.shape[:2]))
    opposite = [0, 3] if order == "code" else [0, 2]
    others = [c for c in range(4) if c not in opposite]
    assert torch.equal(shown[..., opposite].sum(-1), shown[..., others].sum(-1))
    text = before + frames * length
    assert int(shown[-1].max()) == text - 1
    assert int(shown[0].min()) == before
    assert positions[-after:].tolist() == [[text + i] * 4 for i in range(after)]
    assert following == text + after


def test_one_row_and_images():
    positions, following = vrope_positions([("video", 1, 1, 3)], 4)
    assert positions.tolist() == [[0, 2, 0, 2], [1, 1, 1, 1], [2, 0, 2, 0]]
    assert following == 3
    assert vrope_positions([], 4)[0].shape == (0, 4)


@pytest.mark.parametrize(
    "segment",
    [
        ("image", 1, 2, 3),
        ("text",),
        ("text", -1),
        ("text", 1.0),
        ("text", True),
        ("text", 1, 2),
        ("video", 2, 3),
        ("video", 0, 2, 3),
        ("video", 2, -1, 3),
        ("video", "2", 2, 3),
        (["text"], 1),
        (),
        None,
        "text",
    ],
)
def test_bad_segments_are_named(segment):
    with pytest.raises(InvalidSetting, match=r"segment 1 is .*accepted are \('text', n\)"):
        vrope_positions([("text", 1), segment], 4)


@pytest.mark.parametrize("make", [np.int64, np.uint8, torch.tensor])
def test_any_whole_number_is_a_size(make):
    plain = [("text", 2), ("video", 2, 3, 4), ("text", 0)]
    sizes = [(kind, *map(make, values)) for kind, *values in plain]
    got, following = vrope_positions(sizes, make(6))
    expected, after = vrope_positions(plain, 6)
    assert torch.equal(got, expected)
    assert type(following) is int
    assert following == after


@pytest.mark.parametrize(
    "size", [True, np.True_, torch.tensor(True), 1.0, np.float32(1), torch.tensor(1.0), "1", None]
)
def test_what_is_no_whole_number_is_no_size(size):
    with pytest.raises(InvalidSetting, match="segment 0 is"):
        vrope_positions([("text", size)], 4)
    with pytest.raises(InvalidSetting, match="half_head_dim="):
        vrope_positions([], size)


def test_bad_settings_are_named():
    with pytest.raises(InvalidSetting, match="half_head_dim=0"):
        vrope_positions([], 0)
    with pytest.raises(InvalidSetting, match="channel_order='corner' is not one of 'code'"):
        vrope_positions([], 4, channel_order="corner")
    with pytest.raises(InvalidSetting, match="'corner' is not one of 'code', 'paper'"):
        parse_chain("vrope[channel_order=corner]")


# ---------------------------------------------------------------- layouts


def visual(*grids, lead=0, kind="video"):
    count = sum(t * (lead + h * w) for t, h, w in grids)
    pathways = tuple(Pathway(grid) for grid in grids) if len(grids) > 1 else ()
    return VisualTokens(torch.zeros(count, 1), grids[0], 1.0, kind, lead=lead, pathways=pathways)


def sequence_layout(ids, *visuals, **newlines):
    """A 1-D layout; its runs have the given newlines."""
    builder = SequenceLayoutBuilder(
        inv_freq=torch.rand(12),
        attention_scaling=1.0,
        placeholders={"video": VIDEO, "image": VIDEO + 1},
        runs=lambda v: [grid_run(run.grid, lead=v.lead, **newlines) for run in v.runs],
        device=CPU,
    )
    return builder.build(ids, visuals)[0]


def mrope_layout(ids, *visuals):
    table = RotaryTable(torch.arange(3).repeat(4), torch.rand(12), 1.0)
    kinds = {"video": VIDEO, "image": VIDEO + 1}
    return LayoutBuilder(table, "original", kinds, 2.0, CPU).build(ids, visuals)[0]


@pytest.mark.parametrize(
    ("layout", "segments"),
    [
        (mrope_layout([1, 1, VIDEO, 1], visual((4, 2, 3))), [("text", 2), ("video", 4, 2, 3)]),
        (
            mrope_layout(
                [VIDEO, VIDEO, 1, VIDEO + 1],
                *[visual((2, 3, 1))] * 2,
                visual((1, 2, 2), kind="image"),
            ),
            [("video", 2, 3, 1), ("video", 2, 3, 1), ("text", 1), ("video", 1, 2, 2)],
        ),
        # Slow and fast pathways of one video touch, and are two videos.
        (
            mrope_layout([VIDEO], visual((2, 4, 4), (8, 2, 2))),
            [("video", 2, 4, 4), ("video", 8, 2, 2)],
        ),
        # One newline ends the video.
        (
            sequence_layout([1, VIDEO], visual((3, 2, 2)), newline_end=True),
            [("text", 1), ("video", 3, 2, 2), ("text", 1)],
        ),
        # A newline ends each row: one more column.
        (
            sequence_layout([1, VIDEO], visual((3, 2, 2)), newline_rows=True),
            [("text", 1), ("video", 3, 2, 3)],
        ),
        # CLS is text, so each frame is a video of its own.
        (
            sequence_layout([1, VIDEO], visual((2, 3, 2), lead=1)),
            [("text", 2), ("video", 1, 3, 2), ("text", 1), ("video", 1, 3, 2)],
        ),
        (mrope_layout([1, 1, 1]), []),
    ],
)
def test_a_layout_becomes_segments(layout, segments):
    assert layout_segments(layout) == segments


def test_incomplete_frames_are_refused():
    layout = mrope_layout([1, VIDEO], visual((2, 2, 3)))
    swapped = layout.grid_index[[0, 2, 1, *range(3, 13)]]
    for grid_index in (layout.grid_index[:-1], swapped):
        with pytest.raises(UnsupportedModel, match="whole frames"):
            layout_segments(replace(layout, grid_index=grid_index))


def place(layout, *methods):
    return Chain(methods).positions(layout.rotary, layout, GEOMETRY)


def test_place_leaves_no_channel_to_time_and_goes_on_after_the_video():
    layout = mrope_layout([1, 1, VIDEO], visual((4, 2, 3)))
    plan = place(layout, VRoPE())
    positions, following = vrope_positions([("text", 2), ("video", 4, 2, 3)], 12)
    assert torch.equal(plan.positions, positions.double())
    assert plan.next_position == following == 2 + 4 * 4
    assert set(plan.axis.tolist()) == {AXIS_ALL}
    assert not plan.temporal_channels.any()
    assert plan.step.tolist() == [0.0] * 2 + [4.0] * 24
    assert torch.equal(plan.inv_freq, layout.rotary.inv_freq)
    # Later tokens: one position each, in every channel.
    index = torch.arange(layout.length, layout.length + 3)
    expected = (following + torch.arange(3.0)).unsqueeze(1) * plan.inv_freq
    assert torch.equal(plan.angles(index), expected)


@pytest.mark.parametrize(
    ("layout", "step"),
    [
        (sequence_layout([1, VIDEO], visual((3, 2, 2)), newline_rows=True), [0] + [4] * 18),
        (sequence_layout([1, VIDEO], visual((3, 2, 2)), newline_end=True), [0] + [3] * 13),
        (sequence_layout([1, VIDEO], visual((2, 3, 2), lead=1)), [0] + [5] * 14),
        (
            sequence_layout(
                [VIDEO + 1, 1, VIDEO], visual((1, 3, 2), kind="image"), visual((2, 1, 2))
            ),
            [4] * 6 + [0] + [2] * 4,
        ),
        (sequence_layout([1, 1]), []),
    ],
)
def test_a_step_is_from_a_cell_to_the_same_cell_of_the_next_frame(layout, step):
    assert place(layout, VRoPE()).step.tolist() == step


def test_pas_after_vrope_moves_all_channels_by_a_frame():
    layout = mrope_layout([1, 1, VIDEO], visual((4, 2, 3)))
    plan = place(layout, PAS(offsets=(0.0, 1.0)), VRoPE())
    assert plan.query_shift.tolist() == [[0.0] * 12, [1.0] * 12] * 2
    assert plan.shift_scale.tolist() == [0.0] * 2 + [4.0] * 24
    moved = plan.positions[2:20] + 4.0
    assert torch.equal(moved, plan.positions[8:26])  # the same cell, one frame later


# ---------------------------------------------------------------- labels


@pytest.mark.parametrize(
    ("chain", "axes", "trained_with", "labels"),
    [
        ("baseline", True, (), ()),
        ("pas", True, (), ()),
        ("pas", False, (), ("PAS-1D (ours)",)),
        ("vrope", True, (), ("swap, untrained",)),
        ("vrope", False, ("vrope",), ()),
        ("vrope", True, ("pas",), ("swap, untrained", "trained with pas, run without it")),
        ("baseline", True, ("vrope",), ("trained with vrope, run without it",)),
        ("pas+vrope", True, (), ("vrope: swap, untrained", "pas: PAS-1D (ours)")),
        ("vrope+pas", True, ("vrope",), ("pas: PAS-1D (ours)",)),
        (
            "vrope[channel_order=paper]",
            True,
            ("vrope",),
            ("swap, untrained", "trained with vrope, run without it"),
        ),
        ("vrope[channel_order=paper]", True, ("vrope[channel_order=paper]",), ()),
    ],
)
def test_rows_say_what_the_checkpoint_was_trained_with(chain, axes, trained_with, labels):
    facts = replace(FACTS, axes=axes, trained_with=frozenset(trained_with))
    found = parse_chain(chain)
    assert found.labels(facts) == labels
    assert found.spec == chain
    assert parse_chain(chain).fingerprint == found.fingerprint


def test_two_sets_of_positions_conflict():
    with pytest.raises(
        ConflictingMethods, match="'vrope' and 'vrope' both modify 'axis', 'positions'"
    ):
        parse_chain("vrope+vrope")
