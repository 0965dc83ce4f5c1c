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
