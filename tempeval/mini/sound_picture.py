"""The picture of a clip with a sound track: a ball that changes its colour, four boxes that move.

In each of four phases another box swings about in the middle while the rest stand in the corners.
The ball stands still, and changes its colour between two phases. Nothing here knows what sounds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tempeval.mini.paint import paint_frames
from tempeval.mini.scene import BALL_COLOURS, LAMP_COLOURS, PHASES, Phase, Scene, make_scene
from tempeval.mini.sound import log_uniform
from tempeval.mini.squares import Square, lay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BOX_COLOURS = tuple(LAMP_COLOURS)
MARGIN = 0.02
"""Seconds between a horn or hum and the ends of its phase."""
BOX_HALF = (5.0, 7.0)
OPACITY = (0.5, 0.95)
"""Of ball and boxes: the picture is easy, so that the sound decides."""
WOBBLE = (2.0, 4.0)
"""How far a moving box swings around the middle, in pixels."""
TURNS = (0.8, 1.6)
"""How often it goes round per second (1/s)."""


@dataclass(frozen=True)
class SoundPicture:
    """Everything that is painted.

    Attributes:
        scene: the background and the ball, which stands still.
        change: first phase in which the ball has its second colour, 1 to 3.
        order: colour of the box that moves, for each phase.
        boxes: look of the box of each colour, in the order of `BOX_COLOURS`.
        homes: where each stands, (x, y) in pixels.
        middle: what a moving box goes round, (x, y) in pixels.
        wobble: how far, in pixels.
        turns: how often per second (1/s).
    """

    scene: Scene
    change: int
    order: tuple[str, ...]
    boxes: tuple[Square, ...]
    homes: tuple[tuple[float, float], ...]
    middle: tuple[float, float]
    wobble: float
    turns: float

    def paint(self, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Return frames (all if none are named) before encoding, uint8 `[T, H, W, 3]`."""
        wanted = range(self.scene.num_frames) if indices is None else indices
        frames = paint_frames(self.scene, wanted)
        for frame, index in zip(frames, wanted, strict=True):
            mover = self.order[self.scene.phase_of_frame(index)]
            for box, home in zip(self.boxes, self.homes, strict=True):
                lay(frame, box, self._round(index) if box.colour == mover else home)
        return frames

    def _round(self, index: int) -> tuple[float, float]:
        angle = 2 * np.pi * self.turns * index / self.scene.fps
        x, y = self.middle
        return x + self.wobble * float(np.cos(angle)), y + self.wobble * float(np.sin(angle))

    def window(self, phase: int) -> tuple[float, float]:
        """Return when a sound counts to a phase: its first and last moment in seconds."""
        scene = self.scene
        shown = [scene.phase_of_frame(index) for index in range(scene.num_frames)]
        first = shown.index(phase)
        quarter = scene.num_frames / PHASES
        begin = max(first, phase * quarter) / scene.fps
        end = min(first + shown.count(phase), (phase + 1) * quarter) / scene.fps
        return begin + MARGIN, end - MARGIN


def draw_sound_picture(
    rng: np.random.Generator,
    size: tuple[int, int] | None = None,
    order: tuple[str, ...] | None = None,
    change: int | None = None,
) -> SoundPicture:
    """Draw a picture.

    Args:
        rng: source of all randomness.
        size: (width, height) in pixels, one of `SIZES`; drawn if not given.
        order: the four colours as their boxes move; drawn if not given.
        change: first phase of the ball's second colour, 1 to 3; drawn if not given.

    Raises:
        InvalidSetting: if the size is not one of `SIZES`.
    """
    scene = make_scene(rng, size=size)
    (width, height), near = scene.size, scene.radius + 3
    order = order or tuple(rng.permutation(BOX_COLOURS).tolist())
    change = int(rng.integers(1, PHASES)) if change is None else change

    colours = rng.permutation(list(BALL_COLOURS))[:2].tolist()
    edge = near + rng.uniform(0, 4)
    x, y = width / 2 + rng.uniform(-4, 4), height / 2 + rng.uniform(-4, 4)
    sides = ((edge, y), (width - edge, y), (x, edge), (x, height - edge))
    ball = tuple(round(float(value), 4) for value in sides[int(rng.integers(4))])
    phases = tuple(
        Phase((ball[0], ball[1]), colours[int(phase >= change)], 0.0, None)
        for phase in range(PHASES)
    )
    faint = log_uniform(rng, *OPACITY), log_uniform(rng, *OPACITY)

    half = round(float(rng.uniform(*BOX_HALF)), 4)
    homes = []
    for corner in rng.permutation(len(BOX_COLOURS)).tolist():
        gap_x, gap_y = (round(half + 2 + float(rng.uniform(0, 4)), 4) for _ in range(2))
        homes.append(
            (width - gap_x if corner % 2 else gap_x, height - gap_y if corner // 2 else gap_y)
        )
    middle = [round(side / 2 + float(rng.uniform(-3, 3)), 4) for side in (width, height)]
    return SoundPicture(
        scene=replace(scene, phases=phases, opacity=(faint[0], 1.0, 1.0)),
        change=change,
        order=order,
        boxes=tuple(Square(colour, half, faint[1]) for colour in BOX_COLOURS),
        homes=tuple(homes),
        middle=(middle[0], middle[1]),
        wobble=round(float(rng.uniform(*WOBBLE)), 4),
        turns=round(float(rng.uniform(*TURNS)), 4),
    )
