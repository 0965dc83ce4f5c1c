"""Call several sides by turns, and time them."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.bench.machine import own_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass
class Turns:
    """What every side took and gave.

    Attributes:
        seconds: wall time.
        cpu_seconds: processor time of this process and of children that ended meanwhile. Waiting
            for a busy processor is not in it, so its ratios hold up where those of wall time do
            not; threads that spin while they wait are.
        results: what the sides returned.
    """

    seconds: dict[str, float]
    cpu_seconds: dict[str, float]
    results: dict[str, Any]


def by_turns(number: int, sides: dict[str, Callable[[], Any]]) -> Turns:
    """Call every side once, in an order that changes from round to round.

    A side may be slower for what ran before it. Over twice as many rounds as sides, each side has
    every place equally often, and of two neighbours each comes first equally often.

    Args:
        number: of the round.
        sides: callables by name, each returning `(seconds, result)`.
    """
    turns = Turns({}, {}, {})
    for name in order_of(number, list(sides)):
        gc.collect()  # garbage of one side is not to be collected in the time of another
        before = own_seconds()
        turns.seconds[name], turns.results[name] = sides[name]()
        turns.cpu_seconds[name] = own_seconds() - before
    return turns


def order_of(number: int, names: Sequence[str]) -> list[str]:
    """Return the order of a round: rotations of the names, each followed by its mirror image."""
    first = number // 2 % len(names)
    order = [*names[first:], *names[:first]]
    return order[::-1] if number % 2 else order
