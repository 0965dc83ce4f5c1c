"""Layout of visuals some of whose tokens a method dropped: rows of the layout of all of them.

The prompt is laid out as if no token were gone, and the rows of those that stay are taken from it.
So a kept token has the position, the segment and the cell that it has in the whole video.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.stages import Layout, VisualTokens


@dataclass(frozen=True)
class KeptTokens:
    """What is left of one visual, in prompt order, newline tokens included.

    Attributes:
        rows: long `[n]`, index of each token among the visual's when all are there.
        is_newline: bool `[n]`, tokens that the family adds.
        is_merged: bool `[n]`, tokens that stand for no cell.
        renumbered: whether the tokens are counted one after another, as text is.
    """

    rows: torch.Tensor
    is_newline: torch.Tensor
    is_merged: torch.Tensor
    renumbered: bool


def kept_tokens(
    number: int,
    visual: VisualTokens,
    frame: torch.Tensor,
    line: torch.Tensor,
    is_newline: torch.Tensor,
) -> KeptTokens:
    """Choose the tokens of a visual that stay.

    A newline that ends a row stays where a token with a cell in that row does, after the last of
    them; the one that ends a video always does.

    Args:
        number: of the visual in the prompt, for messages.
        visual: after stage `tokens`.
        frame: long `[n]`, temporal grid of each token of the whole visual.
        line: long `[n]`, a number for each row of cells; -1 on tokens that are in none.
        is_newline: bool `[n]`.

    Raises:
        UnsupportedModel: if `cells` or `anchors` do not describe the tokens.
    """
    if visual.cells is None:
        none = torch.zeros_like(is_newline)
        return KeptTokens(torch.arange(len(frame)), is_newline, none, renumbered=False)
    places = (~is_newline).nonzero().squeeze(1)
    _check(number, visual, len(places))
    is_merged = visual.cells.cpu() < 0
    rows = places[visual.places.cpu()]
    if bool((frame[rows].diff() < 0).any()):
        raise UnsupportedModel(
            f"visual {number}: its tokens do not come in the order of their temporal grids; a "
            "method may reorder the tokens of a grid, and merged ones go before or after those of "
            "their anchor's grid"
        )
    # Of each token and newline, where it goes: even numbers are tokens, odd ones come after one.
    found, order = [rows], [2 * torch.arange(len(rows))]
    for newline in is_newline.nonzero().squeeze(1).tolist():
        last = len(rows) - 1
        if line[newline] >= 0:
            own = ((line[rows] == line[newline]) & ~is_merged).nonzero()
            if not len(own):
                continue
            last = int(own[-1])
        found.append(torch.tensor([newline]))
        order.append(torch.tensor([2 * last + 1]))
    taken = torch.cat(order).argsort(stable=True)
    all_rows = torch.cat(found)[taken]
    merged = torch.cat([is_merged, torch.zeros(len(all_rows) - len(rows), dtype=torch.bool)])
    return KeptTokens(
        all_rows,
        is_newline[all_rows],
        merged[taken],
        renumbered=visual.position_ids == "renumbered",
    )


def _check(number: int, visual: VisualTokens, places: int) -> None:
    """Refuse cells that do not describe the tokens of a visual with so many places."""
    cells, anchors = visual.cells, visual.places
    problem = ""
    if cells is None or cells.shape != (visual.num_tokens,):
        shape = None if cells is None else tuple(cells.shape)
        problem = f"cells have shape {shape}, and it has {visual.num_tokens} tokens"
    elif anchors.shape != cells.shape:
        problem = f"anchors have shape {tuple(anchors.shape)}, cells {tuple(cells.shape)}"
    elif not len(cells):
        problem = "no token is left of it; keep at least one"
    elif bool((cells < -1).any()) or bool((anchors < 0).any()) or bool((anchors >= places).any()):
        problem = (
            f"cells go from {int(cells.min())} to {int(cells.max())}, anchors from "
            f"{int(anchors.min())} to {int(anchors.max())}; accepted: 0 to {places - 1}, and cell "
            "-1 for a merged token, which needs an anchor"
        )
    elif bool(((cells >= 0) & (cells != anchors)).any()):
        problem = "a token that stands for a cell has another one for its anchor"
    elif bool((cells[cells >= 0].sort().values.diff() == 0).any()):
        problem = "two tokens stand for one cell"
    if problem:
        raise UnsupportedModel(
            f"visual {number} with grids {[run.grid for run in visual.runs]}: {problem}"
        )


def select_rows(
    whole: Layout, starts: Sequence[int], lengths: Sequence[int], kept: Sequence[KeptTokens]
) -> Layout:
    """Return the layout of the tokens that stay, at their positions in the whole prompt.

    Args:
        whole: layout of the prompt with all tokens.
        starts: row of each visual's first token in it.
        lengths: tokens of each visual in it.
        kept: what is left of each.
    """
    found, is_merged, at = [], [], 0
    for start, length, one in zip(starts, lengths, kept, strict=True):
        found += [torch.arange(at, start), start + one.rows]
        is_merged += [torch.zeros(start - at, dtype=torch.bool), one.is_merged]
        at = start + length
    rows = torch.cat(found).to(whole.segment.device)
    merged = torch.cat(is_merged).to(rows.device)
    return replace(
        whole,
        input_ids=whole.input_ids[rows],
        is_visual=whole.is_visual[rows],
        segment=whole.segment[rows],
        grid_index=whole.grid_index[rows].masked_fill(merged.unsqueeze(1), -1),
        rotary=whole.rotary.select(rows),
        whole=whole,
        rows=rows,
    )


def renumber(
    layout: Layout, positions: torch.Tensor, next_position: int, kept: Sequence[KeptTokens]
) -> Layout:
    """Return a layout whose tokens sit as if those that were dropped had never been there.

    From a temporal grid to the next there are, in the visuals that lost tokens, as many positions
    as a grid has tokens on average.

    Args:
        layout: from `select_rows`.
        positions: float64 `[P, d/2]`.
        next_position: of the first token after the prefix.
        kept: what is left of each visual.
    """
    flags = [torch.full((len(one.rows),), one.renumbered) for one in kept]
    changed = layout.is_visual.clone()
    changed[layout.is_visual] = torch.cat(flags).to(changed.device)
    step, first = layout.rotary.step.clone(), 0
    for grids, _, _ in layout.visuals:
        own = changed & (layout.segment > first) & (layout.segment <= first + grids)
        step[own] = float(own.sum()) / grids
        first += grids
    rotary = replace(
        layout.rotary, positions=positions, next_position=float(next_position), step=step
    )
    return replace(layout, rotary=rotary, whole=None, rows=None)
