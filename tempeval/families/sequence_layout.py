"""Layouts of models whose positions count tokens (1-D rotary): LLaVA-OneVision and Video-LLaVA."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import UnsupportedModel
from tempeval.families.kept_tokens import kept_tokens, renumber, select_rows
from tempeval.families.loading import check_rope_type
from tempeval.stages import AXIS_ALL, Layout, RotaryPlan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tempeval.families.kept_tokens import KeptTokens
    from tempeval.stages import VisualTokens


@dataclass(frozen=True)
class TokenRun:
    """How one pathway's tokens lie in the prompt.

    Attributes:
        cells: long `[n, 3]`, (grid, row, column) per token in prompt order; row and column are -1
            where a token has no cell (CLS, the newline that ends a video).
        grid: (T, h, w), without newline columns.
        is_newline: bool `[n]`, tokens that the family adds (not in `VisualTokens.embeddings`).
    """

    cells: torch.Tensor
    grid: tuple[int, int, int]
    is_newline: torch.Tensor


def grid_run(
    grid: tuple[int, int, int],
    *,
    lead: int = 0,
    newline_rows: bool = False,
    newline_end: bool = False,
) -> TokenRun:
    """Lay out one pathway: lead tokens, cells row by row, newlines.

    Args:
        grid: (T, h, w).
        lead: tokens of each grid before its cells.
        newline_rows: a newline after each row, as column w.
        newline_end: one newline after the last grid; it belongs to that grid.
    """
    t, h, w = grid
    columns = w + 1 if newline_rows else w
    axes = torch.meshgrid(torch.arange(h), torch.arange(columns), indexing="ij")
    plane = torch.cat(
        [torch.full((lead, 2), -1), torch.stack(axes, dim=-1).reshape(h * columns, 2)]
    )
    # [t, lead + h * columns, 3] -> [n, 3]
    times = torch.arange(t).view(t, 1, 1).expand(t, len(plane), 1)
    cells = torch.cat([times, plane.expand(t, *plane.shape)], dim=-1).reshape(-1, 3)
    if newline_end:
        cells = torch.cat([cells, torch.tensor([[t - 1, -1, -1]])])
    is_newline = (cells[:, 2] == w) & newline_rows
    if newline_end:
        is_newline[-1] = True
    return TokenRun(cells, grid, is_newline)


@dataclass(frozen=True)
class SequenceLayoutBuilder:
    """Expands placeholders and numbers every token of the prefix, one position per token.

    Attributes:
        inv_freq: float32 `[d/2]`, radians per position.
        attention_scaling: factor on cos and sin.
        placeholders: placeholder token id of each kind of visual.
        runs: lays out a visual, one run per pathway.
        device: where the layout's tensors live.
    """

    inv_freq: torch.Tensor
    attention_scaling: float
    placeholders: Mapping[str, int]
    runs: Callable[[VisualTokens], Sequence[TokenRun]]
    device: torch.device

    @classmethod
    def of(
        cls,
        rotary: Any,
        placeholders: Mapping[str, int],
        runs: Callable[[VisualTokens], Sequence[TokenRun]],
        device: torch.device,
    ) -> SequenceLayoutBuilder:
        """Build for a text stack's rotary module.

        Raises:
            UnsupportedModel: if its frequencies change with the length of the prompt.
        """
        check_rope_type(rotary)
        inv_freq = rotary.inv_freq.detach().float()
        return cls(inv_freq, float(rotary.attention_scaling), placeholders, runs, device)

    def build(
        self, input_ids: Sequence[int], visuals: Sequence[VisualTokens]
    ) -> tuple[Layout, torch.Tensor]:
        """Build the layout of the prefix, and return the question's ids `[Q]`.

        The n-th placeholder of a kind stands for the n-th visual of that kind: chat templates may
        put the images of a turn before its videos.

        Raises:
            UnsupportedModel: if placeholders and visuals differ in number or kind, or a visual
                has not as many tokens as its grids.
        """
        kinds = {token: kind for kind, token in self.placeholders.items()}
        slots = [i for i, token in enumerate(input_ids) if token in kinds]
        found = [kinds[input_ids[i]] for i in slots]
        if sorted(found) != sorted(visual.kind for visual in visuals):
            raise UnsupportedModel(
                f"the prompt has placeholders for {found or 'no visuals'}, but "
                f"{[visual.kind for visual in visuals] or 'no visuals'} were given"
            )
        waiting = _by_kind(visuals)
        columns = _Columns()
        starts: list[int] = []
        ordered: list[VisualTokens] = []
        start = 0
        for number, (slot, kind) in enumerate(zip(slots, found, strict=True)):
            visual = waiting[kind].popleft()
            columns.add_text(input_ids[start:slot])
            runs = self.runs(visual)
            own = sum(int((~run.is_newline).sum()) for run in runs)
            if visual.cells is None and own != visual.num_tokens:
                raise UnsupportedModel(
                    f"visual {number} has {visual.num_tokens} tokens, but its grids "
                    f"{[run.grid for run in runs]} (lead {visual.lead}) have room for {own}"
                )
            starts.append(sum(map(len, columns.ids)))
            ordered.append(visual)
            for run in runs:
                columns.add_run(input_ids[slot], run)
            start = slot + 1
        question = torch.tensor(input_ids[start:], dtype=torch.long, device=self.device)
        layout = self._layout(columns)
        if any(visual.cells is not None for visual in visuals):
            layout = self._kept(layout, starts, ordered)
        return layout, question

    def _kept(
        self, whole: Layout, starts: Sequence[int], visuals: Sequence[VisualTokens]
    ) -> Layout:
        """Return the layout without the tokens that a method dropped, and their newlines."""
        kept = [self._kept_of(number, visual) for number, visual in enumerate(visuals)]
        lengths = [sum(len(run.cells) for run in self.runs(visual)) for visual in visuals]
        layout = select_rows(whole, starts, lengths, kept)
        if not any(one.renumbered for one in kept):
            return layout
        positions = whole.rotary.positions[: layout.length]
        return renumber(layout, positions, layout.length, kept)

    def _kept_of(self, number: int, visual: VisualTokens) -> KeptTokens:
        """Choose what is left of a visual; all of it where no token was dropped."""
        frames: list[torch.Tensor] = []
        lines: list[torch.Tensor] = []
        newlines: list[torch.Tensor] = []
        first = before = 0
        for run in self.runs(visual):
            grids, rows, _ = run.grid
            frame = first + run.cells[:, 0]
            frames.append(frame)
            # A row of each grid has a number of its own; a pathway's are apart by its rows.
            own = torch.where(run.cells[:, 1] < 0, -1, run.cells[:, 0] * rows + run.cells[:, 1])
            lines.append(torch.where(own < 0, -1, before + own))
            newlines.append(run.is_newline)
            first, before = first + grids, before + len(own)
        return kept_tokens(number, visual, *map(torch.cat, (frames, lines, newlines)))

    def embed(
        self,
        layout: Layout,
        visuals: Sequence[VisualTokens],
        embeddings: Any,
        newline: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return input embeddings of the prefix, `[1, P, D]`, visual and newline tokens in place.

        Args:
            layout: from `build`, of the same visuals.
            visuals: after stage `tokens`.
            embeddings: the model's embedding module.
            newline: `[D]`; None for a family without newline tokens.
        """
        ids = layout.input_ids.masked_fill(layout.is_visual, 0)  # a placeholder may have no row
        table: torch.Tensor = embeddings(ids)
        parts = [
            self._with_newlines(visual, table, newline)
            for visual in self._in_prompt_order(layout, visuals)
        ]
        if parts:
            table[layout.is_visual] = torch.cat(parts)
        return table.unsqueeze(0)

    def _with_newlines(
        self, visual: VisualTokens, like: torch.Tensor, newline: torch.Tensor | None
    ) -> torch.Tensor:
        """Return a visual's tokens `[n, D]` in prompt order, in the dtype and place of `like`."""
        flags = self._kept_of(0, visual).is_newline.to(like.device)
        tokens = like.new_empty(len(flags), like.shape[-1])
        tokens[~flags] = visual.embeddings.to(like)
        if bool(flags.any()):
            if newline is None:
                raise UnsupportedModel(
                    f"{int(flags.sum())} newline tokens were laid out, but the model has no newline"
                )
            tokens[flags] = newline.to(like)
        return tokens

    def _in_prompt_order(
        self, layout: Layout, visuals: Sequence[VisualTokens]
    ) -> list[VisualTokens]:
        """Return the visuals as `build` met them: each has its tokens in one piece."""
        kinds = {token: kind for kind, token in self.placeholders.items()}
        ids = layout.input_ids[layout.is_visual].tolist()
        waiting = _by_kind(visuals)
        ordered: list[VisualTokens] = []
        start = 0
        while start < len(ids):
            visual = waiting[kinds[ids[start]]].popleft()
            start += len(self._kept_of(len(ordered), visual).rows)
            ordered.append(visual)
        return ordered

    def _layout(self, columns: _Columns) -> Layout:
        grid_index = columns.joined(columns.grid_index, torch.long, 4)
        segment = columns.joined(columns.segment, torch.long)
        length, half = len(segment), len(self.inv_freq)
        positions = torch.arange(length, dtype=torch.float64).unsqueeze(1).expand(length, half)
        device = self.device
        rotary = RotaryPlan(
            positions=positions.contiguous().to(device),
            axis=torch.full((half,), AXIS_ALL, device=device),
            inv_freq=self.inv_freq.to(device),
            next_position=float(length),
            step=columns.joined(columns.step, torch.float64).to(device),
            attention_scaling=self.attention_scaling,
        )
        return Layout(
            input_ids=columns.joined(columns.ids, torch.long).to(device),
            is_visual=(segment > 0).to(device),
            segment=segment.to(device),
            grid_index=grid_index.to(device),
            rotary=rotary,
            visuals=tuple(columns.grids),
            num_frames=columns.num_frames,
        )


