"""Count the samples and videos of a run, and say whether it is complete."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting
from tempeval.run.record import USAGE_KEY, TaskRecord, VideoCounts
from tempeval.video.flags import DAMAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tempeval.run.record import Status

#: Errors of single samples that a record quotes; all of them are in the samples files.
MAX_QUOTED_FAILURES = 20


@dataclass(frozen=True)
class Allowed:
    """What a complete run may lack: options of a request, which change no answer.

    Attributes:
        failures: failed samples: a number, or a share of them such as `5%`.
        damaged: damaged videos, likewise; None for any number of them.
    """

    failures: str = "0"
    damaged: str | None = None

    def check(self) -> None:
        """Raise InvalidSetting for what is neither a number nor a share."""
        allowed_failures(self.failures, expected=1)
        if self.damaged is not None:
            allowed_number("max_damaged", "videos", self.damaged, 1)


@dataclass(frozen=True)
class TaskFacts:
    """What the host's task object says, before any answer.

    Attributes:
        name: task name.
        version: version of the YAML.
        expected: documents to evaluate, after the limit.
        score_key: key of the score in a samples line.
        cluster_key: key of the cluster in a samples line.
        higher_is_better: of the first metric.
        group: group that lists the task, or None.
        unranked: why no leaderboard can rank the task; empty where one can.
    """

    name: str
    version: str | int | float
    expected: int
    score_key: str
    cluster_key: str
    higher_is_better: bool
    group: str | None
    unranked: str = ""


def task_record(
    facts: TaskFacts,
    samples_file: str,
    samples: Sequence[Mapping[str, Any]],
    *,
    digests: Mapping[str, Any],
    videos_of: Callable[[int], Sequence[str]] = lambda _doc: (),
    skipped: Sequence[str] = (),
) -> TaskRecord:
    """Count the samples of one task, and the videos that they are about.

    Args:
        facts: what the task is.
        samples_file: name of the JSONL, relative to the run folder.
        samples: the host's logged samples.
        digests: `prompt_hash`, `task_digest`, `videos_digest` and `video_stamps`.
        videos_of: a document's number to the paths of its videos; where it knows none, the sample
            says which video it is about.
        skipped: names of the samples that were left out because their video is not there.
    """
    errors = [error_of(sample) for sample in samples]
    unparsed = [
        bool(sample.get("parse_failure"))
        for sample, error in zip(samples, errors, strict=True)
        if error is None
    ]
    failed = len(samples) - len(unparsed)
    found = damage_of(samples, videos_of)
    return TaskRecord(
        version=str(facts.version),
        **digests,
        dataset_digest=dataset_digest(samples, skipped),
        expected=facts.expected,
        answered=len(unparsed),
        failed=failed,
        unparsed=sum(unparsed),
        skipped=len(skipped),
        skipped_digest=skipped_digest(skipped),
        videos=videos_record([found]),
        damaged=sum(
            error is None and bool(damage_flags(sample))
            for sample, error in zip(samples, errors, strict=True)
        ),
        samples_file=samples_file,
        score_key=facts.score_key,
        cluster_key=facts.cluster_key,
        higher_is_better=facts.higher_is_better,
        group=facts.group,
        unranked=facts.unranked,
    )


def usage_of(sample: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the requests of a sample used, as its line has it; see `record.Usage`."""
    return [usage for usage in sample.get(USAGE_KEY) or () if usage]


def error_of(sample: Mapping[str, Any]) -> str | None:
    """Return the recorded error of a sample, or None when it was answered."""
    for usage in usage_of(sample):
        if usage.get("error"):
            return str(usage["error"])
    failure = sample.get("failure")  # of what came after the answer, such as a judge
    return None if failure is None else str(failure)


def skipped_digest(skipped: Sequence[str]) -> str | None:
    """Return the digest of which samples of a task were left out; None for none."""
    return digest(sorted(skipped)) if skipped else None


def damage_flags(sample: Mapping[str, Any]) -> frozenset[str]:
    """Return the flags of a sample that say its video is defective; see `tempeval.video.flags`."""
    return DAMAGE.intersection(f for usage in usage_of(sample) for f in usage.get("flags") or ())


def damage_of(
    samples: Iterable[Mapping[str, Any]], videos_of: Callable[[int], Sequence[str]]
) -> dict[str, frozenset[str]]:
    """Return the damage flags by video, with no flag for a sound one.

    A sample about several videos has the flags of all of them, so they count as one.
    """
    found: dict[str, frozenset[str]] = {}
    for sample in samples:
        fields = {**_mapping(sample.get("sample")), **sample}
        paths = videos_of(int(sample.get("doc_id", -1)))
        name = "\n".join(paths) or fields.get("video_id")
        if name:
            found[str(name)] = found.get(str(name), frozenset()) | damage_flags(sample)
    return found


