"""From a `VideoRef` to a `Clip`: picks the reader and says what is wrong with the source."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from av.error import FFmpegError

from tempeval.errors import BadVideo, InfeasibleBudget, UnknownName, UnsupportedModel
from tempeval.video import decord_reader, flags, pyav_reader
from tempeval.video.clip import Clip
from tempeval.video.container import FRAME_FOLDER, check_file, reason_of
from tempeval.video.sampling import (
    SamplingError,
    duration,
    frame_indices,
    part_of_folder,
    trim,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tempeval.video.clip import Sampling, VideoRef
    from tempeval.video.convert import Resize
    from tempeval.video.reading import Reading

Decoder = Literal["auto", "pyav", "decord"]
DECODERS: tuple[Decoder, ...] = ("auto", "pyav", "decord")


def read_clip(
    ref: VideoRef,
    sampling: Sampling,
    *,
    resize: Resize | None = None,
    decoder: Decoder = "auto",
) -> Clip:
    """Decode the wanted frames of a video in this process.

    A damaged file can crash or hang the decoder: runs go through `ClipStream`, which isolates it.

    Args:
        ref: the file or folder, and the part of it.
        sampling: which frames.
        resize: gives the output size from the upright source's; None keeps it.
        decoder: `auto` and `pyav` verify every seek; `decord` reproduces what papers that used it
            saw, and is refused on files where it returns other frames than it says. Folders of
            images are read the same way whatever the decoder.

    Returns:
        The frames in time order with their true timestamps, and flags for a defective source.

    Raises:
        BadVideo: the video cannot be decoded, or the part that was asked for does not exist.
        UnknownName: no such decoder.
        DecoderUnavailable: the decoder is not installed.
        InvalidSetting: `resize` gave an impossible size.
    """
    check_decoder(decoder)
    began = time.perf_counter()

    start, end = ref.start, ref.end

    def choose(times: NDArray[np.float64]) -> NDArray[np.int64]:
        try:
            return frame_indices(sampling, times, start, end)
        except SamplingError as error:
            raise BadVideo(ref.path, str(error)) from error

    def sized(height: int, width: int, num_frames: int) -> tuple[int, int]:
        try:
            return resize(height, width, num_frames) if resize else (height, width)
        except (InfeasibleBudget, UnsupportedModel) as error:
            # No size suits this very video; others may be fine.
            raise BadVideo(ref.path, str(error)) from error

    size = sized if resize else None
    if Path(ref.path).is_dir():
        # Imported here so that workers that only read files start without Pillow.
        from tempeval.video import folder

        used = "images"
        rate = folder.rate_of(ref.path, ref.fps)
        start, end = part_of_folder(ref.path, rate, start, end)
        reading = folder.read(ref.path, rate, choose, size)
    elif ref.fps is not None:
        check_file(ref.path, FRAME_FOLDER)
        raise BadVideo(
            ref.path, f"fps={ref.fps:g} was given, but a video file has its own timestamps"
        )
    else:
        used = "pyav" if decoder == "auto" else decoder
        reader = decord_reader if decoder == "decord" else pyav_reader
        try:
            reading = reader.read(ref.path, choose, size)
        except FFmpegError as error:
            # Readers handle unreadable packets; this is a picture that cannot be converted.
            raise BadVideo(ref.path, f"decoding failed: {reason_of(error)}") from error
    _check_one_frame(ref.path, reading)
    elapsed = (time.perf_counter() - began) * 1e3
    return _clip(replace(ref, start=start, end=end), reading, used, elapsed)


def check_decoder(name: str) -> None:
    """Check that a decoder of this name exists.

    Raises:
        UnknownName: it does not.
    """
    if name not in DECODERS:
        raise UnknownName("decoder", name, DECODERS)


def _clip(ref: VideoRef, reading: Reading, decoder: str, decode_ms: float) -> Clip:
    times = reading.times
    first, last = trim(times, ref.start, ref.end)
    return Clip(
        frames=reading.frames,
        timestamps=times[reading.indices],
        indices=reading.indices,
        source=ref.path,
        source_frames=last - first + 1,
        source_size=reading.source_size,
        source_fps=_mean_rate(times),
        flags=tuple(sorted(reading.flags | _flags(ref, reading))),
        decode_ms=decode_ms,
        decoder=decoder,
        span=_span(times, first, last),
    )


def _check_one_frame(path: str, reading: Reading) -> None:
    """Check that a source of which one frame is shown is a still, not what is left of a video.

    A file of one frame is shown as often as a clip is long, and pictures that look alike are
    nobody's fault. But a frame that is alone because times, edit lists or damage hide the others
    would answer for all of them.
    """
    if len(reading.times) != 1:
        return
    if reading.held > 1:
        raise BadVideo(
            path,
            f"only 1 of its {reading.held} frames can be shown (its timestamps or edit list are "
            "broken, or the others are damaged), and the clip would be that frame again and again; "
            "re-encode it or download it again",
        )
    if flags.TRUNCATED in reading.flags:
        raise BadVideo(
            path,
            "only 1 frame is left of it, the file ends before its header says; "
            "copy or download it again",
        )


def _span(times: NDArray[np.float64], first: int, last: int) -> tuple[float, float] | None:
    """Return start and end in seconds of frames `first` to `last`, the end of the last included."""
    if not np.isfinite(times).all():
        return None
    end = times[last + 1] if last + 1 < len(times) else duration(times)
    return float(times[first]), float(end)


def _flags(ref: VideoRef, reading: Reading) -> set[str]:
    """Return the flags that follow from times and indices alone."""
    found = set()
    times = reading.times
    if len(np.unique(reading.indices)) < len(reading.indices):
        found.add(flags.REPEATED_FRAMES)
    if not np.isfinite(times).all():
        found.add(flags.NO_TIMESTAMPS)
    elif _has_time_gap(times):
        found.add(flags.TIME_GAP)
    if ref.end is not None and ref.end > duration(times):
        found.add(flags.END_CLAMPED)
    return found


def _has_time_gap(times: NDArray[np.float64]) -> bool:
    """Tell whether a video of a steady frame rate skips half a second and five frames or more."""
    steps = np.diff(times)
    if len(steps) < 2:
        return False
    usual = np.median(steps)
    steady = np.mean(np.abs(steps - usual) <= 0.5 * usual) >= 0.9
    return bool(steady and steps.max() >= max(0.5, 5 * usual))


def _mean_rate(times: NDArray[np.float64]) -> float | None:
    """Return frames per second from the first to the last frame; None when unknown."""
    if len(times) < 2 or not np.isfinite(times).all() or not times[-1] > times[0]:
        return None
    return float((len(times) - 1) / (times[-1] - times[0]))
