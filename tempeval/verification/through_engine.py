"""Prompts laid out and fed through the engine's own cache, row by row: what tests compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.cache import SharedPrefix, TailCache
from tempeval.engine.cache_keyword import with_cache
from tempeval.engine.prefix import finish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.engine.attach import Attachment
    from tempeval.families.base import Family
    from tempeval.stages import Layout, VisualTokens


def laid_out(
    family: Family,
    message: Callable[..., Any],
    visuals: Sequence[VisualTokens],
    questions: Sequence[str],
) -> tuple[Layout, torch.Tensor, list[torch.Tensor]]:
    """Layout, prefix embeddings and question tails of prompts about the same videos."""
    parts = ["<video>"] * len(visuals)
    prompts = [
        family.layout(family.tokenize(message(*parts, question)), visuals) for question in questions
    ]
    layout = prompts[0][0]
    return layout, family.embed(layout, visuals), [tail for _, tail in prompts]


def question_logits(
    attachment: Attachment, prefix: SharedPrefix, tail: torch.Tensor
) -> torch.Tensor:
    """Logits `[Q, V]` of a question's rows."""
    model = attachment.family.model
    index = torch.arange(prefix.length, prefix.length + len(tail)).unsqueeze(0)
    cache = with_cache(model, TailCache(prefix, len(tail)))
    logits: torch.Tensor = model(
        input_ids=tail.unsqueeze(0), position_ids=index, use_cache=True, **cache
    ).logits[0]
    return logits


def batched_stepwise_logits(
    attachment: Attachment,
    prefix: SharedPrefix,
    tails: Sequence[torch.Tensor],
    tokens: Sequence[Sequence[int]],
) -> torch.Tensor:
    """Logits `[B, steps, V]` of prompt end and of each decoding step, for tails of one length."""
    model = attachment.family.model
    cache = TailCache(prefix, len(tails[0]))
    ids, start, rows = torch.stack(list(tails)), prefix.length, []
    for step in range(len(tokens[0])):
        index = torch.arange(start, start + ids.shape[1]).expand(len(ids), -1)
        out = model(
            input_ids=ids,
            position_ids=index,
            use_cache=True,
            logits_to_keep=1,
            **with_cache(model, cache),
        )
        rows.append(out.logits[:, -1])
        start += ids.shape[1]
        ids = torch.tensor([[row[step]] for row in tokens])
    return torch.stack(rows, dim=1)


def stepwise_logits(
    attachment: Attachment, prefix: SharedPrefix, tail: torch.Tensor, tokens: Sequence[int]
) -> torch.Tensor:
    """Logits `[steps, V]` of one prompt's end and of each decoding step."""
    prefix = finish(attachment, prefix, tail)
    return batched_stepwise_logits(attachment, prefix, [tail], [tokens])[0]
