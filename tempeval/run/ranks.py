"""Several processes, one matrix: who is done, and who has died. Files only, no collectives.

A collective would time out while one rank works longer than another, and hang when one dies. Each
rank holds a lock on its journal for as long as it lives, and leaves a marker when it is done or has
failed. Markers carry the name of the run, so that those of another run in the same folder say
nothing. The process group of the one meeting at the start is gone before the host's evaluator runs:
it would wait there for ranks that never come.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

from tempeval.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    Said = tuple[str, str | None]

_LOG = logging.getLogger(__name__)
POLL_SECONDS = 0.2
#: A rank whose journal nobody holds for this long has ended; a rank that starts has not yet opened
#: it.
GRACE_SECONDS = 60.0


class RankDied(RunFailed):
    """Another process of this run failed, or ended before it was done.

    Args:
        message: what to say.
        reason: what the other process said itself; empty if it said nothing.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        self.reason = reason
        super().__init__(message)


class Ranks:
    """The processes of one run, as one of them sees them.

    Args:
        folder: the journal's folder, shared by all ranks.

    Attributes:
        name: of the run, the same on all its ranks once they have met.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = uuid.uuid4().hex
        self.rank = int(os.environ.get("RANK", "0"))
        self.world_size = int(os.environ.get("WORLD_SIZE", "1"))

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which scores and writes the records."""
        return self.rank == 0

    def start(self, problem: str | None = None) -> None:
        """Meet the other ranks, when this one holds its journal or knows that it cannot go on.

        Args:
            problem: why this rank cannot go on; the others then end.

        Raises:
            RankDied: if another rank cannot go on, and this one could.
        """
        if self.is_first and problem is None:  # the journal is ours, so no run needs these
            for pattern in ("*.done", "*.failed"):
                for stale in self.folder.glob(pattern):
                    stale.unlink()
        if self.world_size == 1:
            return
        said = gather((self.name, problem))
        self.name = said[0][0]
        for rank, (_, reason) in enumerate(said):
            if reason is not None and problem is None:
                raise self._failed(rank, reason)

    def done(self, step: str) -> None:
        """Say that this rank has done a step.

        Raises:
            RunFailed: if the marker cannot be written.
        """
        if self.world_size > 1:
            path = self._marker(self.rank, f"{step}.done")
            try:
                path.touch()
            except OSError as error:
                raise RunFailed(
                    f"cannot tell the other ranks through {path}: {error.strerror or error}; free "
                    "some space and run the same command again"
                ) from error

    def failed(self, reason: str) -> None:
        """Say that this rank has failed, so that the others end."""
        if self.world_size == 1:
            return
        path = self._marker(self.rank, "failed")
        part = path.with_suffix(".part")
        try:
            part.write_text(reason, encoding="utf-8")
            part.replace(path)
        except OSError as error:
            # The reason it failed has a message of its own; the others notice the silence.
            _LOG.warning("cannot tell the other ranks through %s: %s", path, error)
            part.unlink(missing_ok=True)

    def check(self) -> None:
        """Look whether another rank has failed.

        Raises:
            RankDied: if one has, with its reason.
        """
        for rank in range(self.world_size):
            path = self._marker(rank, "failed")
            if rank != self.rank and path.exists():
                raise self._failed(rank, path.read_text(encoding="utf-8"))

    def wait_for_others(self, step: str) -> None:
        """Wait until every other rank has done a step.

        Raises:
            RankDied: if any other rank failed or ended first.
        """
        self._wait(step, (r for r in range(self.world_size) if r != self.rank))

    def wait_for_first(self, step: str) -> None:
        """Wait until rank 0 has done a step.

        Raises:
            RankDied: if any other rank failed, or rank 0 ended first.
        """
        self._wait(step, () if self.is_first else (0,))

    def _wait(self, step: str, ranks: Iterable[int]) -> None:
        for rank in ranks:
            seen = time.monotonic()
            while not self._marker(rank, f"{step}.done").exists():
                self.check()
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
        except OSError:  # no file, or no locks: then the rank itself has said so and ended
            return False
        return False

    def _failed(self, rank: int, reason: str) -> RankDied:
        return RankDied(
            f"rank {rank} of {self.world_size} failed: {reason}. The answers so far are in the "
            "journal; run the same command again to go on",
            reason,
        )

    def _marker(self, rank: int, kind: str) -> Path:
        return self.folder / f"rank{rank}.{self.name}.{kind}"


def gather(said: Said) -> list[Said]:
    """Return what each rank says, through a process group that is gone afterwards."""
    import torch.distributed as dist

    dist.init_process_group(backend="gloo")
    try:
        heard: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(heard, said)
        dist.barrier()
    finally:
        dist.destroy_process_group()
    return heard
