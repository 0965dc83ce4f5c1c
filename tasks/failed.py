"""What a failed question scores: wrong, under every metric of its task.

A question fails where there is no answer: its video cannot be read, memory ran out, a file of
predictions does not have it, a judge gave no reply. That is no empty answer. What a model wrote,
an empty text too, is scored by the rules of the benchmark, some of which take an empty text for
right; a failure reaches none of them. `scorer` is the one place that says what it scores instead.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.document import IDENTITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Process = Callable[["Doc", Sequence[Any]], "Metrics"]

Doc = dict[str, Any]
Metrics = dict[str, Any]

#: Metric of every task: how many of its samples failed.
FAILED = "failed"
#: Status of a sample that nothing was read from, because there is nothing to read.
STATUS = "failed"
#: Numbers of a sample that say nothing about its answer.
_KEPT = frozenset({*IDENTITY, "chance"})


@dataclass(frozen=True)
class Failure:
    """What stands in the place of an answer that there is not; no text.

    Attributes:
        reason: why.
    """

    reason: str

    def __str__(self) -> str:
        """Return what lmms-eval writes into its samples file in place of an answer."""
        return f"[failed: {self.reason}]"

    def strip(self) -> Failure:
        """Return itself: lmms-eval strips whatever a generation task is given."""
        return self


def failure_in(results: Iterable[Any]) -> Failure | None:
    """Return the first failure among the results of one question, None where all are answers."""
    for result in results:
        if isinstance(result, Failure):
            return result
        if type(result) is list and (found := failure_in(result)) is not None:
            return found
    return None


def scorer(unanswered: Callable[[Doc], Metrics]) -> Callable[[Process], Process]:
    """Make a function that scores answers one that a task YAML may name as `process_results`.

    The function under it is called with answers only. Every sample gets the metric `failed`, 1 or
    0, and a failed one its `failure`, the reason.

    Args:
        unanswered: what a sample of this task carries, by document: the same names, None for the
            metrics that do not apply to the document. Its numbers do not matter, `wrong` replaces
            them.
    """

    def of(score: Process) -> Process:
        @functools.wraps(score)
        def process(doc: Doc, results: Sequence[Any]) -> Metrics:
            failure = failure_in(results)
            if failure is None:
                return {FAILED: 0, **score(doc, results)}
            return {**wrong(unanswered(doc)), FAILED: 1, "failure": failure.reason}

        process.takes_failures = True  # type: ignore[attr-defined]
        return process

    return of


def takes_failures(process: Any) -> bool:
    """Return True if a `process_results` scores failures itself: `scorer` made it."""
    return bool(getattr(process, "takes_failures", False))


def wrong(sample: Metrics) -> Metrics:
    """Return a sample in which every score is 0, the least that an answer can get.

    A failed sample stays in every mean that it belongs to, those of its category among them. It
    names no option, class or text, and it is no answer that could not be parsed.
    """
    found = {name: value if name in _KEPT else _zero(value) for name, value in sample.items()}
    return found | {"parsed": None} | ({"parse_status": STATUS} if "parse_status" in found else {})


def _zero(value: Any) -> Any:
    if isinstance(value, (bool, float)):
        return type(value)(0)
    if isinstance(value, dict) and isinstance(value.get("score"), float):
        return {**value, "score": 0.0}
    return value
