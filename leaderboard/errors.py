"""Errors of reading and comparing run records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.errors import TempevalError

if TYPE_CHECKING:
    from pathlib import Path


class LeaderboardError(TempevalError):
    """Base of the errors that building a leaderboard raises on purpose."""


class RunsNotFound(LeaderboardError):
    """An argument that does not exist, or below which there is no `run.json`.

    Args:
        path: the argument as received.
        reason: what is missing.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(
            f"{path}: {reason}. Give folders that `tempeval run` wrote, or their run.json files."
        )


class BadRecord(LeaderboardError):
    """A `run.json` or samples file that cannot be used; the other runs still can.

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
