"""Frames of a fixed number of tokens under a budget: how many, and what stage `tokens` keeps."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from tempeval.errors import InfeasibleBudget
from tempeval.families.llava_onevision_budget import largest_budget
from tempeval.families.pixel_budget import MIN_FILL_PERCENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.families.llava_onevision_budget import FixedFrames
    from tempeval.video.clip import FramePlan, GridRule


def fit_frames(fixed: FixedFrames, plan: FramePlan, *, free_frames: bool) -> FramePlan:
    """Choose frames and settings of grid rules that make 98 to 100 % of a budget.

    First the choice that leaves the rules' wanted settings least, then the number of frames
    nearest to the plan's.

    Args:
        fixed: tokens per frame, and the budget.
        plan: after stage `frames`.
        free_frames: whether the number of frames may change, to a multiple of the plan's unit.

    Returns:
        The plan with its final number of frames, and with grid rules that leave no choice; as it
        is, if its number of frames is given and one that a method refuses.

    Raises:
        InfeasibleBudget: if there is no such choice, naming the nearest budget that has one.
    """
    budget = fixed.budget
    if budget is None:
        return plan
    if free_frames:
        fixed = replace(fixed, block=math.lcm(fixed.block, plan.unit))
    wanted = plan.sampling.num_frames
    if not plan.grid_rules:
        frames = fixed.frames_near(wanted) if free_frames else wanted
        return replace(plan, sampling=replace(plan.sampling, num_frames=frames))
    # A frame has at least one token.
    most = budget + fixed.block
    numbers = range(fixed.block, most + 1, fixed.block) if free_frames else [wanted]
    low = -(-budget * MIN_FILL_PERCENT // 100)
    best: tuple[tuple[float, int, int], tuple[GridRule, ...]] | None = None
    below, above = 0, 0
    for frames in numbers:
        fewest = None
        for cost, rules, tokens in _choices(fixed, plan.grid_rules, frames):
            fewest = tokens if fewest is None else min(fewest, tokens)
            if tokens > budget:
                above = min(above or tokens, tokens)
            elif tokens < low:
                below = max(below, tokens)
            else:
                rank = (cost, abs(frames - wanted), -frames)
                if best is None or rank < best[0]:
                    best = rank, rules
        if fewest is not None and fewest > budget:
            break
    if not (below or above or best):
        return plan
    if best is None:
        lower = largest_budget(below)
        nearest = lower if lower and budget - lower < above - budget else above
        number = "no number of" if free_frames else str(wanted)
        blocks = f" in blocks of {fixed.block}" if free_frames and fixed.block > 1 else ""
        raise InfeasibleBudget(
            f"visual_token_budget={budget}: {number} frames{blocks}, as the chain pools "
            f"them, make {MIN_FILL_PERCENT} to 100 % of it. Nearest feasible: {nearest or lower}"
            + ("" if free_frames else "; or leave num_frames to the budget")
        )
    (_, _, minus_frames), rules = best
    return replace(
        plan, sampling=replace(plan.sampling, num_frames=-minus_frames), grid_rules=rules
    )


def _choices(
    fixed: FixedFrames, rules: Sequence[GridRule], frames: int
) -> Iterator[tuple[float, tuple[GridRule, ...], int]]:
    """Yield cost, rules and tokens of all visuals, up to the first that is above the budget.

    Of several rules, the last one's choices are gone through for each choice of the others.
    """
    *others, last = rules
    for chosen in itertools.product(*(rule.choices(frames) for rule in others)):
        for cost, rule in last.choices(frames):
            picked = (*(r for _, r in chosen), rule)
            tokens = fixed.tokens_after(picked, frames) * fixed.num_visuals
            yield cost + sum(c for c, _ in chosen), picked, tokens
            if tokens > (fixed.budget or 0):
                break  # choices come with fewest tokens first
