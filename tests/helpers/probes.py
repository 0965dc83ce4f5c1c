"""Methods written for the tests: one probe per stage, so that every stage is exercised."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from tempeval.engine.cache import PlainKV, token_bytes
from tempeval.methods.base import Method
from tempeval.video.clip import Order


@dataclass(frozen=True)
class ReverseOrder(Method):
    """`frames`: the video played backwards."""

    name: ClassVar[str] = "reverse_order"
    modifies: ClassVar[frozenset[str]] = frozenset({"order"})

    def frames(self, plan):
        return plan.reordered(Order("reversed"))


@dataclass(frozen=True)
class PoolTokens(Method):
    """`tokens`: mean over each whole row of the token grid."""

    name: ClassVar[str] = "pool_tokens"
    modifies: ClassVar[frozenset[str]] = frozenset({"pool"})

    def tokens(self, tokens):
        t, h, w = tokens.grid
        pooled = tokens.embeddings.view(t, h, w, -1).mean(2)
        return replace(tokens, embeddings=pooled.reshape(t * h, -1), grid=(t, h, 1))


@dataclass(frozen=True)
class KnockOutPositions(Method):
    """`positions`: no rotary embedding in one layer."""

    name: ClassVar[str] = "knock_out_positions"
    modifies: ClassVar[frozenset[str]] = frozenset({"layers"})

    layer: int = 1

    def positions(self, rotary, layout, geometry):
        return replace(rotary, layers={**rotary.layers, self.layer: rotary.identity()})


@dataclass(frozen=True)
class LastFrameOnly(Method):
    """`attention`, strategy (1): question and last see the last frame only, in some layers."""

    name: ClassVar[str] = "last_frame_only"
    modifies: ClassVar[frozenset[str]] = frozenset({"text_sees"})

    start: int = 1
    stop: int = 3

    def attention(self, visible, layer, segments):
        if self.start <= layer < self.stop:
            for row in (segments.question, segments.last):
                visible[row, list(segments.frames)[:-1]] = False
        return visible


@dataclass(frozen=True)
class FramesApart(Method):
    """`attention`, strategy (2): frames do not see earlier frames, from a layer on."""

    name: ClassVar[str] = "frames_apart"
    modifies: ClassVar[frozenset[str]] = frozenset({"frames_see"})

    start: int = 2

    def attention(self, visible, layer, segments):
        if layer >= self.start:
            frames = list(segments.frames)
            for row in frames:
                visible[row, [f for f in frames if f != row]] = False
        return visible


@dataclass(frozen=True)
class LastNotQuestion(Method):
    """`attention`: the last token sees no question token (an attention knock-out)."""

    name: ClassVar[str] = "last_not_question"
    modifies: ClassVar[frozenset[str]] = frozenset({"last_sees"})

    layer: int = 2

    def attention(self, visible, layer, segments):
        if layer == self.layer:
            visible[segments.last, segments.question] = False
        return visible


@dataclass(frozen=True)
class DropEarlyFrames(Method):
    """`prune`: frames leave one by one, the earliest first."""

    name: ClassVar[str] = "drop_early_frames"
    modifies: ClassVar[frozenset[str]] = frozenset({"exit"})

    def prune(self, kept, layer, prefix):
        return kept & ~(prefix.of_frames & (prefix.segment <= layer))


def int8(states):
    """Codes, and one scale per token and head."""
    scale = states.abs().amax(-1, keepdim=True).clamp(min=1e-8) / 127
    return (states / scale).round().to(torch.int8), scale


class Int8KV:
    """Symmetric int8 per token and head, one scale each; without a window."""

    def __init__(self, keys, values):
        self.dtype = keys.dtype
        self.parts = [int8(states) for states in (keys, values)]

    def opened(self):
        return PlainKV(*(codes.to(self.dtype) * scale for codes, scale in self.parts))

    def extended(self, keys, values):
        return None

    def nbytes(self, after):
        own = sum(t.untyped_storage().nbytes() for part in self.parts for t in part)
        return own + after * 2 * token_bytes(self.parts[0][0].to(self.dtype))

    def in_few_bits(self, after):
        tokens = self.parts[0][0].shape[2]
        return tokens, tokens


class Int8Codec:
    """`kv_cache` codec of the tests."""

    exact_prefill = False

    def encode(self, keys, values):
        return Int8KV(keys, values)

    def first_in_few_bits(self, prefix, after):
        return prefix, prefix

    def rounded(self, states):
        """`[h_kv, n, d]` as it is held."""
        codes, scale = int8(states)
        return codes.to(states.dtype) * scale


@dataclass(frozen=True)
class Int8Store(Method):
    """`kv_cache`: int8 keys and values in every layer."""

    name: ClassVar[str] = "int8_store"
    modifies: ClassVar[frozenset[str]] = frozenset({"kv_cache"})

    def kv_cache(self, layer, geometry):
        return Int8Codec()
