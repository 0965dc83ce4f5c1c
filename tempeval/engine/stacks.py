"""Runs of prefix rows that can be attended as one batch, because they see the same columns."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Stack:
    """Neighbouring runs of rows, equally long, that see the same columns before all of them.

    A row sees these columns, and its own run causally; never another run of its stack.

    Attributes:
        start: first row.
        count: runs.
        length: rows of each run.
        earlier: `(start, stop)` of the columns before `start` that every row sees.
    """

    start: int
    count: int
    length: int
    earlier: tuple[tuple[int, int], ...]

    @property
    def stop(self) -> int:
        """One after the last row."""
        return self.start + self.count * self.length


def stacks_of(visible: torch.Tensor, ranges: Sequence[tuple[int, int, int]]) -> list[Stack] | None:
    """Group the rows of a prefix; None where nothing but causality restricts them.

    Args:
        visible: bool `[K, K]`, segments that rows of a segment attend to.
        ranges: `(segment, start, stop)` runs of the rows, in order.
    """
    names = torch.tensor([segment for segment, _, _ in ranges], dtype=torch.long)
    seen: list[list[bool]] = visible.cpu()[names][:, names].tolist()
    if all(all(row[:number]) for number, row in enumerate(seen)):
        return None
    stacks: list[Stack] = []
    for number, (_, start, stop) in enumerate(ranges):
        earlier = joined([ranges[other][1:] for other in range(number) if seen[number][other]])
        own = Stack(start, 1, stop - start, tuple(earlier))
        # The columns of a stack lie before it, so a run that sees the same ones sees none of it.
        if stacks and (stacks[-1].length, stacks[-1].earlier) == (own.length, own.earlier):
            stacks[-1] = replace(stacks[-1], count=stacks[-1].count + 1)
        else:
            stacks.append(own)
    return stacks


def joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join `(start, stop)` ranges that touch."""
    whole: list[tuple[int, int]] = []
    for start, stop in ranges:
        if whole and whole[-1][1] == start:
            whole[-1] = (whole[-1][0], stop)
        else:
            whole.append((start, stop))
    return whole


def columns(states: torch.Tensor, ranges: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Take the columns of `[B, h_kv, T, d]` keys or values; one range is a view."""
    parts = [states[:, :, start:stop] for start, stop in joined(ranges)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
