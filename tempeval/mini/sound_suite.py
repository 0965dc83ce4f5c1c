"""The suite of clips with a sound track: its questions, and its test clips.

The questions are ordinary English, so that any model may be asked. The tiny tokenizers know neither
"beeps" nor "horn" nor "hum" (they become `<unk>`), but they know every choice and enough other
words to tell the questions apart, and the shipped checkpoints keep their vocabulary.
"""

from __future__ import annotations

from itertools import permutations, product
from typing import TYPE_CHECKING

from tempeval.mini.questions import Kind
from tempeval.mini.scene import PHASES, SIZES
from tempeval.mini.side import SideSuite
from tempeval.mini.sound_picture import BOX_COLOURS
from tempeval.mini.sound_scene import BEEPS, SoundFacts, SoundScene, draw_sound_scene

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

KINDS = (
    Kind("beep_count", "count", "How many beeps are there?", tuple(map(str, BEEPS))),
    Kind("horn_box", "box", "Which box moved when the horn sounded?", BOX_COLOURS),
    Kind("hum_order", "order", "Did the hum come before the colour change?", ("yes", "no")),
)


def arrange(
    rng: np.random.Generator, of_scene: Callable[[int], np.random.Generator]
) -> list[SoundScene]:
    """Return 96 scenes in which no answer goes with what is seen.

    Each order of the boxes meets each box as the answer once; each change of colour meets `yes` and
    `no` 16 times each; each number of beeps comes 24 times.

    Args:
        rng: source of the arrangement.
        of_scene: gives the source of each scene's own randomness.
    """
    boxes = list(product(permutations(BOX_COLOURS), BOX_COLOURS))
    number = len(boxes)

    def shuffled(values: list[int]) -> list[int]:
        repeated = [values[index % len(values)] for index in range(number)]
        return [repeated[index] for index in rng.permutation(number).tolist()]

    order_and_box = shuffled(list(range(number)))
    changes = list(product(range(1, PHASES), (True, False)))
    change_and_before = shuffled(list(range(len(changes))))
    beeps, sizes = shuffled(list(BEEPS)), shuffled(list(range(len(SIZES))))
    scenes = []
    for index in range(number):
        order, box = boxes[order_and_box[index]]
        change, before = changes[change_and_before[index]]
        facts = SoundFacts(beeps[index], box, before)
        size = SIZES[sizes[index]]
        scenes.append(draw_sound_scene(of_scene(index), facts, size, order, change))
    return scenes


SUITE = SideSuite(
    name="audio",
    version="1",
    key=1,
    kinds=KINDS,
    draw=lambda rng, size: draw_sound_scene(rng, size=size),
    arrange=arrange,
)
