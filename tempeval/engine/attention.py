"""Attention with a log-sum-exp, so that pieces over disjoint keys merge exactly.

`attend_lse` isolates the kernels that return a log-sum-exp; every other file sees one function.
Shapes: `B` batch, `h` query heads, `h_kv` key/value heads, `S` query rows, `T` keys, `d` head_dim.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

# Row alignment that the memory-efficient kernel asks of an additive mask.
_BIAS_ALIGNMENT = 16
# Kernels that let query heads share key/value heads; for others these are repeated.
_GROUPED = frozenset({"cpu_flash", "cuda_flash"})


class Attended(NamedTuple):
    """Output of one attention piece.

    Attributes:
        out: `[B, h, S, d]`, softmax-weighted values over this piece's keys.
        lse: float32 (float64 for float64 inputs) `[B, h, S]`, log-sum-exp of this piece's scores.
        kernel: which kernel ran.
    """

    out: torch.Tensor
    lse: torch.Tensor
    kernel: str


def attend_lse(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    scale: float,
    causal: bool = False,
    mask: torch.Tensor | None = None,
    kernel: str | None = None,
) -> Attended:
    """Attend and return the log-sum-exp of the scores.

    Args:
        query: `[B, h, S, d]`.
        key: `[B, h_kv, T, d]`; query heads `i * h // h_kv` and on share head i.
        value: `[B, h_kv, T, d]`.
        scale: factor on the scores.
        causal: row i sees keys 0..i; needs S == T.
        mask: bool `[B or 1, 1, S, T]`, True where a row sees a key; every row must see one.
        kernel: one of `kernels_for(...)`, to force it (tests); None takes the best.

    Returns:
        Output, log-sum-exp and the kernel's name.
    """
    name = kernel or kernels_for(query, masked=mask is not None)[0]
    if name not in _GROUPED:
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_heads(key, groups), repeat_heads(value, groups)
    if name == "cpu_flash":
        bias = None if mask is None else _bias(mask, query.dtype)
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query, key, value, 0.0, causal, attn_mask=bias, scale=scale
        )
        return Attended(out, lse, name)
    if name == "cuda_flash":
        out, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, causal, False, scale=scale
        )
        return Attended(out, lse, name)
    if name == "cuda_efficient":
        bias = None if mask is None else _aligned_bias(mask, query)
        out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, bias, True, 0.0, causal, scale=scale
        )
        # The kernel pads the row axis of the log-sum-exp to a multiple of 32.
        return Attended(out, lse[..., : query.shape[2]], name)
    return _math(query, key, value, scale, causal, mask)


def kernels_for(query: torch.Tensor, *, masked: bool) -> list[str]:
    """List the kernels that can run, best first; `math` always can."""
    names = []
    if query.device.type == "cpu":
        names.append("cpu_flash")
    elif query.device.type == "cuda":
        half = query.dtype in (torch.float16, torch.bfloat16)
        if half and not masked and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256:
            names.append("cuda_flash")
        if query.dtype != torch.float64 and query.shape[-1] % 8 == 0:
            names.append("cuda_efficient")
    return [*names, "math"]


def _math(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    causal: bool,
    mask: torch.Tensor | None,
) -> Attended:
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    scores = torch.matmul(query.to(wide), key.to(wide).transpose(-1, -2)) * scale
    if causal:
        rows, cols = scores.shape[-2:]
        allowed = torch.ones(rows, cols, dtype=torch.bool, device=query.device).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    lse = torch.logsumexp(scores, dim=-1)
    weights = torch.exp(scores - lse.unsqueeze(-1))
    return Attended(torch.matmul(weights, value.to(wide)).to(query.dtype), lse, "math")


def _bias(mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(
        ~mask, float("-inf")
    )


def _aligned_bias(mask: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    bias = _bias(mask, query.dtype)
    extra = -bias.shape[-1] % _BIAS_ALIGNMENT
    # The kernel reads whole aligned rows, so the storage is padded and the view cut back.
    bias = pad(bias, (0, extra))[..., : mask.shape[-1]]
    return bias.expand(query.shape[0], query.shape[1], -1, -1)


def merge(pieces: list[Attended], out: torch.Tensor | None = None) -> torch.Tensor:
    """Combine pieces over disjoint keys into the softmax over all of them.

    The weights are computed in float32 (float64 for float64 inputs) whatever the compute dtype.

    Args:
        pieces: at least one; same shapes.
        out: `[B, h, S, d]` in the dtype of the pieces, to write to; None for a new tensor.

    Returns:
        `[B, h, S, d]` in the dtype of the pieces.
    """
    first, *others = pieces
    if not others:
        return first.out if out is None else out.copy_(first.out)
    total = first.lse
    for piece in others:
        total = torch.logaddexp(total, piece.lse)
    wide = total.dtype
    target = out if out is not None and out.dtype == wide else None
    mixed = torch.mul(first.out.to(wide), torch.exp(first.lse - total).unsqueeze(-1), out=target)
    for piece in others:
        mixed.addcmul_(piece.out.to(wide), torch.exp(piece.lse - total).unsqueeze(-1))
    if out is None:
        return mixed.to(first.out.dtype)
    return out if target is not None else out.copy_(mixed)


def repeat_heads(states: torch.Tensor, groups: int) -> torch.Tensor:
    """Repeat key/value heads: `[B, h_kv, T, d]` to `[B, h_kv * groups, T, d]`."""
    return states if groups == 1 else states.repeat_interleave(groups, dim=1)


def attend_causal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float
) -> torch.Tensor:
    """Plain causal self-attention over a whole prefix; grouped heads, no log-sum-exp.

    Args:
        query: `[B, h, P, d]`.
        key: `[B, h_kv, P, d]`.
        value: `[B, h_kv, P, d]`.
        scale: factor on the scores.

    Returns:
        `[B, h, P, d]`.
    """
    return scaled_dot_product_attention(
        query,
        key,
        value,
        is_causal=query.shape[2] > 1,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def attend_apart(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, count: int, scale: float
) -> Attended:
    """Attend causally within each of `count` equal runs of rows, as one batch.

    Args:
        query: `[1, h, count * n, d]`.
        key: `[1, h_kv, count * n, d]`.
        value: `[1, h_kv, count * n, d]`.
        count: runs; no row sees another run.
        scale: factor on the scores.
    """
    # [1, h, count * n, d] -> [count, h, n, d]
    split = [torch.unflatten(s[0], 1, (count, -1)).transpose(0, 1) for s in (query, key, value)]
    piece = attend_lse(*split, scale=scale, causal=True)
    out, lse = (s.transpose(0, 1).flatten(1, 2).unsqueeze(0) for s in (piece.out, piece.lse))
    return Attended(out, lse, piece.kernel)


def attend_shared(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, scale: float
) -> Attended:
    """Let every row of a batch attend one shared, unbatched set of keys, all visible.

    The batch and the heads of a group are folded into rows, so the keys are neither copied nor
    repeated and no mask is needed.

    Args:
        query: `[B, h, S, d]`.
        key: `[1, h_kv, T, d]`.
        value: `[1, h_kv, T, d]`.
        scale: factor on the scores.
    """
    batch, heads, rows, dim = query.shape
    kv_heads = key.shape[1]
    groups = heads // kv_heads
    folded = query.reshape(batch, kv_heads, groups, rows, dim).transpose(0, 1)
    # [h_kv, B, groups, S, d] -> [1, h_kv, B * groups * S, d]
    folded = folded.reshape(1, kv_heads, batch * groups * rows, dim)
    piece = attend_lse(folded, key, value, scale=scale)
    out = piece.out.reshape(kv_heads, batch, groups, rows, dim).transpose(0, 1)
    lse = piece.lse.reshape(kv_heads, batch, groups, rows).transpose(0, 1)
    return Attended(
        out.reshape(batch, heads, rows, dim), lse.reshape(batch, heads, rows), piece.kernel
    )
