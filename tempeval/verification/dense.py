"""A slow, obvious reference for the engine: one dense forward, full masks, no cache, no hooks.

It shares no code with `tempeval.engine`: it reads the model's weights, builds a token-by-token
mask from the meaning of the stages, and recomputes everything at each decoding step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tempeval.methods.kv_codecs import KiviCodec, StaticCodec, static_scale
from tempeval.verification.kivi import after_tokens

if TYPE_CHECKING:
    from tempeval.families.base import Family
    from tempeval.methods.base import Chain
    from tempeval.stages import Layout, RotaryPlan


def rotate_half(x: torch.Tensor) -> torch.Tensor:
    """Return `[-x2, x1]` of the halves of the last dimension."""
    half = x.shape[-1] // 2
    return torch.cat([-x[..., half:], x[..., :half]], dim=-1)


def token_mask(
    chain: Chain, layout: Layout, num_layers: int, total: int, prompt: int
) -> list[torch.Tensor]:
    """Per layer, bool [total, total]: who sees whom by stages attention and prune, per token."""
    from tempeval.stages import Segments

    segments = Segments(layout.num_frames, num_layers)
    names = layout.segment.tolist()
    for index in range(layout.length, total):
        names.append(segments.last if index >= prompt - 1 else segments.question)
    masks = []
    kept = torch.ones(segments.size, dtype=torch.bool)
    for layer in range(num_layers):
        kept = chain.prune(kept.clone(), layer, segments)
        see = chain.attention(
            torch.ones(segments.size, segments.size, dtype=torch.bool), layer, segments
        )
        of = torch.tensor(names)
        mask = see[of][:, of].tril()
        prefix_column = torch.arange(total) < layout.length
        mask &= ~(prefix_column & ~kept[of])
        # Rows that are gone still need a softmax; nobody reads them.
        mask |= torch.eye(total, dtype=torch.bool)
        masks.append(mask)
    return masks


def prefix_rows(chain: Chain, layout: Layout, num_layers: int, layer: int) -> torch.Tensor:
    """Long `[P_l]`: prefix tokens that stage prune leaves in a layer."""
    from tempeval.stages import Segments

    segments = Segments(layout.num_frames, num_layers)
    kept = torch.ones(segments.size, dtype=torch.bool)
    for number in range(layer + 1):
        kept = chain.prune(kept.clone(), number, segments)
    return torch.tensor([i for i, s in enumerate(layout.segment.tolist()) if kept[s]])


def dense_logits(
    family: Family,
    chain: Chain,
    layout: Layout,
    embeddings: torch.Tensor,
    tail_ids: torch.Tensor,
    prompt: int | None = None,
) -> torch.Tensor:
    """Logits `[total, V]` of prefix plus tail under a chain.

    Args:
        family: the loaded base model.
        chain: the methods, bound to the model.
        layout: of the prefix.
        embeddings: `[1, P, D]` of the prefix.
        tail_ids: `[Q + generated]`.
        prompt: number of prompt tokens (prefix and question); later ones were generated.
    """
    text: Any = family.text_model
    geometry = family.geometry
    total = layout.length + len(tail_ids)
    prompt = total if prompt is None else prompt
    rotary = chain.positions(layout.rotary, layout, geometry)
    tail = family.model.get_input_embeddings()(tail_ids.unsqueeze(0))
    hidden = torch.cat([embeddings.to(tail.dtype), tail], dim=1)
    masks = token_mask(chain, layout, geometry.num_layers, total, prompt)
    heads, kv_heads, dim = geometry.num_heads, geometry.num_kv_heads, geometry.head_dim
    for number, layer in enumerate(text.layers):
        plan = rotary.for_layer(number)
        query_angle, key_angle = angles(plan, total, heads)
        x = layer.input_layernorm(hidden)
        q = linear(text, chain, f"layers.{number}.self_attn.q_proj", x)
        k = linear(text, chain, f"layers.{number}.self_attn.k_proj", x)
        v = linear(text, chain, f"layers.{number}.self_attn.v_proj", x)
        q = q.view(1, total, heads, dim).transpose(1, 2)
        k = k.view(1, total, kv_heads, dim).transpose(1, 2)
        v = v.view(1, total, kv_heads, dim).transpose(1, 2)
        q = q * query_angle.cos().to(q.dtype) + rotate_half(q) * query_angle.sin().to(q.dtype)
        k = k * key_angle.cos().to(k.dtype) + rotate_half(k) * key_angle.sin().to(k.dtype)
        mask = masks[number]
        out = torch.empty_like(q)
        groups = heads // kv_heads
        for rows, keys, values in what_rows_read(chain, layout, number, k, v, prompt, geometry):
            scores = q[:, :, rows] @ keys.repeat_interleave(groups, 1).transpose(-1, -2)
            scores = (scores * dim**-0.5).masked_fill(~mask[rows], float("-inf"))
            weights = scores.softmax(-1)
            out[:, :, rows] = weights @ values.repeat_interleave(groups, 1)
        joined = out.transpose(1, 2).reshape(1, total, heads * dim)
        hidden = hidden + linear(text, chain, f"layers.{number}.self_attn.o_proj", joined)
        x = layer.post_attention_layernorm(hidden)
        gate = linear(text, chain, f"layers.{number}.mlp.gate_proj", x)
        up = linear(text, chain, f"layers.{number}.mlp.up_proj", x)
        inner = layer.mlp.act_fn(gate) * up
        hidden = hidden + linear(text, chain, f"layers.{number}.mlp.down_proj", inner)
    logits: torch.Tensor = family.model.lm_head(text.norm(hidden))[0]
    return logits


def what_rows_read(
    chain: Chain,
    layout: Layout,
    layer: int,
    k: torch.Tensor,
    v: torch.Tensor,
    prompt: int,
    geometry: Any,
) -> list[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Keys and values `[1, h_kv, total, d]` as each run of rows finds them.

    Rows of the prefix: as they are. Rows of the question: the prefix as it is held after the
    prompt, or under exact prefill as it is; the question itself as it is. Each generated row:
    everything as it is held after the tokens before that row.
    """
    total, length = k.shape[2], layout.length
    codec = chain.kv_cache(layer, geometry)
    if codec is None:
        return [(slice(0, total), k, v)]
    present = prefix_rows(chain, layout, geometry.num_layers, layer)

    def held(tokens: int, whole: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """After `tokens` of the sequence; `whole`: of the tail too."""
        inside = torch.cat([present, torch.arange(length, tokens)])
        count = len(inside) if whole else len(present)
        keys, values = k.clone(), v.clone()
        own = as_held(codec, k[0, :, inside], v[0, :, inside], len(present))
        for states, ours in zip((keys, values), own, strict=True):
            states[0, :, inside[:count]] = ours[:, :count]
        return keys, values

    runs = [(slice(0, length), k, v)]
    asked = (k, v) if codec.exact_prefill else held(prompt, whole=False)
    runs.append((slice(length, prompt), *asked))
    runs += [(slice(row, row + 1), *held(row, whole=True)) for row in range(prompt, total)]
    return runs


def as_held(
    codec: Any, keys: torch.Tensor, values: torch.Tensor, prefix: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `[h_kv, n, d]` of a sequence as a codec holds it."""
    if isinstance(codec, KiviCodec):
        cache = after_tokens(keys, values, codec.nbits, codec.group_size, codec.residual_length)
        return cache.read() if len(keys[0]) else (keys, values)
    old = prefix
    if isinstance(codec, StaticCodec):
        old = min(max(keys.shape[1] - codec.residual_length, 0), prefix)
    held = []
    for states, low, high in zip((keys, values), *_ranges(codec), strict=True):
        if isinstance(codec, StaticCodec):
            scale, zero = static_scale(low, high, codec.nbits, states.dtype)
            codes = ((states / scale[0]).round() + zero[0]).clamp(0, 2**codec.nbits - 1)
            few = (codes - zero[0]) * scale[0]
        else:
            few = codec.rounded(states)
        held.append(torch.cat([few[:, :old], states[:, old:]], dim=1))
    return held[0], held[1]


def _ranges(codec: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    if not isinstance(codec, StaticCodec):
        return (None, None), (None, None)
    bounds = codec.bounds
    return (bounds.keys_low, bounds.values_low), (bounds.keys_high, bounds.values_high)


def linear(text: Any, chain: Chain, name: str, x: torch.Tensor) -> torch.Tensor:
    """A linear map of the text model with the chain's low-rank change of it, added by hand."""
    out: torch.Tensor = text.get_submodule(name)(x)
    low_rank = chain.low_rank
    if low_rank is not None and name in low_rank.matrices:
        a, b = (matrix.to(x) for matrix in low_rank.matrices[name])
        out = out + low_rank.scale * torch.einsum("or,ri,...i->...o", b, a, x)
    return out


def angles(plan: RotaryPlan, total: int, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary angles of queries `[1, heads, total, d]` and keys `[1, 1, total, d]`."""
    length, half = plan.positions.shape
    positions = torch.empty(total, half, dtype=torch.float64)
    scale = torch.zeros(total, dtype=torch.float64)
    positions[:length] = plan.positions
    positions[length:] = plan.next_position + torch.arange(total - length).unsqueeze(1)
    if plan.shift_scale is not None:
        scale[:length] = plan.shift_scale
    scale[length:] = plan.shift_scale_after
    query = positions.expand(heads, total, half)
    if plan.query_shift is not None:
        query = query + plan.query_shift[:, None, :] * scale[None, :, None]

    def widen(p: torch.Tensor) -> torch.Tensor:
        # In float32, as models compute their angles whatever their own dtype.
        angle = p.float() * plan.inv_freq.float()
        return torch.cat([angle, angle], dim=-1)

    return widen(query).unsqueeze(0), widen(positions).unsqueeze(0).unsqueeze(0)


def dense_generate(
    family: Family,
    chain: Chain,
    layout: Layout,
    embeddings: torch.Tensor,
    question: torch.Tensor,
    steps: int,
) -> tuple[list[int], torch.Tensor]:
    """Greedy tokens, and the logits `[steps, V]` that chose them."""
    ids = question.clone()
    prompt = layout.length + len(question)
    chosen, rows = [], []
    for _ in range(steps):
        logits = dense_logits(family, chain, layout, embeddings, ids, prompt)[-1]
        rows.append(logits)
        chosen.append(int(logits.argmax()))
        ids = torch.cat([ids, torch.tensor([chosen[-1]])])
    return chosen, torch.stack(rows)
