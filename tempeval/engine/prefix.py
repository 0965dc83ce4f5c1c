"""Prefill the shared prefix of one video under one chain, in one pass."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from tempeval.engine.attach import PrefixFilled
from tempeval.engine.cache import PlainKV, PrefixCache, SharedPrefix, make_piece

if TYPE_CHECKING:
    from tempeval.engine.attach import Attachment
    from tempeval.stages import StoredKV


@torch.no_grad()
def prefill(attachment: Attachment, embeddings: torch.Tensor) -> SharedPrefix:
    """Run the prefix through the attached text stack and keep its keys and values.

    Args:
        attachment: entered; its plan's layout is the prefix.
        embeddings: `[1, P, D]`, visual tokens in place.

    Returns:
        The prefix, as the plan's codecs hold it; one without pieces when P is 0.
    """
    plan = attachment.plan
    if plan.layout.length == 0:
        return SharedPrefix(0, tuple(() for _ in plan.layers))
    cache = PrefixCache(len(plan.layers))
    index = torch.arange(plan.layout.length, device=embeddings.device).unsqueeze(0)
    with suppress(PrefixFilled):
        attachment.family.text_model(
            inputs_embeds=embeddings, position_ids=index, past_key_values=cache, use_cache=True
        )
    layers = []
    for layer, held in zip(plan.layers, cache.layers, strict=True):
        stored: StoredKV
        if layer.codec is None:
            stored = PlainKV(held.keys, held.values)
        else:
            stored = layer.codec.encode(held.keys, held.values)
        layers.append((make_piece(stored, layer.segment),))
    return SharedPrefix(plan.layout.length, tuple(layers))
