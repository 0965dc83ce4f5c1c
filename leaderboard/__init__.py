"""From run files to comparison tables; imports neither torch nor lmms_eval."""

from tempeval.leaderboard.api import Summary, build
from tempeval.leaderboard.errors import LeaderboardError, RunsNotFound
from tempeval.leaderboard.records import Refusal
from tempeval.run.record import BadRecord

__all__ = ["BadRecord", "LeaderboardError", "Refusal", "RunsNotFound", "Summary", "build"]
