"""Opening a video file safely: every way it can fail has a reason a person can act on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
from av.error import FFmpegError
from av.stream import Disposition

from tempeval.errors import BadVideo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

# A damaged file fails once per missing packet; this many in a row is the end of what it holds.
_MAX_READ_ERRORS_IN_A_ROW = 64
_LONGEST_PIXEL = 8
#: What is missing where a folder of images should be.
FRAME_FOLDER = "file or folder"
_NEARLY_SQUARE = 0.02


@contextlib.contextmanager
def opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file and its video stream, for one thread, and close it.

    Raises:
        BadVideo: the file is missing, empty, unreadable, or has no video that can be decoded.
    """
    check_file(path)
    # Absolute and prefixed, so that no name can be taken for a URL or another protocol. No options:
    # with any, PyAV 15 corrupts memory on files whose streams appear late (FLV).
    url = f"file:{Path(path).absolute()}"
    try:
        container = av.open(url, metadata_errors="replace")
    except (FFmpegError, OSError, UnicodeDecodeError) as error:
        raise BadVideo(path, f"not a readable video: {reason_of(error)}") from error
    with container:
        stream = _video_stream(path, container)
        # One thread: damaged files give the same frames in every run, and workers are processes.
        stream.codec_context.thread_count = 1
        yield container, stream


def check_file(path: str, kind: str = "file") -> None:
    """Check that a path names something that can be opened.

    Args:
        path: what should be there.
        kind: what to call it when it is not.

    Raises:
        BadVideo: it is missing, not permitted, or an empty file.
    """
    target = Path(path)
    try:
        status = target.stat()
    except FileNotFoundError as error:
        raise BadVideo(path, _missing(target, kind)) from error
    except (OSError, ValueError) as error:
        raise BadVideo(path, f"not accessible: {reason_of(error)}") from error
    if not os.access(target, os.R_OK):
        raise BadVideo(path, "no permission to read it")
    if target.is_file() and status.st_size == 0:
        raise BadVideo(path, "the file is empty (0 bytes); copy or download it again")


def packets(container: InputContainer, *streams: Stream) -> Iterator[Packet | None]:
    """Yield the packets of `streams` (all of them if none is named) and None per unreadable one.

    Empty packets are left out: PyAV adds them at the end, and a decoder takes them for the end.
    """
    errors = 0
    while errors <= _MAX_READ_ERRORS_IN_A_ROW:
        try:
            for packet in container.demux(*streams):
                errors = 0
                if packet.size:
                    yield packet
        except (FFmpegError, OSError, IndexError):
            # The demuxer has moved past what it could not read; ask it for the rest. PyAV raises
            # IndexError for a stream that appears only after the file was opened.
            errors += 1
            yield None
        else:
            return


def pixel_aspect(stream: VideoStream) -> Fraction | None:
    """Return width over height of a stored pixel; None for square ones.

    A size that was rounded to whole or even pixels leaves pixels that are square but for a hair
    (340x256 for 4:3): those count as square, as every reader of frames takes them. A pixel that is
    many times longer than broad is a damaged header.
    """
    aspect = stream.sample_aspect_ratio
    if not aspect or not 1 / _LONGEST_PIXEL <= aspect <= _LONGEST_PIXEL:
        return None
    return None if abs(aspect - 1) < _NEARLY_SQUARE else aspect


def reason_of(error: Exception) -> str:
    """Return an error's text without the path, which `BadVideo` already names."""
    text = getattr(error, "strerror", None) or str(error)
    return f"{text} ({type(error).__name__})"


def _missing(target: Path, kind: str) -> str:
    parent = target.parent
    if not parent.is_dir():
        return f"no such {kind}, and no such folder {str(parent)!r}"
    return "no such file or folder"


def _video_stream(path: str, container: InputContainer) -> VideoStream:
    streams = container.streams.video
    if not streams:
        # Not by `stream.type`, which crashes on a stream of unknown kind.
        kind = "only audio" if container.streams.audio else "and no audio stream either"
        raise BadVideo(path, f"has no video stream, {kind}")
    moving = [s for s in streams if not s.disposition & Disposition.attached_pic]
    if not moving:
        raise BadVideo(path, "has no video stream, only an attached picture (cover art)")
    # FFmpeg's own choice, where a file has several, so that all decoders read the same one.
    best = container.streams.best("video")
    stream = next((candidate for candidate in moving if candidate is best), moving[0])
    # Decoding a stream whose codec is unknown dereferences a null pointer in PyAV.
    if cast("object", stream.codec_context) is None:
        raise BadVideo(path, "its video codec is unknown to this build of FFmpeg; re-encode it")
    return stream
