"""How a prefix is held in few bits: KIVI's groups, or a static scale per head and channel.

Both keep the last `residual_length` tokens in full precision. Shapes: `[1, h_kv, P, d]` keys
(after rotary) and values; `Q` is the number of tokens that are quantised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from tempeval.methods.kv_groups import check_finite, quantize, scale_back
from tempeval.methods.kv_packing import pack, unpack

if TYPE_CHECKING:
    from torch import Tensor

    from tempeval.methods.kv_calibration import Bounds

#: Largest zero point of a static scale; within int16, and finer than a half-precision mantissa.
_REACH = 2**14
#: Smallest positive float16.
_LEAST_HALF = 2.0**-24


class Packed(Protocol):
    """Quantised keys or values of Q tokens."""

    @property
    def shape(self) -> torch.Size:
        """`[1, h_kv, Q, d]`."""
        ...

    def decode_to(self, out: Tensor) -> None:
        """Write `[1, h_kv, Q, d]`, in the compute dtype."""
        ...

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Everything held."""
        ...


@dataclass(frozen=True)
class QuantisedKV:
    """A layer's prefix: Q quantised tokens, then those in full precision.

    Attributes:
        keys: of the first Q tokens.
        values: of the first Q tokens.
        exact_keys: `[1, h_kv, P - Q, d]`.
        exact_values: `[1, h_kv, P - Q, d]`.
        quantised_fraction: Q / P; 0 for an empty prefix.
    """

    keys: Packed
    values: Packed
    exact_keys: Tensor
    exact_values: Tensor
    quantised_fraction: float

    def decode(self) -> tuple[Tensor, Tensor]:
        """Return keys and values, `[1, h_kv, P, d]` each, in the compute dtype."""
        return _joined(self.keys, self.exact_keys), _joined(self.values, self.exact_values)

    @property
    def nbytes(self) -> int:
        """Bytes of every storage held: codes, scales, minima or zero points, and the window."""
        held = (*self.keys.tensors, *self.values.tensors, self.exact_keys, self.exact_values)
        return sum(tensor.untyped_storage().nbytes() for tensor in held)


@dataclass(frozen=True)
class GroupCodes:
    """Packed codes with a scale and a minimum per group (see `quantize`)."""

    packed: Tensor
    scale: Tensor
    zero: Tensor
    shape: torch.Size
    nbits: int
    axis: int
    group_size: int

    @classmethod
    def encode(cls, x: Tensor, nbits: int, axis: int, group_size: int) -> GroupCodes:
        """Quantise and pack."""
        codes, scale, zero = quantize(x, nbits, axis, group_size)
        return cls(pack(codes, nbits), scale, zero, x.shape, nbits, axis, group_size)

    def decode_to(self, out: Tensor) -> None:
        """Unpack and dequantise."""
        out.copy_(unpack(self.packed, self.nbits, self.shape))
        scale_back(out, self.scale, self.zero, self.axis, self.group_size)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Codes, scales, minima."""
        return self.packed, self.scale, self.zero


@dataclass(frozen=True)
class KiviCodec:
    """Keys per channel in groups of tokens, values per token in groups of channels.

    Attributes:
        nbits: bits per code.
        group_size: tokens (keys) or channels (values) that share a scale and a minimum.
        residual_length: last tokens kept in full precision, with what before them fills no group.
    """

    nbits: int
    group_size: int
    residual_length: int

    def __str__(self) -> str:
        return f"group {self.group_size}, residual {self.residual_length}"

    def encode(self, keys: Tensor, values: Tensor) -> QuantisedKV:
        """Quantise all whole groups before the residual window.

        Raises:
            InvalidSetting: if `group_size` does not divide the head's channels.
            CannotStore: if a key or value is not finite.
        """
        old = max(keys.shape[2] - self.residual_length, 0)
        split = old - old % self.group_size
        return QuantisedKV(
            GroupCodes.encode(keys[:, :, :split], self.nbits, 2, self.group_size),
            GroupCodes.encode(values[:, :, :split], self.nbits, 3, self.group_size),
            _window(keys, split),
            _window(values, split),
            split / max(keys.shape[2], 1),
        )


@dataclass(frozen=True)
class StaticCodes:
    """Packed codes with one scale and zero point per head and channel.

    Attributes:
        packed: codes.
        scale: S, `[1, h_kv, 1, d]` in the compute dtype.
        zero: Z, int16 `[1, h_kv, 1, d]`.
        shape: `[1, h_kv, Q, d]`.
        nbits: bits per code.
    """

    packed: Tensor
    scale: Tensor
    zero: Tensor
    shape: torch.Size
    nbits: int

    @classmethod
    def encode(cls, x: Tensor, nbits: int, low: Tensor, high: Tensor) -> StaticCodes:
        """Quantise: `clamp(round(X / S) + Z, 0, 2^nbits - 1)`, and pack.

        Args:
            x: `[1, h_kv, Q, d]`.
            nbits: 2, 4 or 8.
            low: `[h_kv, d]`, smallest number of the calibration set per head and channel.
            high: `[h_kv, d]`, its largest.
        """
        check_finite(x)
        scale, zero = static_scale(low.to(x.device), high.to(x.device), nbits, x.dtype)
        wide = _wide(x.dtype)
        codes = (x.to(wide) / scale.to(wide)).round() + zero.to(wide)
        codes = codes.clamp(0, 2**nbits - 1).to(torch.uint8)
        return cls(pack(codes, nbits), scale, zero, x.shape, nbits)

    def decode_to(self, out: Tensor) -> None:
        """Write `(codes - Z) * S`."""
        wide = _wide(out.dtype)
        codes = unpack(self.packed, self.nbits, self.shape)
        numbers = (
            out if out.dtype == wide else torch.empty(out.shape, dtype=wide, device=out.device)
        )
        numbers.copy_(codes).sub_(self.zero.to(wide)).mul_(self.scale.to(wide))
        if numbers is not out:
            out.copy_(numbers)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Codes, scales, zero points."""
        return self.packed, self.scale, self.zero


