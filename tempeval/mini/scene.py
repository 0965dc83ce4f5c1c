"""What a mini clip shows: a ball, a box and a lamp, in four phases that change between grids.

Eight uniformly sampled frames make four temporal grids of two frames. Phases end between those
grids, so the two frames of a grid show the same phase and all evidence about time lies between
grids, where position ids matter, not inside one. The same holds for sixteen frames in eight grids,
and for every second frame of sixteen.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping

PHASES = 4
BOUNDARIES = (0.205, 0.47, 0.737)
"""Ends of the first three phases as fractions of the time from the first frame to the last.

They lie between the second and third, fourth and fifth, sixth and seventh of 8 uniform samples, and
likewise of 16, also when indices are rounded down.
"""
SECONDS = (2.4, 4.0)
"""Shortest and longest duration of a clip; below 2.4 s there are too few frames for 16 samples."""

BALL_COLOURS = {
    "red": (220, 50, 40),
    "green": (50, 185, 70),
    "blue": (50, 90, 230),
    "yellow": (235, 205, 50),
}
LAMP_COLOURS = {
    "white": (250, 250, 250),
    "pink": (245, 90, 200),
    "cyan": (40, 225, 225),
    "orange": (250, 145, 20),
}
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
ACTIONS = ("grow", "shrink", "blink", "rest")
SPEEDS = {"fast": (11.0, 15.0), "slow": (3.0, 6.5)}
"""Range of each speed in pixels per second, for a side of 84 pixels."""
SIZES = ((84, 84), (112, 84), (84, 112), (112, 112))
"""Sizes of a clip as (width, height) in pixels; multiples of 28 = patch 14 x merge 2."""
FRAME_RATES = (8, 10, 12)

BALL_RADIUS = (5.5, 8.5)
BOX_HALF = (5.0, 9.0)
BOX_CHANGE = (1.2, 2.4)
LAMP_HALF = 4.5
BALL_OPACITY = (0.03, 0.35)
BOX_OPACITY = (0.03, 0.4)
LAMP_OPACITY = (0.03, 0.4)
"""How strongly a thing covers the background, 0 to 1, on a logarithmic scale.

Faint things make the suite hard; without them the tiny model is right nearly always.
"""


@dataclass(frozen=True)
class Facts:
    """What is to be asked about a clip: the answers before there is a picture.

    Attributes:
        direction: where the ball moves, one of `DIRECTIONS`.
        speed: how fast it is, one of `SPEEDS`.
        colours: its colour before and after the change, two of `BALL_COLOURS`.
        action: what the box does, one of `ACTIONS`.
        lamp: the two colours that the lamp shows, first and last, two of `LAMP_COLOURS`.
    """

    direction: str
    speed: str
    colours: tuple[str, str]
    action: str
    lamp: tuple[str, str]


@dataclass(frozen=True)
class Phase:
    """What is seen between two boundaries; positions in pixels, x to the right and y down."""

    ball: tuple[float, float]
    ball_colour: str
    box_half: float
    lamp: str | None


@dataclass(frozen=True)
class Scene:
    """Everything needed to draw a clip.

    Attributes:
        facts: what the clip shows.
        size: (width, height) in pixels.
        num_frames: frames in the file.
        fps: frames per second (1/s).
        phases: the four phases.
        radius: of the ball, in pixels.
        box: centre of the box.
        lamp: centre of the lamp.
        opacity: of ball, box and lamp, 0 to 1.
        ground: grey level of the background, its slope in x and in y (levels over the clip).
        noise: seed of the pixel noise.
    """

    facts: Facts
    size: tuple[int, int]
    num_frames: int
    fps: int
    phases: tuple[Phase, ...]
    radius: float
    box: tuple[float, float]
    lamp: tuple[float, float]
    opacity: tuple[float, float, float]
    ground: tuple[float, float, float]
    noise: int

    def phase_of_frame(self, index: int) -> int:
        """Return which phase frame `index` of the file shows."""
        return phase_at(index / (self.num_frames - 1))

    def record(self) -> dict[str, Any]:
        """Return the scene as plain JSON values."""
        return asdict(self)


def phase_at(fraction: float) -> int:
    """Return the phase shown at a fraction of the clip's duration, 0 to 1."""
    return sum(fraction > boundary for boundary in BOUNDARIES)


def random_facts(rng: np.random.Generator) -> Facts:
    """Draw facts uniformly."""
    before, after = rng.permutation(list(BALL_COLOURS))[:2].tolist()
    first, last = rng.permutation(list(LAMP_COLOURS))[:2].tolist()
    return Facts(
        direction=str(rng.choice(list(DIRECTIONS))),
        speed=str(rng.choice(list(SPEEDS))),
        colours=(before, after),
        action=str(rng.choice(ACTIONS)),
        lamp=(first, last),
    )


