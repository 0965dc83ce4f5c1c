"""Write frames to video files and frame folders, the same bytes on every run."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
from PIL import Image

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

CODECS = {
    "mp4": ("libx264", {"crf": "18", "preset": "veryfast", "x264-params": "threads=1:mbtree=0"}),
    "webm": ("libvpx-vp9", {"crf": "12", "b": "0", "deadline": "good", "cpu-used": "5"}),
}
"""Encoder and its options for each container.

With mbtree, x264 gives other bytes from run to run where a side is no multiple of 16 pixels.
"""


def write_video(path: Path, frames: NDArray[np.uint8], fps: int, container: str) -> None:
    """Encode frames to a file.

    Args:
        path: file to write; its ending does not matter.
        frames: uint8 `[T, H, W, 3]`, RGB.
        fps: frames per second (1/s).
        container: one of `CODECS`.

    Raises:
        InvalidSetting: if the container is not one of `CODECS`.
    """
    if container not in CODECS:
        raise InvalidSetting(f"container={container!r} is not one of {', '.join(CODECS)}")
    encoder, options = CODECS[container]
    with av.open(str(path), "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream = cast("VideoStream", output.add_stream(encoder, rate=fps, options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, fps)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            output.mux(stream.encode(picture))
        output.mux(stream.encode())


def write_folder(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames as `000001.png`, `000002.png`, ... to a new folder."""
    path.mkdir()
    for index, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(path / f"{index:06d}.png", compress_level=1)
