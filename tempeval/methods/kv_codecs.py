"""How a prefix is held in few bits: KIVI's groups, or a static scale per head and channel.

Both keep the newest `residual_length` tokens of a sequence in full precision, and a sequence is the
prefix and what follows it. Codes of the prefix are made once; the newest of its tokens are held
beside them as they are, and a question reads as many of these as its own length leaves in the
window. Shapes: `[1, h_kv, P, d]` keys (after rotary) and values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch

from tempeval.methods.kv_groups import check_finite, quantize, scale_back
from tempeval.methods.kv_packing import pack, unpack
from tempeval.stages import Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from tempeval.methods.kv_calibration import Bounds
    from tempeval.stages import Tail

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


class WindowedCodec(Protocol):
    """A codec that keeps the newest tokens of a sequence in full precision."""

    #: Whether tokens after the prefix stay in full precision however old they are.
    only_prefix: ClassVar[bool]

    def first_in_few_bits(self, prefix: int, after: int) -> tuple[int, int]:
        """See `Codec`."""
        ...

    def whole_groups(self, tokens: int) -> int:
        """Return how many of the first keys fill groups; values need none."""
        ...

    def encode_keys(self, keys: Tensor) -> Packed:
        """Quantise `[1, h_kv, Q, d]` of whole groups, and pack."""
        ...

    def encode_values(self, values: Tensor) -> Packed:
        """Quantise `[1, h_kv, Q, d]`, and pack."""
        ...

    def token_bits(self, states: Tensor) -> tuple[float, float]:
        """Bits that one token of keys, and one of values, takes in few bits, scales included.

        Args:
            states: `[1, h_kv, n, d]` in the compute dtype.
        """
        ...

    def constant_bytes(self, states: Tensor) -> int:
        """Bytes of what is held once per layer."""
        ...


@dataclass(frozen=True)
class Part:
    """Keys, or values, of a layer's prefix: codes of the first tokens, and the newest as they are.

    The two overlap: which of them a question reads depends on how many tokens have followed.

    Attributes:
        packed: codes of the first tokens, in runs.
        exact: `[1, h_kv, n, d]`, tokens from `exact_from` on to the last one.
        exact_from: first token that is held as it is.
    """

    packed: tuple[Packed, ...]
    exact: Tensor
    exact_from: int

    @property
    def coded(self) -> int:
        """Tokens that have codes."""
        return sum(packed.shape[2] for packed in self.packed)

    @property
    def tokens(self) -> int:
        """Tokens of the prefix."""
        return self.exact_from + self.exact.shape[2]

    def decode(self) -> Tensor:
        """Return what the codes of the first tokens stand for, `[1, h_kv, coded, d]`."""
        _, heads, _, dim = self.exact.shape
        out = self.exact.new_empty(1, heads, self.coded, dim)
        start = 0
        for packed in self.packed:
            packed.decode_to(out[:, :, start : start + packed.shape[2]])
            start += packed.shape[2]
        return out

    def since(self, start: int) -> Tensor:
        """Return the exact states of tokens from `start` on (not before `exact_from`)."""
        return self.exact[:, :, start - self.exact_from :]


@dataclass(frozen=True)
class QuantisedKV:
    """A layer's prefix under a codec with a window; questions read of it what the window leaves.

    Attributes:
        codec: the codec.
        keys: of all tokens.
        values: of all tokens.
        prefix: tokens that belong to the prefix; more follow where it was extended.
    """

    codec: WindowedCodec
    keys: Part
    values: Part
    prefix: int

    @classmethod
    def of(cls, codec: WindowedCodec, keys: Tensor, values: Tensor) -> QuantisedKV:
        """Quantise all that a window over a longer sequence can reach.

        Args:
            codec: the codec.
            keys: `[1, h_kv, P, d]`.
            values: `[1, h_kv, P, d]`.

        Raises:
            CannotStore: if a key or value is not finite.
        """
        check_finite(keys)
        check_finite(values)
        empty = Part((), keys[:, :, :0], 0), Part((), values[:, :, :0], 0)
        return cls(codec, *empty, keys.shape[2]).extended(keys, values)

    def extended(self, keys: Tensor, values: Tensor) -> QuantisedKV:
        """Return this store with `[1, h_kv, Q, d]` more tokens of the sequence."""
        tokens = self.keys.tokens + keys.shape[2]
        may = self.prefix if self.codec.only_prefix else tokens
        old = self.codec.first_in_few_bits(self.prefix, tokens - self.prefix)
        return QuantisedKV(
            self.codec,
            _longer(self.keys, keys, self.codec.whole_groups(may), old[0], self.codec.encode_keys),
            _longer(self.values, values, may, old[1], self.codec.encode_values),
            self.prefix,
        )

    def opened(self) -> OpenQuantisedKV:
        """Decode the codes."""
        return OpenQuantisedKV(self, self.keys.decode(), self.values.decode())

    def first_in_few_bits(self, after: int) -> tuple[int, int]:
        """Count the first keys and values of the sequence that are in few bits.

        Args:
            after: tokens that have followed those held here.
        """
        return self.codec.first_in_few_bits(self.prefix, self.keys.tokens - self.prefix + after)

    def in_few_bits(self, after: int) -> tuple[int, int]:
        """Count the keys and values of the prefix that are."""
        keys, values = self.first_in_few_bits(after)
        return min(keys, self.prefix), min(values, self.prefix)

    def nbytes(self, after: int) -> int:
        """Bytes as the method holds them: each token once, in few bits or as it is.

        What is held here beside it, so that one prefix serves questions of any length, is not
        counted.
        """
        keys, values = self.first_in_few_bits(after)
        states = self.keys.exact
        numbers = states.shape[1] * states.shape[3]
        bits = self.codec.token_bits(states)
        exact = 2 * (self.keys.tokens + after) - keys - values
        coded = -(-int(keys * bits[0]) // 8) - (-int(values * bits[1]) // 8)
        once = self.codec.constant_bytes(states) if keys or values else 0
        return coded + exact * numbers * states.element_size() + once


def _longer(
    part: Part, more: Tensor, coded: int, old: int, encode: Callable[[Tensor], Packed]
) -> Part:
    """Add tokens: codes for the first `coded`, and as they are those that no window has left."""
    exact = torch.cat([part.exact, more], dim=2)
    packed = part.packed
    if coded > part.coded:
        packed = (
            *packed,
            encode(exact[:, :, part.coded - part.exact_from : coded - part.exact_from]),
        )
    start = max(min(old, coded), part.exact_from)
    # A copy, so that no view holds the whole prefix.
    kept = exact[:, :, start - part.exact_from :].clone(memory_format=torch.contiguous_format)
    return Part(packed, kept, start)


@dataclass(frozen=True)
class OpenQuantisedKV:
    """A quantised prefix, decoded for one layer.

    Attributes:
        held: what was decoded.
        keys: `[1, h_kv, coded, d]`.
        values: `[1, h_kv, coded, d]`.
    """

    held: QuantisedKV
    keys: Tensor
    values: Tensor

    def read(self, tail: Tail) -> Reading:
        """Return each row's keys and values as the codec holds them after `tail.after` tokens.

        Groups of keys that reach over the prefix's end are quantised with each row's own tokens.
        """
        counts = [self.held.first_in_few_bits(after) for after in tail.after]
        of_keys = [keys for keys, _ in counts]
        of_values = [values for _, values in counts]
        start = min(*of_keys, *of_values, self.keys.shape[2], self.values.shape[2])
        codec = self.held.codec
        keys, tail_keys = _rows(
            self.held.keys, self.keys, start, of_keys, tail.keys, tail, codec.encode_keys
        )
        values, tail_values = _rows(
            self.held.values, self.values, start, of_values, tail.values, tail, codec.encode_values
        )
        if keys.shape[0] != values.shape[0]:
            rows = len(counts)
            keys, values = (s.expand(rows, -1, -1, -1) for s in (keys, values))
        return Reading(
            (self.keys[:, :, :start], self.values[:, :, :start]),
            (keys, values) if keys.shape[2] else None,
            (tail_keys, tail_values),
        )


def _rows(
    part: Part,
    decoded: Tensor,
    start: int,
    counts: Sequence[int],
    states: Tensor,
    tail: Tail,
    encode: Callable[[Tensor], Packed],
) -> tuple[Tensor, Tensor]:
    """Return what each row reads from token `start` of the prefix on, and of its tail.

    Args:
        part: keys or values of the prefix.
        decoded: `[1, h_kv, coded, d]`, its codes.
        start: first token wanted.
        counts: tokens in few bits of each row's sequence.
        states: `[B, h_kv, T, d]`, the tail.
        tail: where the rows' tails begin, and whether they are read as they are held.
        encode: quantises whole groups.

    Returns:
        `[1 or B, h_kv, P - start, d]` and `[B, h_kv, T, d]`.
    """
    coded, tokens = part.coded, part.tokens
    # As codes where there are any, and as they are where that is held.
    few = torch.cat([decoded[:, :, start:], part.since(coded)], dim=2)
    exact = part.since(max(start, part.exact_from))
    if start < part.exact_from:
        exact = torch.cat([decoded[:, :, start : part.exact_from], exact], dim=2)
    same = len(set(counts)) == 1
    limits = torch.tensor(counts[:1] if same else counts, device=few.device)
    index = torch.arange(start, tokens, device=few.device)
    chosen = (index < limits[:, None])[:, None, :, None]
    own = torch.where(chosen, few, exact)
    # Beyond the prefix's own codes: groups over its end, and tokens of the tail.
    reaching = [row for row, count in enumerate(counts) if count > tokens]
    if not reaching:
        return own, states
    own = own.expand(len(counts), -1, -1, -1).clone()
    held = states.clone() if tail.whole else states
    joint = part.since(coded)
    for row in reaching:
        first, count = tail.starts[row], counts[row] - tokens
        own_tail = states[row : row + 1, :, first : first + count]
        sequence = torch.cat([joint, own_tail], dim=2)
        again = torch.empty_like(sequence)
        encode(sequence).decode_to(again)
        inside = tokens - coded
        if inside:
            own[row, :, coded - start :] = again[0, :, :inside]
        if tail.whole:
            held[row, :, first : first + count] = again[0, :, inside:]
    return own, held


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
        residual_length: newest tokens of a sequence whose values stay in full precision; keys are
            quantised in blocks of so many (of the whole groups in it, and of one group at least).
        exact_prefill: see `Codec`.
    """

    only_prefix: ClassVar[bool] = False

    nbits: int
    group_size: int
    residual_length: int
    exact_prefill: bool = False

    def __str__(self) -> str:
        return f"group {self.group_size}, residual {self.residual_length}"

    def first_in_few_bits(self, prefix: int, after: int) -> tuple[int, int]:
        """Count as the released code: keys by whole blocks, values but for the newest."""
        tokens = prefix + after
        block = max(self.whole_groups(self.residual_length), self.group_size)
        return tokens - tokens % block, max(tokens - self.residual_length, 0)

    def whole_groups(self, tokens: int) -> int:
        """Return how many of the first keys fill groups of tokens."""
        return tokens - tokens % self.group_size

    def encode_keys(self, keys: Tensor) -> Packed:
        """Quantise each channel in groups of tokens."""
        return GroupCodes.encode(keys, self.nbits, 2, self.group_size)

    def encode_values(self, values: Tensor) -> Packed:
        """Quantise each token in groups of channels."""
        return GroupCodes.encode(values, self.nbits, 3, self.group_size)

    def token_bits(self, states: Tensor) -> tuple[float, float]:
        """Bits of codes, and of a scale and a minimum per group."""
        numbers = states.shape[1] * states.shape[3]
        each = numbers * (self.nbits + 16 * states.element_size() / self.group_size)
        return each, each

    def constant_bytes(self, states: Tensor) -> int:
        """Nothing is held once per layer."""
        return 0

    def encode(self, keys: Tensor, values: Tensor) -> QuantisedKV:
        """Quantise all whole groups of keys, and all values.

        Raises:
            InvalidSetting: if `group_size` does not divide the head's channels.
            CannotStore: if a key or value is not finite.
        """
        return QuantisedKV.of(self, keys, values)


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
        residual_length: newest tokens of a sequence kept in full precision.
        bounds: of this layer's keys and values in the calibration set.
    """

    only_prefix: ClassVar[bool] = True

    nbits: int
    residual_length: int
    bounds: Bounds
    exact_prefill: bool = False

    def __str__(self) -> str:
        return f"residual {self.residual_length}"

    def first_in_few_bits(self, prefix: int, after: int) -> tuple[int, int]:
        """Count the prefix but for what of it is in the window."""
        count = min(max(prefix + after - self.residual_length, 0), prefix)
        return count, count

    def whole_groups(self, tokens: int) -> int:
        """Return all: every token is quantised by itself."""
        return tokens

    def encode_keys(self, keys: Tensor) -> Packed:
        """Quantise by the scales of keys."""
        return StaticCodes.encode(keys, self.nbits, self.bounds.keys_low, self.bounds.keys_high)

    def encode_values(self, values: Tensor) -> Packed:
        """Quantise by the scales of values."""
        bounds = self.bounds
        return StaticCodes.encode(values, self.nbits, bounds.values_low, bounds.values_high)

    def token_bits(self, states: Tensor) -> tuple[float, float]:
        """Bits of codes alone."""
        each = float(states.shape[1] * states.shape[3] * self.nbits)
        return each, each

    def constant_bytes(self, states: Tensor) -> int:
        """Bytes of S in the compute dtype and of Z in int16, for keys and values."""
        return int(2 * states.shape[1] * states.shape[3] * (states.element_size() + 2))

    def encode(self, keys: Tensor, values: Tensor) -> QuantisedKV:
        """Quantise every token.

        Raises:
            CannotStore: if a key or value is not finite.
        """
        return QuantisedKV.of(self, keys, values)


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
