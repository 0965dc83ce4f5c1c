"""A slow, obvious LanguageBind video tower: loops over frames and positions, softmax by hand.

Written from the description of the arithmetic; it shares no code with `tempeval.families`. The
switches make it wrong on purpose, so that tests can show that they would notice.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812


def tower_reference(
    state,
    video,
    *,
    heads,
    block=8,
    select=-2,
    eps=1e-5,
    act=lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    embedding="residual",
    order=("time", "space"),
):
    """Features `[B, T, N, C]` of `[B, 3, T, H, W]`; `state` has keys without prefix."""

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(x, name):  # [n, C]
        n, width = x.shape
        q, k, v = (
            linear(x, f"{name}.{p}_proj").view(n, heads, width // heads).transpose(0, 1)
            for p in "qkv"
        )
        scores = q @ k.transpose(1, 2) / math.sqrt(width // heads)
        out = (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, width)
        return linear(out, f"{name}.out_proj")

    patch = state["embeddings.patch_embedding.weight"].shape[-1]
    depth = 1 + max(int(k.split(".")[2]) for k in state if k.startswith("encoder.layers."))
    videos = []
    for clip in video:  # [3, T, H, W]
        frames = []
        for frame in clip.transpose(0, 1):
            kernel = state["embeddings.patch_embedding.weight"]
            cells = F.conv2d(frame[None], kernel, stride=patch)[0].flatten(1).T
            tokens = torch.cat([state["embeddings.class_embedding"][None], cells])
            frames.append(
                norm(tokens + state["embeddings.position_embedding.weight"], "pre_layrnorm")
            )
        x = torch.stack(frames)  # [T, N, C]
        for number in range(depth)[: select % (depth + 1)]:
            layer = f"encoder.layers.{number}"

            def over_time(x, layer=layer, number=number):
                x = x.clone()
                for start in range(0, len(x), block):
                    for token in range(x.shape[1]):
                        z = x[start : start + block, token]
                        e = state[f"{layer}.temporal_embedding"][0, : len(z)]
                        if embedding == "first layer" and number:
                            e = torch.zeros_like(e)
                        inner = z + e
                        kept = z if embedding == "inside attention" else inner
                        attended = attend(
                            norm(inner, f"{layer}.temporal_layer_norm1"), f"{layer}.temporal_attn"
                        )
                        x[start : start + block, token] = kept + attended
                return x

            def over_space(x, layer=layer):
                return torch.stack(
                    [f + attend(norm(f, f"{layer}.layer_norm1"), f"{layer}.self_attn") for f in x]
                )

            steps = {"time": over_time, "space": over_space}
            for step in order:
                x = steps[step](x)
            inner = linear(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
            x = x + linear(act(inner), f"{layer}.mlp.fc2")
        videos.append(x)
    return torch.stack(videos)
