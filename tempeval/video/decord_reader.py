"""The decord reader: selectable to reproduce what papers saw, and never trusted.

decord reports timestamps from its own packet list, not from the pictures that it returns: on
MPEG-TS, open-GOP H.264 and HEVC files the timestamps are right and the pictures wrong. So the
timestamps are compared with the packet index, and the pictures with those of the verified PyAV
reader, to which decord's are equal bit for bit where it works. That costs a second decode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from av.video.frame import VideoFrame

from tempeval.errors import BadVideo, DecoderUnavailable
from tempeval.video import container as files
from tempeval.video import pyav_reader
from tempeval.video.reading import Gatherer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tempeval.video.convert import Resize
    from tempeval.video.reading import Choose, Reading

_ADVICE = "use decoder='pyav'"
# decord rounds timestamps to float32, and Matroska to whole milliseconds.
_MAX_SECONDS_OFF = 2e-3
# Mean absolute difference per frame on the 0..255 scale. Measured: 0 for 8-bit video, 0.9 for
# 10-bit video, whose chroma the two FFmpeg versions scale differently.
_MAX_DIFFERENCE = 0.1
_MAX_DIFFERENCE_DEEP = 1.5


def read(path: str, choose: Choose, resize: Resize | None) -> Reading:
    """Read the frames that `choose` picks with decord.

    Raises:
        BadVideo: decord fails on the file, or returns other frames than were asked for.
        DecoderUnavailable: decord is not installed.
    """
    decord = _import_decord()
    # decord gives pixels as they are stored.
    reference = pyav_reader.read(path, choose, None, square=False)
    try:
        # One thread: with more, decord fails on intact VP9 files.
        reader = decord.VideoReader(path, ctx=decord.cpu(0), num_threads=1)
        count = len(reader)
        _check_count(path, count, len(reference.times))
        times = reader.get_frame_timestamp(reference.indices)[:, 0]
        times = times - reader.get_frame_timestamp([0])[0, 0]
        frames = reader.get_batch(reference.indices).asnumpy()
    except (decord.DECORDError, RuntimeError, IndexError, AssertionError) as error:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadVideo(path, f"decord cannot read it ({text}); {_ADVICE}") from error
    _check_times(path, times, reference)
    _check_pictures(path, frames, reference)
    gatherer = Gatherer(reference.indices, resize, reference.pixel_aspect)
    for index, frame in zip(reference.indices, frames, strict=True):
        gatherer.take(int(index), VideoFrame.from_ndarray(frame, format="rgb24"))
    return gatherer.reading(reference.times, reference.flags, reference.held)


def _import_decord() -> Any:
    try:
        import decord
    except ImportError as error:
        raise DecoderUnavailable(
            f"decoder='decord' needs the package decord, which cannot be imported ({error}); "
            f"install it with `pip install decord`, or {_ADVICE}"
        ) from error
    return decord


def _check_count(path: str, count: int, expected: int) -> None:
    if count != expected:
        raise BadVideo(path, f"decord counts {count} frames, the file shows {expected}; {_ADVICE}")


def _check_times(path: str, times: NDArray[np.float64], reference: Reading) -> None:
    expected = reference.times[reference.indices]
    off = ~(np.abs(times - expected) <= _MAX_SECONDS_OFF)
    if off.any():
        slot = int(np.flatnonzero(off)[0])
        raise BadVideo(
            path,
            f"decord gives frame {reference.indices[slot]} the time {times[slot]:.3f} s, its "
            f"packet says {expected[slot]:.3f} s; {_ADVICE}",
        )


def _check_pictures(path: str, frames: NDArray[np.uint8], reference: Reading) -> None:
    if frames.shape != reference.frames.shape:
        raise BadVideo(
            path,
            f"decord gives frames of shape {frames.shape[1:]}, the upright picture has "
            f"{reference.frames.shape[1:]}; {_ADVICE}",
        )
    tolerance = _tolerance(path)
    for index, frame, wanted in zip(reference.indices, frames, reference.frames, strict=True):
        difference = float(np.abs(frame.astype(np.int16) - wanted).mean())
        if difference > tolerance:
            raise BadVideo(
                path,
                f"decord returns another picture than frame {index} (mean difference "
                f"{difference:.2f} of 255, at most {tolerance} is rounding); {_ADVICE}",
            )


def _tolerance(path: str) -> float:
    with files.opened(path) as (_, stream):
        picture = stream.codec_context.format
        depth = (
            max((component.bits for component in picture.components), default=8) if picture else 8
        )
    return _MAX_DIFFERENCE if depth <= 8 else _MAX_DIFFERENCE_DEEP