def videos_record(tasks: Iterable[Mapping[str, frozenset[str]]]) -> VideoCounts:
    """Count the videos of some tasks, each video once: all, damaged ones, and those of each flag.

    Args:
        tasks: what `damage_of` gives of each.
    """
    videos: dict[str, frozenset[str]] = {}
    for task in tasks:
        for name, flags in task.items():
            videos[name] = videos.get(name, frozenset()) | flags
    names = sorted({flag for flags in videos.values() for flag in flags})
    return VideoCounts(
        total=len(videos),
        damaged=sum(map(bool, videos.values())),
        flags={name: sum(name in flags for flags in videos.values()) for name in names},
    )


def method_label(spec: str, notes: Sequence[str]) -> str:
    """Return what tables print for a chain: its spelling, and what a reader must know of it."""
    return f"{spec} ({'; '.join(notes)})" if notes else spec


def failures_of(samples: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the first errors by sample id."""
    found = ((identity(sample)[0], error_of(sample)) for sample in samples)
    errors = {name: error for name, error in found if error is not None}
    return dict(sorted(errors.items())[:MAX_QUOTED_FAILURES])


def dataset_digest(samples: Iterable[Mapping[str, Any]], skipped: Sequence[str] = ()) -> str:
    """Return the digest of which samples were evaluated and what they contain.

    Args:
        samples: the evaluated ones.
        skipped: names of those that were left out: samples of foreign tasks have no names of their
            own, but go by their place among those that are left.
    """
    found: list[Any] = sorted(identity(sample) for sample in samples)
    return digest([found, sorted(skipped)] if skipped else found)


def identity(sample: Mapping[str, Any]) -> tuple[str, str]:
    """Return sample id and content hash; a foreign task without them gets its document number."""
    fields = {**_mapping(sample.get("sample")), **sample}
    return str(fields.get("sample_id", f"doc-{sample.get('doc_id')}")), str(
        fields.get("content_hash", "")
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def status_of(
    tasks: Mapping[str, TaskRecord], videos: VideoCounts | None, allowed: Allowed
) -> Status:
    """Say how a run ended.

    Args:
        tasks: counts by task.
        videos: of the whole run; None if unknown.
        allowed: what a complete run may lack.

    Returns:
        `complete` when every expected sample was answered or is an allowed failure, and no more
        videos are damaged than are allowed.
    """
    expected = sum(task.expected for task in tasks.values())
    failed = sum(task.failed for task in tasks.values())
    there = all(task.answered + task.failed == task.expected for task in tasks.values())
    if (
        tasks
        and there
        and failed <= allowed_failures(allowed.failures, expected)
        and not too_damaged(videos, allowed)
    ):
        return "complete"
    return "partial" if any(task.answered for task in tasks.values()) else "failed"


def too_damaged(videos: VideoCounts | None, allowed: Allowed) -> bool:
    """Return True if more of a run's videos are damaged than are allowed."""
    if allowed.damaged is None or videos is None:
        return False
    most = allowed_number("max_damaged", "videos", allowed.damaged, videos.total)
    return videos.damaged > most


def allowed_failures(text: str, expected: int) -> int:
    """Read `--max-failures`: a number of samples, or a share such as `5%`.

    Args:
        text: `0`, `N` or `R%`.
        expected: samples of the run.

    Raises:
        InvalidSetting: if it is neither.
    """
    return allowed_number("max_failures", "samples", text, expected)


def allowed_number(option: str, what: str, text: str, total: int) -> int:
    """Read a number, or a share of a total such as `5%`.

    Args:
        option: its name, for the message.
        what: is counted, for the message.
        text: `0`, `N` or `R%`.
        total: what a share is of.

    Raises:
        InvalidSetting: if it is neither.
    """
    share = text.endswith("%")
    try:
        value = float(text[:-1]) if share else int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= (100 if share else float("inf")):  # NaN is in no range
        raise InvalidSetting(
            f"{option}={text!r} is not accepted; give a number of {what} such as 3, or a "
            "share such as 5%"
        )
    return int(total * value / 100) if share else int(value)


def digest(value: object) -> str:
    """Return the SHA-256 of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return `name: old -> new` for every key whose value differs, in order of name."""
    names = sorted({*old, *new})
    return [
        f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}"
        for name in names
        if _plain(old.get(name)) != _plain(new.get(name))
    ]


def _plain(value: object) -> object:
    """Return the value as it reads back from JSON."""
    return json.loads(json.dumps(value, default=str))


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
