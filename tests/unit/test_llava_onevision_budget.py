"""Budgets where only the number of frames can be chosen, against counting all numbers."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempeval.errors import InfeasibleBudget, InvalidSetting
from tempeval.families.llava_onevision_budget import FixedFrames
from tempeval.video.clip import Sampling

rules = st.builds(
    FixedFrames,
    per_frame=st.integers(1, 240),
    per_video=st.integers(0, 1),
    budget=st.integers(1, 4000),
    num_visuals=st.integers(1, 3),
)


def total(rule, frames):
    return rule.num_visuals * (frames * rule.per_frame + rule.per_video)


def numbers(rule, budget):
    return range(1, budget // rule.per_frame + 2)


def fits(rule, frames, budget=None):
    return 0.98 * (budget or rule.budget) <= total(rule, frames) <= (budget or rule.budget)


def nearest_named(error):
    return int(re.search(r"Nearest feasible[^:]*: (\d+)", str(error.value))[1])


@given(rules, st.integers(1, 64))
def test_frames_near_is_the_nearest_of_all_numbers(rule, preferred):
    every = [f for f in numbers(rule, rule.budget) if fits(rule, f)]
    if every:
        chosen = rule.frames_near(preferred)
        assert fits(rule, chosen)
        assert abs(chosen - preferred) == min(abs(f - preferred) for f in every)
        rule.check(Sampling(num_frames=chosen))
        return
    with pytest.raises(InfeasibleBudget, match=f"={rule.budget}: no number of frames") as error:
        rule.frames_near(preferred)
    # The budget it names has a number of frames, and none between the two has.
    nearest = nearest_named(error)
    between = range(min(rule.budget, nearest), max(rule.budget, nearest) + 1)
    served = [b for b in between if any(fits(rule, f, b) for f in numbers(rule, b))]
    assert served == [nearest]


@given(rules, st.integers(1, 64))
def test_a_sampling_is_refused_exactly_when_it_does_not_fit(rule, frames):
    if fits(rule, frames):
        rule.check(Sampling(num_frames=frames))
        assert rule(37, 53, frames) == (37, 53)
        return
    for attempt in (lambda: rule.check(Sampling(num_frames=frames)), lambda: rule(37, 53, frames)):
        with pytest.raises(InfeasibleBudget) as error:
            attempt()
        nearest = nearest_named(error)
        assert fits(rule, frames, nearest)
        further = nearest + (1 if nearest < rule.budget else -1)  # one step towards the budget
        assert not fits(rule, frames, further)


def test_the_message_says_what_would_fit():
    rule = FixedFrames(per_frame=196, per_video=1, budget=6273)
    rule.check(Sampling(num_frames=32))
    named = r"64 frames of 196 tokens make 12545, .*: 12545; 32 frames would fit this one"
    with pytest.raises(InfeasibleBudget, match=named):
        rule.check(Sampling(num_frames=64))


def test_a_rate_does_not_go_with_a_budget():
    sampling = Sampling("fps", 8, 2.0)
    FixedFrames(per_frame=9).check(sampling)
    with pytest.raises(InvalidSetting, match=r"fps=2\.0 gives every video its own"):
        FixedFrames(per_frame=9, budget=72).check(sampling)


def test_without_a_budget_everything_goes():
    rule = FixedFrames(per_frame=9, per_video=1)
    assert rule.frames_near(17) == 17
    assert rule(480, 640, 17) == (480, 640)
    assert rule.tokens(17) == 154


@pytest.mark.parametrize("settings", [{"budget": 0}, {"budget": 5, "num_visuals": 0}])
def test_senseless_rules_are_refused(settings):
    with pytest.raises(InvalidSetting, match="at least 1"):
        FixedFrames(per_frame=9, **settings)


def test_rules_travel_to_decoding_processes():
    rule = FixedFrames(per_frame=9, budget=72)
    assert pickle.loads(pickle.dumps(rule)) == rule  # noqa: S301 - our own bytes
    assert hash(rule) == hash(FixedFrames(per_frame=9, budget=72))