@dataclass(frozen=True)
class StaticCodec:
    """Static post-training quantisation: S and Z come from a calibration set.

    Attributes:
        nbits: bits per code.
        residual_length: last tokens kept in full precision.
        bounds: of this layer's keys and values in the calibration set.
    """

    nbits: int
    residual_length: int
    bounds: Bounds

    def __str__(self) -> str:
        return f"residual {self.residual_length}"

    def encode(self, keys: Tensor, values: Tensor) -> QuantisedKV:
        """Quantise every token before the residual window.

        Raises:
            CannotStore: if a key or value is not finite.
        """
        split = max(keys.shape[2] - self.residual_length, 0)
        bounds, nbits = self.bounds, self.nbits
        return QuantisedKV(
            StaticCodes.encode(keys[:, :, :split], nbits, bounds.keys_low, bounds.keys_high),
            StaticCodes.encode(values[:, :, :split], nbits, bounds.values_low, bounds.values_high),
            _window(keys, split),
            _window(values, split),
            split / max(keys.shape[2], 1),
        )


def static_scale(
    low: Tensor, high: Tensor, nbits: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Return S and Z that map `[low, high]` to the codes `0 .. 2^nbits - 1`.

    S is rounded to the compute dtype before Z is chosen, so that what is decoded lies on the grid
    that was encoded to. A channel that is constant in the calibration set gives its constant back.

    Args:
        low: `[h_kv, d]`.
        high: `[h_kv, d]`.
        nbits: 2, 4 or 8.
        dtype: of S.

    Returns:
        S in `dtype` and Z in int16, `[1, h_kv, 1, d]` each.
    """
    low, high = low.double(), high.double()
    reach = torch.maximum(low.abs(), high.abs())
    scale = torch.maximum((high - low) / (2**nbits - 1), reach / _REACH)
    # A constant c is one step of |c| from 0; zeros are anything times 0.
    scale = torch.where(high > low, scale, torch.where(reach > 0, reach, torch.ones_like(reach)))
    # Computing is in float32, where the smallest numbers of float16 are ordinary ones.
    least = _LEAST_HALF if dtype == torch.float16 else torch.finfo(dtype).tiny
    scale = scale.clamp(min=least).to(dtype)
    zero = (-low / scale.double()).round().to(torch.int16)
    return scale[None, :, None], zero[None, :, None]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Half precision cannot tell the codes of large numbers apart while they are computed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _joined(packed: Packed, exact: Tensor) -> Tensor:
    """Decode into one tensor with the window behind; large temporaries cost more than the sums."""
    _, heads, split, dim = packed.shape
    out = exact.new_empty(1, heads, split + exact.shape[2], dim)
    packed.decode_to(out[:, :, :split])
    out[:, :, split:] = exact
    return out


def _window(states: Tensor, start: int) -> Tensor:
    """Copy the tokens from `start` on, so that no view holds the whole prefix."""
    return states[:, :, start:].clone(memory_format=torch.contiguous_format)
