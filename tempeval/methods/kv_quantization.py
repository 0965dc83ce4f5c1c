"""KV-cache quantisation: keys and values but the newest are held in 2, 4 or 8 bits.

Sources: `scheme=kivi` is KIVI, arXiv 2402.02750 (code: github.com/jy-yuan/KIVI); `scheme=static`
is the post-training quantisation of INTP-Video-LLMs, arXiv 2409.12963, Eq 3.7.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import floor
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tempeval.errors import InvalidSetting
from tempeval.methods.base import Method
from tempeval.methods.kv_calibration import HOW, read_calibration
from tempeval.methods.kv_codecs import KiviCodec, StaticCodec
from tempeval.methods.kv_groups import dequantize, quantize
from tempeval.methods.kv_packing import check_nbits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tempeval.methods.kv_calibration import Calibration
    from tempeval.stages import Codec, Geometry, RunFacts

__all__ = ["KVQuant", "dequantize", "quantize"]

#: Characters with a meaning in the spelling of a chain or of lmms-eval's model arguments.
_RESERVED = "+[];,"
#: `residual_length` of each scheme's paper.
WINDOWS = {"kivi": 128, "static": 0}


@dataclass(frozen=True)
class KVQuant(Method):
    """Hold keys (after rotary) and values in few bits, but for the newest ones.

    A sequence is the prefix, the question and what is generated, and the window is that of the
    whole sequence. With `kivi`, of n tokens the first n - n mod R keys are in few bits, since keys
    are quantised R at a time, and all values but the newest R (R is `residual_length`). The video
    prefix's codes are made once for all questions, and a question reads as many of its newest
    tokens in full precision as the window leaves; the question's own tokens and generated ones are
    quantised when they leave it. `static` quantises the prefix alone. Codes are packed; scales and
    minima are held in the compute dtype.

    What is attended in full precision: the video's tokens among themselves, as in KIVI's prefill,
    and the question's among themselves. The question reads the video as it is held after the
    prompt (KIVI's prefill reads that too as it was: `prefill=exact`), because an answer of one
    token would feel nothing otherwise.

    The static paper has no window, and says neither how S and Z are shared (here per head and
    channel) nor what calibrates them (here the smallest and largest number).

    A prompt all of which lies in the window is an error, unless it has no visuals.

    Attributes:
        nbits: bits per number: 2 (both papers' main setting), 4 or 8.
        scheme: `kivi` (keys per channel in groups of tokens, values per token in groups of
            channels, ranges of the tokens themselves) or `static` (ranges per layer, head and
            channel from `calibration`).
        group_size: numbers that share a scale and a minimum (`kivi`; KIVI's default is 32).
        residual_length: R, the window; None for the paper's: 128 with `kivi`, 0 with `static`.
            Keys come in blocks of the whole groups in R, at least of one.
        prefill: `quantized` (the question reads the video as it is held) or `exact` (KIVI's own:
            the prompt reads exact keys and values, later tokens what is held; the prefix then
            serves one question only).
        calibration: file that `tempeval calibrate` wrote (`static`); its content, not its name, is
            part of the fingerprint.
    """

    name: ClassVar[str] = "kv_quant"
    #: 2: the window is that of the whole sequence, no longer of the prefix.
    version: ClassVar[int] = 2
    modifies: ClassVar[frozenset[str]] = frozenset({"kv_cache"})

    nbits: int = 2
    scheme: Literal["kivi", "static"] = "kivi"
    group_size: int = 32
    residual_length: int | None = None
    prefill: Literal["quantized", "exact"] = "quantized"
    calibration: str | None = None

    def __post_init__(self) -> None:
        check_nbits(self.nbits)
        _check_choice("scheme", self.scheme, ("kivi", "static"))
        _check_choice("prefill", self.prefill, ("quantized", "exact"))
        if self.group_size < 2:
            raise InvalidSetting(
                f"kv_quant.group_size={self.group_size}; accepted: 2 or more, since a group of one "
                "number saves nothing"
            )
        if self.residual_length is not None and self.residual_length < 0:
            raise InvalidSetting(
                f"kv_quant.residual_length={self.residual_length}; accepted: 0 or more tokens"
            )
        self._check_calibration()
        # One spelling of equal settings, so that a matrix never lists a method twice.
        if self.residual_length == WINDOWS[self.scheme]:
            object.__setattr__(self, "residual_length", None)

    def _check_calibration(self) -> None:
        if self.scheme == "kivi":
            if self.calibration is not None:
                raise InvalidSetting(
                    f"kv_quant.calibration={self.calibration!r} has no effect with scheme=kivi; "
                    "remove it, or set scheme=static"
                )
            return
        if self.calibration is None:
            raise InvalidSetting(
                f"kv_quant.scheme=static needs kv_quant.calibration, a file of ranges; {HOW}"
            )
        if self.group_size != type(self).group_size:
            raise InvalidSetting(
                f"kv_quant.group_size={self.group_size} has no effect with scheme=static, which "
                "has one scale per head and channel; remove it"
            )
        if reserved := set(self.calibration) & set(_RESERVED):
            raise InvalidSetting(
                f"kv_quant.calibration={self.calibration!r} has {sorted(reserved)[0]!r}, which "
                f"separates settings; use a path without any of {_RESERVED}"
            )

    @property
    def window(self) -> int:
        """The newest tokens that stay in full precision, of the scheme or as set."""
        return WINDOWS[self.scheme] if self.residual_length is None else self.residual_length

    @cached_property
    def calibrated(self) -> Calibration | None:
        """What the calibration file holds; None for schemes without one.

        Raises:
            InvalidSetting: if it cannot be read.
        """
        return None if self.calibration is None else read_calibration(self.calibration)

    def settings(self) -> dict[str, Any]:
        """Return all settings as JSON values, the window as it is, the file by its digest."""
        calibrated = self.calibrated
        digest = None if calibrated is None else calibrated.digest
        settings = {k: v for k, v in super().settings().items() if k != "calibration"}
        return {**settings, "residual_length": self.window, "calibration_digest": digest}

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Check groups against the head, or the calibration against the model."""
        if self.calibration is None or self.calibrated is None:
            dim = facts.geometry.head_dim
            if dim % self.group_size:
                feasible = [str(size) for size in range(2, dim + 1) if dim % size == 0]
                raise InvalidSetting(
                    f"kv_quant.group_size={self.group_size} does not divide the {dim} channels of "
                    f"a head, which values are grouped along; accepted: {', '.join(feasible)}"
                )
            return {"residual_length": self.window, "groups_per_token": dim // self.group_size}
        self.calibrated.check(
            self.calibration, facts.geometry, facts.revision, facts.chain_without_kv_cache
        )
        told = ("chain", "num_frames", "num_clips", "source", "dtype")
        calibrated = {f"calibration_{key}": self.calibrated.facts.get(key) for key in told}
        return {"residual_length": self.window, **calibrated}

    def measured(self, usages: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
        """Say how much of the videos' keys and values was in few bits, on average."""
        shares = []
        for name in ("quantised_keys", "quantised_values"):
            told = [
                float(of[name])
                for of in usages
                if of.get(name) is not None and of.get("visual_tokens")
            ]
            if not told:
                return ()
            # Down to tenths of a percent: what is not all of it never reads 100.
            shares.append(f"{floor(1000 * sum(told) / len(told) + 1e-6) / 10:g} %")
        keys, values = shares
        if keys == values:
            return (f"{self.nbits} bits for {keys} of the video's keys and values",)
        return (f"{self.nbits} bits for {keys} of the video's keys, {values} of its values",)

    def kv_cache(self, layer: int, geometry: Geometry) -> Codec:
        """Return the codec of a layer."""
        if self.calibrated is None:
            return KiviCodec(self.nbits, self.group_size, self.window, self.prefill == "exact")
        bounds = self.calibrated.bounds.layer(layer)
        return StaticCodec(self.nbits, self.window, bounds, self.prefill == "exact")


def _check_choice(field: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise InvalidSetting(f"kv_quant.{field}={value!r} is not one of {', '.join(accepted)}")
