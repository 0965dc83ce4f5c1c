"""Anyres: which tiles an image is cut into, and which token grid they are packed to."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from transformers.image_processing_utils import select_best_resolution

from tempeval.errors import UnsupportedModel

#: An image is scaled down when its side is more than this factor above the most it may have.
_SLACK = 1.1


@dataclass(frozen=True)
class Packing:
    """How one image becomes tokens.

    Attributes:
        tiles: squares that go through the tower, the base image included.
        rows, columns: token grid of the tiles without padding, and without the newline column.
    """

    tiles: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Anyres:
    """The tiling of a LLaVA-OneVision checkpoint.

    Source: transformers 5.23.0 `modeling_llava_onevision.py`, `pack_image_features` and
    `unpad_image`.

    Attributes:
        tile: pixels per side of a tile.
        side: tokens per side of a tile.
        pinpoints: sizes (height, width) in pixels that an image may be padded to.
        max_tiles: an image of more tokens than so many tiles have is scaled down.
    """

    tile: int
    side: int
    pinpoints: tuple[tuple[int, int], ...]
    max_tiles: int

    @classmethod
    def from_config(cls, config: Any) -> Anyres:
        """Read a checkpoint's configuration.

        Raises:
            UnsupportedModel: if its tiles are not of the tower's size, or it packs otherwise.
        """
        found = re.fullmatch(r"anyres_max_(\d+)", config.vision_aspect_ratio)
        if found is None:
            raise UnsupportedModel(
                f"vision_aspect_ratio {config.vision_aspect_ratio!r} is not supported; accepted is "
                "anyres_max_N, such as 'anyres_max_9'"
            )
        tile = config.vision_config.image_size
        pinpoints = tuple((int(h), int(w)) for h, w in config.image_grid_pinpoints)
        if any(h % tile or w % tile for h, w in pinpoints):
            raise UnsupportedModel(
                f"image_grid_pinpoints {pinpoints} are not all multiples of the tower's {tile} px"
            )
        return cls(tile, tile // config.vision_config.patch_size, pinpoints, int(found[1]))

    def pack(self, height: int, width: int) -> Packing:
        """Choose tiles and token grid of an image of a size in pixels.

        Raises:
            UnsupportedModel: if the image is so long that no row or column of tokens is left.
        """
        best: tuple[int, int] = select_best_resolution((height, width), list(self.pinpoints))
        tiles = (best[0] // self.tile) * (best[1] // self.tile)
        rows, columns = best[0] // self.tile * self.side, best[1] // self.tile * self.side
        if width / height > columns / rows:
            rows -= _padding(rows, height * (columns / width))
        else:
            columns -= _padding(columns, width * (rows / height))
        excess = math.sqrt(rows * columns / (self.max_tiles * self.side**2))
        if excess > _SLACK:
            rows, columns = int(rows // excess), int(columns // excess)
        if not rows or not columns:
            raise UnsupportedModel(
                f"an image of {height} x {width} px is too long for LLaVA-OneVision: no row or "
                "column of tokens is left of it; crop or pad the image"
            )
        return Packing(tiles + 1, rows, columns)


def _padding(length: int, covered: float) -> int:
    """Return how many of `length` rows or columns are padding, as many on either side."""
    return (length - int(round(covered, 7))) // 2 * 2
