"""Several ranks under lmms-eval's own command line: whole videos to one rank, and a clean end.

lmms-eval hands out documents one by one (`islice(rank, None, world)`), which tears the questions
of a video apart: on 8 ranks TempCompass keeps 22 % of the sharing that one rank has.
A tempeval model that runs on several ranks replaces the function that slices documents; document
ids, limits and offsets keep their meaning, and single-process runs are untouched.
"""

from __future__ import annotations

import atexit
import importlib
import logging
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LOG = logging.getLogger(__name__)

#: Fields that name a document's video, first match first.
VIDEO_FIELDS = ("video_id", "video_name", "video_path", "video", "video_idx", "scene_id")

#: What one more video costs a rank, in questions (see `tempeval.engine.work`).
_VIDEO_COST = 20.0


class VideoShards:
    """Assigns videos to ranks as documents come along; the same on every rank.

    A video keeps its rank through all tasks of a run, so that tasks about the same clips share.

    Args:
        world_size: number of ranks.
    """

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._rank_of: dict[str, int] = {}
        self._load = [0.0] * world_size

    def shard(self, documents: Iterable[tuple[int, Any]], rank: int) -> Iterator[tuple[int, Any]]:
        """Yield the documents of a rank, in order.

        Args:
            documents: `(doc_id, doc)` pairs of one task.
            rank: whose documents.
        """
        pairs = list(documents)
        keys = [video_of(doc) or f"document {doc_id}" for doc_id, doc in pairs]
        questions: dict[str, int] = {}
        for key in keys:
            questions[key] = questions.get(key, 0) + 1
        # Largest first; a video that an earlier task placed stays where it is.
        for key in sorted(questions, key=lambda k: (-questions[k], k)):
            if key not in self._rank_of:
                chosen = min(range(self.world_size), key=lambda r: (self._load[r], r))
                self._rank_of[key] = chosen
                self._load[chosen] += _VIDEO_COST + questions[key]
        return iter(
            [pair for pair, key in zip(pairs, keys, strict=True) if self._rank_of[key] == rank]
        )


def video_of(doc: Any) -> str | None:
    """Return what names a document's video, or None."""
    if not isinstance(doc, dict):
        return None
    for name in VIDEO_FIELDS:
        value = doc.get(name)
        if isinstance(value, (str, int)):
            return f"{value}"
    return None


def leave_process_group() -> None:
    """Destroy torch's process group, if there is one.

    Neither lmms-eval nor accelerate does. Gloo's threads may then still hold tensors when the
    interpreter is being torn down, and the process aborts after its results are written
    ("terminate called without an active exception"; pytorch/pytorch pull request 179291).
    """
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def install(world_size: int) -> None:
    """Make lmms-eval slice documents by whole videos, in this process; a second call does nothing.

    The process group is left while the interpreter is still whole (see `leave_process_group`).

    Args:
        world_size: number of ranks; 1 changes nothing.
    """
    if world_size == 1:
        return
    modules = [importlib.import_module(f"lmms_eval.{name}") for name in ("utils", "evaluator")]
    originals = [getattr(module, "create_iterator", None) for module in modules]
    atexit.unregister(leave_process_group)  # of a second model
    atexit.register(leave_process_group)
    if any(getattr(original, "by_video", False) for original in originals):
        return
    if originals[0] is None or originals[0] is not originals[1]:
        _LOG.warning(
            "lmms-eval slices documents in a way this version of tempeval does not know: videos "
            "are torn apart between ranks, which costs time but changes no answer"
        )
        return
    original: Any = originals[0]
    shards = VideoShards(world_size)

    def create_iterator(
        raw_iterator: Iterable[Any],
        rank: int,
        world_size: int,
        limit: int | None = None,
        offset: int | None = 0,
    ) -> Iterator[Any]:
        # Ranges are counted for progress bars only; documents come enumerated.
        if int(world_size) == 1 or not isinstance(raw_iterator, enumerate):
            counted: Iterator[Any] = original(raw_iterator, rank, world_size, limit, offset)
            return counted
        start = int(offset or 0)
        stop = None if limit is None else start + int(limit)
        return shards.shard(islice(raw_iterator, start, stop), int(rank))

    create_iterator.by_video = True  # type: ignore[attr-defined]
    for module in modules:
        module.create_iterator = create_iterator  # type: ignore[attr-defined]
