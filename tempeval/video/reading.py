"""What a reader hands back, and how it gathers the frames that were asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tempeval.video.convert import FrameConverter

if TYPE_CHECKING:
    from fractions import Fraction

    from av.video.frame import VideoFrame

    from tempeval.video.convert import Resize

Choose = Callable[[NDArray[np.float64]], NDArray[np.int64]]
"""From the seconds `[n]` of all decodable frames to the indices `[T]` of the wanted ones."""


@dataclass(frozen=True)
class Reading:
    """The wanted frames of a source, and what was learnt about it.

    Attributes:
        frames: uint8 `[T, H, W, 3]`.
        indices: int64 `[T]`, which decodable frame each one is.
        times: float64 `[n]`, seconds of all decodable frames from the first; NaN where unknown.
        source_size: (height, width) of the upright source in square pixels.
        flags: what is wrong with the source.
        held: number of frames that the source holds, those that it hides too.
        pixel_aspect: width over height of a pixel of `frames`; None for square ones.
    """

    frames: NDArray[np.uint8]
    indices: NDArray[np.int64]
    times: NDArray[np.float64]
    source_size: tuple[int, int]
    flags: frozenset[str]
    held: int
    pixel_aspect: Fraction | None = None


class Gatherer:
    """Collects wanted frames as a reader meets them, each converted once and kept small.

    Args:
        indices: int64 `[T]`, the wanted frames; may repeat.
        resize, pixel_aspect, square: see `FrameConverter`.

    Attributes:
        missing: wanted indices that have not been met yet.
    """

    def __init__(
        self,
        indices: NDArray[np.int64],
        resize: Resize | None,
        pixel_aspect: Fraction | None = None,
        *,
        square: bool = True,
    ) -> None:
        self.indices = indices
        self.missing = {int(index) for index in indices}
        self._convert = FrameConverter(resize, len(indices), pixel_aspect, square=square)
        self._frames: NDArray[np.uint8] | None = None

    def take(self, index: int, frame: VideoFrame) -> None:
        """Keep decodable frame `index` if it is wanted."""
        if index not in self.missing:
            return
        rgb = self._convert(frame)
        if self._frames is None:
            self._frames = np.empty((len(self.indices), *rgb.shape), dtype=np.uint8)
        self._frames[self.indices == index] = rgb
        self.missing.remove(index)

    def reading(self, times: NDArray[np.float64], found: frozenset[str], held: int) -> Reading:
        """Return the gathered frames; for the arguments see `Reading`.

        Raises:
            LookupError: a wanted frame was never met.
        """
        if self._frames is None or self._convert.source_size is None or self.missing:
            raise LookupError(f"frames {sorted(self.missing)} were never decoded")
        return Reading(
            self._frames,
            self.indices,
            times,
            self._convert.source_size,
            found | self._convert.found,
            held,
            self._convert.pixel_aspect,
        )
