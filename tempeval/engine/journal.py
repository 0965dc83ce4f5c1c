"""Append-only journal of answers: what a killed run has paid for is never paid for again.

One line per batch, written, flushed and fsynced before the next batch starts. A line is
`<crc32 of the rest, 8 hex digits> <JSON>`; a line that was cut or damaged is detected by its
checksum, one of another shape by what it lacks, and its batch is computed again. Each rank writes a
file of its own and reads all. A line may also name keys to forget, in the lines before it of the
same file.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import time
import zlib
from dataclasses import dataclass, fields
from typing import IO, TYPE_CHECKING, Any

from tempeval.engine.answer import Answer
from tempeval.engine.question import Outcome
from tempeval.engine.scores import Scores
from tempeval.engine.usage import Usage
from tempeval.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

#: Of a line; those of other formats are computed again.
FORMAT = 3
#: How long a journal may be locked by a rank that only looks (see `tempeval.run.ranks`).
LOCK_SECONDS = 0.5
_LOG = logging.getLogger(__name__)
#: A rank's own file; copies that other programs lay beside it have longer names.
_FILE_NAME = re.compile(r"rank(\d+)\.jsonl")
_NUMBERS = tuple(
    f.name for f in fields(Usage) if f.name not in ("flags", "error", "attention_kernel")
)


class JournalError(RunFailed):
    """The journal cannot be opened, or can no longer be written."""


class Journal:
    """Answers by key, backed by files; a context manager that holds this rank's file.

    Failed samples are journalled for the record, but a later run tries them again. What is in the
    files when a journal is opened is of earlier runs: ranks open theirs before any of them answers.

    Args:
        folder: one journal; all ranks of a run share it.
        rank: names this process's own file.

    Attributes:
        damaged: lines that were dropped because they were cut, damaged or of another format.

    Raises:
        JournalError: if the folder cannot be written, or another process has this rank's file.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        self.folder = folder
        self.path = folder / f"rank{rank}.jsonl"
        self.damaged = 0
        self._outcomes: dict[str, Outcome] = {}
        self._new: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise JournalError(
                f"cannot open the journal {self.path}: {error.strerror}; choose another folder"
            ) from error
        try:
            _lock(self._file)
        except OSError as error:
            self._file.close()
            raise JournalError(_why_not_locked(self.path, error)) from error
        self._repair()
        #: Where this run begins in each file: behind its last whole line, for a rank that opens its
        #: file later cuts a torn end off.
        self._begins = {path.name: _content(path).rfind(b"\n") + 1 for path in self._files()}
        self.reload()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._outcomes

    def __len__(self) -> int:
        return len(self._outcomes)

    def get(self, key: str) -> Outcome | None:
        """Return what is known under a key."""
        return self._outcomes.get(key)

    def is_new(self, key: str) -> bool:
        """Return True if a key was answered since the journal was opened, by any rank read."""
        return key in self._new

    def reload(self) -> None:
        """Read the answers of all ranks, and the failures of this run but of no earlier one."""
        now: dict[str, Outcome] = {}
        for path in self._files():
            earlier, later = self._read(path)
            self._outcomes |= earlier
            now |= later
        self._outcomes |= now
        self._new |= now.keys()

    def append(self, outcomes: Mapping[str, Outcome]) -> None:
        """Write one batch: on return it is on disk.

        Raises:
            JournalError: if it cannot be written; what was written before stays readable.
        """
        self._write({"batch": {k: _record(o) for k, o in outcomes.items()}})
        self._outcomes.update(outcomes)
        self._new.update(outcomes)

    def forget(self, keys: Collection[str]) -> None:
        """Forget earlier answers in this rank's file, for good; all ranks are to do it.

        Raises:
            JournalError: if it cannot be written.
        """
        known = sorted(key for key in keys if key in self._outcomes)
        if known:
            self._write({"batch": {}, "forget": known})
            for key in known:
                del self._outcomes[key]

    def close(self) -> None:
        """Release this rank's file."""
        self._file.close()

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.iterdir() if _FILE_NAME.fullmatch(path.name))

    def _read(self, path: Path) -> tuple[dict[str, Outcome], dict[str, Outcome]]:
        """Return what earlier runs left in a file, and what this one has written there."""
        parts: tuple[dict[str, Outcome], dict[str, Outcome]] = ({}, {})
        begin, position = self._begins.get(path.name, 0), 0
        for line in _content(path).split(b"\n"):
            part = parts[position >= begin]
            position += len(line) + 1
            found = _parse(line)
            if found is None:
                continue
            for key in found.forget:
                for known in parts:
                    known.pop(key, None)
            for key, outcome in found.batch.items():
                # A failure hides no answer of an earlier run.
                if outcome.usage.error is None or part is parts[1]:
                    part[key] = outcome
        return parts

    def _write(self, record: Mapping[str, Any]) -> None:
        body = json.dumps({"v": FORMAT, **record})
        line = f"{zlib.crc32(body.encode()):08x} {body}\n".encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(line)
            while rest:  # a disk that has room for a part of it says so at the next write
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._undo(end)
            raise JournalError(
                f"cannot write the journal {self.path}: {error.strerror or error}. The answers "
                "before this batch are kept; free some space and run the same command again"
            ) from error

    def _repair(self) -> None:
        """Cut a torn end off this rank's own file, so that the next line starts clean."""
        content = _content(self.path)
        lines = content.split(b"\n")
        self.damaged = sum(1 for line in lines if line and _parse(line) is None)
        if self.damaged:
            _LOG.warning(
                "%s: %d lines are damaged, or of another version of tempeval; their batches are "
                "computed again",
                self.path,
                self.damaged,
            )
        if content and not content.endswith(b"\n"):
            self._file.truncate(len(content) - len(lines[-1]))

    def _undo(self, end: int) -> None:
        try:
            self._file.truncate(end)
        except OSError:
            _LOG.warning("%s: a torn line stays at the end; it will be skipped", self.path)


