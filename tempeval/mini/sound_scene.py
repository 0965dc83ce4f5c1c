"""What a clip with a sound track shows and plays, and why its picture tells no answer.

The picture: a ball changes its colour between two of four phases, and in each phase another one of
four boxes moves in the middle while the rest stand in the corners. The sound: one to four short
beeps; one horn, in one phase; one hum, in one phase.

- How many beeps: the picture has no part in it.
- Which box moved when the horn sounded: all boxes move, the horn selects. Its phase is that of a
  box drawn from four, whatever the order in which they move.
- Whether the hum came before the change of colour: drawn first; then a phase on that side of the
  change. (The sound alone answers 8 of 9 of these: a hum in the first phase is never after.)

The picture is drawn before there are facts and from other randomness, so answers are independent of
every frame, sampled or not.

Phases are those of `tempeval.mini.scene`: of 8 uniform frames, two show each. Sounds also stay
within the quarter of the clip that belongs to those two frames, and each beep within the eighth of
one frame, as side channels are divided evenly among frames.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tempeval.mini.scene import PHASES
from tempeval.mini.sound import HISS, Track, draw_tones, log_uniform, synthesise
from tempeval.mini.sound_picture import BOX_COLOURS, SoundPicture, draw_sound_picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tempeval.mini.sound import Sound

BEEPS = (1, 2, 3, 4)
SLOTS = 8
"""Parts of a clip that may hold a beep each."""
BEEP_MARGIN = 0.05
"""Seconds between a beep and the ends of its slot: two beeps are at least twice as far apart."""


@dataclass(frozen=True)
class SoundFacts:
    """The answers: drawn apart from the picture.

    Attributes:
        beeps: how many, one of `BEEPS`.
        box: colour of the box that moves while the horn sounds, one of `BOX_COLOURS`.
        before: whether the hum comes before the ball changes its colour.
    """

    beeps: int
    box: str
    before: bool


@dataclass(frozen=True)
class SoundScene:
    """A picture and the sound that goes with it."""

    picture: SoundPicture
    facts: SoundFacts
    track: Track

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.picture.scene.size

    @property
    def num_frames(self) -> int:
        """Frames in the file."""
        return self.picture.scene.num_frames

    @property
    def fps(self) -> int:
        """Frames per second (1/s)."""
        return self.picture.scene.fps

    @property
    def keyframes(self) -> tuple[int, ...]:
        """Frames that have to be coded alone: none, no frame tells an answer."""
        return ()

    def paint(self, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Return frames (all if none are named) before encoding, uint8 `[T, H, W, 3]`."""
        return self.picture.paint(indices)

    def sound(self) -> Sound:
        """Return the sound before encoding, as long as the picture."""
        return synthesise(self.track, self.num_frames / self.fps)

    def answers(self) -> dict[str, str]:
        """Return the right answer to each kind of question, by its name."""
        return {
            "beep_count": str(self.facts.beeps),
            "horn_box": self.facts.box,
            "hum_order": "yes" if self.facts.before else "no",
        }

    def record(self) -> dict[str, Any]:
        """Return the scene as plain JSON values."""
        return asdict(self)


def random_sound_facts(rng: np.random.Generator) -> SoundFacts:
    """Draw facts uniformly."""
    return SoundFacts(int(rng.choice(BEEPS)), str(rng.choice(BOX_COLOURS)), bool(rng.integers(2)))


def draw_track(rng: np.random.Generator, picture: SoundPicture, facts: SoundFacts) -> Track:
    """Draw the sound that makes facts true of a picture."""
    seconds = picture.scene.num_frames / picture.scene.fps
    slots = sorted(rng.permutation(SLOTS)[: facts.beeps].tolist())
    beeps = [
        (seconds * slot / SLOTS + BEEP_MARGIN, seconds * (slot + 1) / SLOTS - BEEP_MARGIN)
        for slot in slots
    ]
    span = range(picture.change) if facts.before else range(picture.change, PHASES)
    horn, hum = picture.order.index(facts.box), int(rng.choice(span))
    tones = (
        *draw_tones(rng, "beep", beeps),
        *draw_tones(rng, "horn", [picture.window(horn)]),
        *draw_tones(rng, "hum", [picture.window(hum)]),
    )
    return Track(tones, log_uniform(rng, *HISS), int(rng.integers(2**31)))


def draw_sound_scene(
    rng: np.random.Generator,
    facts: SoundFacts | None = None,
    size: tuple[int, int] | None = None,
    order: tuple[str, ...] | None = None,
    change: int | None = None,
) -> SoundScene:
    """Draw a picture, facts where none are given, and a sound; see `draw_sound_picture`."""
    picture = draw_sound_picture(rng, size, order, change)
    facts = facts or random_sound_facts(rng)
    return SoundScene(picture, facts, draw_track(rng, picture, facts))
