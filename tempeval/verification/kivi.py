"""KIVI's cache as its released code keeps it, one sequence at a time: slow and obvious.

Written from the description of `models/llama_kivi.py` in github.com/jy-yuan/KIVI @ 876b4d2; it
shares no code with `tempeval`. Codes are kept as numbers, and bytes are counted as packed ones.
"""

from __future__ import annotations

import torch


def few_bits(x: torch.Tensor, nbits: int) -> torch.Tensor:
    """What is left of one group of numbers, `[..., g]`, in few bits."""
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = (high - low) / (2**nbits - 1)
    codes = ((x - low) / torch.where(scale > 0, scale, torch.ones_like(scale))).round()
    held: torch.Tensor = codes.clamp(0, 2**nbits - 1) * scale + low
    return held


class KiviCache:
    """Keys and values `[h_kv, n, d]` of one layer and one sequence.

    Keys wait in full precision until `residual` of them are there, and are then quantised together,
    each channel in groups of tokens. Values are quantised one token at a time, in groups of
    channels, as soon as `residual` newer ones are there.
    """

    def __init__(self, nbits: int, group: int, residual: int) -> None:
        self.nbits, self.group, self.residual = nbits, group, residual
        # The released code asserts that whole groups make up a block; else as many as fit.
        self.block = max(residual // group * group, group)
        self.old_keys: list[torch.Tensor] = []  # blocks [h, block, d]
        self.new_keys: list[torch.Tensor] = []  # tokens [h, d]
        self.old_values: list[torch.Tensor] = []  # tokens [h, d]
        self.new_values: list[torch.Tensor] = []

    def append(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """Take one token in, `[h_kv, d]` each: after its own attention, as the released code."""
        self.new_keys.append(key)
        if len(self.new_keys) == self.block:
            block = torch.stack(self.new_keys, dim=1)
            heads, tokens, dim = block.shape
            grouped = block.transpose(1, 2).reshape(heads, dim, tokens // self.group, self.group)
            held = few_bits(grouped, self.nbits).reshape(heads, dim, tokens)
            self.old_keys.append(held.transpose(1, 2))
            self.new_keys = []
        self.new_values.append(value)
        if len(self.new_values) > self.residual:
            oldest = self.new_values.pop(0)
            grouped = oldest.reshape(oldest.shape[0], -1, self.group)
            self.old_values.append(few_bits(grouped, self.nbits).reshape(oldest.shape))

    @property
    def counts(self) -> tuple[int, int]:
        """Keys and values in few bits."""
        return sum(block.shape[1] for block in self.old_keys), len(self.old_values)

    def read(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Everything as the next token finds it."""
        keys = [*self.old_keys, *(key.unsqueeze(1) for key in self.new_keys)]
        values = [*self.old_values, *self.new_values]
        return torch.cat(keys, dim=1), torch.stack(values, dim=1)

    def nbytes(self, element: int) -> int:
        """Bytes with codes packed, and a scale and a minimum of `element` bytes per group."""
        total = 0.0
        for block in self.old_keys:
            total += block.numel() * self.nbits / 8 + 2 * element * block.numel() / self.group
        for token in self.old_values:
            total += token.numel() * self.nbits / 8 + 2 * element * token.numel() / self.group
        for token in [*self.new_keys, *self.new_values]:
            total += token.numel() * element
        if total != int(total):
            raise ValueError(f"{total} bytes are no whole number")
        return int(total)


def after_tokens(
    keys: torch.Tensor, values: torch.Tensor, nbits: int, group: int, residual: int
) -> KiviCache:
    """The cache once `[h_kv, n, d]` tokens have been taken in; a long prefill ends the same."""
    cache = KiviCache(nbits, group, residual)
    for token in range(keys.shape[1]):
        cache.append(keys[:, token], values[:, token])
    return cache
