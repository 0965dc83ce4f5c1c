"""The record of a run, `run.json`: every field with its type, unit and meaning; read and written.

The runner writes it, resuming, the leaderboard and the Python API read it, and docs/records.md is
made from it. What a question cost stands in the samples files, as `Usage` types it.
"""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic_core import PydanticCustomError

from tempeval.engine.usage import Usage
from tempeval.errors import RunFailed, TempevalError
from tempeval.host_files import bring_to_disk

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "FILE_NAME",
    "SCHEMA",
    "USAGE_KEY",
    "BadRecord",
    "FileFacts",
    "FramePolicy",
    "GitState",
    "ModelFacts",
    "RecordHead",
    "Request",
    "RunRecord",
    "StartedRecord",
    "Status",
    "TaskRecord",
    "Usage",
    "VideoCounts",
    "check_record",
    "parse_head",
    "parse_object",
    "read_record",
    "write_record",
]

SCHEMA: Literal[2] = 2
FILE_NAME = "run.json"
#: Where a line of a samples file has the usage of its question: the name is lmms-eval's.
USAGE_KEY = "token_counts"
#: What a record may say of how its run ended.
Status = Literal["complete", "partial", "failed", "interrupted"]

#: No count, seed or time is as large; larger whole numbers may not fit a float.
_MOST = 2**64
#: Records have about five levels; far more would not fit the stack of who writes or shows them.
_MOST_LEVELS = 50
_RERUN = "Run it again with this version of tempeval, or leave it out"
_OTHER = "Use the tempeval version that wrote it, or run it again with this one"


class BadRecord(TempevalError):
    """A `run.json` or samples file that cannot be used; other runs still can.

    Args:
        path: the file.
        line: line number from 1, or None when the whole file is meant.
        reason: what is wrong, with the value received.
        action: what to do about it.
    """

    def __init__(self, path: Path, line: int | None, reason: str, action: str) -> None:
        self.path, self.line, self.reason, self.action = path, line, reason, action
        where = str(path) if line is None else f"{path}:{line}"
        super().__init__(f"{where}: {reason}. {action}")


def _text(value: object) -> str:
    """Accept a text, half surrogates included, which names of files may hold."""
    if not isinstance(value, str):
        raise PydanticCustomError("string_type", "Input should be a text")
    return value


Text = Annotated[str, PlainValidator(_text)]
Count = Annotated[int, Field(ge=0, lt=_MOST)]
Whole = Annotated[int, Field(gt=-_MOST, lt=_MOST)]
Positive = Annotated[int, Field(gt=0, lt=_MOST)]
PositiveNumber = Annotated[float, Field(gt=0, lt=_MOST, allow_inf_nan=False)]
Number = Annotated[float, Field(gt=-_MOST, lt=_MOST, allow_inf_nan=False)]
Json = dict[Text, Any]


def _about(description: str, unit: str | None = None, default: Any = ..., **more: Any) -> Any:
    """Return a field with what docs/records.md says of it."""
    extra: dict[str, Any] = {"unit": unit} if unit else {}
    return Field(default, description=description, json_schema_extra=extra, **more)


