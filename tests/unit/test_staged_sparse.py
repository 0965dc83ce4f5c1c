"""Staged sparse attention: settings, layers, what it modifies, who sees whom in a prompt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tempeval.engine.plan import make_plan
from tempeval.engine.plan_costs import text_flops
from tempeval.errors import ConflictingMethods, InvalidSetting
from tempeval.families.sequence_layout import SequenceLayoutBuilder, grid_run
from tempeval.methods.base import Chain
from tempeval.methods.registry import parse_chain
from tempeval.methods.staged_sparse import STRATEGY_MODIFIES, StagedSparse
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.stages import Geometry, Pathway, PrefixTokens, RunFacts, Segments, VisualTokens
from tempeval.verification.dense import prefix_rows, token_mask

COMBINATIONS = [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)]


def facts_of(depth):
    return RunFacts(Geometry(depth, 4, 2, 16, 64, 128), True, 4096, 2, 2, 8, 1024)


# ---------------------------------------------------------------- layer ranges


def rounded(depth, k):
    return (2 * depth * k + 28) // 56  # floor(depth * k / 28 + 1 / 2) without floats


@given(depth=st.integers(3, 100), convention=st.sampled_from(["zero", "one"]))
def test_ranges_scale_with_depth(depth, convention):
    less = convention == "one"
    expected = {
        1: (rounded(depth, 10) - less, rounded(depth, 20)),
        2: (rounded(depth, 20) - less, depth),
        3: (rounded(depth, 20) - less, depth),
    }
    for strategy, (start, stop) in expected.items():
        method = StagedSparse((strategy,), layer_convention=convention)
        if not (strategy == 3) <= start < stop:
            with pytest.raises(InvalidSetting, match=r"resolves to layers \["):
                method.resolve(facts_of(depth))
            continue
        assert method.layers(strategy, depth) == range(start, stop)
        resolved = method.resolve(facts_of(depth))
        assert resolved[f"strategy_{strategy}_layers"] == [start, stop]


def test_ranges_of_the_paper_and_of_plain_numbers():
    paper = StagedSparse((1, 2, 3))
    assert [list(paper.layers(s, 28))[:: 9 if s == 1 else 7] for s in (1, 2, 3)] == [
        [10, 19],
        [20, 27],
        [20, 27],
    ]
    inclusive = StagedSparse((1, 2, 3), layer_convention="one")  # "layers 10 to 20", "20 to 28"
    assert [inclusive.layers(s, 28) for s in (1, 2, 3)] == [
        range(9, 20),
        range(19, 28),
        range(19, 28),
    ]
    given_numbers = StagedSparse((1, 2, 3), (1, 4), 2, 3)
    assert [given_numbers.layers(s, 4) for s in (1, 2, 3)] == [
        range(1, 4),
        range(2, 4),
        range(3, 4),
    ]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"strategies": ()}, r"strategies= is not"),
        ({"strategies": (4,)}, "strategies=4"),
        ({"strategies": (1, 1)}, "strategies=1/1"),
        ({"strategies": (1,), "question_layers": (3,)}, "question_layers"),
        ({"strategies": (1,), "exit_layer": 9}, "exit_layer=9 has no effect without strategy 3"),
        ({"strategies": (2, 3), "question_layers": (1, 2)}, "no effect without strategy 1"),
        ({"strategies": (3,), "frame_layer": 9}, "no effect without strategy 2"),
        ({"exit_layer": 9}, "no effect without strategy 3"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, match):
    with pytest.raises(InvalidSetting, match=match):
        StagedSparse(**settings)


@pytest.mark.parametrize(
    "method",
    [
        StagedSparse((1,), question_layers=(5, 5)),
        StagedSparse((1,), question_layers=(6, 5)),
        StagedSparse((1,), question_layers=(6, 29)),
        StagedSparse((1,), question_layers=(0.5, 1.5)),
        StagedSparse((1,), question_layers=(-1, 5)),
        StagedSparse((1,), question_layers=(0, 5), layer_convention="one"),
        StagedSparse((2,), frame_layer=28),
        StagedSparse((3,), exit_layer=28),
        StagedSparse((3,), exit_layer=0),
        StagedSparse((3,), exit_layer=1, layer_convention="one"),
        StagedSparse((3,), exit_layer=0.999),
    ],
)
def test_empty_and_impossible_ranges_are_refused(method):
    with pytest.raises(InvalidSetting, match=r"staged_sparse\."):
        method.resolve(facts_of(28))


@pytest.mark.parametrize(
    ("method", "depth", "idle"),
    [
        (StagedSparse((1, 2, 3)), 28, [2]),  # frames have left where (2) would begin
        (StagedSparse((2,)), 4, [2]),  # the last layer's frame rows are read by nobody
        (StagedSparse((2,)), 28, []),
        (StagedSparse((1, 3), (6, 9), exit_layer=6), 28, [1]),
        (StagedSparse((1, 3), (5, 9), exit_layer=6), 28, []),
    ],
)
def test_strategies_that_change_nothing_are_recorded(method, depth, idle):
    assert method.resolve(facts_of(depth))["strategies_without_effect"] == idle


@pytest.mark.parametrize(
    ("chain", "depth", "idle", "labels"),
    [
        ("temporal_exit+staged_sparse[strategies=2]", 28, [2], 1),
        ("staged_sparse[strategies=2]+temporal_exit", 28, [2], 1),
        ("staged_sparse[strategies=1/2]+temporal_exit", 28, [2], 0),
        ("staged_sparse[strategies=1/2]+temporal_exit[layer=10]", 28, [1, 2], 1),
        ("staged_sparse[strategies=2]+temporal_exit[layer=27]", 28, [], 0),
        ("staged_sparse[strategies=2]+pas", 28, [], 0),
        ("staged_sparse[strategies=2]", 4, [2], 1),
        ("staged_sparse[strategies=1/2/3]", 28, [2], 0),
        ("staged_sparse", 28, [], 0),
    ],
)
def test_what_the_chain_removed_before_is_seen(chain, depth, idle, labels):
    parsed = parse_chain(chain)
    facts = facts_of(depth)
    facts = replace(facts, layers_with_frames=parsed.layers_with_frames(facts))
    assert parsed.resolve(facts)["staged_sparse"]["strategies_without_effect"] == idle
    found = parsed.labels(facts)
    assert len(found) == labels
    assert all("inert: " in label for label in found)


def test_layers_with_frames_equal_those_of_a_plan():
    facts = facts_of(28)
    assert Chain().layers_with_frames(facts) == 28
    assert parse_chain("temporal_exit[layer=5]+pas").layers_with_frames(facts) == 5
    assert parse_chain("staged_sparse[strategies=3]").layers_with_frames(facts) == 20
    assert parse_chain("staged_sparse").layers_with_frames(facts) == 28


# ---------------------------------------------------------------- spelling and chains


@given(
    strategies=st.sampled_from(COMBINATIONS),
    layers=st.tuples(st.integers(0, 30) | st.floats(0.01, 0.99), st.integers(0, 30)),
    frame=st.integers(0, 30) | st.floats(0.01, 0.99),
    leave=st.integers(0, 30) | st.floats(0.01, 0.99),
    convention=st.sampled_from(["zero", "one"]),
)
def test_spec_reads_back_to_the_same_chain(strategies, layers, frame, leave, convention):
    settings = {"question_layers": layers, "frame_layer": frame, "exit_layer": leave}
    used = dict(zip(settings, (1, 2, 3), strict=True))
    settings = {name: value for name, value in settings.items() if used[name] in strategies}
    chain = Chain([StagedSparse(strategies, layer_convention=convention, **settings)])
    again = parse_chain(chain.spec)
    assert again == chain
    assert again.fingerprint == chain.fingerprint


def test_strategies_have_one_spelling():
    chain = parse_chain("staged_sparse[strategies=3/1]")
    assert chain.spec == "staged_sparse[strategies=1/3]"
    assert chain.fingerprint == parse_chain("staged_sparse[strategies=1/3]").fingerprint
    # The paper's accuracies hold under (2) and under (3), and (3) has a name of its own.
    assert parse_chain("staged_sparse").methods == (StagedSparse((2,)),)
    assert parse_chain("staged_sparse[strategies=2]").spec == "staged_sparse"


@pytest.mark.parametrize(
    ("spec", "same"),
    [
        ("staged_sparse[strategies=3]", "temporal_exit"),
        ("staged_sparse[strategies=3;exit_layer=9]", "temporal_exit[layer=9]"),
        (
            "staged_sparse[strategies=3;exit_layer=9;layer_convention=one]",
            "temporal_exit[layer=9;layer_convention=one]",
        ),
    ],
)
def test_a_row_that_does_what_another_method_does_says_so(spec, same):
    chain, other = parse_chain(spec), parse_chain(same)
    assert chain.labels(facts_of(28)) == (f"the same as {same}",)
    assert not other.labels(facts_of(28))
    layers = chain.resolve(facts_of(28))["staged_sparse"]["strategy_3_layers"]
    assert layers[0] == other.resolve(facts_of(28))["temporal_exit"]["first_layer"]


@pytest.mark.parametrize("strategies", COMBINATIONS)
def test_an_instance_claims_what_it_uses(strategies):
    method = StagedSparse(strategies)
    assert method.modifies == {"staged_sparse", *(STRATEGY_MODIFIES[s] for s in strategies)}
    both = f"staged_sparse[strategies={'/'.join(map(str, strategies))}]+temporal_exit"
    if 3 in strategies:
        with pytest.raises(
            ConflictingMethods, match=r"'staged_sparse' and 'temporal_exit'.*'exit'"
        ):
            parse_chain(both)
    else:
        assert len(parse_chain(both).methods) == 2


def fold(chain, depth, num_frames):
    """Who sees whom and who is left, per layer, as nested lists."""
    segments = Segments(num_frames, depth)
    prefix = PrefixTokens.one_each(segments)
    ones = torch.ones_like(prefix.is_visual)
    square = torch.ones(segments.size, segments.size, dtype=torch.bool)
    return [
        (
            chain.attention(square.clone(), layer, segments),
            chain.prune(ones.clone(), layer, prefix)[0],
        )
        for layer in range(depth)
    ]


def same(one, other):
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("depth", [4, 8, 28, 36])
def test_alone_it_is_temporal_exit_and_in_a_chain_it_adds_up(depth):
    exit_alone = fold(Chain([TemporalExit()]), depth, 5)
    assert same(fold(parse_chain("staged_sparse[strategies=3]"), depth, 5), exit_alone)
    counted = {"layer_convention": "one"}
    one = fold(Chain([TemporalExit(**counted)]), depth, 5)
    assert same(fold(Chain([StagedSparse((3,), **counted)]), depth, 5), one)
    assert not same(one, exit_alone)
    for strategies in ((1,), (2,), (1, 2)):
        apart = fold(Chain([StagedSparse(strategies), TemporalExit()]), depth, 5)
        assert same(apart, fold(Chain([StagedSparse((*strategies, 3))]), depth, 5))
        assert not same(apart, exit_alone)


def test_it_stands_once_in_a_chain():
    with pytest.raises(ConflictingMethods, match="'staged_sparse' and 'staged_sparse'"):
        parse_chain("staged_sparse[strategies=1]+staged_sparse[strategies=2]")


@given(
    strategies=st.sampled_from(COMBINATIONS),
    num_frames=st.integers(0, 6),
    depth=st.integers(4, 40),
)
def test_see_and_keep_are_the_definition(strategies, num_frames, depth):
    method = StagedSparse(strategies)
    segments = Segments(num_frames, depth)
    start, stop = rounded(depth, 10), rounded(depth, 20)
    for layer, (visible, kept) in enumerate(fold(Chain([method]), depth, num_frames)):
        late, frames = layer >= stop, segments.frames
        for row in range(segments.size):
            if row < segments.question:  # of the prefix
                assert bool(kept[row]) == (3 not in strategies or not late or row not in frames)
            for column in range(segments.size):
                asks = row in (segments.question, segments.last) and start <= layer < stop
                hidden = column in frames and (
                    (1 in strategies and asks and column != num_frames)
                    or (2 in strategies and late and row in frames and column < row)
                )
                assert bool(visible[row, column]) == (not hidden)


@pytest.mark.parametrize("strategies", [None, *COMBINATIONS])
def test_operations_are_those_of_the_pairs_that_the_mask_leaves(strategies):
    """Rows and pairs counted one by one in a token mask of each layer."""
    visuals = [tokens([(5, 2, 3)]), tokens([(1, 2, 2)], "image")]
    layout = prompt_layout(visuals, lambda v: [grid_run(run.grid) for run in v.runs])
    g, asked = facts_of(28).geometry, 7
    chain = Chain([] if strategies is None else [StagedSparse(strategies)])
    total = layout.length + asked
    linear = 2 * g.hidden_size * g.num_heads * g.head_dim
    linear += 2 * g.hidden_size * g.num_kv_heads * g.head_dim
    linear += 3 * g.hidden_size * g.intermediate_size
    expected = 0
    for layer, mask in enumerate(token_mask(chain, layout, 28, total, total)):
        rows = prefix_rows(chain, layout, 28, layer).tolist() + list(range(layout.length, total))
        pairs = int(mask[rows][:, rows].sum())
        expected += 2 * linear * len(rows) + 4 * g.num_heads * g.head_dim * pairs
    assert text_flops(make_plan(chain, layout, g), g, asked) == expected
    if strategies is not None:  # the only cost in which (1) and (2) show
        assert expected < text_flops(make_plan(Chain(), layout, g), g, asked)


# ---------------------------------------------------------------- the last frame of a prompt


VIDEO, IMAGE = 90, 91


def prompt_layout(visuals, runs):
    """A layout with text around each visual."""
    builder = SequenceLayoutBuilder(
        torch.ones(8), 1.0, {"video": VIDEO, "image": IMAGE}, runs, torch.device("cpu")
    )
    ids = [1, 2]
    for visual in visuals:
        ids += [VIDEO if visual.kind == "video" else IMAGE, 3, 4]
    return builder.build(ids, visuals)[0]


def tokens(runs, kind="video", lead=0):
    """Visual tokens of one or more pathways."""
    count = sum(t * (lead + h * w) for t, h, w in runs)
    pathways = tuple(Pathway(grid) for grid in runs) if len(runs) > 1 else ()
    return VisualTokens(torch.zeros(count, 4), runs[0], kind=kind, lead=lead, pathways=pathways)


CASES = {
    # name: (visuals, newline settings, visual tokens that the question still sees in (1))
    "one video": ([tokens([(3, 2, 2)])], {}, [4]),
    "CLS and the newline that ends a video": (
        [tokens([(3, 2, 2)], lead=1)],
        {"lead": 1, "newline_end": True},
        [1 + 4 + 1],
    ),
    "newlines that end rows": ([tokens([(3, 2, 2)])], {"newline_rows": True}, [2 * 3]),
    "two videos": ([tokens([(3, 2, 2)]), tokens([(2, 1, 3)])], {}, [0, 3]),
    "a video, then an image": ([tokens([(3, 2, 2)]), tokens([(1, 2, 3)], "image")], {}, [0, 6]),
    "one image": ([tokens([(1, 2, 3)], "image")], {}, [6]),
    "an image in two pathways": ([tokens([(1, 2, 2), (1, 1, 3)], "image")], {}, [0, 3]),
    "slow and fast pathway": ([tokens([(2, 2, 2), (4, 1, 1)])], {}, [0, 1]),
}


@pytest.mark.parametrize("name", CASES)
def test_questions_see_the_last_segment_of_the_prompts_frames(name):
    visuals, newlines, expected = CASES[name]
    layout = prompt_layout(
        visuals, lambda visual: [grid_run(run.grid, **newlines) for run in visual.runs]
    )
    geometry = facts_of(4).geometry
    plan = make_plan(Chain([StagedSparse((1,), (1, 3))]), layout, geometry)
    hidden = [plan.layers[n].visible is not None for n in range(4)]
    assert hidden == [False, layout.num_frames > 1, layout.num_frames > 1, False]
    if not hidden[1]:
        assert layout.num_visual_tokens == sum(expected)
        return
    for row in (plan.segments.question, plan.segments.last):
        seen = plan.layers[1].visible[row][layout.segment]
        assert bool(seen[~layout.is_visual].all())
        # Visual tokens from the end of the prompt back to the first that is hidden.
        visual = seen[layout.is_visual]
        assert int(visual.sum()) == sum(expected)
        assert bool(visual[-sum(expected) :].all())
