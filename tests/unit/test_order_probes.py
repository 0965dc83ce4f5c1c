"""Reversed temporal ids and reversed order: grids, blocks, what stays, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tempeval.errors import ConflictingMethods, InvalidSetting, UnsupportedModel
from tempeval.families.qwen_layout import LayoutBuilder, RotaryTable
from tempeval.families.sequence_layout import SequenceLayoutBuilder, grid_run
from tempeval.methods.base import Chain, Method
from tempeval.methods.order_probes import ReverseOrder, ReversePE
from tempeval.methods.pas import PAS
from tempeval.methods.registry import parse_chain
from tempeval.methods.vrope import VRoPE
from tempeval.stages import Geometry, Pathway, RunFacts, VisualTokens

GEOMETRY = Geometry(2, 4, 2, 24, 48, 96)
FACTS = RunFacts(GEOMETRY, True, 4096, 2, 2, 8, 64)
CPU = torch.device("cpu")
VIDEO, IMAGE = 9, 10


def visual(*grids, lead=0, kind="video", seconds=1.0):
    """Tokens numbered from 0."""
    count = sum(t * (lead + h * w) for t, h, w in grids)
    pathways = tuple(Pathway(grid, seconds) for grid in grids) if len(grids) > 1 else ()
    embeddings = torch.arange(count).float().unsqueeze(1)
    return VisualTokens(embeddings, grids[0], seconds, kind, lead=lead, pathways=pathways)


def sequence_layout(ids, *visuals, **newlines):
    builder = SequenceLayoutBuilder(
        inv_freq=torch.rand(12),
        attention_scaling=1.0,
        placeholders={"video": VIDEO, "image": IMAGE},
        runs=lambda v: [grid_run(run.grid, lead=v.lead, **newlines) for run in v.runs],
        device=CPU,
    )
    return builder.build(ids, visuals)[0]


def mrope_layout(ids, *visuals):
    table = RotaryTable(torch.arange(3).repeat(4), torch.rand(12), 1.0)
    return LayoutBuilder(table, "original", {"video": VIDEO, "image": IMAGE}, 2.0, CPU).build(
        ids, visuals
    )[0]


def place(layout, *methods):
    return Chain(methods).positions(layout.rotary, layout, GEOMETRY)


# ---------------------------------------------------------------- temporal ids


@given(st.tuples(*[st.integers(1, 4)] * 3), st.integers(0, 3), st.sampled_from([0.5, 1.0, 1.7]))
def test_mrope_times_are_reversed_and_rows_and_columns_stay(grid, before, seconds):
    layout = mrope_layout([1] * before + [VIDEO, 1], visual(grid, seconds=seconds))
    native, plan = layout.rotary, place(layout, ReversePE())
    temporal = native.temporal_channels
    assert torch.equal(plan.positions[:, ~temporal], native.positions[:, ~temporal])
    times = native.positions[:, temporal]
    per_frame = times[before:].view(grid[0], grid[1] * grid[2], -1)
    assert torch.equal(plan.positions[before:, temporal], per_frame.flip(0).flatten(0, 1))
    assert torch.equal(plan.positions[:before], native.positions[:before])
    assert plan.next_position == native.next_position
    assert torch.equal(plan.step, native.step)
    twice = place(replace(layout, rotary=plan), ReversePE())
    assert torch.equal(twice.positions, native.positions)


def first_channel(plan):
    return plan.positions[:, 0].int().tolist()


@pytest.mark.parametrize("method", [ReversePE(), ReverseOrder()])
def test_one_dimensional_ids_are_reversed_frame_by_frame(method):
    # text 0, frames of 4, text 13
    plan = place(
        sequence_layout([1, VIDEO, 1, IMAGE], visual((3, 2, 2)), visual((1, 1, 2), kind="image")),
        method,
    )
    assert first_channel(plan) == [0, 9, 10, 11, 12, 5, 6, 7, 8, 1, 2, 3, 4, 13, 14, 15]
    assert (plan.positions == plan.positions[:, :1]).all()
    assert plan.next_position == 16
    # CLS and the newlines that end rows move with their frame.
    plan = place(sequence_layout([VIDEO], visual((2, 1, 2), lead=1), newline_rows=True), method)
    assert first_channel(plan) == [4, 5, 6, 7, 0, 1, 2, 3]
    # The newline that ends the video stays at its end.
    plan = place(sequence_layout([VIDEO], visual((2, 1, 2)), newline_end=True), method)
    assert first_channel(plan) == [2, 3, 0, 1, 4]
    # An image with one is one frame.
    plan = place(sequence_layout([VIDEO], visual((1, 1, 2)), newline_end=True), method)
    assert first_channel(plan) == [0, 1, 2]


def test_every_visual_and_pathway_is_reversed_by_itself():
    layout = mrope_layout([VIDEO, 1, VIDEO], visual((2, 1, 1)), visual((2, 1, 2), (3, 1, 1)))
    # Native: 0 2 | 3 | 4 4 6 6 | 7 9 11
    assert place(layout, ReversePE()).positions[:, 0].tolist() == [2, 0, 3, 6, 6, 4, 4, 11, 9, 7]


def test_after_vrope_whole_positions_are_reversed():
    layout = mrope_layout([1, VIDEO], visual((3, 2, 2)))
    placed = place(layout, VRoPE()).positions
    for chain in ([ReversePE(), VRoPE()], [VRoPE(), ReversePE()]):
        plan = place(layout, *chain)
        assert torch.equal(plan.positions[1:5], placed[9:13])
        assert torch.equal(plan.positions[5:9], placed[5:9])
        assert torch.equal(plan.positions[9:13], placed[1:5])


def test_pas_shifts_by_the_same_bins():
    layout = mrope_layout([1, VIDEO], visual((3, 2, 2)))
    native, plan = place(layout, PAS()), place(layout, PAS(), ReversePE())
    assert torch.equal(plan.query_shift, native.query_shift)
    assert torch.equal(plan.shift_scale, native.shift_scale)


def test_frames_of_unequal_size_are_refused():
    layout = mrope_layout([VIDEO], visual((3, 1, 2)))
    shrunk = replace(layout, segment=torch.tensor([1, 1, 2, 3, 3, 3]))
    with pytest.raises(UnsupportedModel, match=r"\[2, 1, 3\] tokens"):
        place(shrunk, ReversePE())
    grown = replace(layout, segment=torch.tensor([1, 2, 3, 3, 3, 3]))
    with pytest.raises(UnsupportedModel, match=r"\[1, 1, 4\] tokens"):
        place(grown, ReversePE())


# ---------------------------------------------------------------- order


@given(st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(0, 2))
def test_grids_are_reversed_whole_with_their_lead_tokens(frames, height, width, lead):
    tokens = replace(
        visual((frames, height, width), lead=lead),
        features=torch.rand(frames, height, width, 2),
    )
    reverse = ReverseOrder().tokens(tokens)
    size = lead + height * width
    expected = [t * size + k for t in reversed(range(frames)) for k in range(size)]
    assert reverse.embeddings.squeeze(1).tolist() == expected
    assert torch.equal(reverse.features, tokens.features.flip(0))
    again = ReverseOrder().tokens(reverse)
    assert torch.equal(again.embeddings, tokens.embeddings)
    assert torch.equal(again.features, tokens.features)
    assert replace(reverse, embeddings=tokens.embeddings, features=tokens.features) == tokens


def test_pathways_are_reversed_one_by_one():
    reverse = ReverseOrder().tokens(visual((2, 1, 2), (3, 1, 1)))
    assert reverse.embeddings.squeeze(1).tolist() == [2, 3, 0, 1, 6, 5, 4]
    with pytest.raises(UnsupportedModel, match="7 visual tokens"):
        ReverseOrder().tokens(replace(visual((2, 1, 2), (3, 1, 1)), lead=1))


def test_images_stay():
    tokens = visual((1, 2, 2), (4, 1, 1), kind="image")
    assert ReverseOrder().tokens(tokens) is tokens


def test_each_frame_keeps_its_own_positions():
    """The token that was k-th in frame t has the same position wherever it is fed."""
    for build in (mrope_layout, sequence_layout):
        tokens = visual((4, 2, 3), seconds=0.7)
        native = build([1, VIDEO], tokens)
        fed = ReverseOrder().tokens(tokens)
        layout = build([1, VIDEO], fed)
        plan = place(layout, ReverseOrder())
        before = dict(
            zip(tokens.embeddings[:, 0].tolist(), native.rotary.positions[1:].tolist(), strict=True)
        )
        after = dict(zip(fed.embeddings[:, 0].tolist(), plan.positions[1:].tolist(), strict=True))
        assert before == after
        assert list(before) != list(after)


class KeepFirst(Method):
    name = "keep_first"

    def tokens(self, tokens):
        t, h, w = tokens.grid
        return replace(tokens, embeddings=tokens.embeddings[: h * w * (t - 1)], grid=(t - 1, h, w))


@pytest.mark.parametrize("methods", [(KeepFirst(), ReverseOrder()), (ReverseOrder(), KeepFirst())])
def test_the_order_is_reversed_last_however_the_chain_is_written(methods):
    tokens = Chain(methods).tokens(visual((3, 1, 2)))
    assert tokens.embeddings.squeeze(1).tolist() == [2, 3, 0, 1]


# ---------------------------------------------------------------- refusals


def test_one_grid_is_refused_before_any_video():
    for name in ("reverse_pe", "reverse_order"):
        chain = parse_chain(name)
        assert chain.resolve(FACTS) == {name: {"temporal_grids": 4}}
        with pytest.raises(InvalidSetting, match=f"{name} has no effect on num_frames=2.*least 3"):
            chain.resolve(replace(FACTS, num_frames=2))


def test_both_probes_at_once_conflict():
    with pytest.raises(ConflictingMethods, match="'reverse_pe' and 'reverse_order'"):
        parse_chain("reverse_pe+reverse_order")
