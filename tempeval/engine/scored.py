"""Answer what rules of pruning and eviction ask to be measured, and carry out what they decide."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from tempeval.engine.cache import PlainKV
from tempeval.engine.tail import opened, read_pieces
from tempeval.engine.weights import attention_weights, may_attend
from tempeval.errors import InvalidSetting
from tempeval.stages import Chosen, Measured, Tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.engine.cache import Piece
    from tempeval.engine.plan import EnginePlan
    from tempeval.stages import Eviction, ScoredPrune, ScoreRequest, StoredKV


class RowWeights(NamedTuple):
    """Attention that was measured in a layer.

    Attributes:
        weights: over the prefix tokens present in that layer, see `Measured.attention`.
        tokens: long `[n]`, which these are.
    """

    weights: torch.Tensor
    tokens: torch.Tensor

    def of(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the weights of some of these tokens."""
        if len(tokens) == len(self.tokens):
            return self.weights
        return self.weights[..., torch.searchsorted(self.tokens, tokens)]


@dataclass(frozen=True)
class Scorer:
    """Measures at one layer.

    Attributes:
        plan: as it is narrowed by now.
        layer: 0-based.
        question: tokens of the question whose rows are there; 0 where only the prefix is.
        scale: factor on the scores of the layer's attention.
    """

    plan: EnginePlan
    layer: int
    question: int
    scale: float

    @property
    def present(self) -> torch.Tensor:
        """Long `[n]`: prefix tokens present in the layer."""
        rows, layout = self.plan.layers[self.layer].rows, self.plan.layout
        if rows is not None:
            return rows
        return torch.arange(layout.length, device=layout.segment.device)

    @property
    def after(self) -> torch.Tensor:
        """Long `[Q]`: indices of the question's tokens."""
        start = self.plan.layout.length
        return torch.arange(start, start + self.question, device=self.plan.layout.segment.device)

    @property
    def rows(self) -> torch.Tensor:
        """Long `[n + Q]`: indices of all tokens that go through the layer."""
        return torch.cat([self.present, self.after])

    def named(self, request: ScoreRequest) -> torch.Tensor:
        """Return which of the rows that go through the layer a request names, long `[R]`."""
        count = len(self.present)
        if request.of_question:
            first = count if request.rows == "question" else count + self.question - 1
            return torch.arange(first, count + self.question, device=self.present.device)
        if request.rows == "frames":
            segment = self.plan.layers[self.layer].segment
            return (segment != self.plan.segments.instruction).nonzero().squeeze(1)
        return torch.arange(count, device=self.present.device)

    def weigh(self, request: ScoreRequest, query: torch.Tensor, key: torch.Tensor) -> RowWeights:
        """Measure attention between rows as they go through the layer.

        Args:
            request: what is asked.
            query: `[1, h, n + Q, d]`, after rotary and shifts.
            key: `[1, h_kv, n + Q, d]`.
        """
        named = self.named(request)
        return self._weigh(request, query[:, :, named], self.rows[named], key, self.rows)

    def weigh_pieces(
        self,
        request: ScoreRequest,
        query: torch.Tensor,
        tail: tuple[torch.Tensor, torch.Tensor],
        pieces: Sequence[Piece],
    ) -> RowWeights:
        """Measure attention of the question's rows to the prefix as they read it.

        Args:
            request: what is asked; names rows of the question.
            query: `[1, h, Q, d]`, after rotary and shifts.
            tail: the question's keys and values, `[1, h_kv, Q, d]`.
            pieces: what its rows read of the prefix.
        """
        reading = Tail(*tail, starts=[0], after=[self.question], whole=False)
        parts, (own, _) = read_pieces(opened(pieces), reading)
        keys = torch.cat([*(part.keys[:1] for part in parts), own], dim=2)
        present, rows = self.present, pieces[0].rows if pieces else None
        held = present if rows is None else present[rows]
        columns = torch.cat([held, self.after.expand(*held.shape[:-1], -1)], dim=-1)
        named = self.named(request) - len(present)
        wanted = replace(request, per_head=True, per_row=True) if rows is not None else request
        seen = self._weigh(wanted, query[:, :, named], self.after[named], keys, columns)
        if rows is None:
            return seen
        # What a head does not hold, its rows do not attend to.
        whole = seen.weights.new_zeros(*seen.weights.shape[:2], len(present))
        index = rows if rows.ndim == 1 else rows.repeat_interleave(len(whole) // len(rows), 0)
        index = index.unsqueeze(-2).expand(seen.weights.shape)
        whole.scatter_(2, index, seen.weights)
        whole = whole if request.per_row else whole.mean(1)
        return RowWeights(whole if request.per_head else whole.mean(0), present)

    def _weigh(
        self,
        request: ScoreRequest,
        query: torch.Tensor,
        rows: torch.Tensor,
        key: torch.Tensor,
        columns: torch.Tensor,
    ) -> RowWeights:
        layout = self.plan.layout
        allowed = may_attend(
            rows,
            columns,
            self.plan.layers[self.layer].visible,
            layout.segment,
            self.plan.segments,
            layout.length,
            layout.length + self.question - 1,
        )
        weights = attention_weights(
            query,
            key,
            allowed,
            columns=columns.shape[-1] - self.question,
            scale=self.scale,
            per_head=request.per_head,
            per_row=request.per_row,
        )
        return RowWeights(weights, self.present)

    def measured(
        self,
        request: ScoreRequest,
        seen: RowWeights | None,
        hidden: torch.Tensor | None = None,
        query: torch.Tensor | None = None,
    ) -> Measured:
        """Return what a rule of this layer is told.

        Args:
            request: what it asked.
            seen: attention; None where none was asked for.
            hidden: `[1, n + Q, D]`, what enters the layer.
            query: `[1, h, n + Q, d]`, where queries were asked for.
        """
        present = self.present
        with_hidden = hidden is not None and request.hidden
        named = None if request.rows is None else self.named(request)
        return Measured(
            layer=self.layer,
            tokens=present,
            prefix=self.plan.tokens,
            attention=None if seen is None else seen.of(present),
            hidden=hidden[0, : len(present)] if hidden is not None and with_hidden else None,
            hidden_rows=(
                hidden[0, named]
                if hidden is not None and with_hidden and named is not None
                else None
            ),
            queries=(
                query[0][:, named]
                if query is not None and request.queries and named is not None
                else None
            ),
        )


def pruned(
    rule: ScoredPrune, measured: Measured, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Let a rule decide, and drop the rows that it does not keep.

    Args:
        rule: the rule.
        measured: what it is told.
        hidden: `[1, n + Q, D]`, what enters the layer; the last Q rows are the question's.

    Returns:
        What goes on, and long `[kept]`, the prefix tokens among it.

    Raises:
        InvalidSetting: for a decision of another shape.
    """
    made = rule.choose(measured)
    chosen = made if isinstance(made, Chosen) else Chosen(made)
    count = len(measured.tokens)
    kept = chosen.kept
    if kept.dtype != torch.bool or kept.shape != (count,):
        raise InvalidSetting(
            f"stage prune at layer {measured.layer}: the rule chose {kept.dtype} "
            f"{tuple(kept.shape)} of {count} tokens present; it must return bool [{count}]"
        )
    index = kept.to(hidden.device).nonzero().squeeze(1)
    going = hidden[:, index]
    if chosen.hidden is not None:
        if chosen.hidden.shape != going.shape[1:]:
            raise InvalidSetting(
                f"stage prune at layer {measured.layer}: the rule gave hidden states "
                f"{tuple(chosen.hidden.shape)} to {len(index)} kept tokens; they are "
                f"{tuple(going.shape[1:])}"
            )
        going = chosen.hidden.to(going).unsqueeze(0)
    return torch.cat([going, hidden[:, count:]], dim=1), measured.tokens[index]


def evicted(
    eviction: Eviction, keys: torch.Tensor, values: torch.Tensor, measured: Measured
) -> tuple[StoredKV, torch.Tensor]:
    """Let an eviction decide, and hold the rows that stay.

    Args:
        eviction: the rule.
        keys: `[1, h_kv, n, d]`.
        values: `[1, h_kv, n, d]`.
        measured: what it is told.

    Returns:
        What is held, and the rows that are: long `[m]` or `[h_kv, m]`, ascending.

    Raises:
        InvalidSetting: for rows that are not there, twice there, or none.
    """
    count, heads = keys.shape[2], keys.shape[1]
    rows = eviction.choose(keys[0], values[0], measured).to(keys.device)
    shape = tuple(rows.shape)
    if (
        rows.dtype != torch.long
        or len(shape) not in (1, 2)
        or (rows.ndim == 2 and shape[0] != heads)
    ):
        raise InvalidSetting(
            f"stage kv_cache at layer {measured.layer}: the rows that stay are {rows.dtype} "
            f"{shape}; accepted: long [m], or [{heads}, m] for each head"
        )
    rows = rows.sort(dim=-1).values
    repeated = bool((rows.diff(dim=-1) == 0).any())
    if not shape[-1] or repeated or not 0 <= int(rows.min()) <= int(rows.max()) < count:
        raise InvalidSetting(
            f"stage kv_cache at layer {measured.layer}: the {shape[-1]} rows that stay must be at "
            f"least one, each once, and below {count}"
        )
    if rows.ndim == 1:
        kept = [states[:, :, rows] for states in (keys, values)]
    else:
        index = rows[None, :, :, None].expand(-1, -1, -1, keys.shape[-1])
        kept = [states.gather(2, index) for states in (keys, values)]
    held = PlainKV(*kept) if eviction.codec is None else eviction.codec.encode(*kept)
    return held, rows
