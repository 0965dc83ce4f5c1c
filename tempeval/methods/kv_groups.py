"""Asymmetric quantisation in groups that share a scale and a minimum, as KIVI's.

Source: KIVI, arXiv 2402.02750; the arithmetic is that of `quant/new_pack.py` in
github.com/jy-yuan/KIVI.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from tempeval.errors import CannotStore, InvalidSetting
from tempeval.methods.kv_packing import check_nbits

if TYPE_CHECKING:
    from torch import Tensor


def quantize(x: Tensor, nbits: int, axis: int, group_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise groups of neighbours along one axis.

    `scale = (max - min) / (2^nbits - 1)`, `codes = round((x - min) / scale)` with halves to even,
    all in the dtype of `x`. A group of equal numbers has scale 0 and codes 0, and is given back
    exactly.

    Args:
        x: floating point, any number of dimensions; `[B, H, S, D]` for keys and values.
        nbits: 2, 4 or 8.
        axis: the dimension along which a group's elements lie: 2 (tokens) for keys, 3 (channels)
            for values.
        group_size: numbers in a group.

    Returns:
        Codes, uint8 of the shape of `x`; scale and minimum of each group, in the dtype of `x` and
        of its shape with `axis` split into (groups, 1).

    Raises:
        InvalidSetting: if `x`, `nbits`, `axis` or `group_size` is not accepted, or the groups do
            not divide the axis.
        CannotStore: if a number is not finite, or the range of a group overflows the dtype.
    """
    check_nbits(nbits)
    if not x.is_floating_point():
        raise InvalidSetting(f"quantize got {x.dtype}; it takes floating-point numbers")
    grouped, within = _grouped(x, axis, group_size)
    zero = grouped.amin(within, keepdim=True)
    scale = (grouped.amax(within, keepdim=True) - zero) / (2**nbits - 1)
    check_finite(scale)
    # 0 / 1 instead of 0 / 0 in a constant group.
    codes = (grouped - zero) / torch.where(scale > 0, scale, torch.ones_like(scale))
    codes = codes.clamp(0, 2**nbits - 1).round().to(torch.uint8)
    return codes.reshape(x.shape), scale, zero


def dequantize(codes: Tensor, scale: Tensor, zero: Tensor, axis: int, group_size: int) -> Tensor:
    """Return `codes * scale + zero`, in the dtype of `scale`; always a new tensor.

    Args:
        codes: what `quantize` returned, in any dtype and with any strides.
        scale: of each group.
        zero: minimum of each group.
        axis: as given to `quantize`.
        group_size: as given to `quantize`.

    Raises:
        InvalidSetting: if the groups do not divide the axis.
    """
    numbers = codes.to(scale.dtype, memory_format=torch.contiguous_format, copy=True)
    scale_back(numbers, scale, zero, axis, group_size)
    return numbers


def scale_back(numbers: Tensor, scale: Tensor, zero: Tensor, axis: int, group_size: int) -> None:
    """Turn codes that are floating-point numbers by now into `codes * scale + zero`, in place.

    Args:
        numbers: the codes, in the dtype of `scale`.
        scale: of each group.
        zero: minimum of each group.
        axis: as given to `quantize`.
        group_size: as given to `quantize`.

    Raises:
        InvalidSetting: if the groups do not divide the axis.
    """
    grouped, _ = _grouped(numbers, axis, group_size)
    grouped.mul_(scale).add_(zero)


def check_finite(x: Tensor) -> None:
    """Refuse what has no code.

    Raises:
        CannotStore: if a number is NaN or infinite.
    """
    if not bool(torch.isfinite(x).all()):
        raise CannotStore(
            f"cannot quantise keys or values that are not finite, or whose range overflows "
            f"{str(x.dtype).removeprefix('torch.')}; load the model with dtype=bfloat16 or float32"
        )


def _grouped(x: Tensor, axis: int, group_size: int) -> tuple[Tensor, int]:
    """Split an axis into (groups, group_size), as a view; return also the place of the latter."""
    if not -x.ndim <= axis < x.ndim:
        raise InvalidSetting(f"axis={axis} is not a dimension of a tensor of shape {list(x.shape)}")
    place = axis % x.ndim
    length = x.shape[place]
    if group_size < 1 or length % group_size:
        raise InvalidSetting(
            f"group_size={group_size} does not divide the {length} numbers along axis {axis} of a "
            f"tensor of shape {list(x.shape)}; give a divisor of {length}, or cut the tensor first"
        )
    shape = (*x.shape[:place], length // group_size, group_size, *x.shape[place + 1 :])
    return x.view(shape), place + 1
