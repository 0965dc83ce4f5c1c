"""Failed questions in lmms-eval's hands: no filter and no metric of any task is given one.

The tasks of this package score a `Failure` themselves (`tempeval.tasks.failed.scorer`). Those of
lmms-eval and of its other plugins know texts only, and many take an empty one for an answer, guess
in its place or leave it out. So each task that a tempeval model answers is guarded: its own
`process_results` sees documents with answers only, and of a document without one

- a metric that is lmms-eval's `mean` and better when higher gets a 0;
- any other metric has no honest value: what its items mean is known to nobody but the task. It is
  `N/A` for the whole task, and a warning says so;
- `failed`, a metric that the guard adds to every task, counts.
"""

from __future__ import annotations

import functools
import importlib
import logging
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.document import IDENTITY
from tempeval.model_wrappers.results import failed_choice
from tempeval.tasks.failed import FAILED, Failure, failure_in, takes_failures

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LOG = logging.getLogger(__name__)
_GUARDED = "_tempeval_guarded"


class FailedScore(float):
    """The 0 of a failed sample under a mean; a number to the host, and told from a scored 0."""


class NotKnown(str):
    """The value of a metric that failed samples leave without one; so is a group's mean over it.

    lmms-eval prints it and writes it into its results file as it writes a missing standard error,
    and takes weighted means of it.
    """

    __slots__ = ()

    def __new__(cls) -> NotKnown:
        """Build the one value that there is."""
        return super().__new__(cls, "N/A")

    def _same(self, _other: Any) -> NotKnown:
        return self

    __add__ = __radd__ = __mul__ = __rmul__ = __truediv__ = _same


def guard(request: Any) -> None:
    """Keep failures from the filters and metrics of the task that made a request.

    Args:
        request: an instance of lmms-eval; its functions are methods of the task. A task whose
            requests do not lead back to it cannot be guarded, and is named in a warning.
    """
    task = _task_of(request)
    if task is None:
        _warn_once(request.task_name)
    elif not getattr(task, _GUARDED, False):
        task.apply_filters = functools.partial(_apply_filters, task, task.apply_filters)
        task.process_results = functools.partial(_process_results, task, task.process_results)
        setattr(task, _GUARDED, True)


def _task_of(request: Any) -> Any:
    owners = (getattr(value, "__self__", None) for value in request.args)
    return next((owner for owner in owners if hasattr(owner, "process_results")), None)


@functools.cache
def _warn_once(task_name: str) -> None:
    _LOG.warning(
        "%s: its requests do not lead to its task, so a question that fails reaches its filters "
        "and metrics, as an object that is no text",
        task_name,
    )


def _apply_filters(task: Any, apply: Callable[[], Any]) -> Any:
    """Filter the answers; a failure is what every filter gives of a failed request.

    Filters pair answers with documents by their place, so a failed one keeps its place meanwhile.
    """
    failed = [(one, one.resps) for one in task._instances if failure_in(one.resps) is not None]
    for one, given in failed:
        stand_in = "" if one.request_type.startswith("generate") else failed_choice()
        one.resps = [stand_in for _ in given]
    try:
        found = apply()
    finally:
        for one, given in failed:
            one.resps = given
    for one, given in failed:
        one.filtered_resps = dict.fromkeys(one.filtered_resps, failure_in(given))
    return found


def _process_results(
    task: Any, process: Callable[..., Any], doc: Any, results: Sequence[Any], **more: Any
) -> Any:
    if takes_failures(getattr(task.config, "process_results", None)):
        return process(doc, results, **more)
    failure = failure_in(results)
    if failure is None:
        found = process(doc, results, **more)
        return {FAILED: 0, **found} if isinstance(found, dict) else found
    return _foreign(task, doc, failure)


