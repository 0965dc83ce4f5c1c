"""`run.json`: what one run was, how it ended, and the counts that say whether to trust it."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tempeval.errors import InvalidSetting, TempevalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SCHEMA = 1
FILE_NAME = "run.json"
#: Errors of single samples that a record quotes; all of them are in the samples files.
MAX_QUOTED_FAILURES = 20

Status = Literal["complete", "partial", "failed"]
Json = dict[str, Any]


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
    """

    name: str
    version: str | int | float
    expected: int
    score_key: str
    cluster_key: str
    higher_is_better: bool
    group: str | None


def task_record(
    facts: TaskFacts, prompt_hash: str, samples_file: str, samples: Sequence[Mapping[str, Any]]
) -> Json:
    """Count the samples of one task.

    Args:
        facts: what the task is.
        prompt_hash: digest of its rendered prompts.
        samples_file: name of the JSONL, relative to the run folder.
        samples: the host's logged samples.
    """
    errors = [error_of(sample) for sample in samples]
    unparsed = [
        bool(sample.get("parse_failure"))
        for sample, error in zip(samples, errors, strict=True)
        if error is None
    ]
    failed = len(samples) - len(unparsed)
    return {
        "version": facts.version,
        "prompt_hash": prompt_hash,
        "dataset_digest": dataset_digest(samples),
        "expected": facts.expected,
        "answered": len(unparsed),
        "failed": failed,
        "unparsed": sum(unparsed),
        "samples_file": samples_file,
        "score_key": facts.score_key,
        "cluster_key": facts.cluster_key,
        "higher_is_better": facts.higher_is_better,
        "group": facts.group,
    }


def error_of(sample: Mapping[str, Any]) -> str | None:
    """Return the recorded error of a sample, or None when it was answered."""
    for counts in sample.get("token_counts") or ():
        if counts and counts.get("error"):
            return str(counts["error"])
    return None


def failures_of(samples: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the first errors by sample id."""
    found = ((identity(sample)[0], error_of(sample)) for sample in samples)
    errors = {name: error for name, error in found if error is not None}
    return dict(sorted(errors.items())[:MAX_QUOTED_FAILURES])


def dataset_digest(samples: Iterable[Mapping[str, Any]]) -> str:
    """Return the digest of which samples were evaluated and what they contain."""
    return digest(sorted(identity(sample) for sample in samples))


def identity(sample: Mapping[str, Any]) -> tuple[str, str]:
    """Return sample id and content hash; a foreign task without them gets its document number."""
    fields = {**_mapping(sample.get("sample")), **sample}
    return str(fields.get("sample_id", f"doc-{sample.get('doc_id')}")), str(
        fields.get("content_hash", "")
    )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def status_of(tasks: Mapping[str, Mapping[str, int]], max_failures: str = "0") -> Status:
    """Say how a run ended.

    Args:
        tasks: counts by task.
        max_failures: failed samples that a complete run may have; see `allowed_failures`.

    Returns:
        `complete` when every expected sample was answered or is an allowed failure.
    """
    expected = sum(task["expected"] for task in tasks.values())
    failed = sum(task["failed"] for task in tasks.values())
    there = all(task["answered"] + task["failed"] == task["expected"] for task in tasks.values())
    if tasks and there and failed <= allowed_failures(max_failures, expected):
        return "complete"
    return "partial" if any(task["answered"] for task in tasks.values()) else "failed"


def allowed_failures(text: str, expected: int) -> int:
    """Read `--max-failures`: a number of samples, or a share such as `5%`.

    Args:
        text: `0`, `N` or `R%`.
        expected: samples of the run.

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
            f"max_failures={text!r} is not accepted; give a number of samples such as 3, or a "
            "share such as 5%"
        )
    return int(expected * value / 100) if share else int(value)


def digest(value: object) -> str:
    """Return the SHA-256 of a JSON value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def read_record(folder: Path) -> Json | None:
    """Return the record of a run folder, or None when there is none.

    Raises:
        TempevalError: if it cannot be read.
    """
    path = folder / FILE_NAME
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TempevalError(
            f"{path} cannot be read ({error}); remove it, or pass --overwrite"
        ) from error
    if not isinstance(record, dict):
        raise TempevalError(f"{path} is not a JSON object; remove it, or pass --overwrite")
    return record


def write_record(folder: Path, record: Mapping[str, Any]) -> Path:
    """Write `run.json` whole or not at all: beside its place, flushed, then renamed."""
    path = folder / FILE_NAME
    part = folder / f".{FILE_NAME}.{os.getpid()}"
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(record, file, indent=2, ensure_ascii=False, default=str)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


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
