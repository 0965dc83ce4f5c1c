"""Answer questions on a shared prefix: generate text, or score continuations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from tempeval.engine.cache import TailCache
from tempeval.engine.cache_keyword import with_cache
from tempeval.engine.generation import generation_of, without_own_settings
from tempeval.engine.prefix import finish
from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tempeval.engine.attach import Attachment
    from tempeval.engine.cache import SharedPrefix


@dataclass(frozen=True)
class Answer:
    """One generated answer.

    Attributes:
        text: decoded, without special tokens, cut at the first stop string.
        token_ids: generated ids up to and including the first end-of-sequence token.
        tail_tokens: own tokens of this row whose keys and values are held.
        finite: whether every step had a finite highest score; if not, the tokens mean nothing.
    """

    text: str
    token_ids: tuple[int, ...]
    tail_tokens: int
    finite: bool = True

    @property
    def num_tokens(self) -> int:
        """Number of generated tokens."""
        return len(self.token_ids)


@dataclass(frozen=True)
class Score:
    """Log-likelihood of one continuation.

    Attributes:
        log_likelihood: sum over its tokens, in nats.
        num_tokens: how many tokens that is.
        is_greedy: whether greedy decoding would produce it.
        tail_tokens: own tokens of this row whose keys and values are held.
    """

    log_likelihood: float
    num_tokens: int
    is_greedy: bool
    tail_tokens: int


@dataclass(frozen=True)
class _Batch:
    """Tails of one batch: padding, question, and for scoring the continuation."""

    input_ids: torch.Tensor  # [B, P + T]
    attention_mask: torch.Tensor  # [B, P + T]
    index: torch.Tensor  # [B, P + T] token index, see RotaryPlan
    prompt_length: int


@torch.no_grad()
def generate(
    attachment: Attachment,
    prefix: SharedPrefix,
    questions: Sequence[torch.Tensor],
    gen_kwargs: Mapping[str, Any],
) -> list[Answer]:
    """Generate answers to a batch of questions on one prefix, through transformers' `generate`.

    Args:
        attachment: entered, with the prefix's plan.
        prefix: the prefilled prefix.
        questions: long `[Q_i]` each, the ids after the prefix; at least one id.
        gen_kwargs: lmms-eval's generation arguments.

    Returns:
        One answer per question, in order.
    """
    if prefix.unshared is not None:  # each question on what it makes of the prefix
        return [
            answer
            for question in questions
            for answer in generate(
                attachment, finish(attachment, prefix, question), [question], gen_kwargs
            )
        ]
    family = attachment.family
    settings = generation_of(family, gen_kwargs)
    if settings.alone and len(questions) > 1:
        return [
            answer
            for question in questions
            for answer in generate(attachment, prefix, [question], gen_kwargs)
        ]
    batch = _make_batch(attachment, questions)
    cache = TailCache(prefix, batch.prompt_length)
    criteria = StoppingCriteriaList()
    prompt = batch.input_ids.shape[1]
    if settings.stops:
        criteria.append(_StopStrings(family.tokenizer, settings.stops, prompt))
    finite = _Finite(len(questions), replace=settings.samples)
    with without_own_settings(family.model):
        output = family.model.generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.index,
            **with_cache(attachment.family.model, cache),
            stopping_criteria=criteria,
            logits_processor=LogitsProcessorList([finite]),
            eos_token_id=list(settings.end_ids) or None,
            pad_token_id=settings.pad_id,
            use_cache=True,
            **settings.arguments,
        )
    answers = []
    sound = finite.rows()
    for number, question in enumerate(questions):
        ids = _cut(output[number, prompt:].tolist(), settings.end_ids)
        text = family.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        for stop in settings.stops:
            text = text.split(stop)[0]
        # The last generated token is never fed back, so it holds no keys and values.
        held = len(question) + max(len(ids) - 1, 0)
        answers.append(Answer(text, tuple(ids), held, sound[number]))
    return answers


@torch.no_grad()
def score(
    attachment: Attachment,
    prefix: SharedPrefix,
    questions: Sequence[torch.Tensor],
    continuations: Sequence[torch.Tensor],
) -> list[Score]:
    """Score one continuation per question on one prefix, teacher-forced in one batch.

    Args:
        attachment: entered, with the prefix's plan.
        prefix: the prefilled prefix.
        questions: long `[Q_i]` each; at least one id.
        continuations: long `[C_i]` each; at least one id.

    Returns:
        One score per pair, in order.
    """
    if any(len(c) == 0 for c in continuations):
        raise InvalidSetting("a continuation has no token; every choice needs some text")
    if prefix.unshared is not None:
        return [
            one
            for question, continuation in zip(questions, continuations, strict=True)
            for one in score(
                attachment, finish(attachment, prefix, question), [question], [continuation]
            )
        ]
    batch = _make_batch(attachment, questions, continuations)
    cache = TailCache(prefix, batch.prompt_length)
    start = prefix.length
    width = max(len(c) for c in continuations)
    logits = attachment.family.model(
        input_ids=batch.input_ids[:, start:],
        attention_mask=batch.attention_mask,
        position_ids=batch.index[:, start:],
        **with_cache(attachment.family.model, cache),
        use_cache=True,
        logits_to_keep=width + 1,
    ).logits
    # Row i of the kept logits predicts continuation token i.
    log_probs = torch.log_softmax(logits[:, :-1].float(), dim=-1)
    scores = []
    for row, (question, continuation) in enumerate(zip(questions, continuations, strict=True)):
        target = continuation.to(log_probs.device)
        count = len(target)
        picked = log_probs[row, :count].gather(1, target.unsqueeze(1)).squeeze(1)
        greedy = bool((log_probs[row, :count].argmax(-1) == target).all())
        held = len(question) + count
        scores.append(Score(float(picked.double().sum()), count, greedy, held))
    return scores


def _make_batch(
    attachment: Attachment,
    questions: Sequence[torch.Tensor],
    continuations: Sequence[torch.Tensor] | None = None,
) -> _Batch:
    if not questions or any(len(q) == 0 for q in questions):
        raise InvalidSetting("a question has no token after the last visual; add a text prompt")
    device = attachment.family.device
    layout = attachment.plan.layout
    length = layout.length
    widest = max(len(q) for q in questions)
    extra = max((len(c) for c in continuations), default=0) if continuations else 0
    ids = torch.zeros(len(questions), length + widest + extra, dtype=torch.long)
    mask = torch.zeros_like(ids)
    index = torch.zeros_like(ids)
    index[:, :length] = torch.arange(length)
    mask[:, :length] = 1
    ids[:, :length] = layout.input_ids.cpu()
    for row, question in enumerate(questions):
        start = length + widest - len(question)
        # Padding repeats an id of this very row, so that logits processors which look at the
        # prompt (repetition penalty) see nothing that the row alone would not show them.
        ids[row, length:] = question[0]
        ids[row, start : length + widest] = question.cpu()
        end = length + widest
        if continuations is not None:
            end += len(continuations[row])
            ids[row, length + widest : end] = continuations[row].cpu()
        mask[row, start:end] = 1
        index[row, length:] = length
        index[row, start:] = torch.arange(length, length + ids.shape[1] - start)
    return _Batch(ids.to(device), mask.to(device), index.to(device), widest)


def _cut(ids: list[int], end_ids: Sequence[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in end_ids:
            return ids[: position + 1]
    return ids


class _Finite(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Notes which questions ever had scores that are NaN or infinite; waits for no device.

    Args:
        questions: of the batch; each has as many rows (beams, samples) as the others.
        replace: make such a row uniform, because drawing from NaN raises and ends all rows.
    """

    def __init__(self, questions: int, *, replace: bool) -> None:
        self.questions, self.replace = questions, replace
        self._bad: torch.Tensor | None = None

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        # The highest score is NaN if any is; single scores may be -inf where tokens are forbidden.
        bad = ~scores.amax(-1).isfinite()
        of_question = bad.view(self.questions, -1).any(-1)
        self._bad = of_question if self._bad is None else self._bad | of_question
        return scores.masked_fill(bad.unsqueeze(-1), 0.0) if self.replace else scores

    def rows(self) -> list[bool]:
        """Return for each question whether all its scores were finite."""
        return [True] * self.questions if self._bad is None else (~self._bad).tolist()


class _StopStrings(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped here
    """Ends a row whose generated text contains a stop string."""

    def __init__(self, tokenizer: Any, stops: tuple[str, ...], prompt: int) -> None:
        self.tokenizer, self.stops, self.prompt = tokenizer, stops, prompt

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt :], skip_special_tokens=True)
        done = [any(stop in text for stop in self.stops) for text in texts]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)
