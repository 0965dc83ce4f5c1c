"""From a decoder's picture to RGB: colour-correct, as a player shows it, resized in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from tempeval.errors import InvalidSetting
from tempeval.video import flags

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from av.filter.context import FilterContext
    from av.sidedata.sidedata import SideData
    from numpy.typing import NDArray

Resize = Callable[[int, int, int], tuple[int, int]]
"""`(height, width, num_frames) -> (height, width)`, pixels of the upright picture.

It runs in a decoding process, so it must be picklable and its module must not import torch.
"""


# FFmpeg's numbers of colour matrices (ITU-T H.273): those that its scaler converts from, and what
# stands in for the others. That is what the ffmpeg command line does with them.
_UNSPECIFIED = 2
_KNOWN_MATRICES = frozenset({1, _UNSPECIFIED, 4, 5, 6, 7, 9})
_STAND_INS = {10: 9}  # BT.2020 of constant luminance: as if it were not constant
_MAX_RANGE = 2
# By the number of quarter turns, counter-clockwise: filters and their arguments.
_QUARTER_TURNS = (
    (),
    (("transpose", "cclock"),),
    (("hflip", ""), ("vflip", "")),
    (("transpose", "clock"),),
)
_SOME_SIDE = 64


class _Picture(NamedTuple):
    """What a filter graph depends on."""

    width: int
    height: int
    pixel_format: str
    matrix: int
    color_range: int
    turning: tuple[tuple[str, str], ...]


class FrameConverter:
    """Turns the frames of one video into RGB arrays of one size.

    A filter graph converts, because `VideoFrame.to_ndarray` uses the BT.601 matrix on video that
    is tagged BT.709. Without a resize its output equals the ffmpeg command line's bit for bit,
    mirrored and turned as the frame's display matrix says. Pixels that are not square are made
    square, as players show them, by stretching the picture along their longer side.

    Args:
        resize: gives the size of the output; None keeps the source's.
        num_frames: number of frames the clip will have, which `resize` is told.
        pixel_aspect: width over height of a pixel, before it is turned; None for square ones.
        square: False leaves pixels as they are stored.

    Attributes:
        source_size: (height, width) of the first frame as shown, in pixels; None before it.
        found: flags of what it met: a later frame of another size, which was scaled to the first
            one's, or a colour matrix that is not known.
        pixel_aspect: width over height of a pixel of the output, turned; None for square ones.
    """

    def __init__(
        self,
        resize: Resize | None,
        num_frames: int,
        pixel_aspect: Fraction | None = None,
        *,
        square: bool = True,
    ) -> None:
        self.source_size: tuple[int, int] | None = None
        self.found: set[str] = set()
        self._resize, self._num_frames = resize, num_frames
        self.pixel_aspect: Fraction | None = None
        self._stored_aspect, self._square = pixel_aspect, square
        self._target = (0, 0)
        self._graphs: dict[_Picture, tuple[Graph, FilterContext, FilterContext]] = {}

    def __call__(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Return uint8 `[H, W, 3]`."""
        turning = turning_of(frame)
        shown, aspect = (frame.height, frame.width), self._stored_aspect
        if any(name == "transpose" for name, _ in turning):
            shown, aspect = (frame.width, frame.height), 1 / aspect if aspect else None
        if self._square:
            shown = _squared(*shown, aspect)
        else:
            self.pixel_aspect = aspect
        if self.source_size is None:
            self.source_size = shown
            self._target = self._size_for(shown)
        if shown != self.source_size:
            self.found.add(flags.SIZE_CHANGES)
        return self._to_rgb(frame, turning)

    def _size_for(self, shown: tuple[int, int]) -> tuple[int, int]:
        if self._resize is None:
            return shown
        height, width = self._resize(*shown, self._num_frames)
        if height < 1 or width < 1:
            raise InvalidSetting(
                f"resize gave {height}x{width} pixels for a video of {shown[0]}x{shown[1]} "
                "(height x width); both must be at least 1"
            )
        return int(height), int(width)

    def _to_rgb(self, frame: VideoFrame, turning: tuple[tuple[str, str], ...]) -> NDArray[np.uint8]:
        matrix = int(frame.colorspace)
        if matrix not in _KNOWN_MATRICES:
            matrix = _STAND_INS.get(matrix, _UNSPECIFIED)
            if _has_chroma(frame):
                self.found.add(flags.ASSUMED_MATRIX)
                frame.colorspace = matrix
        color_range = int(frame.color_range)
        picture = _Picture(
            frame.width,
            frame.height,
            frame.format.name,
            matrix,
            color_range if 0 <= color_range <= _MAX_RANGE else 0,
            turning,
        )
        if picture not in self._graphs:
            self._graphs[picture] = _build_graph(picture, *self._target)
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
        f":colorspace={picture.matrix}:range={picture.color_range}",
    )
    turns = [graph.add(name, arguments) for name, arguments in picture.turning]
    # FFmpeg turns a picture whose chroma is as coarse one way as the other (4:2:0) before it
    # converts it; 4:2:2 has no turned form, and so becomes RGB first.
    kind = VideoFormat(picture.pixel_format)
    turns_first = kind.chroma_width(_SOME_SIDE) == kind.chroma_height(_SOME_SIDE)
    if not turns_first and any(name == "transpose" for name, _ in picture.turning):
        height, width = width, height
    scale = graph.add("scale", f"w={width}:h={height}:flags=bicubic")
    rgb = graph.add("format", "pix_fmts=rgb24")
    sink = graph.add("buffersink")
    converting = [scale, rgb]
    graph.link_nodes(source, *(turns + converting if turns_first else converting + turns), sink)
    graph.configure()
    return graph, source, sink


