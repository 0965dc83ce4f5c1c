"""One video under one chain: visual tokens folded, prefix prefilled once, batches answered."""

from __future__ import annotations

from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.clock import now, peak_memory, reset_peak_memory
from tempeval.engine.context import Context
from tempeval.engine.failures import (
    ALL_CHOICES,
    ONE_CHOICE,
    ONE_QUESTION,
    PREFILLING,
    describe,
    is_out_of_memory,
    problem_of,
)
from tempeval.engine.halves import halves, joined
from tempeval.engine.plan import make_plan
from tempeval.engine.plan_costs import distinct_temporal_ids, prefill_flops, temporal_step
from tempeval.engine.prefix import finish, prefill
from tempeval.engine.question import Outcome
from tempeval.engine.scores import Scores
from tempeval.engine.seeded import batch_seed, seeded
from tempeval.engine.usage import Usage
from tempeval.engine.work import Batch
from tempeval.errors import CannotStore

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from contextlib import AbstractContextManager

    from tempeval.engine.answer import Answer
    from tempeval.engine.cache import SharedPrefix
    from tempeval.engine.feature_cache import Encoded
    from tempeval.engine.plan import EnginePlan
    from tempeval.engine.work import Item
    from tempeval.families.base import Family
    from tempeval.methods.base import Chain
    from tempeval.stages import Layout


@dataclass(frozen=True)
class Share:
    """Samples of a run that something about one video serves.

    Attributes:
        decoding: under all chains that want the same frames.
        encoding: under those that also want them in the same order and groups.
        hearing: under those that also want the same side channels.
        questions: under one chain.
    """

    decoding: int
    encoding: int
    hearing: int
    questions: int


