"""The suite of clips with events between the sampled frames: its questions, and its test clips."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.mini.highfps_scene import BLINKS, SIDES, BlinkFacts, BlinkScene, draw_blink_scene
from tempeval.mini.questions import Kind
from tempeval.mini.scene import LAMP_COLOURS, SIZES
from tempeval.mini.side import SideSuite

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

NUM_CLIPS = 96
KINDS = (
    Kind("blink_count", "count", "How many times does the lamp blink?", tuple(map(str, BLINKS))),
    Kind("blink_colour", "colour", "What colour does the lamp show?", tuple(LAMP_COLOURS)),
    Kind("blink_side", "side", "Where does the lamp blink?", tuple(SIDES)),
)


def arrange(
    rng: np.random.Generator, of_scene: Callable[[int], np.random.Generator]
) -> list[BlinkScene]:
    """Return 96 scenes, each answer to each kind of question equally often.

    Args:
        rng: source of the arrangement.
        of_scene: gives the source of each scene's own randomness.
    """

    def shuffled(count: int) -> list[int]:
        return [index % count for index in rng.permutation(NUM_CLIPS).tolist()]

    blinks, colours, sides, sizes = (
        shuffled(len(values)) for values in (BLINKS, LAMP_COLOURS, SIDES, SIZES)
    )
    return [
        draw_blink_scene(
            of_scene(index),
            BlinkFacts(
                BLINKS[blinks[index]], list(LAMP_COLOURS)[colours[index]], list(SIDES)[sides[index]]
            ),
            SIZES[sizes[index]],
        )
        for index in range(NUM_CLIPS)
    ]


SUITE = SideSuite(
    name="highfps",
    version="1",
    key=2,
    kinds=KINDS,
    draw=lambda rng, size: draw_blink_scene(rng, size=size),
    arrange=arrange,
)
