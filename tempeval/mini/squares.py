"""Squares laid over painted frames: what the side-channel suites add to a mini scene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tempeval.mini.scene import LAMP_COLOURS

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Square:
    """How a square looks, wherever it is.

    Attributes:
        colour: one of `LAMP_COLOURS`.
        half: half its side, in pixels.
        opacity: how strongly it covers what lies below, 0 to 1.
    """

    colour: str
    half: float
    opacity: float


def lay(frame: NDArray[np.uint8], square: Square, centre: tuple[float, float]) -> None:
    """Lay a square over a frame, in place.

    Args:
        frame: uint8 `[H, W, 3]`.
        square: what to lay.
        centre: (x, y) in pixels.
    """
    height, width = frame.shape[:2]
    x = np.arange(width, dtype=np.float32)[None, :] + np.float32(0.5)
    y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
    reach = np.maximum(np.abs(x - np.float32(centre[0])), np.abs(y - np.float32(centre[1])))
    mask = np.float32(square.opacity) * np.clip(np.float32(square.half + 0.5) - reach, 0, 1)
    colour = np.array(LAMP_COLOURS[square.colour], dtype=np.float32)
    below = frame.astype(np.float32)
    frame[:] = np.rint(below + mask[..., None] * (colour - below)).astype(np.uint8)
