"""Prefill the prefix of one video under one chain: what is shared once, the rest per question.

The batch axis of everything here is 1: one prefix at a time. Questions on it are batched where
they are answered.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tempeval.engine.attach import PrefixFilled
from tempeval.engine.cache import (
    ExactPrefix,
    PrefixCache,
    QuestionCache,
    SharedPrefix,
    Unshared,
    make_piece,
    token_bytes,
)
from tempeval.engine.cache_keyword import with_cache

if TYPE_CHECKING:
    from tempeval.engine.attach import Attachment
    from tempeval.engine.cache import Piece


@torch.no_grad()
def prefill(attachment: Attachment, embeddings: torch.Tensor) -> SharedPrefix:
    """Run the prefix through the attached text stack and keep its keys and values.

    Its own rows attend in full precision. Each layer's keys and values are encoded as soon as they
    are there, once: what comes after reads what is held. Where the plan's prefill is exact, the
    question reads them as they were (see `ExactPrefix`). Where rules ask for scores of the
    question's rows, the pass ends before the first layer that depends on them, and `finish` goes
    on from there for each question.

    Args:
        attachment: entered; its plan's layout is the prefix.
        embeddings: `[1, P, D]`, visual tokens in place.

    Returns:
        The prefix, as the plan's codecs hold it; one without tokens when P is 0.

    Raises:
        CannotStore: for keys or values that are not finite.
    """
    plan, geometry = attachment.plan, attachment.family.geometry
    if plan.layout.length == 0:
        nothing = embeddings.new_empty(1, geometry.num_kv_heads, 0, geometry.head_dim)
        return SharedPrefix(
            0,
            tuple(
                ()
                if layer.codec is None
                else (make_piece(layer.codec.encode(nothing, nothing), layer.segment),)
                for layer in plan.layers
            ),
            tail_bytes=2 * geometry.num_layers * token_bytes(nothing),
        )
    cache = PrefixCache(len(plan.layers))
    index = torch.arange(plan.layout.length, device=embeddings.device).unsqueeze(0)
    with suppress(PrefixFilled):
        text_model = attachment.family.text_model
        text_model(
            inputs_embeds=embeddings,
            position_ids=index,
            use_cache=True,
            **with_cache(text_model, cache),
        )
    narrowed, depth = attachment.narrowed, len(plan.layers)
    shared = plan.first_unshared
    layers: list[tuple[Piece, ...]] = [()] * depth
    exact: list[tuple[Piece, ...]] = [()] * depth
    for number, layer in enumerate(narrowed.layers[:shared]):
        layers[number] = (cache.stored(number, layer.segment),)
        if plan.exact_prefill:
            exact[number] = (cache.exact(number, layer.segment),)
    unshared = cache.unshared
    if unshared is None and not plan.is_shared:
        unshared = Unshared(depth, None, {})
    return SharedPrefix(
        plan.layout.length,
        tuple(layers),
        ExactPrefix(exact) if plan.exact_prefill else None,
        plan=narrowed,
        unshared=unshared,
        shared_layers=shared,
    )


@torch.no_grad()
def finish(attachment: Attachment, prefix: SharedPrefix, question: torch.Tensor) -> SharedPrefix:
    """Prefill what one question decides about a prefix: rows of the unshared layers, evictions.

    The question's rows go ahead through the layers that measure them; they are fed again, like
    those of any question, on the prefix that comes back. The shared prefix stays as it is.

    Args:
        attachment: entered, with the plan of the prefix.
        prefix: as far as it is shared; returned as it is where that is all.
        question: long `[Q]`, the ids after the prefix; at least one.

    Returns:
        The prefix of this question, which shares the keys and values of the layers below.

    Raises:
        CannotStore: for keys or values that are not finite.
    """
    unshared = prefix.unshared
    if unshared is None:
        return prefix
    family = attachment.family
    cache = QuestionCache(prefix, unshared, len(question))
    ids = question.to(family.device).unsqueeze(0)
    start = prefix.length
    index = torch.arange(start, start + len(question), device=family.device).unsqueeze(0)
    with suppress(PrefixFilled):
        text_model = family.text_model
        text_model(
            inputs_embeds=family.model.get_input_embeddings()(ids),
            position_ids=index,
            use_cache=True,
            **with_cache(text_model, cache),
        )
    numbers = range(len(prefix.layers))
    exact = None
    if prefix.exact is not None:
        exact = ExactPrefix(
            [
                (cache.own_exact[n],) if n in cache.own_exact else prefix.exact.see(n)
                for n in numbers
            ]
        )
    return replace(
        prefix,
        layers=tuple((cache.own[n],) if n in cache.own else prefix.layers[n] for n in numbers),
        exact=exact,
        plan=attachment.narrowed,
        unshared=None,
    )
