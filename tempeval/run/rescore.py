"""Score a file of answers with a task's own functions, without a model and without the host."""

from __future__ import annotations

import inspect
import json
import math
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tempeval.errors import TempevalError
from tempeval.metrics.unavailable import MetricUnavailable
from tempeval.task_config import task_config
from tempeval.task_sources import source_rows
from tempeval.tasklist import LIST_HINT, task_entries
from tempeval.tasks.answers import Index
from tempeval.tasks.failed import FAILED, Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tempeval.benchmarks.document import Doc


#: In the place of an answer that the predictions do not have.
NO_PREDICTION = Failure("the file of predictions does not have it")


class BadPredictions(TempevalError):
    """A file of predictions that is not `{sample_id: answer}`, or does not fit the task."""


@dataclass
class Scores:
    """What one task or group scores.

    Attributes:
        metrics: percent by name; a metric that cannot be computed here is in `errors` instead.
        errors: why a metric is missing, by name.
        samples: answers that were scored.
        unused: predictions that belong to no sample of the task.
        missing: samples without a prediction; they are wrong under every metric.
        failed: samples that were not scored, for want of a prediction or of a judge's reply.
        unread: predictions of samples in which no answer could be read.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    samples: int = 0
    unused: int = 0
    missing: int = 0
    failed: int = 0
    unread: int = 0


@dataclass(frozen=True)
class _Part:
    """One task's values as fractions, with the number of samples."""

    values: Mapping[str, float]
    errors: Mapping[str, str]
    size: int
    failed: int
    unread: int


def read_predictions(path: Path) -> dict[str, str]:
    """Read `{sample_id: answer}`, or NExT-QA's official `{sample_id: {prediction, answer}}`.

    A byte order mark is put aside. Numbers become an `Index`, texts of digits stay texts.

    Raises:
        BadPredictions: if the file cannot be read, is not a JSON object, names a sample twice, or
            an answer is neither a text nor a finite number.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_no_repeats)
    except (OSError, ValueError, RecursionError) as error:
        raise BadPredictions(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict):
        raise BadPredictions(
            f"{path} holds a {type(found).__name__}; accepted: an object {{sample_id: answer}}"
        )
    found = {name: _predicted(answer) for name, answer in found.items()}
    for name, answer in found.items():
        text_or_whole = isinstance(answer, (str, int)) and not isinstance(answer, bool)
        if not text_or_whole and not (isinstance(answer, float) and math.isfinite(answer)):
            raise BadPredictions(
                f"{path}: the answer of {name!r} is {answer!r}; accepted: a text or a finite number"
            )
    return {name: _as_text(answer) for name, answer in found.items()}


def _predicted(answer: Any) -> Any:
    official = isinstance(answer, dict) and set(answer) in (
        {"prediction"},
        {"prediction", "answer"},
    )
    return answer["prediction"] if official else answer


def _as_text(answer: str | float) -> str:
    """Return a text as it is, and a number as an `Index`, 3.0 as 3."""
    if isinstance(answer, str):
        return answer
    return Index(int(answer) if answer == int(answer) else answer)


def rescore(
    name: str,
    predictions: Mapping[str, str],
    data_root: str | Path,
    *,
    allow_missing: bool = False,
    submission: Path | None = None,
) -> Scores:
    """Score predictions for a task or a group.

    Args:
        name: task or group.
        predictions: answer by sample id.
        data_root: folder with the official annotation files (no video is needed).
        allow_missing: count samples without a prediction as wrong under every metric, instead of
            refusing. They are no empty answers, which the rules of some benchmarks take for right.
        submission: where to write the file that a task with hidden answers hands in.

    Returns:
        For a task its metrics; for a group those of its members, named by what follows the group's
        name, and the group's own.

    Raises:
        UnknownName: if there is no such task.
        MissingData, BadData: if the annotation files are missing or damaged.
        BadPredictions: if samples have no prediction, or none of the predictions fits.
        TempevalError: for a task that scores log-likelihoods, that is of no benchmark, or that
            writes no submission file and should.
    """
    entry = task_entries().get(name)
    config = task_config(name)
    members = entry.members if entry is not None and entry.kind == "group" else (name,)
    configs = {member: task_config(member) for member in members}
    for member, of in configs.items():
        _check_rescorable(member, of)
    if submission is not None and not any(map(_hands_in, configs.values())):
        raise TempevalError(f"{name} writes no submission file; leave --submission out")
    args = SimpleNamespace(submission_file=submission)
    docs = {member: _docs(of, data_root) for member, of in configs.items()}
    scores = _fit(docs, predictions, allow_missing)
    parts = {member: _part(of, docs[member], predictions, args) for member, of in configs.items()}
    if members == (name,):
        _add(scores, "", parts[name])
        return scores
    for member, part in parts.items():
        _add(scores, f"{member.removeprefix(name).lstrip('_')}_", part)
    _add_group(scores, config, list(parts.values()))
    return scores


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return found


def _check_rescorable(name: str, config: Mapping[str, Any]) -> None:
    if config.get("output_type") != "generate_until" or "process_results" not in config:
        others = [n for n in task_entries() if n.startswith(name.rpartition("_")[0]) and n != name]
        raise TempevalError(
            f"{name} scores log-likelihoods, not texts, so there is nothing to rescore; tasks "
            f"with a similar name: {', '.join(sorted(others)) or 'none'}"
        )
    if not any("benchmark" in row for row in source_rows(config)[:1]):
        raise TempevalError(
            f"{name} is no task of a benchmark: it has no official annotation files to score "
            f"against. {LIST_HINT}"
        )


def _docs(config: Mapping[str, Any], data_root: str | Path) -> list[Doc]:
    """Return the documents of a task: its `process_docs` on the source row, with a data root."""
    from tempeval.benchmarks.roots import using_root
    from tempeval.tasks.documents import docs_of

    rows = source_rows(config)
    with using_root(data_root):
        return docs_of(config["process_docs"](rows))


def _fit(
    docs: Mapping[str, Sequence[Doc]], predictions: Mapping[str, str], allow_missing: bool
) -> Scores:
    known = [doc["sample_id"] for of in docs.values() for doc in of]
    missing = [name for name in known if name not in predictions]
    used = len(set(predictions).intersection(known))
    if not used or (missing and not allow_missing):
        close = next(iter(predictions), None)
        raise BadPredictions(
            f"{len(missing)} of {len(known)} samples have no prediction, the first is "
            f"{missing[0]!r} (the file's first id is {close!r}). Add them, or pass "
            "--allow-missing to count them as wrong"
        )
    return Scores(samples=len(known), unused=len(predictions) - used, missing=len(missing))


def _hands_in(config: Mapping[str, Any]) -> bool:
    """Tell whether a metric of a task takes the host's arguments: it writes a file."""
    return any(_takes_args(entry["aggregation"]) for entry in config["metric_list"])


