"""Decoding ahead of compute, in processes that may hang or die without harming the run."""

from __future__ import annotations

import os
import pickle
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from tempeval.errors import BadVideo, InvalidSetting, TempevalError
from tempeval.video.decode import Decoder, check_decoder, read_clip
from tempeval.video.process import DecoderFailure, DecoderProcess
from tempeval.video.shelf import Shelf, ShelfClosed
from tempeval.video.worker import Header, Job, time_limit

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from tempeval.video.clip import Clip, Sampling, VideoRef
    from tempeval.video.convert import Resize

GIB = 2**30
DEFAULT_TIMEOUT_S = 30.0
DEFAULT_MEMORY_LIMIT = 2 * GIB

Key = TypeVar("Key")


@dataclass(frozen=True)
class ClipRequest(Generic[Key]):
    """One clip to decode.

    Attributes:
        key: what the caller knows it by; handed back with the clip.
        ref: the video.
        sampling: which frames.
        resize: gives the output size; must be picklable, from a module that does not import torch.
        decoder: see `read_clip`.
    """

    key: Key
    ref: VideoRef
    sampling: Sampling
    resize: Resize | None = None
    decoder: Decoder = "auto"


class ClipStream(Generic[Key]):
    """Yields `(key, Clip | BadVideo)` in request order while later clips are decoded.

    One thread per worker process hands it requests and fetches its frames. A video that hangs or
    kills its decoder costs that sample alone: the process is replaced. Use it as a context manager:
    leaving it ends every process, and should this process die, they end by themselves.

    Args:
        requests: the clips, in the order in which they are consumed.
        workers: decoding processes; None is 2, or 1 on a single core. 0 decodes in this process:
            for debugging only, since a damaged file can then hang or crash the run.
        timeout_s: seconds per clip until its decoder counts as hung, more for many frames or a
            large file (see `worker.time_limit`); no effect with `workers=0`.
        memory_limit: bytes of frames held here, decoded and not yet consumed. One clip is always
            allowed. Each worker can hold one further clip in its own memory.

    Raises:
        InvalidSetting: a negative number of workers, a limit that is not positive, or a request
            that cannot be pickled.
        UnknownName: a request names no decoder.
    """

    def __init__(
        self,
        requests: Iterable[ClipRequest[Key]],
        *,
        workers: int | None = None,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        memory_limit: int = DEFAULT_MEMORY_LIMIT,
    ) -> None:
        if workers is not None and workers < 0:
            raise InvalidSetting(f"workers={workers} must be 0 (this process) or more")
        if not 0 < timeout_s < float("inf") or memory_limit <= 0:
            raise InvalidSetting(
                f"timeout_s={timeout_s} and memory_limit={memory_limit} must be positive and "
                "finite (seconds, bytes)"
            )
        self._requests = tuple(requests)
        self._timeout_s = timeout_s
        self._consumed = 0
        self._shelf = Shelf(len(self._requests), memory_limit)
        self._processes: set[DecoderProcess] = set()
        self._lock = threading.Lock()
        self._closed = False
        count = min(default_workers() if workers is None else workers, len(self._requests))
        self._jobs = [_job(request) for request in self._requests] if count else []
        self._threads = [
            threading.Thread(target=self._serve, name=f"decode-{n}", daemon=True)
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def held_bytes(self) -> int:
        """Bytes of frames that are decoded, or on their way here, and not yet consumed."""
        return self._shelf.held

    def __enter__(self) -> ClipStream[Key]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> ClipStream[Key]:
        return self

    def __next__(self) -> tuple[Key, Clip | BadVideo]:
        """Return the next clip, waiting for it, or the reason why there is none.

        Raises:
            TempevalError: no video is at fault: a setting is wrong, a decoder unavailable, or the
                stream closed.
        """
        if self._consumed == len(self._requests):
            self.close()
            raise StopIteration
        request = self._requests[self._consumed]
        outcome = self._shelf.get(self._consumed) if self._threads else _decode_here(request)
        self._consumed += 1
        return request.key, outcome

    def close(self) -> None:
        """End all processes and threads, and drop what was decoded. May be called twice."""
        self._shelf.close()
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        """Decode requests with one process at a time until none is left; runs in a thread."""
        process: DecoderProcess | None = None
        try:
            while (position := self._shelf.take()) is not None:
                if process is None or not process.alive:
                    self._dismiss(process)
                    process = self._start()
                outcome = self._decode(process, position)
                if outcome is None:
                    return
                self._shelf.put(position, outcome)
        except Exception as error:  # noqa: BLE001 - re-raised in the consumer's thread
            self._shelf.fail(error)
        finally:
            self._dismiss(process)

    def _decode(self, process: DecoderProcess, position: int) -> Clip | BadVideo | None:
        """Return one outcome, or None when the stream was closed meanwhile."""
        source = self._requests[position].ref.path
        job, request = self._jobs[position]
        try:
            reply = process.ask(request, Header, time_limit(job, self._timeout_s))
        except DecoderFailure as failure:
            process.kill()
            reply = BadVideo(source, str(failure))
        if isinstance(reply, TempevalError) and not isinstance(reply, BadVideo):
            raise reply
        if not self._shelf.admit(position, reply.size if isinstance(reply, Header) else 0):
            return None
        if isinstance(reply, BadVideo):
            return reply
        try:
            return process.receive_frames(reply)
        except DecoderFailure as failure:
            return BadVideo(source, str(failure))

    def _start(self) -> DecoderProcess:
        with self._lock:
            if self._closed:
                raise ShelfClosed("closed while a decoding process was being started")
            process = DecoderProcess()
            self._processes.add(process)
            return process

    def _dismiss(self, process: DecoderProcess | None) -> None:
        if process is None:
            return
        with self._lock:
            self._processes.discard(process)
        process.close()


def default_workers() -> int:
    """Return 2, or 1 where only one core may be used."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(2, available or 1)


def _job(request: ClipRequest[Key]) -> tuple[Job, bytes]:
    """Return what a decoding process is asked, and the same pickled."""
    check_decoder(request.decoder)
    job = Job(request.ref, request.sampling, request.resize, request.decoder)
    try:
        return job, pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidSetting(
            f"the request for {request.ref.path!r} cannot be sent to a decoding process ({error}); "
            "resize must be a function or a dataclass instance of a module, not a lambda"
        ) from error


def _decode_here(request: ClipRequest[Key]) -> Clip | BadVideo:
    try:
        return read_clip(
            request.ref, request.sampling, resize=request.resize, decoder=request.decoder
        )
    except BadVideo as error:
        return error