def _opacity(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(low * (high / low) ** rng.uniform()), 4)


def _box_halves(action: str, rng: np.random.Generator) -> list[float]:
    """Return half the side of the box in each phase, in pixels; 0 where it is not seen."""
    middle = rng.uniform(*BOX_HALF)
    change = rng.uniform(*BOX_CHANGE)
    if action in ("grow", "shrink"):
        slope = change if action == "grow" else -change
        return [float(middle + slope * (phase - 1.5)) for phase in range(PHASES)]
    if action == "blink":
        hidden = int(rng.integers(1, PHASES - 1))
        return [0.0 if phase == hidden else float(middle) for phase in range(PHASES)]
    return [float(middle)] * PHASES


def make_scene(
    rng: np.random.Generator,
    facts: Facts | None = None,
    size: tuple[int, int] | None = None,
) -> Scene:
    """Draw a scene.

    Args:
        rng: source of all randomness.
        facts: what the clip must show; drawn if not given.
        size: (width, height) in pixels, one of `SIZES`; drawn if not given.

    Returns:
        The scene.

    Raises:
        InvalidSetting: if the size is not one of `SIZES`.
    """
    facts = facts or random_facts(rng)
    width, height = size or SIZES[int(rng.integers(len(SIZES)))]
    if (width, height) not in SIZES:
        raise InvalidSetting(f"size={(width, height)} is not one of {SIZES}")
    fps = int(rng.choice(FRAME_RATES))
    num_frames = round(fps * rng.uniform(*SECONDS))

    radius = float(rng.uniform(*BALL_RADIUS))
    heading = np.array(DIRECTIONS[facts.direction], dtype=float)
    side = width if heading[0] else height
    distance = rng.uniform(*SPEEDS[facts.speed]) * side / min(min(SIZES)) * (num_frames - 1) / fps
    path = heading * np.linspace(0.0, distance, PHASES)[:, None]  # [PHASES, 2]
    low = radius + 2 - path.min(axis=0)
    high = np.array([width, height]) - radius - 2 - path.max(axis=0)
    centres = rng.uniform(low, high) + path

    halves = _box_halves(facts.action, rng)
    box = _place(rng, (width, height), max(halves) + 2, [(*centre, radius) for centre in centres])
    taken = [*((*centre, radius) for centre in centres), (*box, max(halves))]
    lamp = _place(rng, (width, height), LAMP_HALF + 1, taken)

    change = int(rng.integers(1, PHASES))
    shown: list[str | None] = [None] * PHASES
    for phase, colour in zip(sorted(rng.permutation(PHASES)[:2].tolist()), facts.lamp, strict=True):
        shown[phase] = colour
    phases = tuple(
        Phase(
            ball=(float(centres[phase, 0]), float(centres[phase, 1])),
            ball_colour=facts.colours[int(phase >= change)],
            box_half=halves[phase],
            lamp=shown[phase],
        )
        for phase in range(PHASES)
    )
    ground = (
        float(rng.uniform(85, 125)),
        float(rng.uniform(60, 100)),
        float(rng.uniform(60, 100)),
    )
    return Scene(
        facts=facts,
        size=(width, height),
        num_frames=num_frames,
        fps=fps,
        phases=phases,
        radius=radius,
        box=box,
        lamp=lamp,
        opacity=(
            _opacity(rng, *BALL_OPACITY),
            _opacity(rng, *BOX_OPACITY),
            _opacity(rng, *LAMP_OPACITY),
        ),
        ground=ground,
        noise=int(rng.integers(2**31)),
    )


def _place(
    rng: np.random.Generator,
    size: tuple[int, int],
    half: float,
    taken: list[tuple[float, float, float]],
) -> tuple[float, float]:
    """Return a centre for a square that stays clear of taken discs, or the clearest one tried."""
    best: tuple[float, float] = (0.0, 0.0)
    best_gap = -np.inf
    for _ in range(40):
        x, y = (float(rng.uniform(half + 1, side - half - 1)) for side in size)
        gap = min(max(abs(x - u), abs(y - v)) - half - r for u, v, r in taken)
        if gap > best_gap:
            best, best_gap = (x, y), gap
        if gap > 1.0:
            break
    return best


def facts_from_record(record: Mapping[str, Any]) -> Facts:
    """Return the facts that `Scene.record()` wrote."""
    facts = dict(record["facts"])
    return Facts(**{**facts, "colours": tuple(facts["colours"]), "lamp": tuple(facts["lamp"])})
