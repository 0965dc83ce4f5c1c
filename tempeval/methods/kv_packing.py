"""Codes of 2, 4 or 8 bits in bytes: nothing is held that is not a code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NBITS = (2, 4, 8)


def check_nbits(nbits: int) -> None:
    """Refuse a width that does not fill bytes.

    Raises:
        InvalidSetting: if it is not 2, 4 or 8.
    """
    if nbits not in NBITS:
        raise InvalidSetting(f"nbits={nbits} is not one of {', '.join(map(str, NBITS))}")


def pack(codes: Tensor, nbits: int) -> Tensor:
    """Pack codes into bytes.

    With n bytes, byte i holds codes i, i + n, i + 2n, ... from its low bits up, so that unpacking
    writes whole runs.

    Args:
        codes: uint8 of any shape, each below `2**nbits`.
        nbits: 2, 4 or 8.

    Returns:
        uint8 `[ceil(codes.numel() * nbits / 8)]` with a storage of its own.
    """
    check_nbits(nbits)
    per_byte = 8 // nbits
    flat = codes.reshape(-1)
    count = -(-flat.numel() // per_byte)
    planes = pad(flat, (0, count * per_byte - flat.numel())).view(per_byte, count)
    packed = planes[0].clone()
    for place in range(1, per_byte):
        packed |= planes[place] << (nbits * place)
    return packed


def unpack(packed: Tensor, nbits: int, shape: Sequence[int]) -> Tensor:
    """Return the codes that `pack` was given.

    Args:
        packed: uint8, what `pack` returned.
        nbits: as given to `pack`.
        shape: of the codes.

    Returns:
        uint8 of that shape; for 8 bits a view of `packed`.
    """
    check_nbits(nbits)
    if nbits == 8:
        return packed.view(*shape)
    per_byte, mask = 8 // nbits, 2**nbits - 1
    planes = torch.empty(per_byte, len(packed), dtype=torch.uint8, device=packed.device)
    for place in range(per_byte):
        torch.bitwise_and(packed >> (nbits * place), mask, out=planes[place])
    numel = 1
    for size in shape:
        numel *= size
    return planes.view(-1)[:numel].view(*shape)
