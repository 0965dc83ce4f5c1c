"""Score many continuations of one question: prefix, then question once, then labels in batches.

Two levels of sharing: the video prefix serves all questions, and a question's own keys and values
serve all its labels. N labels cost about one short forward, not N.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tempeval.engine.answer import Score
from tempeval.engine.cache import SharedPrefix, TailCache, continued
from tempeval.engine.cache_keyword import with_cache
from tempeval.engine.prefix import finish
from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.engine.attach import Attachment


@torch.no_grad()
def score_choices(
    attachment: Attachment,
    prefix: SharedPrefix,
    question: torch.Tensor,
    continuations: Sequence[torch.Tensor],
    *,
    batch_tokens: int = 4096,
) -> list[Score]:
    """Score all continuations of one question on one prefix.

    Equal to `answer.score` of each continuation alone (tested), at the cost of one pass over the
    question and one short pass over the labels, in batches.

    Args:
        attachment: entered, with the prefix's plan.
        prefix: the prefilled prefix.
        question: long `[Q]`; at least one id.
        continuations: long `[C_i]` each; at least one id.
        batch_tokens: most label tokens (padding included) in one forward.

    Returns:
        One score per continuation, in order.

    Raises:
        InvalidSetting: for an empty question or continuation.
    """
    if len(question) == 0:
        raise InvalidSetting("a question has no token after the last visual; add a text prompt")
    if any(len(c) == 0 for c in continuations):
        raise InvalidSetting("a continuation has no token; every choice needs some text")
    first, shared = _ask(attachment, finish(attachment, prefix, question), question)
    # The question's last row predicts every first token; later tokens need a forward each.
    later = [number for number, c in enumerate(continuations) if len(c) > 1]
    # Labels of like length go together, so that little is padded.
    later.sort(key=lambda number: len(continuations[number]))
    log_probs: dict[int, torch.Tensor] = {}
    for batch in _batches(later, continuations, batch_tokens):
        labels = [continuations[number] for number in batch]
        log_probs.update(zip(batch, _label_rows(attachment, shared, labels), strict=True))
    scores = []
    for number, continuation in enumerate(continuations):
        rows = first if number not in log_probs else torch.cat([first, log_probs[number]])
        target = continuation.to(rows.device)
        picked = rows[: len(target)].gather(1, target.unsqueeze(1)).squeeze(1)
        greedy = bool((rows[: len(target)].argmax(-1) == target).all())
        # The last token of a label is never fed, so it holds no keys and values.
        held = len(question) + len(target) - 1
        scores.append(Score(float(picked.double().sum()), len(target), greedy, held))
    return scores


def _ask(
    attachment: Attachment, prefix: SharedPrefix, question: torch.Tensor
) -> tuple[torch.Tensor, SharedPrefix]:
    """Feed the question once; return its last log-probabilities `[1, V]` and the longer prefix."""
    device = attachment.family.device
    cache = TailCache(prefix, len(question))
    index = torch.arange(prefix.length, prefix.length + len(question), device=device)
    logits = attachment.family.model(
        input_ids=question.to(device).unsqueeze(0),
        position_ids=index.unsqueeze(0),
        **with_cache(attachment.family.model, cache),
        use_cache=True,
        logits_to_keep=1,
    ).logits
    names = attachment.plan.segments
    segment = torch.full((len(question),), names.question, device=device)
    segment[-1] = names.last
    layers = tuple(
        continued(pieces, layer.keys, layer.values, segment)
        for pieces, layer in zip(prefix.layers, cache.layers, strict=True)
    )
    shared = SharedPrefix(prefix.length + len(question), layers, plan=prefix.plan)
    log_probs = torch.log_softmax(logits[0, -1:].float(), dim=-1)
    return log_probs, shared


def _batches(
    numbers: Sequence[int], continuations: Sequence[torch.Tensor], batch_tokens: int
) -> list[list[int]]:
    batches: list[list[int]] = []
    for number in numbers:
        width = len(continuations[number]) - 1
        if batches and (len(batches[-1]) + 1) * width <= batch_tokens:
            batches[-1].append(number)
        else:
            batches.append([number])
    return batches


def _label_rows(
    attachment: Attachment, shared: SharedPrefix, labels: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """Feed each label but its last token; return log-probabilities `[C_i - 1, V]` after each."""
    device = attachment.family.device
    width = max(len(label) for label in labels) - 1
    ids = torch.zeros(len(labels), width, dtype=torch.long)
    for row, label in enumerate(labels):
        ids[row, : len(label) - 1] = label[:-1].cpu()
    # Padding is on the right, so causality hides it and no mask is needed.
    index = torch.arange(shared.length, shared.length + width, device=device)
    logits = attachment.family.model(
        input_ids=ids.to(device),
        position_ids=index.expand(len(labels), -1),
        # Every row is after the prompt, which the prefix ends with.
        **with_cache(attachment.family.model, TailCache(shared, prompt_length=0)),
        use_cache=True,
    ).logits
    return [
        torch.log_softmax(logits[row, : len(label) - 1].float(), dim=-1)
        for row, label in enumerate(labels)
    ]