class _Part(BaseModel):
    """What all parts of a record share: exact types, no unknown key, no change once made."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, protected_namespaces=(), populate_by_name=True
    )


class VideoCounts(_Part):
    """Videos, each counted once."""

    total: Count = _about("videos that were asked about", "videos")
    damaged: Count = _about("of these, those that decode with a defect", "videos")
    flags: dict[Text, Count] = _about("how many have each defect; one may have several", "videos")


class TaskRecord(_Part):
    """One task of a run; its counts are samples."""

    version: Text = _about("of the task's YAML")
    prompt_hash: Text = _about("digest of every rendered prompt")
    dataset_digest: Text = _about("digest of the names and contents of the samples")
    task_digest: Text = _about("digest of what asks and scores: YAML, code, data of metrics")
    videos_digest: Text = _about("digest of the contents of the videos")
    video_stamps: Text = _about("digest of size and time of the videos' files")
    expected: Count = _about("to be answered, after the limit", "samples")
    answered: Count = _about("that have an answer", "samples")
    failed: Count = _about("that have an error instead; they are wrong", "samples")
    unparsed: Count = _about("answered with a text that the task cannot read", "samples")
    skipped: Count = _about("left out because their video is not there", "samples")
    skipped_digest: Text | None = _about("which were left out; null for none")
    damaged: Count | None = _about("answered over a damaged video; null if unknown", "samples")
    videos: VideoCounts | None = _about("its videos; null if unknown")
    samples_file: Text = _about("lmms-eval's samples, beside the record")
    score_key: Text = _about("where a line of it has the score")
    cluster_key: Text = _about("where a line of it has what samples are clustered by")
    higher_is_better: bool = _about("of the score")
    group: Text | None = _about("group that lists the task; null for none")
    unranked: Text = _about("why no leaderboard can rank the task; empty where one can")
    p_c_change: Number | None = _about(
        "mean change of the right answer's probability against the baseline; null if unknown",
        "probability",
        None,
    )
    p_c_pairs: Count | None = _about("samples that this is the mean of", "samples", None)


class FramePolicy(_Part):
    """How frames are chosen."""

    rule: Text = _about("`uniform`, `segment` or `fps`")
    num_frames: Positive | None = _about("of a video, or the cap of rule `fps`", "frames")
    fps: PositiveNumber | None = _about("of rule `fps`; null for others", "frames per second")
    base_num_frames: Positive | None = _about(
        "what a budget chose for the model alone, where it chose another number for the method",
        "frames",
        None,
    )


class FileFacts(_Part):
    """By what a later run knows that a file is whole."""

    size: Count = _about("of the file", "bytes")
    sha256: Text = _about("of its content")


class GitState(_Part):
    """The checkout that the package ran from."""

    commit: Text = _about("that is checked out")
    dirty: bool = _about("a file of the package differs from it")


class Request(_Part):
    """What was asked for: the options of the run, and the benchmark's files."""

    model_config = ConfigDict(extra="allow")

    annotations: dict[Text, Text] = _about("digests of the benchmark's files, by name", default={})


class ModelFacts(_Part):
    """What the loaded model says of itself, its method and its frames."""

    method_label: Text = _about("what tables print: the chain, and what a reader must know of it")
    method_notes: list[Text] = _about("what the label has beside the chain")
    method_resolved: Json = _about("what the settings became for this model")
    model: Text = _about("checkpoint as it was asked for")
    model_revision: Text = _about("commit, or digest of the weights")
    base_model: Text | None = _about("below an adapter; null without one", default=None)
    base_revision: Text | None = _about("of the base model", default=None)
    adapter_revision: Text | None = _about("of the adapter", default=None)
    family: Text = _about("kind of model")
    family_settings: Json = _about("what this kind of model alone can set, as in force")
    frame_policy: FramePolicy = _about("how frames are chosen")
    shown: Json = _about(
        "what else changes what the model sees, where it is not the default; runs are compared "
        "where it is equal"
    )
    visual_token_budget: Positive | None = _about("planned, for a prompt; null for none", "tokens")
    min_pixels: Positive | None = _about("fewest for a frame", "pixels")
    max_pixels: Positive | None = _about("most for a frame", "pixels")
    position_rule: Text = _about("`original` or `native`")
    system_prompt: Text | None = _about("that replaces the chat template's own; null for none")
    gen_kwargs: Json = _about("generation arguments that the run put over the tasks' own")
    generation: Json = _about("what took effect of how answers are generated")
    quantization: Json | None = _about("of the weights; null where they are plain")
    dtype: Text = _about("of the weights")
    attention_kernel: Text | None = _about("that ran, joined by `+`; null for none")
    replayed: Count = _about("answers of earlier runs, from the journal", "requests")
    computed: Count = _about("all other answers", "requests")
    decoder: Text = _about("`auto` (PyAV), `pyav` or `decord`")
    device: Text = _about("of the model")
    gpu: Text | None = _about("its name; null on a CPU")
    packages: dict[Text, Text] = _about("versions by name")


