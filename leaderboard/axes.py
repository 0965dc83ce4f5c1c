"""Axes of a plot: a range with round ticks, linear, or logarithmic where values differ widely."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDE = 8.0  # largest over smallest value from which on an axis is logarithmic
_TICKS = 5
_UNITS = ((1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB"), (1.0, "bytes"))


@dataclass(frozen=True, slots=True)
class Axis:
    """A range of values and where it has ticks, as (value, text).

    `label` names what is measured, with its unit. A logarithmic axis has `log` set.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    label: str
    log: bool = False

    def place(self, value: float, start: float, end: float) -> float:
        """Give the pixel of a value on an axis that goes from pixel `start` to `end`."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return start + (end - start) * (self._scaled(value) - low) / (high - low)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


def axis(values: Sequence[float], label: str, *, may_log: bool = False) -> Axis:
    """Make an axis that holds all values with some room at both ends.

    Args:
        values: finite numbers, at least one.
        label: what they are.
        may_log: take a logarithmic axis when the largest is 8 and more times the smallest.

    Returns:
        An axis whose low end is below the high one.
    """
    low, high = min(values), max(values)
    if may_log and low > 0 and high / low >= _WIDE:
        room = (high / low) ** 0.08
        return _log_axis(low / room, high * room, label)
    if high - low < 1e-9 * max(abs(high), abs(low), 1e-9):
        # One value: a tick at it and nothing else, since any step would be made up.
        room = abs(high) * 0.1 or 1.0
        return Axis(low - room, high + room, ((low, f"{low:.4g}"),), label)
    room = 0.08 * (high - low)
    bottom = max(low - room, 0.0) if low >= 0 else low - room
    step = _step(high + room - bottom)
    ticks = _multiples(bottom, high + room, step)
    return Axis(bottom, high + room, ticks, label)


def byte_axis(values: Sequence[float], label: str) -> tuple[Axis, float]:
    """Make an axis of bytes in the largest unit that the largest value fills.

    Returns:
        The axis, in units, and the bytes of one unit.
    """
    unit, name = next(
        ((unit, name) for unit, name in _UNITS if max(values) >= unit), (1.0, "bytes")
    )
    return axis([value / unit for value in values], f"{label} ({name})", may_log=True), unit


def _log_axis(low: float, high: float, label: str) -> Axis:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = range(first, last + 1)
    # Fewer ticks for each factor of ten, the more of them there are.
    factors = (1, 2, 5) if last - first <= 3 else (1,)
    found = [factor * 10.0**power for power in decades for factor in factors]
    ticks = tuple((value, f"{value:.12g}") for value in found if low <= value <= high)
    return Axis(low, high, ticks, label, log=True)


def _step(span: float) -> float:
    """Give the round step (1, 2 or 5 times a power of ten) that makes about five ticks."""
    raw = span / _TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    return power * min((1, 2, 5, 10), key=lambda factor: abs(factor - raw / power))


def _multiples(low: float, high: float, step: float) -> tuple[tuple[float, str], ...]:
    numbers = range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    return tuple((number * step, _text(number * step, step)) for number in numbers)


def _text(value: float, step: float) -> str:
    """Print a tick with the decimals that its step needs."""
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"
