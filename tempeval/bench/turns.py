"""Call several sides by turns, and time them."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.bench.machine import own_seconds

if TYPE_CHECKING:
    from collections.abc import Callable


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
    """Call every side once; each round starts with another one.

    Args:
        number: of the round.
        sides: callables by name, each returning `(seconds, result)`.
    """
    names = list(sides)
    first = number % len(names)
    turns = Turns({}, {}, {})
    for name in names[first:] + names[:first]:
        gc.collect()  # garbage of one side is not to be collected in the time of another
        before = own_seconds()
        turns.seconds[name], turns.results[name] = sides[name]()
        turns.cpu_seconds[name] = own_seconds() - before
    return turns
