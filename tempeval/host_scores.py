"""What a sample of lmms-eval's own tasks, or of anybody's, scores: their tasks know means only.

A leaderboard pairs samples, so each needs a name, a cluster and a score. Tasks of this package
write them. For any other task

- the name of a sample is the hash of its document, which lmms-eval writes;
- its cluster is the video that it shows, so that questions about one video are one cluster;
- its score is the task's own aggregation applied to this sample alone. Where the mean of those is
  not the task's number (a mean over categories, a corpus score), no score of a sample is right, and
  the task is not ranked, with that reason.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import math
import os
import tempfile
from argparse import Namespace
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tempeval.errors import InvalidSetting, UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Sample = dict[str, Any]

Unit = Literal["percent", "fraction"]
UNITS: tuple[Unit, ...] = ("percent", "fraction")
#: Keys of a samples line that this module writes.
SAMPLE_ID, CONTENT, CLUSTER = "sample_id", "content_hash", "video_id"
#: What an aggregation raises that is not made for one sample.
_FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError),
    *(TypeError, ValueError),
)
#: Largest difference between a task's number and the mean of its samples', relative to the larger.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Metric:
    """Which of a task's metrics ranks it, as `--metric` says.

    Attributes:
        name: as the task's YAML lists it.
        unit: `percent` for numbers from 0 to 100, which are divided by 100; `fraction` for numbers
            from 0 to 1; None: numbers are kept as they are.
    """

    name: str
    unit: Unit | None = None

    @classmethod
    def parse(cls, text: str) -> Metric:
        """Read `NAME`, `NAME:percent` or `NAME:fraction`.

        Raises:
            InvalidSetting: for another unit, or no name.
        """
        name, _, unit = text.strip().partition(":")
        if unit and unit not in UNITS:
            raise InvalidSetting(
                f"metric {text!r}: unit {unit!r} is not known; accepted: NAME, "
                + ", ".join(f"NAME:{known}" for known in UNITS)
            )
        if not name:
            raise InvalidSetting(f"metric {text!r} has no name; accepted: NAME, NAME:percent")
        return cls(name, next((known for known in UNITS if known == unit), None))


@dataclass(frozen=True)
class Scoring:
    """Where the scores of a task's samples are, and whether they rank it.

    Attributes:
        metric: whose scores they are; empty where the task has no number.
        score_key: key of the score in a samples line.
        cluster_key: key of the cluster in a samples line.
        higher_is_better: of the metric.
        unranked: why the task cannot be ranked; empty where it can.
    """

    metric: str
    score_key: str
    cluster_key: str
    higher_is_better: bool
    unranked: str = ""


def check_metric(task: Any, metric: Metric) -> None:
    """Refuse a metric that a task does not have, before anything is answered.

    Raises:
        UnknownName: with those that it has.
    """
    known = list(task.aggregation())
    if metric.name not in known:
        raise UnknownName(f"metric of {task.config.task}", metric.name, known)


def score_samples(
    task: Any,
    samples: list[Sample],
    results: Mapping[str, Any],
    videos: Sequence[Sequence[str]],
    metric: Metric | None = None,
) -> Scoring:
    """Give each sample of a task a name, a cluster and a score, in place.

    Args:
        task: lmms-eval's object.
        samples: as lmms-eval logs them.
        results: the task's part of lmms-eval's results: `METRIC,FILTER` to a number.
        videos: paths of the videos of each document, by its number; empty where unknown.
        metric: which one; None for the first of the task's that has a number.

    Returns:
        Where the scores are. With `unranked`, the samples have no score.
    """
    name, problem = _chosen(task, results, metric)
    unit = metric.unit if metric is not None else None
    better = bool(task.higher_is_better().get(name, True))
    cluster_key = getattr(task.config, "cluster_key", None)
    if cluster_key is None or any(cluster_key not in sample for sample in samples):
        cluster_key = CLUSTER
    _identify(samples, videos)
    key = f"{name} of one sample" if name else "score"
    scoring = Scoring(name, key, cluster_key, better)
    if not problem:
        problem = _several(samples)
    scores: list[float] = []
    if not problem:
        scores, problem = _scores(task, name, samples, results)
    if not problem and unit is not None:
        scores, problem = _in_unit(scores, name, unit)
    if problem:
        return Scoring(name, key, cluster_key, better, problem)
    for sample, score in zip(samples, scores, strict=True):
        sample[key] = score
    return scoring


def _chosen(task: Any, results: Mapping[str, Any], metric: Metric | None) -> tuple[str, str]:
    """Return the metric that ranks a task, and why it has none."""
    names = [metric.name] if metric is not None else list(task.aggregation())
    for name in names:
        if _number(_result(results, name)) is not None:
            return name, ""
    asked = names[0] if metric is not None else ""
    said = ", ".join(f"{name} is {_shown(_result(results, name))}" for name in names)
    return asked, f"it has no metric that is a number ({said or 'it lists no metric'})"


def _shown(value: object) -> str:
    return "missing" if value is None else str(value)[:40]


def _result(results: Mapping[str, Any], metric: str) -> Any:
    """Return what lmms-eval says of a metric, under whatever filter; None where it says nothing."""
    return next((value for key, value in results.items() if key.partition(",")[0] == metric), None)


def _number(value: object) -> float | None:
    """Return a finite number as float, and None for anything else."""
    if isinstance(value, bool):
        return float(value)
    if isinstance(value, (int, float)) or hasattr(value, "__float__"):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            found = float(value)  # of NumPy and torch, too
            return found if math.isfinite(found) else None
    return None


def _identify(samples: Sequence[Sample], videos: Sequence[Sequence[str]]) -> None:
    """Give samples the names and clusters that they lack."""
    known = [path for paths in videos for path in paths]
    root = os.path.commonpath({os.path.dirname(path) for path in known}) if _alike(known) else ""  # noqa: PTH120
    seen: dict[str, int] = {}
    for sample in samples:
        content = str(sample.get("doc_hash", ""))
        sample.setdefault(CONTENT, content)
        if SAMPLE_ID not in sample:
            # Two documents may say the same: each is a sample.
            seen[content] = seen.get(content, 0) + 1
            again = seen[content]
            sample[SAMPLE_ID] = content if again == 1 else f"{content}-{again}"
        number = int(sample.get("doc_id", -1))
        paths = videos[number] if 0 <= number < len(videos) else ()
        # Relative to where all of them lie, which is another folder on another machine.
        shown = [os.path.relpath(path, root) if root else path for path in paths]
        sample.setdefault(CLUSTER, " ".join(shown) or sample[SAMPLE_ID])


def _alike(paths: Sequence[str]) -> bool:
    """Return True if paths have a common folder: all are absolute, or none is."""
    return bool(paths) and len({os.path.isabs(path) for path in paths}) == 1  # noqa: PTH117


def _several(samples: Sequence[Sample]) -> str:
    """Say why samples cannot be told apart: a task with several filters logs each one again."""
    documents = {sample.get("doc_id") for sample in samples}
    if len(documents) == len(samples):
        return ""
    return (
        f"lmms-eval logged {len(samples)} samples of {len(documents)} documents, which is what a "
        "task with several filters gives; rank it under one filter"
    )


def _scores(
    task: Any, name: str, samples: Sequence[Sample], results: Mapping[str, Any]
) -> tuple[list[float], str]:
    """Return what the aggregation makes of each sample alone; empty, and why, where it says less.

    A failed sample scores 0.
    """
    answered = [sample for sample in samples if not sample.get("failure")]
    if any(name not in sample for sample in answered):
        lacking = sum(name not in sample for sample in answered)
        return [], f"{lacking} of {len(samples)} samples carry no {name}"
    with _alone(task, name) as aggregate:
        alone: list[float] = []
        for sample in answered:
            value, problem = aggregate([sample[name]])
            if value is None:
                return [], f"{name} of one sample alone is no number ({problem})"
            alone.append(value)
        whole, problem = aggregate([sample[name] for sample in answered])
    if len(answered) == len(samples):  # else lmms-eval's own number is over the failed ones too
        whole = _number(_result(results, name))
    mean = math.fsum(alone) / len(alone) if alone else 0.0
    if whole is None:
        return [], f"{name} of the answered samples is no number ({problem})"
    if abs(whole - mean) > TOLERANCE * max(1.0, abs(whole), abs(mean)):
        return [], (
            f"its {name} is {whole:.6g}, and the mean of what its samples score alone is "
            f"{mean:.6g}: no score of one sample says what the task counts"
        )
    values = iter(alone)
    return [0.0 if sample.get("failure") else next(values) for sample in samples], ""


@contextlib.contextmanager
def _alone(task: Any, name: str) -> Iterator[Callable[[list[Any]], tuple[float | None, str]]]:
    """Give a task's aggregation as a function that is silent and whose files go nowhere."""
    aggregation = task.aggregation()[name]
    takes_args = "args" in inspect.signature(aggregation).parameters
    given = vars(task.args) if isinstance(getattr(task, "args", None), Namespace) else {}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        # Aggregations that write a submission write it there: the real one is written by now.
        args = Namespace(**{**given, "output_path": folder})

        def aggregate(items: list[Any]) -> tuple[float | None, str]:
            try:
                value = aggregation(items, args=args) if takes_args else aggregation(items)
            except _FAULTS as error:
                return None, f"{type(error).__name__}: {error}"
            return _number(value), f"it is {_shown(value)}"

        yield aggregate


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what a task's code logs and prints about one sample from the log and the terminal."""
    from loguru import logger

    logger.disable("lmms_eval")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.enable("lmms_eval")


def _in_unit(scores: list[float], name: str, unit: Unit) -> tuple[list[float], str]:
    """Return scores as fractions; empty, and why, where they are not in the unit."""
    most = 100.0 if unit == "percent" else 1.0
    outside = [score for score in scores if not 0 <= score <= most]
    if outside:
        return [], f"{name} is said to be in {unit}, and a sample scores {outside[0]:.6g}"
    return [score / most for score in scores], ""