class StartedRecord(_Part):
    """A run that has no scores: it has not ended, or ended before there were any."""

    schema_version: Literal[2] = _about("of this format", alias="schema")
    tempeval_version: Text = _about("that wrote the record")
    status: Status = _about(
        "`complete`: every sample is answered or an allowed failure; `partial`: some are not; "
        "`failed`; `interrupted`: stopped from outside"
    )
    error: Text | None = _about("why it is not complete; null where it is")
    method: Text = _about("the chain's name, without settings")
    method_settings: Json = _about("all settings of each method")
    method_fingerprint: Text = _about("digest of the methods and their settings")
    tasks: dict[Text, TaskRecord] = _about("by name; empty without scores")
    world_size: Count = _about("processes that answered", "processes")
    seed: Whole = _about("of Python, NumPy and torch")
    limit: Annotated[int | float | None, Field(gt=0, lt=_MOST)] = _about(
        "most samples of a task, or a share of them below 1; null for all", "samples"
    )
    started: Text = _about("ISO 8601, UTC")
    finished: Text | None = _about("ISO 8601, UTC; null for a run that did not finish")
    wall_seconds: Number | None = _about("from first to last, scoring included", "s")
    answering_seconds: Number | None = _about(
        "that answering took, for all methods that shared it", "s"
    )
    shared_with: Count | None = _about("number of those methods")
    command: Text = _about("that was run")
    request: Request = _about("what was asked for")
    code: dict[Text, Text] = _about("digests of the code that answers went through, part by part")
    git: GitState | None = _about("the package's checkout; null where it is installed")


class RunRecord(ModelFacts, StartedRecord):
    """A run with scores."""

    results_file: Text = _about("lmms-eval's results, beside the record")
    groups: dict[Text, Text] = _about("digests of what makes the scores of groups")
    files: dict[Text, FileFacts] = _about("results and samples files, by name")
    videos: VideoCounts = _about("the videos of all tasks")
    failures: dict[Text, Text] = _about("the first errors, by sample")
    left_out: dict[Text, Text] = _about("why a task was not evaluated, by name")


class RecordHead(_Part):
    """What every record says, whatever became of its run."""

    model_config = ConfigDict(extra="ignore")

    status: Status = _about("how the run ended")
    method: Text = _about("the chain's name, without settings")
    error: Text | None = _about("why it is not complete")
    method_label: Text | None = _about("what tables print", default=None)


_P = TypeVar("_P", bound=_Part)


def parse_object(path: Path, text: bytes, action: str, *, repeats: bool = True) -> dict[str, Any]:
    """Parse a file that holds one JSON object.

    Args:
        path: where it was read, for messages.
        text: the file's bytes.
        action: what to do when it cannot be used.
        repeats: whether a key may stand twice, the last of which counts.

    Returns:
        The object. NaN and infinity are text in it, since JSON has no such numbers.

    Raises:
        BadRecord: not JSON, no object, a key twice, or nested too deeply.
    """
    hook = None if repeats else _once
    try:
        raw = json.loads(text, parse_constant=str, parse_float=_finite, object_pairs_hook=hook)
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error.msg}); the file may be cut off"
        raise BadRecord(path, error.lineno, reason, action) from None
    except _Repeated as error:
        raise BadRecord(path, None, f"key {error} stands twice", action) from None
    except (ValueError, RecursionError):  # bad bytes, or a whole number of thousands of digits
        raise BadRecord(path, None, "not JSON (unreadable bytes)", action) from None
    if not isinstance(raw, dict):
        raise BadRecord(path, None, f"a {type(raw).__name__}, not an object", action)
    if _levels(raw) > _MOST_LEVELS:
        raise BadRecord(path, None, f"nested more than {_MOST_LEVELS} levels deep", action)
    return raw


def parse_head(
    path: Path, text: bytes, action: str | None = None
) -> tuple[RecordHead, dict[str, Any]]:
    """Parse a `run.json` as far as every record must be readable, finished or not.

    Args:
        path: where it was read, for messages.
        text: the file's bytes.
        action: what to do when it cannot be used; None for what a reader of many runs does.

    Returns:
        Schema, status and method checked, and the whole object with nothing else checked.

    Raises:
        BadRecord: not JSON, another schema, or one of these keys missing or of a wrong type.
    """
    raw = parse_object(path, text, action or _RERUN, repeats=False)
    if "schema" not in raw:
        raise BadRecord(path, None, "not a run record: it has no key 'schema'", action or _RERUN)
    schema = raw["schema"]
    if type(schema) is not int or schema != SCHEMA:
        whose = "not known"
        if type(schema) is int and 0 < schema < _MOST:
            whose = f"of {'a newer' if schema > SCHEMA else 'an older'} tempeval"
        reason = f"schema {json.dumps(schema)[:40]} is {whose}; this version reads schema {SCHEMA}"
        raise BadRecord(path, None, reason, action or _OTHER)
    return _checked(RecordHead, path, raw, action or _RERUN), raw


