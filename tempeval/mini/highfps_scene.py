"""What a clip with events between the sampled frames shows, and why those frames tell no answer.

A mini scene whose lamp is dark, but for one to four blinks of two frames each: all of one colour
and in one place, each between two of the 8 frames that uniform sampling takes. A clip has 32 frames
at the suite's rates, so all of them are four times 8.

No blink touches a frame of the uniform 8, whether indices are rounded down (as here and in
lmms-eval) or to the nearest. Those frames are painted from a scene that is drawn before there are
facts, and coded alone (`keyframes`), because a frame that is predicted from a blink keeps a trace
of it: so they are the same to the bit whatever the answers. Other rules, such as the centres of
equal segments, do take frames that show a blink.

A blink also stays within the eighth of the clip that belongs to one of the 8 frames, as side
channels are divided evenly among frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tempeval.mini.paint import paint_frames
from tempeval.mini.scene import LAMP_COLOURS, Scene, make_scene
from tempeval.mini.sound import log_uniform
from tempeval.mini.squares import Square, lay

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

BLINKS = (1, 2, 3, 4)
SIDES = {"left": (0.18, 0.5), "right": (0.82, 0.5), "up": (0.5, 0.18), "down": (0.5, 0.82)}
"""Where a lamp is, as fractions of width and height."""
SPREAD = 0.05
"""How far from there, as a fraction of width and height."""
NUM_FRAMES = 32
SAMPLED = 8
GAP = (NUM_FRAMES - 1) / (SAMPLED - 1)
"""Frames from one sampled frame to the next."""
KEYFRAMES = tuple(
    sorted({index for k in range(SAMPLED) for index in (int(k * GAP), round(k * GAP))})
)
"""What uniform sampling of 8 frames takes, with indices rounded down or to the nearest."""
BLINK_FRAMES = 2
HALF = (6.0, 8.5)
OPACITY = (0.35, 0.95)


def _starts() -> tuple[tuple[int, ...], ...]:
    share = NUM_FRAMES // SAMPLED
    starts: list[list[int]] = [[] for _ in range(SAMPLED - 1)]
    for start in range(NUM_FRAMES - BLINK_FRAMES):
        shown = range(start, start + BLINK_FRAMES)
        if not set(KEYFRAMES) & set(shown) and shown[0] // share == shown[-1] // share:
            starts[int(start / GAP)].append(start)
    return tuple(map(tuple, starts))


STARTS = _starts()
"""First frames that a blink may have, for each gap between two of the sampled frames."""


@dataclass(frozen=True)
class BlinkFacts:
    """The answers: drawn apart from the picture.

    Attributes:
        blinks: how many, one of `BLINKS`.
        colour: of all of them, one of `LAMP_COLOURS`.
        side: where they are, one of `SIDES`.
    """

    blinks: int
    colour: str
    side: str


@dataclass(frozen=True)
class BlinkScene:
    """A picture and what blinks in it.

    Attributes:
        picture: a mini scene with a dark lamp: all that the sampled frames show.
        facts: the answers.
        starts: first frame of each blink.
        centre: of the lamp, (x, y) in pixels.
        lamp: how it looks.
    """

    picture: Scene
    facts: BlinkFacts
    starts: tuple[int, ...]
    centre: tuple[float, float]
    lamp: Square

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.picture.size

    @property
    def num_frames(self) -> int:
        """Frames in the file."""
        return self.picture.num_frames

    @property
    def fps(self) -> int:
        """Frames per second (1/s)."""
        return self.picture.fps

    @property
    def keyframes(self) -> tuple[int, ...]:
        """Frames that have to be coded alone, so that they keep no trace of a blink."""
        return KEYFRAMES

    def shows(self, index: int) -> bool:
        """Return whether the lamp is lit in a frame."""
        return any(start <= index < start + BLINK_FRAMES for start in self.starts)

    def paint(self, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Return frames (all if none are named) before encoding, uint8 `[T, H, W, 3]`."""
        wanted = range(self.num_frames) if indices is None else indices
        frames = paint_frames(self.picture, wanted)
        for frame, index in zip(frames, wanted, strict=True):
            if self.shows(index):
                lay(frame, self.lamp, self.centre)
        return frames

    def sound(self) -> None:
        """Return None: these clips are silent."""

    def answers(self) -> dict[str, str]:
        """Return the right answer to each kind of question, by its name."""
        return {
            "blink_count": str(self.facts.blinks),
            "blink_colour": self.facts.colour,
            "blink_side": self.facts.side,
        }

    def record(self) -> dict[str, Any]:
        """Return the scene as plain JSON values."""
        return asdict(self)


def random_blink_facts(rng: np.random.Generator) -> BlinkFacts:
    """Draw facts uniformly."""
    return BlinkFacts(
        int(rng.choice(BLINKS)), str(rng.choice(list(LAMP_COLOURS))), str(rng.choice(list(SIDES)))
    )


def draw_blink_picture(rng: np.random.Generator, size: tuple[int, int] | None = None) -> Scene:
    """Draw a mini scene of 32 frames with a dark lamp; see `make_scene`."""
    scene = make_scene(rng, size=size)
    phases = tuple(replace(phase, lamp=None) for phase in scene.phases)
    return replace(scene, phases=phases, num_frames=NUM_FRAMES)


def draw_blinks(rng: np.random.Generator, picture: Scene, facts: BlinkFacts) -> BlinkScene:
    """Draw when and where the lamp of a picture blinks, so that facts are true."""
    gaps = sorted(rng.permutation(len(STARTS))[: facts.blinks].tolist())
    x, y = (
        round(side * (place + float(rng.uniform(-SPREAD, SPREAD))), 4)
        for side, place in zip(picture.size, SIDES[facts.side], strict=True)
    )
    half = round(float(rng.uniform(*HALF)), 4)
    return BlinkScene(
        picture=picture,
        facts=facts,
        starts=tuple(int(rng.choice(STARTS[gap])) for gap in gaps),
        centre=(x, y),
        lamp=Square(facts.colour, half, log_uniform(rng, *OPACITY)),
    )


def draw_blink_scene(
    rng: np.random.Generator,
    facts: BlinkFacts | None = None,
    size: tuple[int, int] | None = None,
) -> BlinkScene:
    """Draw a picture, facts where none are given, and blinks.

    Args:
        rng: source of all randomness.
        facts: what is to be asked; drawn if not given.
        size: (width, height) in pixels, one of `SIZES`; drawn if not given.

    Raises:
        InvalidSetting: if the size is not one of `SIZES`.
    """
    picture = draw_blink_picture(rng, size)
    return draw_blinks(rng, picture, facts or random_blink_facts(rng))
