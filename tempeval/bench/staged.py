"""Staged sparse attention: prefill and one question under each strategy, against the baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tempeval.bench.turns import by_turns
from tempeval.engine.attach import Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.clock import now
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.methods.registry import parse_chain
from tempeval.stages import VisualTokens

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.families.qwen_vl import QwenVL

#: Visual tokens of one temporal grid at most; longer videos get more grids.
MOST_PER_GRID = 512


@dataclass
class StagedCell:
    """Prefill of the video prefix and one question, under several chains.

    A prefix holds no question rows, and its prefill ends with the last layer's keys and values. So
    what strategy (1) changes is in the question's part alone, which is timed apart as well. The
    visual tokens are random numbers: their values do not matter to the time, and neither decoding
    nor the vision tower is in it.
    """

    family: QwenVL
    chains: Sequence[str]
    question: str
    tokens: int
    grids: int
    extra_rounds: int = 0

    @property
    def name(self) -> str:
        """Key in the log."""
        return f"staged@{self.tokens}"

    def prepare(self) -> dict[str, Any]:
        """Make the visual tokens and run every chain once."""
        family = self.family
        grid = grid_of(self.tokens, self.grids)
        size = grid[0] * grid[1] * grid[2]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            embeddings = torch.randn(size, family.geometry.hidden_size)
        embeddings = embeddings.to(family.device, family.model.dtype)
        self._visual = VisualTokens(embeddings, grid, frames=2 * grid[0])
        content = [{"type": "video"}, {"type": "text", "text": self.question}]
        self._layout, self._tail = family.layout(
            family.tokenize([{"role": "user", "content": content}]), [self._visual]
        )
        for chain in self.chains:
            self._run(chain)
        return {
            "visual_tokens": size,
            "grids": grid[0],
            "layers": family.geometry.num_layers,
            "question_tokens": len(self._tail),
        }

    def measure(self, number: int) -> dict[str, Any]:
        """Time every chain once."""
        sides: dict[str, Callable[[], Any]] = {}
        for chain in self.chains:
            sides[chain] = lambda chain=chain: self._run(chain)  # type: ignore[misc]
        found = by_turns(number, sides)
        return {
            "seconds": found.seconds,
            "cpu_seconds": found.cpu_seconds,
            "question_seconds": found.results,
        }

    @torch.no_grad()
    def _run(self, chain: str) -> tuple[float, float]:
        """Return the seconds of prefill and question, and of the question alone."""
        family = self.family
        start = now(family.device)
        plan = make_plan(parse_chain(chain), self._layout, family.geometry)
        with Attachment(family, plan) as attachment:
            prefix = prefill(attachment, family.embed(self._layout, [self._visual]))
            asked = now(family.device)
            # One label of one token: the question's forward and nothing else.
            score_choices(attachment, prefix, self._tail, [self._tail[:1]])
            end = now(family.device)
        return end - start, end - asked


def grid_of(tokens: int, grids: int) -> tuple[int, int, int]:
    """Choose (T, h, w) of `tokens` visual tokens, as square as their number allows.

    Args:
        tokens: visual tokens.
        grids: temporal grids; more where `MOST_PER_GRID` asks for them.
    """
    times = max(grids, tokens // MOST_PER_GRID)
    cells = max(tokens // times, 1)
    rows = max(n for n in range(1, int(cells**0.5) + 1) if cells % n == 0)
    return times, rows, cells // rows
