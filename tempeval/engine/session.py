"""One video under one chain: visual tokens folded, prefix prefilled once, batches answered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.clock import now, peak_memory, reset_peak_memory
from tempeval.engine.ledger import Ledger, distinct_temporal_ids, prefill_flops
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.engine.question import Outcome
from tempeval.errors import BadVideo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.engine.answer import Answer, Score
    from tempeval.engine.cache import SharedPrefix
    from tempeval.engine.feature_cache import Encoded
    from tempeval.engine.work import Batch, Item
    from tempeval.families.base import Family
    from tempeval.methods.base import Chain
    from tempeval.stages import Layout


class Session:
    """Answers the batches of one video under one chain.

    Args:
        family: the loaded base model.
        chain: the methods.
        encoded: the prompt's visuals.
        share: samples of this run that decoding and encoding serve, over which they are amortised.

    Attributes:
        kernels: names of the attention kernels that ran.
    """

    def __init__(
        self, family: Family, chain: Chain, encoded: Sequence[Encoded], share: int
    ) -> None:
        self.family, self.chain, self.share = family, chain, share
        self.kernels: set[str] = set()
        start = now(family.device)
        self.visuals = [chain.encode(entry.tokens) for entry in encoded]
        fold_ms = (now(family.device) - start) * 1e3
        self.vision_flops = sum(entry.vision_flops for entry in encoded)
        self.base = Ledger(
            frames=sum(entry.tokens.frames for entry in encoded),
            decode_ms=sum(entry.decode_ms for entry in encoded),
            encode_ms=sum(entry.encode_ms for entry in encoded) + fold_ms,
            flags=tuple(sorted({flag for entry in encoded for flag in entry.flags})),
        )

    def answer(
        self, batches: Sequence[Batch], questions: int
    ) -> Iterator[tuple[Batch, list[Outcome]]]:
        """Prefill the prefix that these batches share, and answer them one by one.

        Args:
            batches: of one prefix.
            questions: questions of that prefix in the plan, over which prefill is amortised.
        """
        family = self.family
        layout, _ = family.layout(batches[0].items[0].input_ids, self.visuals)
        with Attachment(family, make_plan(self.chain, layout, family.geometry)) as attachment:
            reset_peak_memory(family.device)
            try:
                start = now(family.device)
                prefix = prefill(attachment, family.embed(layout, self.visuals))
                prefill_ms = (now(family.device) - start) * 1e3
            except (MemoryError, torch.OutOfMemoryError) as error:
                failed = Outcome(None, replace(self.base, error=describe(error)))
                yield from ((batch, [failed] * len(batch.items)) for batch in batches)
                return
            base = self._prefix_ledger(attachment, layout, prefix, prefill_ms)
            shared = (base.decode_ms or 0.0) + (base.encode_ms or 0.0)
            shared = shared / self.share + prefill_ms / questions
            for batch in batches:
                yield batch, self._answer_batch(attachment, prefix, batch.items, base, shared)
        self.kernels |= attachment.kernels

    def _prefix_ledger(
        self, attachment: Attachment, layout: Layout, prefix: SharedPrefix, prefill_ms: float
    ) -> Ledger:
        return replace(
            self.base,
            visual_tokens=layout.num_visual_tokens,
            token_layers=attachment.plan.token_layers,
            quantised_fraction=prefix.quantised_fraction,
            distinct_temporal_ids=distinct_temporal_ids(attachment.plan),
            prefill_ms=prefill_ms,
        )

    def _answer_batch(
        self,
        attachment: Attachment,
        prefix: SharedPrefix,
        items: Sequence[Item],
        base: Ledger,
        shared_ms: float,
    ) -> list[Outcome]:
        family, plan = self.family, attachment.plan
        tails = [item.tail for item in items]
        try:
            start = now(family.device)
            answers = _answer(attachment, prefix, items, tails)
            answer_ms = (now(family.device) - start) * 1e3 / len(items)
        except (MemoryError, torch.OutOfMemoryError) as error:
            return self._smaller(attachment, prefix, items, base, shared_ms, error)
        outcomes = []
        for answer, tail in zip(answers, tails, strict=True):
            ledger = replace(
                base,
                input_tokens=prefix.length + len(tail),
                output_tokens=answer.num_tokens,
                kv_bytes=prefix.nbytes + answer.tail_bytes,
                prefill_flops=prefill_flops(plan, family.geometry, len(tail), self.vision_flops),
                answer_ms=answer_ms,
                amortised_ms=shared_ms + answer_ms,
                peak_memory_bytes=peak_memory(family.device),
            )
            outcomes.append(Outcome(answer, ledger))
        return outcomes

    def _smaller(
        self,
        attachment: Attachment,
        prefix: SharedPrefix,
        items: Sequence[Item],
        base: Ledger,
        shared_ms: float,
        error: BaseException,
    ) -> list[Outcome]:
        """Answer a batch that did not fit in two halves; a single question that does not fails."""
        if len(items) == 1:
            return [Outcome(None, replace(base, error=describe(error)))]
        if self.family.device.type == "cuda":
            torch.cuda.empty_cache()
        middle = len(items) // 2
        return [
            outcome
            for half in (items[:middle], items[middle:])
            for outcome in self._answer_batch(attachment, prefix, half, base, shared_ms)
        ]


def _answer(
    attachment: Attachment,
    prefix: SharedPrefix,
    items: Sequence[Item],
    tails: Sequence[torch.Tensor],
) -> Sequence[Answer | Score]:
    if items[0].question.kind == "score":
        continuations: list[Any] = [item.continuation for item in items]
        return score_choices(attachment, prefix, tails[0], continuations)
    return generate(attachment, prefix, tails, items[0].question.gen_kwargs)


def describe(error: BaseException) -> str:
    """Return the reason that a sample's record carries."""
    if isinstance(error, BadVideo):
        return str(error)
    first = str(error).split("\n", maxsplit=1)[0]
    return f"out of memory, also with one question at a time: {first}"
