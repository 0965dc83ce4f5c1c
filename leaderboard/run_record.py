"""Read `run.json`: every key checked, nothing guessed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tempeval.leaderboard.errors import BadRecord
from tempeval.leaderboard.json_file import parse_object
from tempeval.leaderboard.records import Run, TaskRecord, VideoCounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SCHEMA = 1
STATUSES = ("complete", "partial", "failed", "interrupted")

_RERUN = "Rerun it with this version of tempeval, or leave it out"
_NUMBER = (int, float)
# No count, seed or time is as large; larger whole numbers may not fit a float.
_MOST = 2**64
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
# Where there is a number, it must be above 0.
_POSITIVE = ("visual_token_budget", "min_pixels", "max_pixels", "limit")
_POSITIVE_FRAMES = ("num_frames", "base_num_frames", "fps")
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
# What records of before do not say: then no sample was left out, nothing is known of damage, and
# the run is compared with none whose record has the digests.
_TASK_EXTRA: dict[str, tuple[type, ...]] = {
    "skipped": (int,),
    "skipped_digest": (str, _NONE),
    "damaged": (int,),
    "videos": (dict,),
    "task_digest": (str,),
    "videos_digest": (str,),
    "unranked": (str,),
}
_VIDEO_TYPES: dict[str, tuple[type, ...]] = {"total": (int,), "damaged": (int,), "flags": (dict,)}


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
    raw = parse_object(path, text, _RERUN)
    if "schema" not in raw:
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
        BadRecord: a key is missing, of a wrong type or out of range; the message names it.
    """
    _check(path, "", raw, _RUN_TYPES)
    _check_positive(path, "", raw, _POSITIVE)
    _check_positive(path, "frame_policy.", raw["frame_policy"], _POSITIVE_FRAMES)
    tasks = []
    for task, value in sorted(raw["tasks"].items()):
        where = f"tasks.{task}."
        if not isinstance(value, dict):
            raise BadRecord(path, None, f"{where[:-1]} is {_kind(value)}, not an object", _RERUN)
        _check(path, where, value, _TASK_TYPES)
        extra = {key: kinds for key, kinds in _TASK_EXTRA.items() if key in value}
        _check(path, where, value, extra)
        fields = {key: value[key] for key in (*_TASK_TYPES, *extra)}
        if "videos" in fields:
            fields["videos"] = _videos(path, f"{where}videos.", fields["videos"])
        tasks.append(TaskRecord(**{**fields, "name": task, "version": str(value["version"])}))
    if not tasks:
        raise BadRecord(path, None, "tasks is empty", _RERUN)
    renamed = {"method_settings": "settings", "method_fingerprint": "fingerprint"}
    renamed["method_label"] = "label"
    fields = {renamed.get(key, key): raw[key] for key in _RUN_TYPES}
    fields["frame_policy"] = json.dumps(_policy(raw), sort_keys=True)
    fields["packages"] = {str(k): str(v) for k, v in sorted(raw["packages"].items())}
    fields["tasks"] = tuple(tasks)
    fields["code"] = _code(path, raw)
    return Run(name=name, status=raw["status"], method=raw["method"], **fields)


def _videos(path: Path, where: str, raw: dict[str, Any]) -> VideoCounts:
    _check(path, where, raw, _VIDEO_TYPES)
    _check(path, f"{where}flags.", raw["flags"], dict.fromkeys(raw["flags"], (int,)))
    return VideoCounts(raw["total"], raw["damaged"], dict(sorted(raw["flags"].items())))


def _code(path: Path, raw: dict[str, Any]) -> dict[str, str]:
    if "code" not in raw:
        return {}
    _check(path, "", raw, {"code": (dict,)})
    _check(path, "code.", raw["code"], dict.fromkeys(raw["code"], (str,)))
    return dict(sorted(raw["code"].items()))


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
    if raw.get("gen_kwargs"):
        policy["gen_kwargs"] = raw["gen_kwargs"]
    if raw.get("mm_newline_position") not in (None, "one_token"):
        policy["mm_newline_position"] = raw["mm_newline_position"]
    return {name: _plain(value) for name, value in policy.items()}


def _plain(value: Any) -> Any:
    """Write whole numbers one way: 2 frames/s are 2.0 frames/s."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


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
        if isinstance(value, _NUMBER) and not abs(value) < _MOST:
            digits = f"a number of {len(str(value))} digits" if isinstance(value, int) else value
            reason = f"key '{where}{key}' is {digits}; accepted: less than {_MOST:.0e}"
            raise BadRecord(path, None, reason, _RERUN)


def _check_positive(path: Path, where: str, raw: Mapping[str, Any], keys: Sequence[str]) -> None:
    for key in keys:
        value = raw.get(key)
        if isinstance(value, _NUMBER) and value <= 0:
            reason = f"key '{where}{key}' is {_kind(value)}; accepted: a number above 0, or null"
            raise BadRecord(path, None, reason, _RERUN)


def _kind(value: object) -> str:
    """Name a JSON value's type and, where short, the value."""
    text = json.dumps(value)
    return f"{type(value).__name__} {text}" if len(text) <= 40 else type(value).__name__
