"""The goals that the numbers of a benchmark are held against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.bench.results import BASELINE, EXIT, PAS, STAGED_GOAL_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.bench.results import LabelsRow, MethodRow, QuestionsRow, Results, StagedRow

#: By number of labels: how much faster than that many forwards, and the forwards it may cost.
LEAST_RATIOS = {27: 12, 174: 60}
MOST_FORWARDS = {174: 2, 700: 6}


@dataclass(frozen=True)
class Goal:
    """A goal and what was measured.

    Attributes:
        text: the goal.
        measured: the value next to it.
        met: whether it is reached.
    """

    text: str
    measured: str
    met: bool


def goals_of(results: Results) -> list[Goal]:
    """Hold the results against the goals; what was not measured is left out."""
    goals = [goal for row in results.questions for goal in _question_goals(row)]
    largest = max((row.tokens for row in results.labels), default=0)
    for row in results.labels:
        if row.count == 27 or row.tokens == largest:
            goals += _label_goals(row)
    goals += [goal for row in results.staged for goal in _staged_goals(row)]
    for method in results.methods:
        where = f"prefill at {method.tokens} tokens, {method.facts['layers']} layers"
        if method.chain == EXIT:
            goals.append(
                Goal(
                    f"{where}: temporal exit at most 0.78 of dense",
                    f"{method.ratio.median:.3f}",
                    method.ratio.median <= 0.78,
                )
            )
        if method.chain == PAS:
            text = f"{where}: PAS at most 1.05 of dense (upper end of the interval)"
            met = method.ratio.high <= 1.05
            measured = f"{method.ratio.high:.3f}" + ("" if met else _why(method, results.methods))
            goals.append(Goal(text, measured, met))
    return goals


def operator_share(operator: dict[str, Any], baseline: MethodRow) -> float:
    """Return the seconds of an operator alone as a share of the baseline's prefill."""
    return float(operator["seconds"]) / baseline.seconds


def _label_goals(row: LabelsRow) -> list[Goal]:
    where = f"{row.count} labels at {row.tokens} tokens"
    goals = []
    if row.count in LEAST_RATIOS:
        least = LEAST_RATIOS[row.count]
        text = f"{where}: at least {least} times faster than {row.count} forwards"
        goals.append(Goal(text, f"{row.ratio.median:.1f}", row.ratio.median >= least))
    if row.count in MOST_FORWARDS:
        most = MOST_FORWARDS[row.count]
        text = f"{where}: at most the time of {most} forwards"
        goals.append(Goal(text, f"{row.forwards:.2f}", row.forwards <= most))
    return goals


def _why(row: MethodRow, rows: Sequence[MethodRow]) -> str:
    """Set a missed goal against what the operator alone costs, where that was measured."""
    if row.operator is None:
        return f" (median {row.ratio.median:.3f})"
    baseline = next(
        other for other in rows if (other.tokens, other.chain) == (row.tokens, BASELINE)
    )
    share = 100 * operator_share(row.operator, baseline)
    return (
        f" (median {row.ratio.median:.3f}; the query shift alone costs {share:.2f} %, see under "
        "the table)"
    )


def _staged_goals(row: StagedRow) -> list[Goal]:
    strategies = row.chain.partition("=")[2].strip("]")
    if row.tokens < STAGED_GOAL_TOKENS or strategies not in ("2", "3"):
        return []
    text = (
        f"prefill and a question at {row.tokens} tokens, {row.facts['layers']} layers: strategy "
        f"({strategies}) not slower than dense"
    )
    return [Goal(text, f"{row.ratio.median:.3f}", row.ratio.median <= 1)]


def _question_goals(row: QuestionsRow) -> list[Goal]:
    count = row.facts["questions"]
    where = f"{count} question{'s' if count > 1 else ''} per video at {row.tokens} tokens"
    ratio = row.ratio
    if count == 1:
        measured = f"{ratio.median:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
        text = f"{where}: not slower than stock (median at least 1)"
        return [Goal(text, measured, ratio.median >= 1)]
    if count == 15:
        return [
            Goal(f"{where}: at least 10 times stock", f"{ratio.median:.1f}", ratio.median >= 10),
            Goal(
                f"{where}: at least 85 % of the limit",
                f"{100 * row.share:.0f} %",
                row.share >= 0.85,
            ),
        ]
    return []
