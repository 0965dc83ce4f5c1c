"""Prefill the shared prefix of one video under one chain, in one pass."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from tempeval.engine.attach import PrefixFilled
from tempeval.engine.cache import (
    ExactPrefix,
    PrefixCache,
    SharedPrefix,
    make_piece,
    token_bytes,
)
from tempeval.engine.cache_keyword import with_cache

if TYPE_CHECKING:
    from tempeval.engine.attach import Attachment


@torch.no_grad()
def prefill(attachment: Attachment, embeddings: torch.Tensor) -> SharedPrefix:
    """Run the prefix through the attached text stack and keep its keys and values.

    Its own rows attend in full precision. Each layer's keys and values are encoded as soon as they
    are there, once: what comes after reads what is held. Where the plan's prefill is exact, the
    question reads them as they were (see `ExactPrefix`).

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
    layers, exact = [], []
    for number, layer in enumerate(plan.layers):
        layers.append((make_piece(cache.stored(number), layer.segment),))
        if plan.exact_prefill:
            exact.append((make_piece(cache.exact(number), layer.segment),))
    return SharedPrefix(
        plan.layout.length, tuple(layers), ExactPrefix(exact) if plan.exact_prefill else None
    )
