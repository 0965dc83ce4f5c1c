"""What a run record says: the schema of `run.json`, read into frozen dataclasses."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tempeval.leaderboard.errors import BadRecord

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SCHEMA = 1
STATUSES = ("complete", "partial", "failed")

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

# Per-question measures: the field of a token_counts entry -> unit. `seconds` is derived.
MEASURES = {
    "visual_tokens": "tokens",
    "token_layers": "tokens (sum over layers of visual tokens present / layers)",
    "kv_bytes": "bytes",
    "seconds": "seconds per question, standalone",
    "prefill_flops": "floating-point operations",
    "frames": "frames",
    "distinct_temporal_ids": "ids",
    "quantised_fraction": "fraction",
    "peak_memory_bytes": "bytes",
}

_RERUN = "Rerun it with this version of tempeval, or leave it out"
_NUMBER = (int, float)
_NONE = type(None)
_RUN_TYPES: dict[str, tuple[type, ...]] = {
    "tempeval_version": (str,),
    "method_settings": (dict,),
    "method_fingerprint": (str,),
    "method_label": (str,),
    "model": (str,),
    "model_revision": (str,),
    "family": (str,),
    "tasks": (dict,),
    "frame_policy": (dict,),
    "visual_token_budget": (int, _NONE),
    "min_pixels": (int, _NONE),
    "max_pixels": (int, _NONE),
    "position_rule": (str,),
    "dtype": (str,),
    "attention_kernel": (str, _NONE),
    "device": (str,),
    "gpu": (str, _NONE),
    "world_size": (int,),
    "seed": (int,),
    "limit": (*_NUMBER, _NONE),
    "packages": (dict,),
    "started": (str,),
    "finished": (str, _NONE),
    "wall_seconds": (*_NUMBER, _NONE),
    "command": (str,),
}
_TASK_TYPES: dict[str, tuple[type, ...]] = {
    "version": (int, float, str),
    "prompt_hash": (str,),
    "dataset_digest": (str,),
    "expected": (int,),
    "answered": (int,),
    "failed": (int,),
    "unparsed": (int,),
    "samples_file": (str,),
    "score_key": (str,),
    "cluster_key": (str,),
    "higher_is_better": (bool,),
    "group": (str, _NONE),
}


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task of a run, as its `run.json` describes it; the counts are samples."""

    name: str
    version: str
    prompt_hash: str
    dataset_digest: str
    expected: int
    answered: int
    failed: int
    unparsed: int
    samples_file: str
    score_key: str
    cluster_key: str
    higher_is_better: bool
    group: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One method x one base model x one frame budget, over one or more tasks.

    `name` is the run folder relative to what all runs have in common, so that output does not
    depend on where the folder lies. `frame_policy` is canonical JSON. `wall_seconds` is in
    seconds, `limit` in samples (a fraction of the samples below 1).
    """

    name: str
    status: str
    method: str
    fingerprint: str
    label: str
    settings: Mapping[str, Any]
    model: str
    model_revision: str
    family: str
    tasks: tuple[TaskRecord, ...]
    frame_policy: str
    visual_token_budget: int | None
    min_pixels: int | None
    max_pixels: int | None
    position_rule: str
    dtype: str
    attention_kernel: str | None
    device: str
    gpu: str | None
    world_size: int
    seed: int
    limit: float | None
    packages: Mapping[str, str]
    tempeval_version: str
    started: str
    finished: str | None
    wall_seconds: float | None
    command: str


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one task of one run as columns, sorted by sample id.

    Attributes:
        ids: sample ids, unique.
        contents: content hashes.
        clusters: `key=value` of the task's cluster key, so that ids of different keys differ.
        digest: hash of ids, contents and clusters; equal digests mean rows align.
        score: [n], 0 for failed samples.
        by_sum: [n], score by the sum of log-likelihoods where `score` is by their mean per token,
            0 for failed samples; NaN where the file does not say.
        failed: [n], True where the run recorded an error instead of an answer.
        unparsed: [n], 1 where the answer could not be parsed, NaN where the file does not say.
        measures: name (see MEASURES) -> [n], NaN where not measured.
    """

    ids: tuple[str, ...]
    contents: tuple[str, ...]
    clusters: tuple[str, ...]
    digest: str
    score: Floats
    by_sum: Floats
    failed: Bools
    unparsed: Floats
    measures: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Entry:
    """One task of one run with its samples: what is matched and compared."""

    run: Run
    task: TaskRecord
    samples: Samples


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a run, or some of its tasks, is not in a table.

    Attributes:
        run: the run's name.
        method: its printed method name, empty when it could not be read.
        tasks: the tasks concerned; empty for the whole run.
        field: what differs or is wrong.
        value: this run's value.
        other: the value of the baseline, or what is accepted.
        reason: a sentence.
        action: what to do about it.
    """

    run: str
    method: str
    tasks: tuple[str, ...]
    field: str
    value: str
    other: str
    reason: str
    action: str


def parse_head(path: Path, text: bytes) -> dict[str, Any]:
    """Parse a `run.json` as far as every record must be readable, finished or not.

    Args:
        path: where it was read, for messages.
        text: the file's bytes.

    Returns:
        The record with schema, status and method checked and nothing else.

    Raises:
        BadRecord: not JSON, another schema version, or one of these keys missing or of a
            wrong type.
    """
    try:
        raw = json.loads(text, parse_constant=str, parse_float=_finite)
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error.msg})"
        raise BadRecord(path, error.lineno, reason, _RERUN) from None
    except (UnicodeDecodeError, RecursionError):
        raise BadRecord(path, None, "not JSON (unreadable bytes)", _RERUN) from None
    if not isinstance(raw, dict) or "schema" not in raw:
        raise BadRecord(path, None, "not a run record: it has no key 'schema'", _RERUN)
    if raw["schema"] != SCHEMA or isinstance(raw["schema"], bool):
        reason = f"schema {raw['schema']!r} is not known; this version reads schema {SCHEMA}"
        raise BadRecord(path, None, reason, "Use the tempeval version that wrote it, or rerun it")
    head: dict[str, tuple[type, ...]] = {"status": (str,), "method": (str,), "error": (str, _NONE)}
    _check(path, "", raw, head)
    if raw["status"] not in STATUSES:
        reason = f"status {raw['status']!r} is none of {', '.join(STATUSES)}"
        raise BadRecord(path, None, reason, _RERUN)
    return raw


def parse_run(path: Path, name: str, raw: dict[str, Any]) -> Run:
    """Check all keys of a record and give it as a Run.

    Args:
        path: where it was read, for messages.
        name: the run's printed name.
        raw: the result of `parse_head`.

    Returns:
        The run, tasks sorted by name.

    Raises:
        BadRecord: a key is missing or of a wrong type; the message names it.
    """
    _check(path, "", raw, _RUN_TYPES)
    tasks = []
    for task, value in sorted(raw["tasks"].items()):
        where = f"tasks.{task}."
        if not isinstance(value, dict):
            raise BadRecord(path, None, f"{where[:-1]} is {_kind(value)}, not an object", _RERUN)
        _check(path, where, value, _TASK_TYPES)
        fields = {key: value[key] for key in _TASK_TYPES}
        tasks.append(TaskRecord(**{**fields, "name": task, "version": str(value["version"])}))
    if not tasks:
        raise BadRecord(path, None, "tasks is empty", _RERUN)
    renamed = {"method_settings": "settings", "method_fingerprint": "fingerprint"}
    renamed["method_label"] = "label"
    fields = {renamed.get(key, key): raw[key] for key in _RUN_TYPES}
    fields["frame_policy"] = json.dumps(_policy(raw), sort_keys=True)
    fields["packages"] = {str(k): str(v) for k, v in sorted(raw["packages"].items())}
    fields["tasks"] = tuple(tasks)
    return Run(name=name, status=raw["status"], method=raw["method"], **fields)


def _policy(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the frame policy with whatever else changes what the model sees, where it does."""
    policy = dict(raw["frame_policy"])
    # A budget may choose other frames for a method; what they were chosen near is shared.
    policy["num_frames"] = policy.pop("base_num_frames", policy.get("num_frames"))
    decoder = raw.get("decoder")
    if decoder not in (None, "auto", "pyav"):
        policy["decoder"] = decoder
    if raw.get("system_prompt") is not None:
        policy["system_prompt"] = raw["system_prompt"]
    if raw.get("mm_newline_position") not in (None, "one_token"):
        policy["mm_newline_position"] = raw["mm_newline_position"]
    return policy


def _check(
    path: Path, where: str, raw: dict[str, Any], types: Mapping[str, tuple[type, ...]]
) -> None:
    """Raise BadRecord for the first key that is missing or has a type not in `types`."""
    for key, accepted in types.items():
        if key not in raw:
            raise BadRecord(path, None, f"key '{where}{key}' is missing", _RERUN)
        value = raw[key]
        if (isinstance(value, bool) and bool not in accepted) or not isinstance(value, accepted):
            wanted = " or ".join("null" if kind is _NONE else kind.__name__ for kind in accepted)
            reason = f"key '{where}{key}' is {_kind(value)}, not {wanted}"
            raise BadRecord(path, None, reason, _RERUN)


def _finite(number: str) -> float | str:
    """Give a float; one too large for it stays text, since JSON out cannot hold infinity."""
    value = float(number)
    return value if math.isfinite(value) else number


def _kind(value: object) -> str:
    """Name a JSON value's type and, where short, the value."""
    text = json.dumps(value)
    return f"{type(value).__name__} {text}" if len(text) <= 40 else type(value).__name__
