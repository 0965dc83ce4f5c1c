"""From a prompt's token ids and its visuals' grids to a `Layout` with M-RoPE positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import UnsupportedModel
from tempeval.families.kept_tokens import kept_tokens, renumber, select_rows
from tempeval.families.loading import check_rope_type
from tempeval.families.mrope import PositionRule, TextSpan, VisualSpan, mrope_positions
from tempeval.stages import Layout, RotaryPlan

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tempeval.stages import Pathway, VisualTokens


@dataclass(frozen=True)
class RotaryTable:
    """What the model's rotary module does to a position.

    Attributes:
        axis: long `[d/2]`, 0 temporal, 1 height, 2 width.
        inv_freq: float32 `[d/2]`, radians per position.
        attention_scaling: factor on cos and sin.
    """

    axis: torch.Tensor
    inv_freq: torch.Tensor
    attention_scaling: float

    @classmethod
    def from_module(cls, rotary: Any) -> RotaryTable:
        """Read a Qwen-VL text rotary module.

        Raises:
            UnsupportedModel: if its frequencies change with the length of the prompt.
        """
        check_rope_type(rotary)
        axis = torch.cat([torch.full((n,), i % 3) for i, n in enumerate(rotary.mrope_section)])
        inv_freq = rotary.inv_freq.detach().float()
        return cls(axis.to(inv_freq.device), inv_freq, float(rotary.attention_scaling))


@dataclass(frozen=True)
class LayoutBuilder:
    """Expands placeholders and numbers every token of the prefix.

    Attributes:
        table: the model's rotary table.
        rule: position rule.
        placeholders: placeholder token id of each kind of visual.
        tokens_per_second: temporal positions per second of video; None where a temporal grid is
            one position whatever its length in time (Qwen2-VL).
        device: where the layout's tensors live.
    """

    table: RotaryTable
    rule: PositionRule
    placeholders: Mapping[str, int]
    tokens_per_second: float | None
    device: torch.device

    def interval(self, visual: VisualTokens, pathway: Pathway) -> float:
        """Return positions per temporal grid, rounded to float32 as transformers computes it."""
        if self.tokens_per_second is None or visual.kind == "image":
            return 1.0
        seconds = torch.tensor(pathway.seconds_per_grid, dtype=torch.float32)
        return float(self.tokens_per_second * seconds)

    def build(
        self, input_ids: Sequence[int], visuals: Sequence[VisualTokens]
    ) -> tuple[Layout, torch.Tensor]:
        """Build the layout of the prefix, and return the question's ids `[Q]`.

        Raises:
            UnsupportedModel: if placeholders and visuals differ in number or kind, or a visual
                does not have one token per cell of its grid.
        """
        kinds = {token: kind for kind, token in self.placeholders.items()}
        slots = [i for i, token in enumerate(input_ids) if token in kinds]
        found = [kinds[input_ids[i]] for i in slots]
        if found != [visual.kind for visual in visuals]:
            raise UnsupportedModel(
                f"the prompt has placeholders for {found or 'no visuals'}, but "
                f"{[visual.kind for visual in visuals] or 'no visuals'} were given"
            )
        parts = _Parts()
        spans: list[TextSpan | VisualSpan] = []
        starts: list[int] = []
        start = 0
        for number, (slot, visual) in enumerate(zip(slots, visuals, strict=True)):
            if slot > start:
                spans.append(TextSpan(slot - start))
                parts.add_text(input_ids[start:slot])
            _check_size(number, visual)
            starts.append(sum(map(len, parts.ids)))
            for pathway in visual.runs:
                interval = self.interval(visual, pathway)
                spans.append(VisualSpan(*pathway.grid, interval=interval))
                parts.add_pathway(input_ids[slot], pathway.grid, interval)
            start = slot + 1
        layout = self._layout(parts, spans)
        if any(visual.cells is not None for visual in visuals):
            layout = self._kept(layout, starts, visuals)
        question = torch.tensor(input_ids[start:], dtype=torch.long, device=self.device)
        return layout, question

    def _kept(
        self, whole: Layout, starts: Sequence[int], visuals: Sequence[VisualTokens]
    ) -> Layout:
        """Return the layout without the tokens that a method dropped."""
        lengths = [_cells(visual) for visual in visuals]
        kept = []
        for number, visual in enumerate(visuals):
            frame = whole.segment[starts[number] : starts[number] + lengths[number]].cpu()
            nowhere = torch.full_like(frame, -1)
            kept.append(kept_tokens(number, visual, frame, nowhere, nowhere >= 0))
        layout = select_rows(whole, starts, lengths, kept)
        if not any(one.renumbered for one in kept):
            return layout
        spans: list[TextSpan | VisualSpan] = []
        at = 0
        for start, length, one, visual in zip(starts, lengths, kept, visuals, strict=True):
            spans.append(TextSpan(start - at))
            if not one.renumbered:
                spans += [VisualSpan(*p.grid, self.interval(visual, p)) for p in visual.runs]
            else:
                spans.append(TextSpan(len(one.rows)))
            at = start + length
        per_axis, next_position = mrope_positions(spans, self.rule)
        # [3, P] -> [P, 3] -> [P, d/2]
        positions = per_axis.T.double().to(self.device)[:, self.table.axis]
        return renumber(layout, positions, next_position, kept)

    def _layout(self, parts: _Parts, spans: Sequence[TextSpan | VisualSpan]) -> Layout:
        per_axis, next_position = mrope_positions(spans, self.rule)
        grid_index = parts.joined(parts.grid_index, torch.long, 4)
        rotary = RotaryPlan(
            # [3, P] -> [P, 3] -> [P, d/2]
            positions=per_axis.T.double().to(self.device)[:, self.table.axis],
            axis=self.table.axis,
            inv_freq=self.table.inv_freq,
            next_position=next_position,
            step=parts.joined(parts.step, torch.float64).to(self.device),
            attention_scaling=self.table.attention_scaling,
        )
        return Layout(
            input_ids=parts.joined(parts.ids, torch.long).to(self.device),
            is_visual=(grid_index[:, 0] >= 0).to(self.device),
            segment=parts.joined(parts.segment, torch.long).to(self.device),
            grid_index=grid_index.to(self.device),
            rotary=rotary,
            visuals=tuple(parts.grids),
            num_frames=parts.num_frames,
        )


def _check_size(number: int, visual: VisualTokens) -> None:
    grids, cells = [pathway.grid for pathway in visual.runs], _cells(visual)
    if visual.lead or (visual.cells is None and visual.num_tokens != cells):
        raise UnsupportedModel(
            f"visual {number} has {visual.num_tokens} tokens, but its grids {grids} have {cells} "
            "cells; Qwen-VL needs one token per cell"
        )


def _cells(visual: VisualTokens) -> int:
    return sum(t * h * w for t, h, w in (pathway.grid for pathway in visual.runs))


class _Parts:
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
        self.ids.append(torch.tensor(ids))
        self.segment.append(torch.zeros(count, dtype=torch.long))
        self.grid_index.append(torch.full((count, 4), -1))
        self.step.append(torch.zeros(count, dtype=torch.float64))

    def add_pathway(self, token: int, grid: tuple[int, int, int], interval: float) -> None:
        t, h, w = grid
        count, number = t * h * w, len(self.grids)
        # [t, h, w, 3] -> [N, 3]
        axes = torch.meshgrid(torch.arange(t), torch.arange(h), torch.arange(w), indexing="ij")
        cells = torch.stack(axes, dim=-1).reshape(count, 3)
        self.ids.append(torch.full((count,), token))
        self.segment.append(1 + self.num_frames + cells[:, 0])
        self.grid_index.append(torch.cat([torch.full((count, 1), number), cells], dim=1))
        self.step.append(torch.full((count,), interval, dtype=torch.float64))
        self.grids.append(grid)
        self.num_frames += t

    @staticmethod
    def joined(pieces: list[torch.Tensor], dtype: torch.dtype, *tail: int) -> torch.Tensor:
        """Concatenate; an empty column of the right shape when the prompt has no visual."""
        return torch.cat(pieces) if pieces else torch.zeros(0, *tail, dtype=dtype)
