"""From a decoder's picture to RGB: colour-correct, upright, and resized in the same step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from av.filter.context import FilterContext
    from numpy.typing import NDArray

Resize = Callable[[int, int, int], tuple[int, int]]
"""`(height, width, num_frames) -> (height, width)`, pixels of the upright picture.

It runs in a decoding process, so it must be picklable and its module must not import torch.
"""


class _Picture(NamedTuple):
    """What a filter graph depends on."""

    width: int
    height: int
    pixel_format: str
    colorspace: int
    color_range: int


class FrameConverter:
    """Turns the frames of one video into RGB arrays of one size.

    A filter graph converts, because `VideoFrame.to_ndarray` uses the BT.601 matrix on video that
    is tagged BT.709. Without a resize its output equals the ffmpeg command line's bit for bit.

    Args:
        resize: gives the size of the output; None keeps the source's.
        num_frames: number of frames the clip will have, which `resize` is told.

    Attributes:
        source_size: (height, width) of the first frame when upright, in pixels; None before it.
        size_changed: whether a later frame had another size; it was scaled to the first one's.
    """

    def __init__(self, resize: Resize | None, num_frames: int) -> None:
        self.source_size: tuple[int, int] | None = None
        self.size_changed = False
        self._resize, self._num_frames = resize, num_frames
        self._target = (0, 0)
        self._graphs: dict[_Picture, tuple[Graph, FilterContext, FilterContext]] = {}

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return uint8 `[H, W, 3]`."""
        # PyAV gives the counter-clockwise angle that makes the picture upright.
        turns = round(frame.rotation / 90) % 4
        upright = (frame.width, frame.height) if turns % 2 else (frame.height, frame.width)
        if self.source_size is None:
            self.source_size = upright
            self._target = self._size_for(upright)
        self.size_changed |= upright != self.source_size
        height, width = reversed(self._target) if turns % 2 else self._target
        rgb = self._to_rgb(frame, height, width)
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb

    def _size_for(self, upright: tuple[int, int]) -> tuple[int, int]:
        if self._resize is None:
            return upright
        height, width = self._resize(*upright, self._num_frames)
        if height < 1 or width < 1:
            raise InvalidSetting(
                f"resize gave {height}x{width} pixels for a video of {upright[0]}x{upright[1]} "
                "(height x width); both must be at least 1"
            )
        return int(height), int(width)

    def _to_rgb(self, frame: VideoFrame, height: int, width: int) -> NDArray[np.uint8]:
        picture = _Picture(
            frame.width,
            frame.height,
            frame.format.name,
            int(frame.colorspace),
            int(frame.color_range),
        )
        if picture not in self._graphs:
            self._graphs[picture] = _build_graph(picture, height, width)
        _, source, sink = self._graphs[picture]
        source.push(frame)
        converted = sink.pull()
        if not isinstance(converted, VideoFrame):
            raise TypeError(f"the filter graph gave {type(converted).__name__}, not a video frame")
        return np.ascontiguousarray(converted.to_ndarray(), dtype=np.uint8)


def _build_graph(
    picture: _Picture, height: int, width: int
) -> tuple[Graph, FilterContext, FilterContext]:
    graph = Graph()
    # The graph ignores time, but a buffer source must be given a time base.
    source = graph.add(
        "buffer",
        f"video_size={picture.width}x{picture.height}:pix_fmt={picture.pixel_format}"
        f":time_base=1/1:pixel_aspect=1/1"
        f":colorspace={picture.colorspace}:range={picture.color_range}",
    )
    scale = graph.add("scale", f"w={width}:h={height}:flags=bicubic")
    rgb = graph.add("format", "pix_fmts=rgb24")
    sink = graph.add("buffersink")
    graph.link_nodes(source, scale, rgb, sink)
    graph.configure()
    return graph, source, sink
