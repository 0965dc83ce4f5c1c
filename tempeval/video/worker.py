"""The decoding process: answers one request at a time until its parent goes away.

It is started by `process.DecoderProcess` with one inherited socket. For each request it sends a
`Clip` without frames followed by the frames' bytes, or a `SoundTrack`, or an exception. It imports
neither torch nor transformers, so that it starts fast and stays small.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import threading
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from tempeval.errors import InvalidSetting, TempevalError
from tempeval.video.decode import read_clip
from tempeval.video.sound import SoundJob, read_sound

if TYPE_CHECKING:
    from tempeval.video.clip import Clip, Sampling, VideoRef
    from tempeval.video.convert import Resize
    from tempeval.video.decode import Decoder

READY = "ready"
_FRAMES_PER_LIMIT = 32
_BYTES_PER_LIMIT = 128 * 2**20


@dataclass(frozen=True)
class Job:
    """The arguments of one `read_clip` call."""

    ref: VideoRef
    sampling: Sampling
    resize: Resize | None
    decoder: Decoder


def time_limit(job: Job | SoundJob, timeout_s: float) -> float:
    """Return the seconds after which a decoder that reads `job` counts as hung.

    Args:
        job: what it reads.
        timeout_s: seconds for up to 32 frames of a file of up to 128 MiB; more of either takes
            longer in proportion. Every byte is read, and where seeks fail every frame decoded.
    """
    path, frames = (job.path, 0) if isinstance(job, SoundJob) else (job.ref.path, _wanted(job))
    try:
        size = 0 if Path(path).is_dir() else Path(path).stat().st_size
    except (OSError, ValueError):
        size = 0  # the decoder says why
    return timeout_s * max(1.0, frames / _FRAMES_PER_LIMIT, size / _BYTES_PER_LIMIT)


def _wanted(job: Job) -> int:
    """Return how many frames a job asks for at most."""
    sampling, start, end = job.sampling, job.ref.start or 0.0, job.ref.end
    if sampling.fps is None or end is None or not end > start:
        return sampling.num_frames
    return min(sampling.num_frames, math.ceil((end - start) * sampling.fps) + 1)


@dataclass(frozen=True)
class Header:
    """What precedes the frames' bytes: the clip without them, and their shape `(T, H, W, 3)`."""

    clip: Clip
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of the frames."""
        return math.prod(self.shape)


def main(descriptor: int) -> None:
    """Serve requests from an inherited socket; never returns while the parent lives.

    An exception that is not ours ends the process: its parent reports the traceback's last line
    as the reason for this one sample and starts another process.
    """
    # Ctrl-C reaches the whole process group; the parent decides when this process ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Connection = Connection(descriptor)
    requests: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    connection.send(READY)
    while True:
        _answer(connection, requests.get())


def _receive(connection: Connection, requests: SimpleQueue[bytes]) -> None:
    """Queue requests, and end the process with its parent even while a decoder hangs."""
    try:
        while True:
            requests.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _answer(connection: Connection, request: bytes) -> None:
    try:
        job = _load(request)
        if isinstance(job, SoundJob):
            connection.send(read_sound(job))
            return
        clip = read_clip(job.ref, job.sampling, resize=job.resize, decoder=job.decoder)
    except TempevalError as error:
        connection.send(error)
        return
    bare = replace(clip, frames=np.empty((0, 0, 0, 3), np.uint8))
    connection.send(Header(bare, clip.frames.shape))
    connection.send_bytes(clip.frames.data.cast("B"))


def _load(request: bytes) -> Job | SoundJob:
    try:
        job = pickle.loads(request)  # noqa: S301 - written by the parent of this process
    except (AttributeError, ImportError) as error:
        raise InvalidSetting(
            f"a decoding process cannot load the request ({error}); define resize in a module "
            "that can be imported, not in a script or notebook"
        ) from error
    if not isinstance(job, Job | SoundJob):
        raise TypeError(f"expected a Job or SoundJob, received {type(job).__name__}")
    return job