def _foreign(task: Any, doc: Any, failure: Failure) -> dict[str, Any]:
    """Return the metrics of a failed document, and what joins it with those of other runs."""
    better = task.higher_is_better()
    found: dict[str, Any] = {
        name: doc[name] for name in IDENTITY if isinstance(doc, dict) and name in doc
    }
    if next(iter(better.values()), True):
        found[getattr(task.config, "score_key", None) or "score"] = 0.0
    means = _means()
    for name, aggregation in task.aggregation().items():
        counted = aggregation in means and better.get(name)
        found[name] = FailedScore() if counted else failure
    return {**found, FAILED: 1, "failure": failure.reason}


@functools.cache
def _means() -> tuple[Any, ...]:
    """Return the functions that are the mean of their items."""
    metrics = importlib.import_module("lmms_eval.api.metrics")
    return (metrics.mean,)


def install() -> None:
    """Make lmms-eval aggregate tasks with failed samples, in this process; again does nothing.

    A tempeval model calls it when it is made. Results without failed samples are untouched.
    """
    output = importlib.import_module("lmms_eval.evaluator_utils").TaskOutput
    original = output.calculate_aggregate_metric
    if getattr(original, _GUARDED, False):
        return

    @functools.wraps(original)
    def calculate_aggregate_metric(self: Any, *args: Any, **kwargs: Any) -> None:
        left_out = _settle(self)
        original(self, *args, **kwargs)
        _state(self, left_out)

    setattr(calculate_aggregate_metric, _GUARDED, True)
    output.calculate_aggregate_metric = calculate_aggregate_metric


Key = tuple[str, str]


def _settle(output: Any) -> dict[Key, list[Any]]:
    """Take out the metrics that have no value; there is a number for every sample of the others."""
    left_out: dict[Key, list[Any]] = {}
    for (metric, filter_key), items in list(output.sample_metrics.items()):
        failed = [isinstance(item, (Failure, FailedScore)) for item in items]
        if metric == FAILED or not any(failed):
            continue
        known = [item for item, bad in zip(items, failed, strict=True) if not bad]
        documents = len(output.sample_metrics[FAILED, filter_key])
        whole = len(items) == documents  # else nobody knows which part a failed document is of
        numbers = all(isinstance(item, (int, float)) for item in known)
        if whole and numbers and all(isinstance(i, (int, float)) for i in items):
            least = min([0.0, *map(float, known)])
            settled = [least if bad else item for item, bad in zip(items, failed, strict=True)]
            output.sample_metrics[metric, filter_key] = settled
        else:
            left_out[metric, filter_key] = items
            del output.sample_metrics[metric, filter_key]
    for key in left_out:
        output.per_sample_metrics.pop(key, None)
    return left_out


def _state(output: Any, left_out: dict[Key, list[Any]]) -> None:
    """Put the metrics without a value back as such, and add the number of failed samples."""
    counts = {key: sum(items) for key, items in output.sample_metrics.items() if key[0] == FAILED}
    for (metric, filter_key), count in counts.items():
        if metric not in output.task.aggregation():
            output.agg_metrics[f"{metric},{filter_key}"] = count
            output.agg_metrics[f"{metric}_stderr,{filter_key}"] = "N/A"
            if output.sample_len is None:
                output.sample_len = len(output.sample_metrics[metric, filter_key])
    for (metric, filter_key), items in left_out.items():
        # Without a number among them the host tells no spread of the samples that were answered.
        output.sample_metrics[metric, filter_key] = [i for i in items if isinstance(i, Failure)]
        output.agg_metrics[f"{metric},{filter_key}"] = NotKnown()
        output.agg_metrics[f"{metric}_stderr,{filter_key}"] = "N/A"
    if left_out:
        names = sorted({metric for metric, _ in left_out})
        _LOG.warning(
            "%s: %d samples failed, and what they are worth to %s is known to that task alone, so "
            "there is no value (N/A). Run it again where every sample can be answered",
            *(output.task_name, max(counts.values()), ", ".join(names)),
        )
