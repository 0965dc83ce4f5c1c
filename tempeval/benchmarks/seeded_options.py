"""Options of a multiple-choice question about a label set, drawn the same on every machine."""

from __future__ import annotations

import hashlib
from bisect import insort

from tempeval.errors import InvalidSetting

#: Bits beyond those of the draws, so that no option is likelier by more than 2**-64.
_SPARE_BITS = 64


def seeded_options(
    sample_id: str, answer: int, classes: int, options: int, seed: int
) -> tuple[list[int], int]:
    """Draw distractors and the place of the answer.

    The draw depends on its arguments alone: not on other samples, their order, Python's version or
    the platform. It reads one long number, a SHAKE-256 digest of seed and sample id, digit by
    digit.

    Args:
        sample_id: of the question.
        answer: index of the right class.
        classes: how many there are.
        options: how many are shown, the right one included.
        seed: of the task.

    Returns:
        The classes shown, in order, and the place of the answer among them.

    Raises:
        InvalidSetting: if fewer than 2 options are wanted, or more than there are classes.
    """
    if not 2 <= options <= classes:
        raise InvalidSetting(
            f"options={options} is not accepted for {classes} labels; give 2 to {classes}"
        )
    bits = options * classes.bit_length() + _SPARE_BITS
    digest = hashlib.shake_256(f"{seed}\0{sample_id}".encode()).digest(bits // 8 + 1)
    number = int.from_bytes(digest, "big")
    number, place = divmod(number, options)
    taken, shown = [answer], []
    for left in range(classes - 1, classes - options, -1):
        number, drawn = divmod(number, left)
        # The drawn-th class that is not taken: step over those that are.
        for other in taken:
            drawn += other <= drawn
        insort(taken, drawn)
        shown.append(drawn)
    return [*shown[:place], answer, *shown[place:]], place
