"""The sound track of a video file, as one channel on the clock of its frames.

Like frames it is read in a decoding process, because a damaged file can crash or hang a decoder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from av.audio.resampler import AudioResampler
from av.error import FFmpegError

from tempeval.errors import BadSideChannel, BadVideo
from tempeval.video import container as files
from tempeval.video.packets import index_packets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from numpy.typing import NDArray

#: Seconds by which a frame of sound may miss the end of the one before and still continue it:
#: containers round times to milliseconds.
_JITTER = 0.02
#: Share of damaged packets above which a track is refused; below it they are silence.
_MOST_DAMAGED = 0.01
#: Seconds; a damaged time would otherwise ask for all memory there is.
_LONGEST = 4 * 3600.0


@dataclass(frozen=True)
class SoundJob:
    """What to read.

    Attributes:
        path: a video file.
        rate: samples per second (1/s) to resample to.
    """

    path: str
    rate: int


@dataclass(frozen=True)
class SoundTrack:
    """One channel of sound, the mean of the file's; where the file has gaps there is silence.

    Attributes:
        samples: float32 `[N]`, full scale is 1.
        rate: samples per second (1/s).
        start: time of the first sample in seconds from the first frame of the video; negative
            for sound that begins earlier.
    """

    samples: NDArray[np.float32]
    rate: int
    start: float

    @property
    def end(self) -> float:
        """When it ends, in seconds from the first frame of the video."""
        return self.start + len(self.samples) / self.rate


def read_sound(job: SoundJob) -> SoundTrack:
    """Read the sound track that FFmpeg takes for the main one, in this process.

    Raises:
        BadSideChannel: the file is unreadable, has no picture whose times the sound could be
            compared with, or no sound, or its sound is empty or damaged.
    """
    path = job.path
    if Path(path).is_dir():
        raise BadSideChannel(path, "a folder of images has no sound track")
    try:
        with files.opened(path) as (container, picture):
            _sound_stream(path, container)  # refused before the whole file is read
            index = index_packets(container, picture)
        if not len(index.pts):
            raise BadSideChannel(path, "its frames have no timestamps that sound could follow")
        origin = float(index.pts[0] * index.time_base)
        with files.opened(path) as (container, _):
            return _assembled(path, _decoded(path, container), origin, job.rate)
    except BadSideChannel:
        raise
    except BadVideo as error:
        raise BadSideChannel(path, error.reason) from error
    except FFmpegError as error:
        raise BadSideChannel(
            path, f"its sound track cannot be decoded: {files.reason_of(error)}"
        ) from error


def _sound_stream(path: str, container: InputContainer) -> AudioStream:
    streams = container.streams.audio
    if not streams:
        raise BadSideChannel(path, "the file has no sound track")
    best = container.streams.best("audio")
    stream = next((candidate for candidate in streams if candidate is best), streams[0])
    # Decoding a stream whose codec is unknown dereferences a null pointer in PyAV.
    if cast("object", stream.codec_context) is None:
        raise BadSideChannel(path, "the codec of its sound track is unknown to this FFmpeg")
    return stream


def _decoded(path: str, container: InputContainer) -> Iterator[AudioFrame]:
    """Yield frames of sound; raise at the end if too many packets were damaged."""
    stream = _sound_stream(path, container)
    stream.codec_context.thread_count = 1
    total = damaged = unreadable = 0
    for packet in files.packets(container, stream):
        if packet is None:
            unreadable += 1
            continue
        # What cannot be read at the very end is a file that was cut: sound that ends early.
        damaged, unreadable = damaged + unreadable, 0
        total += 1
        try:
            frames = stream.decode(packet)
        except FFmpegError:
            damaged += 1
            continue
        damaged += packet.is_corrupt
        yield from frames
    try:
        yield from stream.decode(None)
    except FFmpegError:
        damaged += 1
    if damaged > _MOST_DAMAGED * total:
        raise BadSideChannel(
            path,
            f"{damaged} of {total} packets of its sound track are damaged; accepted: "
            f"{_MOST_DAMAGED:.0%}. Copy or download the file again",
        )


@dataclass
class _Run:
    """Frames of sound without a gap, resampled.

    Attributes:
        start: seconds from the start of the video.
        kind: sample rate, format and layout of its frames.
        end: seconds at which its last frame ends.
        pieces: float32 arrays `[n]`.
    """

    start: float
    kind: tuple[int, str, str]
    resampler: AudioResampler
    end: float = 0.0
    pieces: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, frame: AudioFrame | None) -> None:
        """Take one frame, or None for the end."""
        # A resampler that has nothing to do hands back what it is given, even None.
        made = [piece for piece in self.resampler.resample(frame) if piece is not None]
        # [channels, n]; the mean, since FFmpeg's own mix makes two equal channels louder than one
        self.pieces += [piece.to_ndarray().mean(axis=0) for piece in made]

    def whole(self) -> NDArray[np.float32]:
        """Return float32 `[N]`."""
        return np.concatenate([np.zeros(0, np.float32), *self.pieces])


def _assembled(path: str, frames: Iterator[AudioFrame], origin: float, rate: int) -> SoundTrack:
    runs = list(_runs(frames, origin, rate))
    if not runs or not any(len(run.whole()) for run in runs):
        raise BadSideChannel(path, "its sound track is empty")
    start, end = min(run.start for run in runs), max(run.end for run in runs)
    if not end - start <= _LONGEST:
        raise BadSideChannel(
            path, f"its sound track lasts {end - start:.0f} s; accepted: {_LONGEST:.0f} s"
        )
    places = [round((run.start - start) * rate) for run in runs]
    pieces = [run.whole() for run in runs]
    length = max(place + len(piece) for place, piece in zip(places, pieces, strict=True))
    samples = np.zeros(length, np.float32)
    for place, piece in zip(places, pieces, strict=True):
        samples[place : place + len(piece)] = piece
    if not np.isfinite(samples).all():
        raise BadSideChannel(path, "its sound track has samples that are not finite")
    return SoundTrack(samples, rate, start)


def _runs(frames: Iterator[AudioFrame], origin: float, rate: int) -> Iterator[_Run]:
    run: _Run | None = None
    for frame in chain(frames, [None]):
        if frame is None:
            if run:
                run.add(None)
                yield run
            return
        kind = (frame.sample_rate, frame.format.name, frame.layout.name)
        expected = run.end if run else 0.0
        time = expected
        if frame.pts is not None and frame.time_base is not None:
            time = float(frame.pts * frame.time_base) - origin
        if run is None or run.kind != kind or abs(time - expected) > _JITTER:
            if run:
                run.add(None)
                yield run
            run = _Run(time, kind, AudioResampler(format="fltp", rate=rate), time)
        run.end += frame.samples / frame.sample_rate
        frame.pts = None  # the resampler would take a rounded time for a gap
        run.add(frame)