def forget_left_over(folder: Path, world_size: int, keys: Collection[str]) -> None:
    """Forget answers in the files of ranks that only earlier, larger runs had.

    Args:
        folder: the journal.
        world_size: ranks of this run.
        keys: what to forget.

    Raises:
        JournalError: if another process still writes one of them, or it cannot be written.
    """
    names = [_FILE_NAME.fullmatch(path.name) for path in folder.iterdir()]
    for rank in sorted(int(match[1]) for match in names if match):
        if rank >= world_size:
            with Journal(folder, rank) as journal:
                journal.forget(keys)


def _lock(file: IO[bytes]) -> None:
    """Lock a rank's file; wait a moment, because other ranks look whether it is locked."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise JournalError(
            f"cannot read the journal {path}: {error.strerror or error}; remove it, or choose "
            "another folder"
        ) from error


def _why_not_locked(path: Path, error: OSError) -> str:
    """Tell a lock that another process holds from a file system without locks."""
    if isinstance(error, BlockingIOError):
        return (
            f"another process is writing the journal {path}; wait for it, or choose another folder"
        )
    return (
        f"cannot lock the journal {path}: {error.strerror or error}. Its file system seems to have "
        "no locks, which keep two processes from writing one journal; choose a folder on a local "
        "disk, or have the file system mounted with locks (NFS: its lock service; Lustre: flock)"
    )


@dataclass(frozen=True)
class _Line:
    """What a sound line says."""

    batch: Mapping[str, Outcome]
    forget: tuple[str, ...]


def _parse(line: bytes) -> _Line | None:
    """Return what a line says; None if it is cut, damaged, or of another format or shape.

    A carriage return at its end, which some tools for copying files add, is no part of it.
    """
    line = line.removesuffix(b"\r")
    if len(line) < 10 or line[8:9] != b" ":
        return None
    body = line[9:]
    if line[:8] != b"%08x" % zlib.crc32(body):
        return None
    try:
        record = json.loads(body)
        if record["v"] != FORMAT:
            return None
        batch = {key: _outcome(entry) for key, entry in record["batch"].items()}
        forget = tuple(record.get("forget", ()))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None
    return _Line(batch, forget) if all(isinstance(key, str) for key in forget) else None


def _record(outcome: Outcome) -> dict[str, Any]:
    answer: dict[str, Any] | None = None
    if isinstance(outcome.answer, Answer):
        answer = {
            "text": outcome.answer.text,
            "token_ids": list(outcome.answer.token_ids),
            "tail_tokens": outcome.answer.tail_tokens,
        }
    elif isinstance(outcome.answer, Scores):
        answer = outcome.answer.to_dict()
    return {"answer": answer, "usage": outcome.usage.to_dict()}


def _outcome(record: Mapping[str, Any]) -> Outcome:
    """Read what `_record` wrote.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, OverflowError: for anything else.
    """
    usage = dict(record["usage"])
    usage["flags"] = tuple(_texts(usage["flags"]))
    _texts(text for text in (usage["error"], usage["attention_kernel"]) if text is not None)
    for name in _NUMBERS:
        if not isinstance(usage[name], (int, float, type(None))):
            raise TypeError(f"{name} is {usage[name]!r}, not a number")
    held = record["answer"]
    answer: Answer | Scores | None = None
    if held is None:
        if usage["error"] is None:
            raise ValueError("neither an answer nor an error")
    elif "text" in held:
        (text,) = _texts([held["text"]])
        answer = Answer(text, tuple(map(int, held["token_ids"])), int(held["tail_tokens"]))
    else:
        answer = Scores.from_dict(held)
        if len(answer.lengths) != len(answer):
            raise ValueError("as many counts of tokens as log-likelihoods are needed")
    return Outcome(answer, Usage(**usage))


def _texts(values: Iterable[object]) -> list[str]:
    found = list(values)
    if not all(isinstance(value, str) for value in found):
        raise TypeError(f"{found!r} are no texts")
    return [str(value) for value in found]
