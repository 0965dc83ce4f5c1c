"""A slow, obvious reference for the engine: one dense forward, full masks, no cache, no hooks.

It shares no code with `tempeval.engine`: it reads the model's weights, builds a token-by-token
mask from the meaning of the stages, and recomputes everything at each decoding step.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from tempeval.methods.kv_codecs import KiviCodec, StaticCodec, static_scale
from tempeval.stages import Chosen, Eviction, Measured, PrefixTokens, Segments
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
    segments = Segments(layout.num_frames, num_layers)
    names = layout.segment.tolist()
    for index in range(layout.length, total):
        names.append(segments.last if index >= prompt - 1 else segments.question)
    masks = []
    prefix = PrefixTokens.of(layout, num_layers)
    kept = torch.ones(layout.length, dtype=torch.bool)
    for layer in range(num_layers):
        kept, _ = chain.prune(kept.clone(), layer, prefix)
        see = chain.attention(
            torch.ones(segments.size, segments.size, dtype=torch.bool), layer, segments
        )
        of = torch.tensor(names)
        mask = see[of][:, of].tril()
        mask[:, : layout.length] &= kept
        # Rows that are gone still need a softmax; nobody reads them.
        mask |= torch.eye(total, dtype=torch.bool)
        masks.append(mask)
    return masks


def prefix_rows(chain: Chain, layout: Layout, num_layers: int, layer: int) -> torch.Tensor:
    """Long `[P_l]`: prefix tokens that stage prune leaves in a layer, whatever scores say."""
    prefix = PrefixTokens.of(layout, num_layers)
    kept = torch.ones(layout.length, dtype=torch.bool)
    for number in range(layer + 1):
        kept, _ = chain.prune(kept.clone(), number, prefix)
    return kept.nonzero().squeeze(1)


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
    groups = heads // kv_heads
    scored = Scored(chain, layout, geometry, prompt)
    renumbered: dict[int, RotaryPlan] = {}

    def projected(number: int, plan: RotaryPlan, states: torch.Tensor) -> list[torch.Tensor]:
        """Queries, keys and values of a layer, `[1, heads, total, d]` each."""
        query_angle, key_angle = angles(plan, total, heads)
        x = text.layers[number].input_layernorm(states)
        names = [f"layers.{number}.self_attn.{letter}_proj" for letter in "qkv"]
        q, k, v = (
            linear(text, chain, name, x).view(1, total, -1, dim).transpose(1, 2) for name in names
        )
        q = q * query_angle.cos().to(q.dtype) + rotate_half(q) * query_angle.sin().to(q.dtype)
        k = k * key_angle.cos().to(k.dtype) + rotate_half(k) * key_angle.sin().to(k.dtype)
        return [q, k, v]

    def softmax(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        scores = q @ k.repeat_interleave(groups, 1).transpose(-1, -2)
        weights: torch.Tensor = (scores * dim**-0.5).masked_fill(~mask, float("-inf")).softmax(-1)
        return weights

    before: torch.Tensor | None = None
    for number, layer in enumerate(text.layers):
        plan = renumbered.get(number, rotary.for_layer(number))

        def own(
            states: torch.Tensor, number: int = number, plan: RotaryPlan = plan
        ) -> torch.Tensor:
            q, k, _ = projected(number, plan, states)
            return softmax(q, k, scored.masked(masks[number]))[0]

        hidden, anew = scored.prune(number, hidden, before, own)
        if anew:
            for later in range(number, geometry.num_layers):
                moved = renumbered.get(later, rotary.for_layer(later))
                renumbered[later] = scored.ranked(moved)
            plan = renumbered[number]
        q, k, v = projected(number, plan, hidden)
        mask = scored.masked(masks[number])
        out = torch.empty_like(q)
        before = torch.zeros(heads, total, total, dtype=q.dtype)
        for rows, keys, values, hole in scored.what_rows_read(number, q, k, v, mask, softmax):
            weights = softmax(q[:, :, rows], keys, mask[rows] & ~hole)
            out[:, :, rows] = weights @ values.repeat_interleave(groups, 1)
            before[:, rows] = weights[0]
        joined = out.transpose(1, 2).reshape(1, total, heads * dim)
        hidden = hidden + linear(text, chain, f"layers.{number}.self_attn.o_proj", joined)
        x = layer.post_attention_layernorm(hidden)
        gate = linear(text, chain, f"layers.{number}.mlp.gate_proj", x)
        up = linear(text, chain, f"layers.{number}.mlp.up_proj", x)
        inner = layer.mlp.act_fn(gate) * up
        hidden = hidden + linear(text, chain, f"layers.{number}.mlp.down_proj", inner)
    logits: torch.Tensor = family.model.lm_head(text.norm(hidden))[0]
    return logits


class Scored:
    """What scores decide in one dense forward: which prefix tokens are left, and which are held.

    Nothing of the engine: softmax over whole rows of full matrices.
    """

    def __init__(self, chain: Chain, layout: Layout, geometry: Any, prompt: int) -> None:
        self.chain, self.layout, self.geometry, self.prompt = chain, layout, geometry, prompt
        self.prefix = PrefixTokens.of(layout, geometry.num_layers)
        self.static = torch.ones(layout.length, dtype=torch.bool)
        #: Bool `[P]`: tokens that are left.
        self.left = self.static.clone()
        #: Whether the prompt reads everything: then later rows alone read what is held.
        self.exact = False
        for layer in range(geometry.num_layers):
            cache: Any = chain.kv_cache(layer, geometry)
            if isinstance(cache, Eviction):
                self.exact |= cache.request.rows in ("last", "question")
                cache = cache.codec
            self.exact |= cache is not None and cache.exact_prefill

    def masked(self, mask: torch.Tensor) -> torch.Tensor:
        """Take the columns that scores removed out of a layer's mask."""
        mask = mask.clone()
        mask[:, : self.layout.length] &= self.left
        return mask | torch.eye(len(mask), dtype=torch.bool)

    def rows_named(self, name: str) -> torch.Tensor:
        """Token indices of named rows."""
        if name == "last":
            return torch.tensor([self.prompt - 1])
        if name == "question":
            return torch.arange(self.layout.length, self.prompt)
        wanted = self.left if name == "prefix" else self.left & self.prefix.of_frames
        return wanted.nonzero().squeeze(1)

    def told(self, layer: int, request: Any, weights: Any, hidden: Any, q: Any) -> Measured:
        """What a rule is told, from whole matrices `[h, total, total]`."""
        tokens = self.left.nonzero().squeeze(1)
        attention, rows = None, None
        if request.rows is not None:
            rows = self.rows_named(request.rows)
            attention = weights[:, rows][:, :, tokens]
            attention = attention if request.per_row else attention.mean(1)
            attention = attention if request.per_head else attention.mean(0)
        return Measured(
            layer=layer,
            tokens=tokens,
            prefix=self.prefix,
            attention=attention,
            hidden=hidden[0, tokens] if request.hidden else None,
            hidden_rows=hidden[0, rows] if request.hidden and rows is not None else None,
            queries=q[0][:, rows] if request.queries else None,
        )

    def prune(
        self, layer: int, hidden: torch.Tensor, before: Any, own: Any
    ) -> tuple[torch.Tensor, bool]:
        """Apply a layer's rules; return what goes on, and whether positions are ranked anew."""
        self.static, rules = self.chain.prune(self.static.clone(), layer, self.prefix)
        # Rows of the layer before were chosen before those that leave in this one.
        named_before = self.left.clone()
        self.left &= self.static
        anew = False
        for rule in rules:
            request = rule.request
            if request.layer == "own" and request.rows is not None:
                measured = self.told(layer, request, own(hidden), hidden, None)
            else:
                now, self.left = self.left, named_before
                rows = None if request.rows is None else self.rows_named(request.rows)
                self.left = now
                measured = self.told(layer, replace(request, rows=None), None, hidden, None)
                if rows is not None:
                    attention = before[:, rows][:, :, measured.tokens]
                    attention = attention if request.per_row else attention.mean(1)
                    attention = attention if request.per_head else attention.mean(0)
                    measured = replace(measured, attention=attention)
            made = rule.choose(measured)
            kept, states = (made.kept, made.hidden) if isinstance(made, Chosen) else (made, None)
            tokens = measured.tokens[kept]
            self.left = torch.zeros_like(self.left)
            self.left[tokens] = True
            if states is not None:
                hidden = hidden.clone()
                hidden[0, tokens] = states
            anew |= rule.positions == "renumbered"
        return hidden, anew

    def ranked(self, plan: RotaryPlan) -> RotaryPlan:
        """Positions of what is left, ranked from 0 in every channel."""
        positions = plan.positions.clone()
        rows = self.left.nonzero().squeeze(1).tolist()
        for channel in range(positions.shape[1]):
            values = sorted({float(plan.positions[row, channel]) for row in rows})
            for row in rows:
                positions[row, channel] = values.index(float(plan.positions[row, channel]))
        after = float(positions[rows].max()) + 1
        return replace(plan, positions=positions, next_position=after, layers={})

    def what_rows_read(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any, softmax: Any
    ) -> list[tuple[slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Keys and values `[1, h_kv, total, d]` as each run of rows finds them, and what is gone.

        Rows of the prefix: as they are. Rows of the question: the prefix as it is held after the
        prompt, or under exact prefill as it is; the question itself as it is. Each generated row:
        everything as it is held after the tokens before that row. What is gone is bool `[total]`,
        or `[h, 1, total]` where heads hold tokens of their own.
        """
        total, length, prompt = k.shape[2], self.layout.length, self.prompt
        whole = torch.zeros(total, dtype=torch.bool)
        cache = self.chain.kv_cache(layer, self.geometry)
        if cache is None:
            return [(slice(0, total), k, v, whole)]
        present, hole = self.left.nonzero().squeeze(1), whole
        codec: Any = cache
        exact = self.exact
        stay = torch.arange(len(present)).expand(k.shape[1], -1)
        if isinstance(cache, Eviction):
            codec = cache.codec
            request = cache.request
            told = self.told(layer, request, softmax(q, k, mask)[0], None, q)
            stay = cache.choose(k[0][:, present], v[0][:, present], told)
            stay = stay.sort(-1).values.expand(k.shape[1], -1)
            hole = torch.zeros(k.shape[1], total, dtype=torch.bool)
            hole[:, :length] = True
            for head, rows in enumerate(stay):
                hole[head, present[rows]] = False
            hole = hole.repeat_interleave(q.shape[1] // k.shape[1], 0).unsqueeze(1)

        def held(tokens: int, through: bool) -> tuple[torch.Tensor, torch.Tensor]:
            """After `tokens` of the sequence; `through`: of the tail too."""
            keys, values = k.clone(), v.clone()
            if codec is None:
                return keys, values
            for head, rows in enumerate(stay):
                inside = torch.cat([present[rows], torch.arange(length, tokens)])
                count = len(inside) if through else len(rows)
                one = slice(head, head + 1)
                mine = as_held(codec, k[0, one][:, inside], v[0, one][:, inside], len(rows), head)
                for states, ours in zip((keys, values), mine, strict=True):
                    states[0, head, inside[:count]] = ours[0, :count]
            return keys, values

        runs = [(slice(0, length), k, v, whole)]
        if exact:
            runs.append((slice(length, prompt), k, v, whole))
        else:
            runs.append((slice(length, prompt), *held(prompt, through=False), hole))
        later = ((row, held(row, through=True)) for row in range(prompt, total))
        return runs + [(slice(row, row + 1), *states, hole) for row, states in later]


def as_held(
    codec: Any, keys: torch.Tensor, values: torch.Tensor, prefix: int, head: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return `[1, n, d]` of one head's sequence as a codec holds it."""
    if isinstance(codec, KiviCodec):
        cache = after_tokens(keys, values, codec.nbits, codec.group_size, codec.residual_length)
        return cache.read() if len(keys[0]) else (keys, values)
    old = prefix
    if isinstance(codec, StaticCodec):
        old = min(max(keys.shape[1] - codec.residual_length, 0), prefix)
    held = []
    for states, low, high in zip((keys, values), *_ranges(codec), strict=True):
        if isinstance(codec, StaticCodec):
            low, high = low[head : head + 1], high[head : head + 1]
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
