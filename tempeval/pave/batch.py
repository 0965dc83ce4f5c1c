"""Videos with their questions and answers as padded batches for the text stack.

A sequence is `prefix + tail + tail + ...`: the prefix ends with the video, each tail is the rest of
one question with its answer. A tail sees the prefix and itself, and its positions continue from
the prefix, so the loss is that of every question asked alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from tempeval.errors import InvalidSetting
from tempeval.stages import AXIS_ALL, AXIS_HEIGHT, AXIS_TEMPORAL, AXIS_WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.families.base import Family
    from tempeval.pave.features import Seen
    from tempeval.stages import Layout, RotaryPlan, VisualTokens

IGNORED = -100
"""Label of rows that are not learnt from, as in torch's cross-entropy."""


@dataclass(frozen=True)
class Tail:
    """What follows the video: the rest of the question, then the answer.

    Attributes:
        ids: token ids of both.
        answer: how many of them, at the end, are the answer's (its end token included).
    """

    ids: tuple[int, ...]
    answer: int


@dataclass(frozen=True)
class Unit:
    """Questions that share one pass: about one video, with the same text before it.

    Attributes:
        video: number of the video.
        head: token ids through the video's placeholder.
        tails: one per question.
    """

    video: int
    head: tuple[int, ...]
    tails: tuple[Tail, ...]


@dataclass(frozen=True)
class Batch:
    """A micro-batch; `B` units, `S` rows of the longest.

    Attributes:
        embeds: `[B, S, D]`, without what the patch adds.
        position_ids: long `[B, S]`, or `[3, B, S]` where channels encode time, height and width.
        mask: bool `[B, 1, S, S]`, True where a row may see a column; None is causal.
        labels: long `[B, S]`, the token that each row must name; `IGNORED` elsewhere.
        cells: for each unit, long `[T * h * w]`: rows of the tokens that the patch adds to.
        seen: for each unit, what the patch takes.
    """

    embeds: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor | None
    labels: torch.Tensor
    cells: tuple[torch.Tensor, ...]
    seen: tuple[Seen, ...]


def make_tail(family: Family, ids: Sequence[int], answer: str) -> tuple[tuple[int, ...], Tail]:
    """Split a tokenized chat after its video, and append the answer with its end token.

    Args:
        family: the base model.
        ids: the chat, from `Family.tokenize`; one placeholder.
        answer: as the model should say it.

    Returns:
        The head and the tail.

    Raises:
        InvalidSetting: if the chat has not exactly one visual, or the answer has no token.
    """
    places = [place for place, token in enumerate(ids) if token in family.placeholder_ids]
    if len(places) != 1:
        raise InvalidSetting(f"a prompt has {len(places)} visuals; training takes one video each")
    spoken = family.tokenizer(answer, add_special_tokens=False)["input_ids"]
    if not spoken:
        raise InvalidSetting(f"the answer {answer!r} has no token")
    spoken = [*spoken, family.tokenizer.eos_token_id]
    cut = places[0] + 1
    return tuple(ids[:cut]), Tail((*ids[cut:], *spoken), len(spoken))


@torch.no_grad()
def collate(family: Family, units: Sequence[Unit], seen: Sequence[Seen]) -> Batch:
    """Lay out units as one batch, on the model's device.

    Args:
        family: the base model.
        units: the questions.
        seen: the video of each unit, encoded.
    """
    device = family.device
    rows = [_row(family, unit, each) for unit, each in zip(units, seen, strict=True)]
    longest = max(len(row.labels) for row in rows)
    embeds = rows[0].embeds.new_zeros(len(rows), longest, rows[0].embeds.shape[1])
    positions = torch.zeros(
        rows[0].positions.shape[0], len(rows), longest, dtype=torch.long, device=device
    )
    labels = torch.full((len(rows), longest), IGNORED, device=device)
    group = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
    for number, row in enumerate(rows):
        length = len(row.labels)
        embeds[number, :length] = row.embeds
        positions[:, number, :length] = row.positions
        # Padding is on the right and counts on, as if the text did.
        positions[:, number, length:] = row.positions[:, -1:] + torch.arange(
            1, longest - length + 1, device=device
        )
        labels[number, :length] = row.labels
        group[number, :length] = row.group
        group[number, length:] = row.group[-1] if length else 0
    return Batch(
        embeds=embeds,
        position_ids=positions if family.axes else positions[0],
        mask=packed_mask(group) if any(len(unit.tails) > 1 for unit in units) else None,
        labels=labels,
        cells=tuple(row.cells for row in rows),
        seen=tuple(seen),
    )


def packed_mask(group: torch.Tensor) -> torch.Tensor:
    """Return what may be seen, bool `[B, 1, S, S]`.

    Args:
        group: long `[B, S]`, 0 on the prefix, and the number of the question after it.
    """
    same = group[:, :, None] == group[:, None, :]
    return (same | (group[:, None, :] == 0)).tril().unsqueeze(1)


@dataclass(frozen=True)
class _Row:
    """One unit before padding: the columns of `Batch`, and the question that each row is of."""

    embeds: torch.Tensor
    positions: torch.Tensor
    labels: torch.Tensor
    group: torch.Tensor
    cells: torch.Tensor


def _row(family: Family, unit: Unit, seen: Seen) -> _Row:
    device = family.device
    visual = replace(seen.tokens, embeddings=seen.tokens.embeddings.to(device))
    layout, _ = family.layout(unit.head, [visual])
    prefix = family.embed(layout, [visual])[0]
    ids = [token for tail in unit.tails for token in tail.ids]
    after = family.model.get_input_embeddings()(torch.tensor(ids, device=device))
    start = layout.rotary.next_position
    labels, group, later = [[IGNORED] * layout.length], [[0] * layout.length], []
    for number, tail in enumerate(unit.tails, start=1):
        size = len(tail.ids)
        asked = size - tail.answer
        # The row before a token names it.
        labels.append([IGNORED] * (asked - 1) + list(tail.ids[asked:]) + [IGNORED])
        group.append([number] * size)
        later.append(start + torch.arange(size, device=device))
    before = axis_positions(layout.rotary, family.axes)
    positions = torch.cat([before, torch.cat(later).expand(len(before), -1)], dim=1)
    return _Row(
        embeds=torch.cat([prefix, after.to(prefix)]),
        positions=positions.long(),
        labels=torch.tensor([label for part in labels for label in part], device=device),
        group=torch.tensor([number for part in group for number in part], device=device),
        cells=cell_rows(layout, visual),
    )


def axis_positions(rotary: RotaryPlan, axes: bool) -> torch.Tensor:
    """Return positions per axis of a family's own plan, `[3, P]` or `[1, P]`.

    Args:
        rotary: native positions: those of one axis are the same in all its channels.
        axes: whether channels encode time, height and width.
    """
    wanted = (AXIS_TEMPORAL, AXIS_HEIGHT, AXIS_WIDTH) if axes else (AXIS_ALL,)
    channels = [int((rotary.axis == axis).nonzero()[0]) for axis in wanted]
    return rotary.positions[:, channels].T


def cell_rows(layout: Layout, visual: VisualTokens) -> torch.Tensor:
    """Return the rows of a video's cells, long `[T * h * w]`, by grid, row and column.

    Newline tokens are a further column, and a CLS token has no cell: neither is among them.
    """
    index = layout.grid_index
    is_cell = (index[:, 0] >= 0) & (index[:, 3] < visual.grid[2])
    return is_cell.nonzero().squeeze(1)
