"""Methods of stage `positions` written token by token: references for the package's own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from tempeval.methods.base import Method
from tempeval.stages import AXIS_ALL, AXIS_TEMPORAL


@dataclass(frozen=True)
class SlowVRoPE(Method):
    name = "slow_vrope"
    modifies = frozenset({"positions"})

    order: tuple[int, ...] = (0, 1, 2, 3)

    def positions(self, rotary, layout, geometry):
        half = geometry.head_dim // 2
        index = layout.grid_index.tolist()
        rows, start, at = [], 0, 0
        while at < len(index):
            if index[at][0] < 0:
                rows.append([start] * half)
                start, at = start + 1, at + 1
                continue
            end = at
            while end < len(index) and index[end][0] == index[at][0]:
                end += 1
            cells = [cell[1:] for cell in index[at:end]]
            first = cells[0][0]
            height = 1 + max(row for _, row, _ in cells)
            width = 1 + max(column for _, _, column in cells)
            for t, row, column in cells:
                far_row, far_column = height - 1 - row, width - 1 - column
                corners = (row + column, row + far_column, far_row + column, far_row + far_column)
                base = start + (t - first) * (height + width - 1)
                rows.append([base + corners[self.order[c % 4]] for c in range(half)])
            start += (cells[-1][0] - first + 1) * (height + width - 1)
            at = end
        return replace(
            rotary,
            positions=torch.tensor(rows, dtype=torch.float64).view(len(rows), half),
            axis=torch.full((half,), AXIS_ALL),
            next_position=float(start),
        )


@dataclass(frozen=True)
class SlowReversePE(Method):
    name = "slow_reverse_pe"
    modifies = frozenset({"permutation"})

    def positions(self, rotary, layout, geometry):
        has_time = AXIS_TEMPORAL in rotary.axis.tolist()
        wanted = AXIS_TEMPORAL if has_time else AXIS_ALL
        frames = {}
        for token, (segment, cell) in enumerate(
            zip(layout.segment.tolist(), layout.grid_index.tolist(), strict=True)
        ):
            # A CLS token comes before the cells of its segment, the end of a video after them.
            follows = token > 0 and segment == layout.segment[token - 1]
            ends_video = cell[0] < 0 and follows and layout.grid_index[token - 1, 0] >= 0
            if segment and not ends_video:
                frames.setdefault(segment, []).append(token)
        positions = rotary.positions.clone()
        first = 1
        for count, _, _ in layout.visuals:
            for t in range(count):
                mine, other = frames[first + t], frames[first + count - 1 - t]
                for token, source in zip(mine, other, strict=True):
                    for channel, axis in enumerate(rotary.axis.tolist()):
                        if axis == wanted:
                            positions[token, channel] = rotary.positions[source, channel]
            first += count
        return replace(rotary, positions=positions)


@dataclass(frozen=True)
class SlowReverseOrder(SlowReversePE):
    name = "slow_reverse_order"

    def tokens(self, tokens):
        frames, start = [], 0
        for run in tokens.runs:
            count, height, width = run.grid
            size = tokens.lead + height * width
            starts = [start + t * size for t in range(count)]
            frames += [tokens.embeddings[first : first + size] for first in reversed(starts)]
            start += count * size
        return replace(tokens, embeddings=torch.cat(frames))


@dataclass(frozen=True)
class SlowPAS(Method):
    """Every second head looks half a frame ahead: in time, or where no channel is time, in all."""

    name = "slow_pas"
    modifies = frozenset({"query_shift"})

    def positions(self, rotary, layout, geometry):
        axes = rotary.axis.tolist()
        wanted = AXIS_TEMPORAL if AXIS_TEMPORAL in axes else AXIS_ALL
        bins = {}
        if wanted == AXIS_TEMPORAL:
            for token, segment in enumerate(layout.segment.tolist()):
                if segment:
                    bins[segment] = float(layout.rotary.step[token])
        else:
            bins = self.positions_to_next_frame(rotary, layout)
        ahead = [
            [0.5 * (head % 2) * (axis == wanted) for axis in axes]
            for head in range(geometry.num_heads)
        ]
        scale = [bins.get(segment, 0.0) for segment in layout.segment.tolist()]
        return replace(
            rotary,
            query_shift=torch.tensor(ahead, dtype=torch.float64),
            shift_scale=torch.tensor(scale, dtype=torch.float64),
        )

    def positions_to_next_frame(self, rotary, layout):
        index = layout.grid_index.tolist()
        cells = {tuple(cell): token for token, cell in enumerate(index) if cell[0] >= 0}
        bins = {}
        for (number, grid, row, column), token in cells.items():
            for neighbour in (grid - 1, grid + 1):
                other = cells.get((number, neighbour, row, column))
                if other is not None:
                    gap = abs(float(rotary.positions[other, 0] - rotary.positions[token, 0]))
                    bins[int(layout.segment[token])] = gap
        return bins