def turning_of(frame: VideoFrame) -> tuple[tuple[str, str], ...]:
    """Return the filters that show a frame as its display matrix says: names and arguments.

    The matrix (a b u, c d v, x y w) of ISO/IEC 14496-12, 8.3.2, row by row: three turns with or
    without a mirror are exact, other angles are turned within the picture's size. The choice among
    them is that of the ffmpeg command line.
    """
    try:
        by_type = cast("Mapping[Type, SideData]", frame.side_data)
    except ValueError:
        # PyAV cannot name some newer kind of side data; it still tells the angle, not a mirror.
        return _QUARTER_TURNS[round(frame.rotation / 90) % 4]
    side_data = by_type.get(Type.DISPLAYMATRIX)
    if side_data is None:
        return ()
    matrix = np.frombuffer(bytes(side_data), dtype=np.int32)
    if len(matrix) != 9 or not matrix[[0, 3]].any() or not matrix[[1, 4]].any():
        return ()
    a, b, _, c, d = (float(value) for value in matrix[:5])
    clockwise = np.arctan2(b / np.hypot(b, d), a / np.hypot(a, c))
    angle = round(float(np.degrees(clockwise))) % 360
    if angle in (0, 360):
        return (("vflip", ""),) if d < 0 else ()
    if angle == 90:
        return (("transpose", "cclock_flip" if c > 0 else "clock"),)
    if angle == 180:
        return tuple((name, "") for name, value in (("hflip", a), ("vflip", d)) if value < 0)
    if angle == 270:
        return (("transpose", "clock_flip" if c < 0 else "cclock"),)
    return (("rotate", f"{angle}*PI/180"),)


def _squared(height: int, width: int, pixel_aspect: Fraction | None) -> tuple[int, int]:
    """Return (height, width) with square pixels, neither side shorter than it was."""
    if pixel_aspect is None:
        return height, width
    if pixel_aspect > 1:
        return height, round(width * pixel_aspect)
    return round(height / pixel_aspect), width


def _has_chroma(frame: VideoFrame) -> bool:
    """Return True if a colour matrix matters: not for grey, RGB or a palette."""
    kind = frame.format
    return not kind.is_rgb and not kind.has_palette and len(kind.components) >= 3
