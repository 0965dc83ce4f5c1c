"""One decoding process for side channels: they read videos on demand, not ahead of compute."""

from __future__ import annotations

import pickle
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from tempeval.errors import BadSideChannel, BadVideo, TempevalError
from tempeval.video.decode import read_clip
from tempeval.video.process import DecoderFailure, DecoderProcess
from tempeval.video.sound import SoundJob, SoundTrack, read_sound
from tempeval.video.worker import Header, Job, time_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.engine.encoder import DecodeOptions
    from tempeval.video.clip import Clip, Sampling, VideoRef
    from tempeval.video.convert import Resize

Reply = TypeVar("Reply")


@dataclass(frozen=True)
class FixedSize:
    """A `Resize` that gives every frame one size in pixels, whatever the source's."""

    height: int
    width: int

    def __call__(self, height: int, width: int, num_frames: int) -> tuple[int, int]:
        """Return (height, width)."""
        return self.height, self.width


class SideDecoder:
    """Reads clips and sound tracks in a process that may hang or die without harming the run.

    The process starts with the first video and ends with this object, or with this process. What
    kills it costs that one sample.

    Args:
        options: decoder and timeout; `workers=0` reads in this process (debugging only).
    """

    def __init__(self, options: DecodeOptions) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._process: DecoderProcess | None = None
        self._ends: weakref.finalize[[], SideDecoder] | None = None

    def clip(self, ref: VideoRef, sampling: Sampling, resize: Resize | None) -> Clip:
        """Decode frames; see `read_clip`.

        Raises:
            BadSideChannel: if that is not possible.
        """
        decoder = self._options.decoder
        if self._options.workers == 0:
            try:
                return read_clip(ref, sampling, resize=resize, decoder=decoder)
            except BadVideo as error:
                raise BadSideChannel(error.source, error.reason) from error
        job = Job(ref, sampling, resize, decoder)
        request, limit = pickle.dumps(job), time_limit(job, self._options.timeout_s)

        def ask(process: DecoderProcess) -> Clip | TempevalError:
            reply = process.ask(request, Header, limit)
            return process.receive_frames(reply) if isinstance(reply, Header) else reply

        return self._asked(ref.path, ask)

    def sound(self, path: str, rate: int) -> SoundTrack:
        """Read a sound track; see `read_sound`.

        Raises:
            BadSideChannel: if that is not possible.
        """
        job = SoundJob(path, rate)
        if self._options.workers == 0:
            return read_sound(job)
        request, limit = pickle.dumps(job), time_limit(job, self._options.timeout_s)
        return self._asked(path, lambda process: process.ask(request, SoundTrack, limit))

    def close(self) -> None:
        """End the process; the next video starts another one."""
        if self._ends is not None:
            self._ends()
        self._process = self._ends = None

    def _asked(self, path: str, ask: Callable[[DecoderProcess], Reply | TempevalError]) -> Reply:
        with self._lock:
            if self._process is None or not self._process.alive:
                self.close()
                self._process = process = DecoderProcess()
                self._ends = weakref.finalize(self, process.close)
            try:
                reply = ask(self._process)
            except DecoderFailure as failure:
                self.close()
                raise BadSideChannel(path, str(failure)) from failure
        if isinstance(reply, BadVideo):
            raise BadSideChannel(reply.source, reply.reason) from reply
        if isinstance(reply, TempevalError):
            raise reply
        return reply
