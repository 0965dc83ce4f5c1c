"""Which temporal grids and cells SlowFast pooling leaves: arithmetic for decoding workers.

Imports no torch: frames are sized with it in worker processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import floor, log
from typing import TYPE_CHECKING

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.video.clip import Grid

#: Cells per side that become one cell of the fast path: 24 patches become 4 in the reference code.
FAST_STRIDE = 6


@dataclass(frozen=True)
class SlowFastGrids:
    """Slow and fast grids of a video; a `GridRule`.

    Attributes:
        slow_frames: temporal grids of the slow path; a fraction in (0, 1) is that part of all.
        halve_slow: whether pairs of neighbouring columns of the slow path become one.
        fast_size: rows and columns of the fast path, at most; None for a sixth of either, rounded
            up.
    """

    slow_frames: int | float
    halve_slow: bool = False
    fast_size: tuple[int, int] | None = None

    def __call__(self, grids: tuple[Grid, ...]) -> tuple[Grid, ...]:
        """Return the slow and the fast grid; a video of one temporal grid stays as it is.

        Raises:
            UnsupportedModel: for a video that has several pathways already.
        """
        if len(grids) != 1:
            raise UnsupportedModel(
                f"slowfast splits one grid of visual tokens in two, this video has {len(grids)}; "
                "leave out the other method that makes pathways"
            )
        ((t, h, w),) = grids
        if t == 1:
            return grids
        return (self.slow_count(t), h, -(-w // 2) if self.halve_slow else w), (
            t,
            *self._fast_cells(h, w),
        )

    def slow_count(self, num_grids: int) -> int:
        """Return the temporal grids of the slow path: at least 1, at most all."""
        if isinstance(self.slow_frames, int):
            return min(self.slow_frames, num_grids)
        return max(1, floor(num_grids * self.slow_frames + 0.5))

    def slow_index(self, num_grids: int) -> list[int]:
        """Return which temporal grids the slow path holds, evenly spread from the first."""
        count = self.slow_count(num_grids)
        return [i * num_grids // count for i in range(count)]

    def choices(self, num_grids: int) -> Iterator[tuple[float, SlowFastGrids]]:
        """Yield every number of slow grids below all, at the cost of leaving the wanted part."""
        if isinstance(self.slow_frames, int):
            if self.slow_frames < num_grids:
                yield 0.0, self
            return
        for count in range(1, num_grids):
            cost = abs(log(count / num_grids / self.slow_frames))
            yield round(cost, 9), replace(self, slow_frames=count)

    def _fast_cells(self, rows: int, columns: int) -> tuple[int, int]:
        if self.fast_size is None:
            return -(-rows // FAST_STRIDE), -(-columns // FAST_STRIDE)
        return min(rows, self.fast_size[0]), min(columns, self.fast_size[1])
