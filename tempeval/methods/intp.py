"""INTP: many frames on a video LLM that was trained with few, by four small methods in a chain.

Source: INTP-Video-LLMs, arXiv 2409.12963 (no public code).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from tempeval.errors import InvalidSetting
from tempeval.methods.base import Method
from tempeval.methods.kv_quantization import KVQuant
from tempeval.methods.rearrange import Rearrange
from tempeval.methods.rope_scale import Kind, RopeScale

#: Bits per number of keys and values; 16 is no quantisation.
BITS = (2, 4, 8, 16)


@dataclass(frozen=True)
class INTP(Method):
    """`rearrange+rope_scale+kv_quant[scheme=static]`: the paper's name for the chain.

    It has no stage of its own: what runs, and what a record's fingerprint covers, are the small
    methods. Without settings nothing is quantised, as in all of the paper's accuracies; 2 bits are
    its setting for memory. Quantisation is static and leaves no token of the prefix in full
    precision, as in the paper (see `kv_quant`).

    Attributes:
        kv_bits: 2, 4 or 8 bits per number of the prefix's keys and values; 16 for no quantisation.
        calibration: file of ranges that `tempeval calibrate` wrote; needed below 16 bits, and
            refused at 16.
        kind: see `rope_scale`.
        scale: see `rope_scale`.
        frames_per_group: see `rearrange`.
        allow_inert: see `rearrange`.
    """

    name: ClassVar[str] = "intp"
    #: Of all bits; an instance without quantisation leaves the store to others.
    modifies: ClassVar[frozenset[str]] = Rearrange.modifies | RopeScale.modifies | KVQuant.modifies

    kv_bits: int = 16
    calibration: str | None = None
    kind: Kind = "ntk"
    scale: float | None = None
    frames_per_group: int | None = None
    allow_inert: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kv_bits not in BITS:
            raise InvalidSetting(
                f"intp.kv_bits={self.kv_bits} is not one of {', '.join(map(str, BITS))}"
            )
        if self.kv_bits != BITS[-1]:
            return
        if self.calibration is not None:
            raise InvalidSetting(
                f"intp.calibration={self.calibration!r} has no effect with kv_bits=16; remove it, "
                "or set kv_bits=2"
            )
        object.__setattr__(self, "modifies", Rearrange.modifies | RopeScale.modifies)

    def parts(self) -> tuple[Method, ...]:
        """Return the small methods.

        Raises:
            InvalidSetting: if the quantisation lacks its calibration.
        """
        parts: tuple[Method, ...] = (
            Rearrange(frames_per_group=self.frames_per_group, allow_inert=self.allow_inert),
            RopeScale(kind=self.kind, scale=self.scale),
        )
        if self.kv_bits == BITS[-1]:
            return parts
        if self.calibration is None:
            raise InvalidSetting(
                f"intp.kv_bits={self.kv_bits} needs intp.calibration, a file of ranges that "
                "tempeval calibrate writes (for method intp); or leave intp.kv_bits out, for no "
                "quantisation"
            )
        store = KVQuant(nbits=self.kv_bits, scheme="static", calibration=self.calibration)
        return (*parts, store)

    def settings(self) -> dict[str, Any]:
        """Return all settings; `kv_quant` names the calibration, by its digest."""
        return {k: v for k, v in super().settings().items() if k != "calibration"}

    def without_kv_cache(self) -> INTP:
        """Return the method without quantisation."""
        return replace(self, kv_bits=BITS[-1], calibration=None)