def _by_kind(visuals: Sequence[VisualTokens]) -> dict[str, deque[VisualTokens]]:
    waiting: dict[str, deque[VisualTokens]] = {}
    for visual in visuals:
        waiting.setdefault(visual.kind, deque()).append(visual)
    return waiting


class _Columns:
    """Per-token columns of a prefix, collected run by run."""

    def __init__(self) -> None:
        self.ids: list[torch.Tensor] = []
        self.segment: list[torch.Tensor] = []
        self.grid_index: list[torch.Tensor] = []
        self.step: list[torch.Tensor] = []
        self.grids: list[tuple[int, int, int]] = []
        self.num_frames = 0

    def add_text(self, ids: Sequence[int]) -> None:
        count = len(ids)
        self.ids.append(torch.tensor(ids, dtype=torch.long))
        self.segment.append(torch.zeros(count, dtype=torch.long))
        self.grid_index.append(torch.full((count, 4), -1))
        self.step.append(torch.zeros(count, dtype=torch.float64))

    def add_run(self, token: int, run: TokenRun) -> None:
        count, number = len(run.cells), len(self.grids)
        index = torch.cat([torch.full((count, 1), number), run.cells], dim=1)
        index[run.cells[:, 1] < 0] = -1  # a token without a cell has no place in the grid
        # The "bin" of a 1-D model: positions from a cell to the same cell of the next grid.
        per_grid = float((run.cells[:, 0] == 0).sum())
        self.ids.append(torch.full((count,), token))
        self.segment.append(1 + self.num_frames + run.cells[:, 0])
        self.grid_index.append(index)
        self.step.append(torch.full((count,), per_grid, dtype=torch.float64))
        self.grids.append(run.grid)
        self.num_frames += run.grid[0]

    @staticmethod
    def joined(pieces: list[torch.Tensor], dtype: torch.dtype, *tail: int) -> torch.Tensor:
        """Concatenate; an empty column of the right shape when the prompt has no text before."""
        return torch.cat(pieces) if pieces else torch.zeros(0, *tail, dtype=dtype)
