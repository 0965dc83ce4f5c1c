"""Layouts of 1-D models: what each token is, where newlines lie, which visual goes where."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.errors import UnsupportedModel
from tempeval.families.sequence_layout import SequenceLayoutBuilder, grid_run
from tempeval.stages import AXIS_ALL, Pathway, VisualTokens

VIDEO, IMAGE, WIDTH = 90, 91, 6
sizes = st.integers(1, 4)
grids = st.tuples(sizes, sizes, sizes)


def cells_by_hand(grid, lead, newline_rows, newline_end):
    """One (grid, row, column, is newline) per token, token by token."""
    t, h, w = grid
    found = []
    for frame in range(t):
        found += [(frame, -1, -1, False)] * lead
        for row in range(h):
            found += [(frame, row, column, False) for column in range(w)]
            if newline_rows:
                found.append((frame, row, w, True))
    if newline_end:
        found.append((t - 1, -1, -1, True))
    return found


@given(grids, st.integers(0, 2), st.booleans(), st.booleans())
def test_runs_equal_the_token_by_token_ones(grid, lead, newline_rows, newline_end):
    run = grid_run(grid, lead=lead, newline_rows=newline_rows, newline_end=newline_end)
    got = [(*cell, flag) for cell, flag in zip(run.cells.tolist(), run.is_newline, strict=True)]
    assert got == cells_by_hand(grid, lead, newline_rows, newline_end)
    assert run.grid == grid


def builder(rows=False, end=False, lead=0):
    def runs(visual):
        *some, last = visual.runs
        return [
            *(grid_run(p.grid, lead=lead, newline_rows=rows) for p in some),
            grid_run(last.grid, lead=lead, newline_rows=rows, newline_end=end),
        ]

    return SequenceLayoutBuilder(
        inv_freq=torch.rand(8),
        attention_scaling=1.0,
        placeholders={"video": VIDEO, "image": IMAGE},
        runs=runs,
        device=torch.device("cpu"),
    )


def tokens(kind, pathways, lead=0, start=0):
    """Visual tokens that can be told apart: token n holds start + n in every channel."""
    count = sum(t * (lead + h * w) for t, h, w in pathways)
    numbers = torch.arange(start, start + count, dtype=torch.float32)
    embeddings = numbers.unsqueeze(1).expand(-1, WIDTH)
    several = tuple(Pathway(grid) for grid in pathways) if len(pathways) > 1 else ()
    return VisualTokens(embeddings, pathways[0], kind=kind, lead=lead, pathways=several)


prompts = st.lists(
    st.one_of(
        st.integers(0, 9),
        st.tuples(st.sampled_from(["video", "image"]), st.lists(grids, min_size=1, max_size=2)),
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(prompts, st.booleans(), st.booleans(), st.integers(0, 1))
def test_layouts_equal_the_token_by_token_ones(prompt, rows, end, lead):
    ids, visuals, start = [], [], 1000
    for part in prompt:
        if isinstance(part, int):
            ids.append(part)
        else:
            ids.append({"video": VIDEO, "image": IMAGE}[part[0]])
            visuals.append(tokens(*part, lead=lead, start=start))
            start += 1000
    made = builder(rows, end, lead)
    layout, question = made.build(ids, visuals)

    # By hand: (id, segment, grid index, embedding or None for a newline, -1 for text).
    expected, frames, pathway = [], 0, 0
    remaining = iter(visuals)
    for token in ids:
        if token not in (VIDEO, IMAGE):
            expected.append((token, 0, [-1] * 4, -1))
            continue
        visual = next(remaining)
        numbers = iter(visual.embeddings[:, 0].tolist())
        for number, run in enumerate(visual.runs):
            ended = end and number == len(visual.runs) - 1
            for frame, row, column, newline in cells_by_hand(run.grid, lead, rows, ended):
                index = [pathway, frame, row, column] if row >= 0 else [-1] * 4
                value = None if newline else next(numbers)
                expected.append((token, 1 + frames + frame, index, value))
            frames, pathway = frames + run.grid[0], pathway + 1
    length = max((i + 1 for i, row in enumerate(expected) if row[1]), default=0)
    assert question.tolist() == [row[0] for row in expected[length:]]
    expected = expected[:length]

    assert layout.input_ids.tolist() == [row[0] for row in expected]
    assert layout.segment.tolist() == [row[1] for row in expected]
    assert layout.grid_index.tolist() == [row[2] for row in expected]
    assert layout.is_visual.tolist() == [row[1] > 0 for row in expected]
    assert layout.num_frames == frames
    assert layout.visuals == tuple(run.grid for v in visuals for run in v.runs)
    rotary = layout.rotary
    assert rotary.next_position == length
    assert torch.equal(rotary.positions, torch.arange(length).double().unsqueeze(1).expand(-1, 8))
    assert set(rotary.axis.tolist()) == {AXIS_ALL}

    embedding = torch.nn.Embedding(80, WIDTH)
    newline = torch.full((WIDTH,), -7.0)
    with torch.no_grad():
        (got,) = made.embed(layout, visuals, embedding, newline)
        for row, (token, _, _, value) in zip(got, expected, strict=True):
            if value == -1:
                assert torch.equal(row, embedding.weight[token])
            else:
                assert set(row.tolist()) == {-7.0 if value is None else value}


def test_a_step_is_the_distance_between_equal_cells_of_neighbouring_grids():
    for rows, end, lead in ((False, True, 0), (True, False, 0), (False, False, 1)):
        layout, _ = builder(rows, end, lead).build([3, VIDEO], [tokens("video", [(3, 2, 4)], lead)])
        at = {
            tuple(cell): i
            for i, cell in enumerate(layout.grid_index[:, 1:].tolist())
            if cell[0] >= 0
        }
        distance = at[(1, 1, 2)] - at[(0, 1, 2)]
        assert set(layout.rotary.step[layout.is_visual].tolist()) == {float(distance)}
        assert set(layout.rotary.step[~layout.is_visual].tolist()) == {0.0}


def test_placeholders_take_the_visuals_of_their_kind_in_order():
    """Chat templates may put images before videos; the caller's order is the message's."""
    video, image = tokens("video", [(2, 1, 2)], start=100), tokens("image", [(1, 1, 3)], start=200)
    second = tokens("image", [(1, 1, 1)], start=300)
    made = builder()
    visuals = [video, image, second]
    layout, question = made.build([1, IMAGE, IMAGE, VIDEO, 2], visuals)
    assert layout.input_ids.tolist() == [1] + [IMAGE] * 4 + [VIDEO] * 4
    assert question.tolist() == [2]
    with torch.no_grad():
        (got,) = made.embed(layout, visuals, torch.nn.Embedding(5, WIDTH), None)
    assert got[1:, 0].tolist() == [200, 201, 202, 300, 100, 101, 102, 103]


@pytest.mark.parametrize(
    ("ids", "visuals", "message"),
    [
        ([VIDEO], [], r"\['video'\], but no visuals"),
        ([1], [tokens("video", [(1, 1, 1)])], r"no visuals, but \['video'\]"),
        ([VIDEO], [tokens("image", [(1, 1, 1)])], r"\['video'\], but \['image'\]"),
        (
            [VIDEO],
            [VisualTokens(torch.zeros(3, WIDTH), (1, 2, 2))],
            r"3 tokens, but its grids \[\(1, 2, 2\)\] .* 4",
        ),
    ],
)
def test_other_visuals_than_the_prompts_are_refused(ids, visuals, message):
    with pytest.raises(UnsupportedModel, match=message):
        builder().build(ids, visuals)


def test_newlines_without_a_newline_embedding_are_refused():
    made, visuals = builder(end=True), [tokens("video", [(1, 1, 1)])]
    layout, _ = made.build([VIDEO], visuals)
    with torch.no_grad(), pytest.raises(UnsupportedModel, match="1 newline tokens"):
        made.embed(layout, visuals, torch.nn.Embedding(5, WIDTH), None)
