"""Rerun the baseline at the cost that a method has, when that is not the visual-token budget.

A method that saves token-layers, bytes or arithmetic has the baseline's visual tokens and less of
the rest. Matched on the rest, its fair opponent is the baseline with fewer visual tokens: how many
is found from measured runs, since tails, scales and pooling make no cost exactly proportional.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tempeval.errors import RunFailed, TempevalError
from tempeval.methods.registry import BASELINE
from tempeval.run.counting import usage_of
from tempeval.run.record import RunRecord, read_record
from tempeval.run.runner import run_matrix
from tempeval.run.spec import FRAMES, VISUAL_TOKENS, check_measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tempeval.run.record import TaskRecord
    from tempeval.run.spec import RunSpec

#: Largest difference of the means that the leaderboard takes as equal.
TOLERANCE = 0.02
#: Baseline runs per method, at most: the second corrects the first, the third is rarely needed.
MAX_RERUNS = 3


def rerun_baselines(
    options: RunSpec,
    folders: Sequence[Path],
    match_on: str,
    *,
    report: Callable[[str], None] = lambda _line: None,
    run: Callable[[RunSpec], list[Path]] = run_matrix,
) -> list[Path]:
    """Run the baseline at the cost of each method whose cost differs from it.

    Args:
        options: of the matrix that was run.
        folders: its run folders.
        match_on: one that `check_measure` accepts.
        report: gets one line of progress at a time.
        run: evaluates a matrix and returns its folders.

    Returns:
        The folders of the new runs. None where every method already costs what the baseline does,
        or the matrix has no baseline.

    Raises:
        UnknownName, InvalidSetting: as `check_measure` does.
        TempevalError: as `run` does, and for a record that cannot be read.
        RunFailed: after all methods, if the baseline cannot be run at the cost of one of them: with
            its number of frames, no size of frames may have that many tokens.
    """
    check_measure(match_on, options.budgets)
    if match_on == VISUAL_TOKENS:
        return []
    costs = [_Cost.of(folder, match_on) for folder in folders]
    bases = [cost for cost in costs if cost.method == BASELINE]
    new: list[Path] = []
    failed: list[str] = []
    for target in costs:
        fitting = [base for base in bases if base.budget == target.budget]
        if target.method == BASELINE or not fitting:
            continue
        known = [fitting[0], *(base for base in bases if base.budget != target.budget)]
        for _ in range(MAX_RERUNS):
            if any(_close(base.value, target.value) for base in known):
                break
            lower = _next_options(options, known, target, match_on)
            if lower is None:
                break
            report(
                f"{target.method} costs {target.value:.6g} {match_on} a question: "
                f"the baseline again with {_said(lower)}"
            )
            try:
                made = [_Cost.of(folder, match_on) for folder in run(lower)]
            except TempevalError as error:
                failed.append(f"{target.method}: {error}")
                break
            new += [cost.folder for cost in made]
            known += made
            bases += made
        else:
            nearest = min(known, key=lambda base: abs(base.value - target.value))
            report(
                f"{target.method}: no baseline within {TOLERANCE:.0%} of {target.value:.6g} "
                f"{match_on}; the nearest has {nearest.value:.6g}"
            )
    if failed:
        raise RunFailed(f"no baseline at the same {match_on} for {'; '.join(failed)}")
    return new


class _Cost:
    """What the questions of one run cost on average."""

    def __init__(self, folder: Path, method: str, budget: int | None, sums: dict[str, float]):
        self.folder, self.method, self.budget = folder, method, budget
        self.value, self.tokens, self.frames = sums["value"], sums[VISUAL_TOKENS], sums["frames"]

    @classmethod
    def of(cls, folder: Path, measure: str) -> _Cost:
        record = read_record(folder)
        if not isinstance(record, RunRecord):
            raise TempevalError(f"{folder} has no record of a run with scores")
        rows = [usage for task in record.tasks.values() for usage in _usage(folder, task)]
        if not rows:
            raise TempevalError(f"no question of {folder} was answered, so it has no cost")
        means = {
            name: math.fsum(float(row[key]) for row in rows) / len(rows)
            for name, key in (("value", measure), (VISUAL_TOKENS, VISUAL_TOKENS), ("frames",) * 2)
        }
        budget = record.visual_token_budget
        return cls(folder, record.method, budget, means)


def _usage(folder: Path, task: TaskRecord) -> Iterator[Mapping[str, Any]]:
    """Yield the usage of the answered questions of a task."""
    path = folder / task.samples_file
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                for usage in usage_of(json.loads(line))[:1]:
                    if usage.get("error") is None:
                        yield usage
    except (OSError, ValueError) as error:
        raise TempevalError(f"{path} cannot be read ({error}); run it again") from error


def _next_options(
    options: RunSpec, known: Sequence[_Cost], target: _Cost, measure: str
) -> RunSpec | None:
    """Return the matrix of one baseline run that should cost what the target does."""
    base = replace(options, methods=[BASELINE], settings={})
    if measure == FRAMES:
        frames = round(target.value)
        return None if options.num_frames == frames else replace(base, num_frames=frames)
    tokens = round(_tokens_for(known, target.value))
    if tokens < 1 or any(cost.budget == tokens for cost in known):
        return None
    # The method's frames, with fewer tokens each: more frames would be another frame policy.
    kept = options.num_frames if options.fps is not None else round(target.frames)
    return replace(base, budgets=[tokens], num_frames=kept)


def _tokens_for(known: Sequence[_Cost], value: float) -> float:
    """Return the visual tokens at which a cost is expected: a line through the two nearest runs."""
    points = sorted({(c.tokens, c.value) for c in known}, key=lambda p: abs(p[1] - value))
    (x0, y0), (x1, y1) = points[0], points[1] if len(points) > 1 else (0.0, 0.0)
    return x0 if y0 == y1 else x0 + (value - y0) * (x1 - x0) / (y1 - y0)


def _close(one: float, other: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(abs(one), abs(other))


def _said(options: RunSpec) -> str:
    if options.budgets:
        return f"a budget of {options.budgets[0]} visual tokens"
    return f"{options.num_frames} frames"
