"""Several processes, one matrix: who is done, and who has died. Files only, no collectives.

A collective would time out while one rank works longer than another, and hang when one dies. Each
rank holds a lock on its journal for as long as it lives, and leaves a marker when it is done. The
process group of the one barrier at the start is gone before the host's evaluator runs: it would
wait there for ranks that never come.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from typing import TYPE_CHECKING

from tempeval.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

POLL_SECONDS = 0.2
#: A rank whose journal nobody holds for this long has ended; a rank that starts has not yet opened
#: it.
GRACE_SECONDS = 60.0


class RankDied(RunFailed):
    """Another process of this run ended before it was done."""


class Ranks:
    """The processes of one run, as one of them sees them.

    Args:
        folder: the journal's folder, shared by all ranks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which scores and writes the records."""
        return self.rank == 0

    def start(self, *, clear: bool) -> None:
        """Clear what earlier runs left, before any rank opens its journal.

        Args:
            clear: remove the journal itself, not just the markers.
        """
        if self.is_first:
            if clear:
                shutil.rmtree(self.folder, ignore_errors=True)
            for stale in self.folder.glob("*.done"):
                stale.unlink()
        if self.world_size > 1:
            barrier()

    def done(self, step: str) -> None:
        """Say that this rank has done a step."""
        if self.world_size > 1:
            self._marker(self.rank, step).touch()

    def wait_for_others(self, step: str) -> None:
        """Wait until every other rank has done a step.

        Raises:
            RankDied: if one of them ended first.
        """
        self._wait(step, (r for r in range(self.world_size) if r != self.rank))

    def wait_for_first(self, step: str) -> None:
        """Wait until rank 0 has done a step.

        Raises:
            RankDied: if it ended first.
        """
        self._wait(step, () if self.is_first else (0,))

    def _wait(self, step: str, ranks: Iterable[int]) -> None:
        for rank in ranks:
            seen = time.monotonic()
            while not self._marker(rank, step).exists():
                if self._alive(rank):
                    seen = time.monotonic()
                elif time.monotonic() - seen > GRACE_SECONDS:
                    raise RankDied(
                        f"rank {rank} of {self.world_size} ended before it was done ({step}); its "
                        "answers so far are in the journal. See its own message, then run the "
                        "same command again"
                    )
                time.sleep(POLL_SECONDS)

    def _alive(self, rank: int) -> bool:
        try:
            with (self.folder / f"rank{rank}.jsonl").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def _marker(self, rank: int, step: str) -> Path:
        return self.folder / f"rank{rank}.{step}.done"


def barrier() -> None:
    """Wait until all ranks are here, through a process group that is gone afterwards."""
    import torch.distributed as dist

    dist.init_process_group(backend="gloo")
    try:
        dist.barrier()
    finally:
        dist.destroy_process_group()
