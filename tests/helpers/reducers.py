"""Methods that prune tokens and evict rows by scores, as papers do; for tests only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from tempeval.methods.base import Method
from tempeval.stages import Chosen, Eviction, ScoredPrune, ScoreRequest


@dataclass(frozen=True)
class KeepAttended(Method):
    """Keep the visual tokens that some rows attend to most: FastV in one layer, else PyramidDrop.

    Attributes:
        layers: where tokens leave.
        share: of the visual tokens present, kept each time (floor).
        rows: whose attention.
        at: of which layer (see `ScoreRequest.layer`).
        per_head: score by the highest of all heads instead of their mean.
        numbering: whether what is left is numbered anew.
        merge: add the mean of what leaves to the last token that stays.
    """

    name: ClassVar[str] = "keep_attended"
    modifies: ClassVar[frozenset[str]] = frozenset({"prune"})

    layers: tuple[int, ...] = (2,)
    share: float = 0.5
    rows: str = "last"
    at: str = "previous"
    per_head: bool = False
    numbering: str = "original"
    merge: bool = False

    def prune(self, kept, layer, prefix):
        if layer not in self.layers:
            return kept
        request = ScoreRequest(
            rows=self.rows, layer=self.at, per_head=self.per_head, hidden=self.merge
        )
        return ScoredPrune(self.choose, request, self.numbering)

    def choose(self, measured):
        scores = measured.attention.amax(0) if self.per_head else measured.attention
        visual = measured.is_visual
        count = int(int(visual.sum()) * self.share)
        kept = ~visual
        kept[scores.masked_fill(~visual, -1.0).topk(count).indices] = True
        if not self.merge:
            return kept
        hidden = measured.hidden[kept].clone()
        hidden[-1] += measured.hidden[~kept].mean(0)
        return Chosen(kept, hidden)


@dataclass(frozen=True)
class KeepAttendedToo(KeepAttended):
    """A second one in a chain."""

    name: ClassVar[str] = "keep_attended_too"
    modifies: ClassVar[frozenset[str]] = frozenset({"prune_too"})


@dataclass(frozen=True)
class EverySecond(Method):
    """Keep every second visual token from a layer on: known before anything runs."""

    name: ClassVar[str] = "every_second"
    modifies: ClassVar[frozenset[str]] = frozenset({"prune"})

    layer: int = 1

    def prune(self, kept, layer, prefix):
        if layer < self.layer:
            return kept
        gone = torch.zeros_like(kept)
        gone[prefix.is_visual.nonzero().squeeze(1)[1::2]] = True
        return kept & ~gone


@dataclass(frozen=True)
class KeepKeys(Method):
    """Hold the rows with the largest keys, or those that the question attends to most.

    Attributes:
        share: of the prefix's rows, held (floor).
        rows: None for the norm of keys, else whose attention.
        per_head: each key/value head holds rows of its own.
        by_queries: compute attention from the queries, over the prefix alone.
    """

    name: ClassVar[str] = "keep_keys"
    modifies: ClassVar[frozenset[str]] = frozenset({"eviction"})

    share: float = 0.5
    rows: str | None = None
    per_head: bool = False
    by_queries: bool = False

    def kv_cache(self, layer, geometry):
        request = ScoreRequest(
            rows=self.rows, layer="own", per_head=self.per_head, queries=self.by_queries
        )
        return Eviction(self.choose, request)

    def choose(self, keys, values, measured):
        heads, count, dim = keys.shape
        if self.by_queries:
            queries = measured.queries.unflatten(0, (heads, -1)).flatten(1, 2)
            scores = (queries @ keys.transpose(-1, -2) * dim**-0.5).softmax(-1).mean(1)
        elif self.rows is not None:
            scores = measured.attention
            if self.per_head:
                scores = scores.unflatten(0, (heads, -1)).mean(1)
        else:
            scores = keys.norm(dim=-1)
        scores = scores if self.per_head else scores.reshape(-1, count).mean(0)
        return scores.topk(int(count * self.share)).indices