def _part(
    config: Mapping[str, Any], docs: Sequence[Doc], predictions: Mapping[str, str], args: Any
) -> _Part:
    """Score one task as the host does: each sample, then each metric over those that gave it."""
    items: dict[str, list[Any]] = {}
    unread = 0
    for doc in docs:
        answer = predictions.get(doc["sample_id"], NO_PREDICTION)
        found = config["process_results"](doc, [answer])
        unread += doc["sample_id"] in predictions and bool(found.get("parse_failure"))
        for metric, value in found.items():
            items.setdefault(metric, []).append(value)
    values: dict[str, float] = {}
    errors: dict[str, str] = {}
    for entry in config["metric_list"]:
        metric = entry["metric"]
        if metric == FAILED:
            continue  # a count among percentages
        if all(value is None for value in items.get(metric, ())):
            continue  # of a part that has no sample
        try:
            value = _aggregation(entry["aggregation"], args)(items[metric])
        except MetricUnavailable as error:
            errors[metric] = str(error)
        else:
            if value is not None:  # it only writes a file
                values[metric] = value
    return _Part(values, errors, len(docs), sum(items.get(FAILED, ())), unread)


def _takes_args(aggregation: Any) -> bool:
    return callable(aggregation) and "args" in inspect.signature(aggregation).parameters


def _aggregation(named: Any, args: Any) -> Callable[[Sequence[Any]], float | None]:
    if named == "mean":
        return lambda found: math.fsum(float(value) for value in found) / len(found)
    if not callable(named):
        raise TempevalError(f"aggregation {named!r} is not known here; accepted: mean, a function")
    inner: Callable[..., float | None] = getattr(named, "__wrapped__", named)
    return partial(inner, args=args) if _takes_args(inner) else inner


def _add(scores: Scores, prefix: str, part: _Part) -> None:
    scores.metrics.update({f"{prefix}{name}": 100 * v for name, v in part.values.items()})
    scores.errors.update({f"{prefix}{name}": why for name, why in part.errors.items()})
    scores.failed += part.failed
    scores.unread += part.unread


def _add_group(scores: Scores, config: Mapping[str, Any], parts: Sequence[_Part]) -> None:
    """Add the group's own means; one over a part that lacks the metric is left out, and said."""
    names = (config.get("metadata") or {}).get("score_names", {})
    for entry in config.get("aggregate_metric_list", ()):
        metric = entry["metric"]
        if metric == FAILED:
            continue
        name = names.get(metric, metric)
        if any(metric not in part.values for part in parts):
            scores.errors[name] = f"{metric} is missing in a member of the group"
            continue
        weights = [part.size if entry.get("weight_by_size", True) else 1 for part in parts]
        total = math.fsum(w * p.values[metric] for w, p in zip(weights, parts, strict=True))
        scores.metrics[name] = 100 * total / sum(weights)
