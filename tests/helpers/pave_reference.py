"""PAVE's patch in float64, frame by frame and head by head: what the fast one is held against."""

from __future__ import annotations

import math

import torch
from torch.nn.functional import gelu, interpolate, layer_norm

from tempeval.methods.pave_patch import equal_partition


def reference(state, side, queries, heads, neighbors, *, kv_share):
    """One frame and one head at a time, in float64, from the equations of papers.md A2."""
    state = {key: value.double() for key, value in state.items()}
    side, queries = side.double(), queries.double()

    def linear(name, x):
        bias = state.get(f"{name}.bias")
        return x @ state[f"{name}.weight"].T + (0 if bias is None else bias)

    keys = linear("input_mapping", side)
    frames = len(queries)
    if neighbors is None:
        if len(keys) < frames:
            first = keys.permute(3, 0, 1, 2)[None]
            size = (frames, *keys.shape[1:3])
            keys = interpolate(first, size=size, mode="trilinear", align_corners=True)[0]
            keys = keys.permute(1, 2, 3, 0)
        neighbors = equal_partition(len(keys), frames)
    width = keys.shape[-1]
    out = []
    for frame, own in zip(queries, neighbors, strict=True):
        if not len(own):
            out.append(torch.zeros(len(frame), state["output_norm.bias"].shape[0]).double())
            continue
        near = keys[own.start : own.stop].reshape(-1, width)
        hidden = linear("query_input_mapping", frame)
        number = 0
        while f"cross_attn_layers.{number}.ffn.0.weight" in state:
            layer = f"cross_attn_layers.{number}"
            q, k = linear(f"{layer}.attn.q_linear", hidden), linear(f"{layer}.attn.k_linear", near)
            v = k if kv_share else linear(f"{layer}.attn.v_linear", near)
            parts = []
            for head in range(heads):
                at = slice(head * width // heads, (head + 1) * width // heads)
                scores = q[:, at] @ k[:, at].T / math.sqrt(width // heads)
                parts.append(scores.softmax(-1) @ v[:, at])
            hidden = torch.cat(parts, -1) + hidden
            scale, shift = state[f"{layer}.ffn.0.weight"], state[f"{layer}.ffn.0.bias"]
            norm = layer_norm(hidden, (width,), scale, shift)
            hidden = linear(f"{layer}.ffn.3", gelu(linear(f"{layer}.ffn.1", norm))) + hidden
            number += 1
        y = linear("output_mapping.2", gelu(linear("output_mapping.0", hidden)))
        size = (y.shape[-1],)
        out.append(layer_norm(y, size, state["output_norm.weight"], state["output_norm.bias"]))
    return torch.stack(out)
