"""Measure the ranges of a model's keys and values on clips, for static quantisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tempeval.engine.attach import Attachment
from tempeval.engine.cache import PlainKV
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import finish, prefill
from tempeval.errors import CannotStore, InvalidSetting
from tempeval.methods.kv_calibration import Bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.engine.cache import SharedPrefix
    from tempeval.engine.inference import Inference
    from tempeval.methods.base import Chain
    from tempeval.video.clip import VideoRef

#: What the clips are shown with; the prefix ends before the text.
PROMPT = ({"type": "video"}, {"type": "text", "text": "Describe the video."})


@torch.no_grad()
def measure_bounds(
    inference: Inference,
    chain: Chain,
    clips: Sequence[VideoRef],
    progress: Callable[[int, int], None] = lambda done, tokens: None,
) -> Bounds:
    """Prefill each clip and take the smallest and largest key and value of its prefix tokens.

    Args:
        inference: the loaded base model and its frame policy.
        chain: the methods, without stage `kv_cache`.
        clips: at least one.
        progress: called after each clip with the number done and its prefix tokens.

    Returns:
        Bounds of all layers; 0 to 0 in a layer that held no prefix token.

    Raises:
        InvalidSetting: for no clips, or a chain that stores.
        BadVideo: for a clip that cannot be decoded.
        CannotStore: for a clip whose keys or values are not finite.
    """
    if not clips:
        raise InvalidSetting("no clips to calibrate on; give at least one")
    if chain.without_kv_cache() != chain:
        raise InvalidSetting(f"calibration runs without stage kv_cache, got {chain.spec!r}")
    family, resolved = inference.family, inference.resolve(chain)
    bound, frames = resolved.bound, resolved.frames
    ids = family.tokenize([{"role": "user", "content": list(PROMPT)}])
    total: Bounds | None = None
    wanted = [((clip,), (frames,)) for clip in clips]
    with inference.encoder.prefetch(wanted):
        for done, clip in enumerate(clips, start=1):
            encoded = inference.encoder.encode((clip,), frames)
            inference.encoder.forget_clips()
            visuals = [bound.tokens(entry.tokens) for entry in encoded]
            layout, tail = family.layout(ids, visuals)
            with Attachment(family, make_plan(bound, layout, family.geometry)) as attachment:
                prefix = prefill(attachment, family.embed(layout, visuals))
                prefix = finish(attachment, prefix, tail)
            own = bounds_of(prefix)
            if not all(bool(part.isfinite().all()) for part in vars(own).values()):
                raise CannotStore(
                    f"{clip.path!r} gives keys or values that are not finite in "
                    f"{family.model.dtype}; calibrate with dtype=bfloat16 or float32"
                )
            total = own if total is None else total.joined(own)
            progress(done, layout.length)
    if total is None:
        raise InvalidSetting("no clips to calibrate on; give at least one")
    return total


def bounds_of(prefix: SharedPrefix) -> Bounds:
    """Return the smallest and largest key and value per layer, head and channel, in float32.

    Raises:
        InvalidSetting: for a prefix that is not held as it is.
    """
    found: dict[str, list[torch.Tensor]] = {"keys": [], "values": []}
    for (piece,) in prefix.layers:
        if not isinstance(piece.held, PlainKV):
            raise InvalidSetting("calibration runs without stage kv_cache")
        for name, states in zip(found, (piece.held.keys, piece.held.values), strict=True):
            if states.shape[2]:
                found[name].append(torch.stack([states[0].amin(1), states[0].amax(1)]))
            else:
                heads, dim = states.shape[1], states.shape[3]
                found[name].append(states.new_zeros(2, heads, dim))
    # [L, 2, h_kv, d]
    keys, values = (torch.stack(found[name]).float().cpu() for name in found)
    return Bounds(keys[:, 0], keys[:, 1], values[:, 0], values[:, 1])