def check_record(
    path: Path, raw: Mapping[str, Any], action: str = _RERUN
) -> StartedRecord | RunRecord:
    """Check all keys of a record.

    Args:
        path: where it was read, for messages.
        raw: the object of `parse_head`.
        action: what to do when it cannot be used.

    Returns:
        A `RunRecord` where there are scores.

    Raises:
        BadRecord: a key is missing, unknown, of a wrong type or out of range; the message has it,
            its value, and what is accepted.
    """
    return _checked(RunRecord if raw.get("tasks") else StartedRecord, path, raw, action)


def read_record(folder: Path) -> StartedRecord | RunRecord | None:
    """Return the record of a run folder, or None when there is none.

    Raises:
        BadRecord: if it cannot be read, or is not of this version.
    """
    path = folder / FILE_NAME
    action = "Remove it, or pass --overwrite"
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadRecord(path, None, f"cannot be read ({error.strerror})", action) from error
    _, raw = parse_head(path, text, action)
    return check_record(path, raw, action)


def write_record(folder: Path, record: StartedRecord, name: str = FILE_NAME) -> Path:
    """Write a record whole or not at all: beside its place, flushed, then renamed.

    Args:
        folder: of the run.
        record: what it says.
        name: of the file.

    Raises:
        RunFailed: if it cannot be written.
    """
    path = folder / name
    part = folder / f".{name}.{os.getpid()}"
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(record.model_dump(by_alias=True), file, indent=2, ensure_ascii=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RunFailed(
            f"cannot write {path}: {error.strerror or error}; free some space and run the same "
            "command again"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    bring_to_disk([folder])
    return path


class _Repeated(ValueError):
    """A key that stands twice in an object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object of its pairs; refuse a key that stands twice."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _Repeated(_kind(name).removeprefix("str "))
        found[name] = value
    return found


def _levels(value: object) -> int:
    """Count the levels of a value, up to one more than are accepted."""
    level = [value]
    for depth in range(1, _MOST_LEVELS + 1):
        level = [
            part
            for outer in level
            if isinstance(outer, (dict, list))
            for part in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return depth
    return _MOST_LEVELS + 1


def _finite(number: str) -> float | str:
    """Return a float; one too large for it stays text."""
    value = float(number)
    return value if math.isfinite(value) else number


def _checked(model: type[_P], path: Path, raw: Mapping[str, Any], action: str) -> _P:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
    raise BadRecord(path, None, _said(first, raw), action)


def _said(error: Any, raw: Mapping[str, Any]) -> str:
    """Say which key is wrong, its value, and what is accepted."""
    steps: list[str] = []
    value: Any = raw
    for step in error["loc"]:
        found = isinstance(value, (dict, list))
        try:
            value = value[step] if found else None
        except (LookupError, TypeError):
            found = False
        if not found and error["type"] != "missing":
            break  # what follows names a part of the type, not of the file
        steps.append(str(step))
    where = ".".join(steps)
    if error["type"] == "missing":
        return f"key '{where}' is missing"
    if error["type"] == "extra_forbidden":
        return f"key '{where}' is not known"
    given, accepted = error["input"], error["msg"].removeprefix("Input should be ")
    if isinstance(given, int) and abs(given) >= _MOST:
        return f"key '{where}' is a number of {len(str(abs(given)))} digits; accepted: {accepted}"
    return f"key '{where}' is {_kind(given)}; accepted: {accepted}"


def _kind(value: object) -> str:
    """Name a JSON value's type and, where short, the value."""
    text = json.dumps(value, default=str)
    return f"{type(value).__name__} {text}" if len(text) <= 40 else type(value).__name__
