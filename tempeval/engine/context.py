"""Whether a prompt fits the positions that a model takes; what does not is refused, never cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.engine.generation import most_new_tokens
from tempeval.errors import PromptTooLong

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.engine.plan import EnginePlan
    from tempeval.engine.work import Item
    from tempeval.methods.base import Chain
    from tempeval.stages import RunFacts
    from tempeval.video.clip import Sampling

REMEDY = "nothing is cut off; use fewer frames, or a larger context (method rope_scale)"


@dataclass(frozen=True)
class Context:
    """Positions that a model takes under a chain.

    Attributes:
        length: of the model as it was trained.
        factor: how many times as many the chain gives.
    """

    length: int
    factor: float = 1.0

    def __str__(self) -> str:
        if self.factor == 1:
            return f"{self.length}"
        return f"{self.positions} ({self.length} scaled by {self.factor:.4g})"

    @property
    def positions(self) -> int:
        """Positions from 0 that a token may have."""
        return int(self.length * self.factor + 1e-6)

    def problems(self, plan: EnginePlan, items: Sequence[Item], frames: int) -> list[str | None]:
        """Say of each prompt why it does not fit; None if it does.

        Positions are compared, not tokens: with M-RoPE, and under methods that place tokens
        anew, a video takes fewer positions than it has tokens (or more, when it is long).

        Args:
            plan: of the prefix.
            items: the questions.
            frames: decoded frames of the prompt, for the message.
        """
        rotary = plan.layers[0].rotary
        after = int(rotary.positions.max()) + 1 if rotary.prefix_length else 0
        return [self._problem(plan, item, frames, after) for item in items]

    def _problem(self, plan: EnginePlan, item: Item, frames: int, after: int) -> str | None:
        tail = len(item.tail)
        if item.continuations:
            more, what = max(len(ids) for ids in item.continuations), "to score"
        else:
            more, what = most_new_tokens(item.question.gen_kwargs), "to generate"
        needed = max(after, int(plan.layers[0].rotary.next_position) + tail + more)
        if needed <= self.positions:
            return None
        visual = plan.layout.num_visual_tokens
        return (
            f"the prompt does not fit the model: {frames} frames make {visual} visual tokens, with "
            f"{plan.layout.length - visual + tail} tokens of text and {more} {what} it takes "
            f"{needed} positions, and the context is {self}; {REMEDY}"
        )


def check_planned(
    chain: Chain, facts: RunFacts, sampling: Sampling, context_factor: float = 1.0
) -> None:
    """Refuse a run none of whose prompts could fit.

    Only where it is certain before the first video: positions count tokens (no M-RoPE, no method
    that places tokens anew) and every video has the same number of frames. Everything else is
    checked prompt by prompt.

    Args:
        chain: bound.
        facts: of the run.
        sampling: frames that the chain sees.
        context_factor: of the chain's rotary plan.

    Raises:
        PromptTooLong: naming frames, tokens and context.
    """
    moved = any("positions" in method.modifies for method in chain.parts)
    context = Context(facts.context_length, context_factor)
    if facts.axes or moved or sampling.rule == "fps" or facts.visual_tokens <= context.positions:
        return
    raise PromptTooLong(
        f"{sampling.num_frames} frames make {facts.visual_tokens} visual tokens, more than the "
        f"context of this model, which is {context}; {REMEDY}"
    )