class Session:
    """Answers the batches of one video under one chain.

    Args:
        family: the loaded base model.
        chain: the methods.
        encoded: the prompt's visuals.
        share: samples over which each cost of the video is amortised.
        seed: of the run, for answers that are drawn.
    """

    def __init__(
        self, family: Family, chain: Chain, encoded: Sequence[Encoded], share: Share, seed: int
    ) -> None:
        self.family, self.chain, self.seed = family, chain, seed
        start = now(family.device)
        self.visuals = [chain.tokens(entry.tokens) for entry in encoded]
        fold_ms = (now(family.device) - start) * 1e3
        self.vision_flops = sum(
            entry.vision_flops
            + sum(side.flops for side in entry.tokens.side.values())
            + tokens.flops
            for entry, tokens in zip(encoded, self.visuals, strict=True)
        )
        decode_ms = sum(entry.decode_ms for entry in encoded)
        encode_ms = sum(entry.encode_ms for entry in encoded)
        side_ms = sum(entry.side_ms for entry in encoded)
        #: Milliseconds of decoding, encoding and stage `tokens` that one sample is charged for.
        self.amortised_ms = (
            decode_ms / share.decoding
            + encode_ms / share.encoding
            + side_ms / share.hearing
            + fold_ms / share.questions
        )
        self.base = Usage(
            frames=sum(entry.tokens.frames for entry in encoded),
            decode_ms=decode_ms,
            encode_ms=encode_ms + side_ms + fold_ms,
            flags=tuple(sorted({flag for entry in encoded for flag in entry.flags})),
        )

    def answer(
        self, batches: Sequence[Batch], questions: int
    ) -> Generator[tuple[Batch, list[Outcome]], None, None]:
        """Prefill the prefix that these batches share, and answer them one by one.

        Args:
            batches: of one prefix.
            questions: questions of that prefix in the plan, over which prefill is amortised.
        """
        layout, _ = self.family.layout(batches[0].items[0].input_ids, self.visuals)
        plan = make_plan(self.chain, layout, self.family.geometry)
        context = Context(self.family.context_length, plan.layers[0].rotary.context_factor)
        frames = self.base.frames or 0
        problems = [
            [
                problem or plan.inert_store(len(item.tail))
                for item, problem in zip(
                    batch.items, context.problems(plan, batch.items, frames), strict=True
                )
            ]
            for batch in batches
        ]
        fitting = [
            Batch(tuple(item for item, no in zip(batch.items, own, strict=True) if no is None))
            for batch, own in zip(batches, problems, strict=True)
        ]
        answered = self._answer_fitting([b for b in fitting if b.items], plan, questions)
        # Closed here, not when it is collected: the model is attached until then.
        with closing(answered):
            for batch, part, own in zip(batches, fitting, problems, strict=True):
                outcomes = iter(next(answered) if part.items else ())
                yield (
                    batch,
                    [
                        next(outcomes) if no is None else self._unfit(layout, item, no)
                        for item, no in zip(batch.items, own, strict=True)
                    ],
                )

    def _unfit(self, layout: Layout, item: Item, problem: str) -> Outcome:
        usage = replace(
            self.base,
            input_tokens=layout.length + len(item.tail),
            visual_tokens=layout.num_visual_tokens,
            error=problem,
        )
        return Outcome(None, usage)

    def _answer_fitting(
        self, batches: Sequence[Batch], plan: EnginePlan, questions: int
    ) -> Generator[list[Outcome], None, None]:
        """Answer batches of one prefix, all of whose prompts fit the model and the chain."""
        if not batches:
            return
        layout = plan.layout
        with Attachment(self.family, plan) as attachment:
            if plan.exact_prefill and plan.is_shared and layout.length:
                for batch in batches:
                    outcomes: list[Outcome] = []
                    for part in _questions(batch):
                        outcomes += next(self._on_prefix(attachment, [part], len(part)))
                    yield outcomes
            else:
                parts = [batch.items for batch in batches]
                yield from self._on_prefix(attachment, parts, questions)

    def _on_prefix(
        self, attachment: Attachment, parts: Sequence[Sequence[Item]], questions: int
    ) -> Generator[list[Outcome], None, None]:
        """Prefill once, and answer the parts one by one on it; `questions` share the prefill."""
        family, layout = self.family, attachment.plan.layout
        reset_peak_memory(family.device)
        try:
            start = now(family.device)
            prefix = prefill(attachment, family.embed(layout, self.visuals))
            prefill_ms = (now(family.device) - start) * 1e3
        except (CannotStore, MemoryError, RuntimeError) as error:
            if not isinstance(error, CannotStore) and not is_out_of_memory(error):
                raise
            failed = Outcome(None, replace(self.base, error=describe(error, PREFILLING)))
            yield from ([failed] * len(part) for part in parts)
            return
        shared = self.amortised_ms + prefill_ms / questions
        if prefix.unshared is not None:
            for part in parts:
                outcomes: list[Outcome] = []
                for items in _questions(Batch(tuple(part))):
                    outcomes += self._on_own_prefix(attachment, prefix, items, prefill_ms, shared)
                yield outcomes
            return
        base = self._prefix_usage(attachment, layout, prefix, prefill_ms)
        for part in parts:
            yield self._answer_batch(attachment, prefix, part, base, shared)

    def _on_own_prefix(
        self,
        attachment: Attachment,
        prefix: SharedPrefix,
        items: Sequence[Item],
        prefill_ms: float,
        shared_ms: float,
    ) -> list[Outcome]:
        """Answer one question whose rows decide about a part of the prefix.

        That part is prefilled for it alone, and charged to it alone.
        """
        start = now(self.family.device)
        try:
            own = finish(attachment, prefix, items[0].tail)
        except (CannotStore, MemoryError, RuntimeError) as error:
            if not isinstance(error, CannotStore) and not is_out_of_memory(error):
                raise
            failed = Outcome(None, replace(self.base, error=describe(error, PREFILLING)))
            return [failed] * len(items)
        own_ms = (now(self.family.device) - start) * 1e3 / len(items)
        layout = attachment.plan.layout
        base = self._prefix_usage(attachment, layout, own, prefill_ms + own_ms, shared=False)
        return self._answer_batch(attachment, own, items, base, shared_ms + own_ms)

    def _prefix_usage(
        self,
        attachment: Attachment,
        layout: Layout,
        prefix: SharedPrefix,
        prefill_ms: float,
        *,
        shared: bool = True,
    ) -> Usage:
        step = temporal_step(attachment.plan)
        plan = prefix.plan or attachment.plan
        alone = prefix.exact is not None and attachment.plan.is_shared
        return replace(
            self.base,
            visual_tokens=layout.num_visual_tokens,
            token_layers=plan.token_layers,
            prefix_shared=shared and not alone if layout.length else None,
            shared_layers=(0 if alone else prefix.shared_layers) if layout.length else None,
            distinct_temporal_ids=distinct_temporal_ids(attachment.plan),
            positions_per_grid=None if step is None else step.positions,
            sub_nyquist=None if step is None else step.sub_nyquist,
            prefill_ms=prefill_ms,
        )

    def _answer_batch(
        self,
        attachment: Attachment,
        prefix: SharedPrefix,
        items: Sequence[Item],
        base: Usage,
        shared_ms: float,
    ) -> list[Outcome]:
        family, plan = self.family, prefix.plan or attachment.plan
        tails = [item.tail for item in items]
        problem: str | None = None
        try:
            start = now(family.device)
            with self._drawing(items):
                answers = _answer(attachment, prefix, items, tails)
            row_ms = (now(family.device) - start) * 1e3 / sum(item.num_rows for item in items)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            problem = describe(error, _alone(items))
        if problem is not None:  # the exception is gone by now, and what its frames held
            return self._smaller(attachment, prefix, items, base, shared_ms, problem)
        outcomes = []
        for item, answer, tail in zip(items, answers, tails, strict=True):
            answer_ms = row_ms * item.num_rows
            keys, values = prefix.quantised(answer.tail_tokens)
            usage = replace(
                base,
                input_tokens=prefix.length + len(tail),
                output_tokens=answer.num_tokens,
                kv_bytes=prefix.nbytes(answer.tail_tokens),
                quantised_fraction=(keys + values) / 2,
                quantised_keys=keys,
                quantised_values=values,
                prefill_flops=prefill_flops(plan, family.geometry, len(tail), self.vision_flops),
                answer_ms=answer_ms,
                amortised_ms=shared_ms + answer_ms,
                peak_memory_bytes=peak_memory(family.device),
                attention_kernel="+".join(sorted(attachment.kernels)) or None,
                error=problem_of(answer),
            )
            outcomes.append(Outcome(answer if usage.error is None else None, usage))
        return outcomes

    def _smaller(
        self,
        attachment: Attachment,
        prefix: SharedPrefix,
        items: Sequence[Item],
        base: Usage,
        shared_ms: float,
        problem: str,
    ) -> list[Outcome]:
        """Answer a batch that did not fit in two halves; a single row that does not fit fails."""
        one_row = len(items) == 1 and items[0].num_rows == 1
        if one_row or prefix.exact is not None:  # an exact prefix was read by now
            return [Outcome(None, replace(base, error=problem))] * len(items)
        if self.family.device.type == "cuda":
            torch.cuda.empty_cache()
        first, second = (
            self._answer_batch(attachment, prefix, half, base, shared_ms) for half in halves(items)
        )
        return [joined(first[0], second[0])] if len(items) == 1 else [*first, *second]

    def _drawing(self, items: Sequence[Item]) -> AbstractContextManager[None]:
        """Seed what is drawn at random inside; nothing where nothing is drawn."""
        if not items[0].question.samples:
            return nullcontext()
        return seeded(self.family.device, batch_seed(self.seed, items))


def _answer(
    attachment: Attachment,
    prefix: SharedPrefix,
    items: Sequence[Item],
    tails: Sequence[torch.Tensor],
) -> Sequence[Answer | Scores]:
    if items[0].question.kind == "score":
        labels = [ids for item in items for ids in item.continuations]
        scores = iter(score_choices(attachment, prefix, tails[0], labels))
        return [Scores.of(list(islice(scores, item.num_rows))) for item in items]
    return generate(attachment, prefix, tails, items[0].question.gen_kwargs)


def _questions(batch: Batch) -> list[Sequence[Item]]:
    """Split a batch into questions; all choices of one are one."""
    if batch.items[0].question.kind == "score":
        return [batch.items]
    return [(item,) for item in batch.items]


def _alone(items: Sequence[Item]) -> str:
    """Say what did not fit where a batch is not halved any more."""
    if items[0].question.kind == "generate":
        return ONE_QUESTION
    return ONE_CHOICE if sum(item.num_rows for item in items) == 1 else ALL_CHOICES
