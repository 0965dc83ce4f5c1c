"""Prefill the shared prefix of one video under one chain, in one pass."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from tempeval.engine.attach import PrefixFilled
from tempeval.engine.cache import ExactPrefix, PrefixCache, SharedPrefix, make_piece
from tempeval.engine.cache_keyword import with_cache
from tempeval.errors import CannotStore

if TYPE_CHECKING:
    from tempeval.engine.attach import Attachment


@torch.no_grad()
def prefill(attachment: Attachment, embeddings: torch.Tensor) -> SharedPrefix:
    """Run the prefix through the attached text stack and keep its keys and values.

    Each layer's keys and values are encoded as soon as they are there, once, and its rows attend to
    what was decoded again: everything that reads the prefix reads the same. Where the plan's
    prefill is exact, its rows and the question attend to exact ones instead (see `ExactPrefix`).

    Args:
        attachment: entered; its plan's layout is the prefix.
        embeddings: `[1, P, D]`, visual tokens in place.

    Returns:
        The prefix, as the plan's codecs hold it; one without pieces when P is 0.

    Raises:
        CannotStore: if the codecs would hold no number in fewer bits. A prompt without visuals has
            no prefix, so there is nothing that they could miss.
    """
    plan = attachment.plan
    if plan.layout.length == 0:
        return SharedPrefix(0, tuple(() for _ in plan.layers))
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
    prefix = SharedPrefix(
        plan.layout.length, tuple(layers), ExactPrefix(exact) if plan.exact_prefill else None
    )
    codec = next((layer.codec for layer in plan.layers if layer.codec is not None), None)
    if codec is not None and prefix.quantised_fraction == 0:
        raise CannotStore(
            f"inert: {plan.layout.length} tokens, {codec}: all of the prefix lies in the window "
            "that stays in full precision; lower residual_length or group_size, or give the "
            "prompt more visual tokens (frames or pixels)"
        )
    return prefix
