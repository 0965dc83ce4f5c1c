"""SlowFast pooling: which tokens it makes, and that a budget is met with them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from math import lcm

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.errors import ConflictingMethods, InfeasibleBudget, InvalidSetting, UnsupportedModel
from tempeval.families.frame_choice import fit_frames
from tempeval.families.llava_onevision_budget import FixedFrames
from tempeval.families.pixel_budget import COMMON_ASPECTS, BudgetResize, count_tokens
from tempeval.methods.base import Chain
from tempeval.methods.registry import parse_chain
from tempeval.methods.slowfast import SlowFast
from tempeval.methods.slowfast_grids import SlowFastGrids
from tempeval.stages import Geometry, Pathway, RunFacts, VisualTokens
from tempeval.video.clip import FramePlan, Sampling

PUBLISHED = SlowFast(slow_frames=10, slow_pool="max", fast_size=(4, 4))

METHODS = st.builds(
    SlowFast,
    slow_frames=st.one_of(st.integers(1, 12), st.floats(0.05, 0.95)),
    slow_pool=st.sampled_from(["none", "max", "avg"]),
    fast_size=st.one_of(st.none(), st.tuples(st.integers(1, 5), st.integers(1, 5))),
)


def tokens_of(t, h, w, *, lead=0, dim=3, seconds=0.5):
    embeddings = torch.randn(t * (lead + h * w), dim, dtype=torch.float64)
    return VisualTokens(embeddings, (t, h, w), seconds, frames=t, lead=lead)


def mean_over(cells, parts):
    """Cell (i, j) of the fast path is the mean over rows and columns from floor to ceil."""
    h, w = cells.shape[:2]
    out = []
    for i in range(parts[0]):
        for j in range(parts[1]):
            rows = slice(i * h // parts[0], -(-(i + 1) * h // parts[0]))
            columns = slice(j * w // parts[1], -(-(j + 1) * w // parts[1]))
            out.append(cells[rows, columns].mean((0, 1)))
    return out


def reference(method, tokens):
    """Token by token, as the reference code pools."""
    t, h, w = tokens.grid
    frames = tokens.embeddings.view(t, tokens.lead + h * w, -1)
    slow = method.slow_frames
    count = min(slow, t) if isinstance(slow, int) else max(1, int(t * slow + 0.5))
    made = []
    for index in range(count):
        frame = frames[index * t // count]
        made += list(frame[: tokens.lead])
        cells = frame[tokens.lead :].view(h, w, -1)
        if method.slow_pool == "none":
            made += list(frame[tokens.lead :])
            continue
        for row in cells:
            for pair in row.split(2):
                made.append(pair.amax(0) if method.slow_pool == "max" else pair.mean(0))
    size = method.fast_size or (-(-h // 6), -(-w // 6))
    parts = (min(h, size[0]), min(w, size[1]))
    for frame in frames:
        made += list(frame[: tokens.lead])
        made += mean_over(frame[tokens.lead :].view(h, w, -1), parts)
    return torch.stack(made), count, parts


@settings(max_examples=200, deadline=None)
@given(METHODS, st.integers(2, 12), st.integers(1, 14), st.integers(1, 14), st.integers(0, 1))
def test_paths_equal_the_slow_reference(method, t, h, w, lead):
    tokens = tokens_of(t, h, w, lead=lead)
    pooled = method.tokens(tokens)
    expected, count, parts = reference(method, tokens)
    assert torch.allclose(pooled.embeddings, expected, atol=1e-12)
    slow, fast = pooled.runs
    columns = w if method.slow_pool == "none" else -(-w // 2)
    assert slow == Pathway((count, h, columns), pytest.approx(0.5 * t / count))
    assert fast == Pathway((t, *parts), 0.5)
    # What was announced to the planner is what came out, and all tokens have a place.
    (rule,) = method.frames(FramePlan()).grid_rules
    grids = rule((tokens.grid,))
    assert grids == (slow.grid, fast.grid)
    assert pooled.num_tokens == sum(a * (lead + b * c) for a, b, c in grids)


@given(METHODS, st.integers(1, 60), st.integers(1, 30), st.integers(1, 30))
def test_more_grids_rows_or_columns_never_give_fewer_tokens(method, t, h, w):
    rule = method.grids
    here = count_tokens((rule,), (t, h, w))
    choices = list(rule.choices(t))
    for more in ((t + bool(choices), h, w), (t, h + 1, w), (t, h, w + 1)):
        assert count_tokens((rule,), more) >= here
    sizes = [count_tokens((chosen,), (t, h, w)) for _, chosen in choices]
    assert sizes == sorted(sizes)
    if isinstance(method.slow_frames, int):
        assert choices == [(0.0, rule)] * (method.slow_frames < t)
    assert all(chosen.slow_count(t) < t for _, chosen in choices)


def test_published_setting():
    """apple/ml-slowfast-llava @ 6551895: slow_10frms_spatial_1d_max_pool, fast_4x4, 50 frames."""
    rule = PUBLISHED.grids
    assert rule(((50, 24, 24),)) == ((10, 24, 12), (50, 4, 4))
    assert count_tokens((rule,), (50, 24, 24)) == 3680
    linspace = torch.linspace(0, 50, 11).to(torch.int32).tolist()[:-1]
    assert rule.slow_index(50) == linspace == list(range(0, 50, 5))
    # The defaults are the same parts of it, with whole rows.
    assert SlowFast().grids(((50, 24, 24),)) == ((10, 24, 24), (50, 4, 4))
    assert parse_chain("slowfast[slow_frames=10;slow_pool=max;fast_size=4/4]") == Chain([PUBLISHED])


def test_slow_grids_are_the_reference_codes_but_for_its_rounding():
    """Where i * T / c is whole, float32 may fall just below it, and the reference truncates."""
    others = 0
    for t in range(2, 129):
        for count in range(1, t + 1):
            got = SlowFastGrids(count).slow_index(t)
            linspace = torch.linspace(0, t, count + 1).to(torch.int32).tolist()[:-1]
            differ = [i for i in range(count) if got[i] != linspace[i]]
            assert all(i * t % count == 0 and linspace[i] == got[i] - 1 for i in differ)
            others += bool(differ)
    assert 0 < others < 200  # of 8255


def test_images_and_single_grids_stay():
    image = VisualTokens(torch.randn(9, 3), (1, 3, 3), kind="image")
    tiles = VisualTokens(
        torch.randn(25, 3), (1, 3, 3), kind="image", pathways=(Pathway((1, 3, 3)),) * 2
    )
    for tokens in (image, tiles, tokens_of(1, 3, 3)):
        assert SlowFast().tokens(tokens) is tokens
    assert SlowFast().grids(((1, 3, 3),)) == ((1, 3, 3),)


def test_a_video_is_split_once():
    once = SlowFast().tokens(tokens_of(6, 3, 3))
    with pytest.raises(UnsupportedModel, match="this video has 2"):
        SlowFast().tokens(once)
    with pytest.raises(ConflictingMethods, match="'slowfast' and 'slowfast'"):
        parse_chain("slowfast+slowfast")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("slowfast[slow_frames=0]", "a whole number from 1"),
        ("slowfast[slow_frames=1.5]", r"part of all temporal grids in \(0, 1\)"),
        ("slowfast[fast_size=4]", "fast_size=4 is not accepted"),
        ("slowfast[fast_size=4/0]", "rows and columns from 1"),
        ("slowfast[slow_pool=median]", "not one of"),
    ],
)
def test_settings_that_are_refused(spec, message):
    with pytest.raises(InvalidSetting, match=message):
        parse_chain(spec)


def facts(num_frames, per_grid=2, rules=()):
    sizes = Geometry(4, 4, 2, 32, 128, 256)
    return RunFacts(sizes, True, 4096, per_grid, per_grid, num_frames, 64, grid_rules=rules)


def test_resolves_to_grids_and_refuses_a_slow_path_of_all():
    assert SlowFast().resolve(facts(8)) == {"slow_grids": 1, "fast_grids": 4}
    assert SlowFast(slow_frames=3).resolve(facts(8)) == {"slow_grids": 3, "fast_grids": 4}
    for method, frames in ((SlowFast(slow_frames=4), 8), (SlowFast(), 2)):
        with pytest.raises(InvalidSetting, match="all of them"):
            method.resolve(facts(frames))
    planned = SlowFast().bind(facts(8, rules=(SlowFastGrids(3),)))
    assert planned == SlowFast(slow_frames=3)
    assert SlowFast().bind(facts(8)) == SlowFast()


# ---------------------------------------------------------------- budgets, frames are sized

RULES = st.one_of(st.none(), METHODS.map(lambda method: method.grids))


@settings(max_examples=150, deadline=None)
@given(
    RULES, st.integers(1, 6000), st.integers(1, 40), st.sampled_from([1.0, 4 / 3, 16 / 9, 9 / 16])
)
def test_sized_frames_meet_the_budget_or_name_one_that_can_be(rule, budget, frames, aspect):
    rules = () if rule is None else (rule,)
    resize = BudgetResize(budget, 28, 2, 1, rules)
    size = (360, round(360 * aspect), frames)
    try:
        height, width = resize(*size)
    except InfeasibleBudget as error:
        nearest = int(str(error).split("Nearest feasible for this video: ")[1].split(";")[0])
        BudgetResize(nearest, 28, 2, 1, rules)(*size)
        gap = abs(nearest - budget)
        for other in range(max(1, budget - gap + 1), budget + gap, 1 + gap // 8):
            with pytest.raises(InfeasibleBudget):
                BudgetResize(other, 28, 2, 1, rules)(*size)
        return
    tokens = count_tokens(rules, (-(-frames // 2), height // 28, width // 28))
    assert 0.98 * budget <= tokens <= budget


@pytest.mark.parametrize("budget", [64, 128, 500, 2048, 6000])
def test_frames_near_serves_common_shapes(budget):
    resize = BudgetResize(budget, 28, 2, 1, (SlowFast().grids,))
    frames = resize.frames_near(8)
    for height, width in ((84, 84), (84, 112), (720, 1280), (1280, 720)):
        rows, columns = resize(height, width, frames)
        tokens = resize.tokens(resize.grids(frames), rows // 28, columns // 28)
        assert 0.98 * budget <= tokens <= budget


def test_the_rule_goes_to_decoding_workers_without_torch(tmp_path):
    path = tmp_path / "rule.pickle"
    path.write_bytes(pickle.dumps(BudgetResize(36, 28, 2, 1, (SlowFast().grids,))))
    code = (
        "import pickle, sys, pathlib\n"
        f"rule = pickle.loads(pathlib.Path({str(path)!r}).read_bytes())\n"
        "rows, columns = rule(84, 84, 8)\n"
        "assert rule.tokens(4, rows // 28, columns // 28) == 36\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ---------------------------------------------------------------- budgets, frames are counted


def fixed(budget, *, kind="one_token", visuals=1):
    """LLaVA-OneVision with one newline or one per row, and the two towers of Video-LLaVA."""
    sizes = {
        "one_token": {"per_frame": 196, "per_video": 1, "cells": (14, 14)},
        "grid": {"per_frame": 210, "cells": (14, 14), "newline_rows": True},
        "port": {"per_frame": 257, "cells": (16, 16)},
        "original": {"per_frame": 257, "cells": (16, 16), "block": 8},
    }
    return FixedFrames(budget=budget, num_visuals=visuals, **sizes[kind])


def counted(frames, plan):
    """Tokens of a plan, newline and CLS tokens included, path by path."""
    (rule,) = plan.grid_rules
    lead = frames.per_frame - frames.cells[0] * (frames.cells[1] + frames.newline_rows)
    grids = rule(((plan.sampling.num_frames, *frames.cells),))
    return frames.per_video + sum(t * (lead + h * (w + frames.newline_rows)) for t, h, w in grids)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["one_token", "grid", "port", "original"]),
    st.integers(2, 32),
    st.integers(1, 2),
)
def test_at_the_budget_of_the_baseline_slowfast_has_as_many_tokens(kind, baseline, visuals):
    if kind == "original":
        baseline = baseline // 4 * 8 or 8
    budget = fixed(None, kind=kind).tokens(baseline) * visuals
    frames = fixed(budget, kind=kind, visuals=visuals)
    assert frames.frames_near(baseline) == baseline
    start = FramePlan(Sampling(num_frames=baseline), grid_rules=(SlowFast().grids,))
    plan = fit_frames(frames, start, free_frames=True)
    tokens = counted(frames, plan) * visuals
    assert 0.98 * budget <= tokens <= budget
    (rule,) = plan.grid_rules
    assert isinstance(rule.slow_frames, int)
    assert plan.sampling.num_frames % frames.block == 0
    assert 1 <= rule.slow_frames < plan.sampling.num_frames
    # The planner and the rule that decoding workers get agree.
    FixedFrames(**{**vars(frames), "grid_rules": plan.grid_rules}).check(plan.sampling)


def test_slow_part_is_as_near_to_a_fifth_as_the_budget_allows():
    budget = fixed(None).tokens(32)
    start = FramePlan(Sampling(num_frames=32), grid_rules=(SlowFast().grids,))
    plan = fit_frames(fixed(budget), start, free_frames=True)
    (rule,) = plan.grid_rules
    assert (rule.slow_frames, plan.sampling.num_frames) == (26, 130)
    whole = FramePlan(Sampling(num_frames=32), grid_rules=(SlowFast(slow_frames=20).grids,))
    plan = fit_frames(fixed(budget), whole, free_frames=True)
    assert plan.grid_rules == whole.grid_rules
    assert 0.98 * budget <= counted(fixed(budget), plan) <= budget


@given(st.integers(1, 4000), st.integers(2, 40), st.booleans())
def test_frames_are_counted_or_a_budget_that_can_be_met_is_named(budget, frames, free):
    start = FramePlan(Sampling(num_frames=frames), grid_rules=(SlowFast().grids,))
    try:
        plan = fit_frames(fixed(budget), start, free_frames=free)
    except InfeasibleBudget as error:
        nearest = int(str(error).split("Nearest feasible: ")[1].split(";")[0])
        plan = fit_frames(fixed(nearest), start, free_frames=free)
        budget = nearest
    assert 0.98 * budget <= counted(fixed(budget), plan) <= budget
    if not free:
        assert plan.sampling.num_frames == frames


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["one_token", "original"]),
    st.integers(1, 6000),
    st.integers(1, 12),
    st.booleans(),
)
def test_counted_frames_are_multiples_of_a_unit_or_none_is(kind, budget, unit, pooled):
    rules = (SlowFast().grids,) if pooled else ()
    frames = fixed(budget, kind=kind)
    start = FramePlan(Sampling(num_frames=8), unit=unit, grid_rules=rules)
    step = lcm(unit, frames.block)
    try:
        chosen = fit_frames(frames, start, free_frames=True).sampling.num_frames
    except InfeasibleBudget as error:
        if not pooled:
            tokens = [frames.tokens(n) for n in range(step, 31 + step, step)]
            assert not any(0.98 * budget <= total <= budget for total in tokens)
        nearest = int(str(error).split("Nearest feasible: ")[1].split(";")[0])
        again = fixed(nearest, kind=kind)
        chosen = fit_frames(again, start, free_frames=True).sampling.num_frames
    assert chosen % step == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 12), st.integers(1, 40))
def test_sized_frames_are_the_nearest_multiple_of_a_unit_that_fits(budget, unit, preferred):
    resize = BudgetResize(budget, 28, 2)
    shapes = [(720, round(720 * aspect)) for aspect in COMMON_ASPECTS]

    def fits(frames):
        try:
            for height, width in shapes:
                resize(height, width, frames)
        except InfeasibleBudget:
            return False
        return True

    even = [n for n in range(unit, 2 * budget + 1, unit) if n % 2 == 0]
    wanted = -(-preferred // 2) * 2
    try:
        chosen = resize.frames_near(preferred, unit)
    except InfeasibleBudget:
        assert not any(fits(n) for n in even)
        return
    assert chosen in even
    assert fits(chosen)
    assert not any(fits(n) for n in even if abs(n - wanted) < abs(chosen - wanted))


def test_what_a_method_will_refuse_or_without_a_budget_nothing_is_chosen():
    for method, frames in ((SlowFast(), 1), (SlowFast(slow_frames=9), 9)):
        refused = FramePlan(Sampling(num_frames=frames), grid_rules=(method.grids,))
        assert fit_frames(fixed(5000), refused, free_frames=False) is refused
    start = FramePlan(Sampling(num_frames=8), grid_rules=(SlowFast().grids,))
    assert fit_frames(fixed(None), start, free_frames=True) is start
