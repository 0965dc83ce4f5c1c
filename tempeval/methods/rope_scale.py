"""Rotary scaling: positions beyond the trained context, by NTK-aware frequencies or linearly.

Source: INTP-Video-LLMs, arXiv 2409.12963, Eq 3.5 (linear) and Eq 3.6 (NTK-aware).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch

from tempeval.errors import InvalidSetting
from tempeval.methods.base import Method

if TYPE_CHECKING:
    from tempeval.stages import Geometry, Layout, RotaryPlan, RunFacts

Kind = Literal["ntk", "linear", "ntk_linear", "none"]

#: Tokens of text that the automatic scale leaves room for, beside the planned visual tokens.
TEXT_ALLOWANCE = 512


@dataclass(frozen=True)
class RopeScale(Method):
    """Stretch the context by a scale s, fixed for the whole run.

    `ntk` changes the rotary base to b' = b * s^(D / (D - 2)), D channels per head: the highest
    frequency stays, the lowest is divided by s. `linear` divides every position by s, which is
    every frequency divided by s. The paper's summary can be read as both at once, which is
    `ntk_linear`: positions divided by s under the base b', so that the lowest frequency is divided
    by s twice. The default is one of them, as each was made for. The scaled model takes s times its
    positions; a prompt beyond that is an error.

    The scale does not depend on the video, so that prefixes are shared and a run has one meaning.

    Only frequencies change, whatever rotary the model has (Qwen2, Llama): positions stay token
    counts, and a query shift (`pas`) stays the same part of a frame's distance to the next. With
    M-RoPE, channel d is counted through time, height and width as it is in the model, so that
    `ntk` hardly changes the temporal channels, which have the highest frequencies. There the
    automatic scale counts tokens as everywhere, although M-RoPE needs fewer positions than tokens.

    Differs from the paper: s = (planned visual tokens + 512) / context instead of the number of
    frames over 8, because what must fit is the prompt; `scale` sets another.

    Attributes:
        kind: `ntk`, `linear`, `ntk_linear` (both) or `none`.
        scale: s, at least 1; None for what the planned visual tokens and 512 tokens of text need.
    """

    name: ClassVar[str] = "rope_scale"
    modifies: ClassVar[frozenset[str]] = frozenset({"inv_freq"})

    kind: Kind = "ntk"
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InvalidSetting(
                f"rope_scale.kind={self.kind!r} is not one of {', '.join(get_args(Kind))}"
            )
        if self.scale is None:
            return
        if not 1 <= self.scale < float("inf"):
            raise InvalidSetting(
                f"rope_scale.scale={self.scale}; accepted: a number from 1 (1 changes nothing)"
            )
        if self.kind == "none" and self.scale != 1:
            raise InvalidSetting(
                f"rope_scale.scale={self.scale} has no effect with kind=none; remove it, or set "
                "kind=ntk or kind=linear"
            )

    def bind(self, facts: RunFacts) -> RopeScale:
        """Compute the scale from the planned tokens and the context, where none is set."""
        if self.scale is not None:
            return self
        needed = (facts.visual_tokens + TEXT_ALLOWANCE) / facts.context_length
        return replace(self, scale=1.0 if self.kind == "none" else max(1.0, needed))

    @property
    def factor(self) -> float:
        """The scale of the (bound) method: the model takes that many times its positions."""
        return 1.0 if self.scale is None else self.scale

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Return the scale, and the context that it gives."""
        scale = self.bind(facts).factor
        return {"scale": scale, "context_length": round(facts.context_length * scale)}

    def labels(self, facts: RunFacts) -> tuple[str, ...]:
        """Say which scale the run got where none is set, and when nothing changes."""
        scale = self.bind(facts).factor
        if scale == 1:
            return ("scale 1, unchanged",)
        return (f"scale {scale:.4g}",) if self.scale is None else ()

    def positions(self, rotary: RotaryPlan, layout: Layout, geometry: Geometry) -> RotaryPlan:
        """Replace the frequencies; the model takes more positions."""
        return replace(
            rotary,
            inv_freq=scale_frequencies(rotary.inv_freq, self.factor, self.kind),
            context_factor=rotary.context_factor * self.factor,
        )


def scale_frequencies(inv_freq: torch.Tensor, scale: float, kind: Kind) -> torch.Tensor:
    """Scale rotary frequencies.

    `ntk`: `inv_freq[d] * s^(-2d / (D - 2))`, which is `b'^(-2d / D)` with
    `b' = b * s^(D / (D - 2))` where `inv_freq[d] = b^(-2d / D)`. `linear`: `inv_freq / s`, which
    is every position divided by s. `ntk_linear`: one after the other.

    Args:
        inv_freq: `[D / 2]`, radians per position; channel d of the head's first half.
        scale: s, at least 1.
        kind: `ntk`, `linear`, `ntk_linear` or `none`.

    Returns:
        `[D / 2]` of the same dtype; the same tensor where s is 1.
    """
    if scale == 1 or kind == "none":
        return inv_freq
    exact = inv_freq.double()
    if kind in ("linear", "ntk_linear"):
        exact = exact / scale
    if kind == "linear":
        return exact.to(inv_freq.dtype)
    half = len(inv_freq)
    if half < 2:
        raise InvalidSetting(
            f"rope_scale.kind={kind} needs at least 4 channels per head, this model has "
            f"{2 * half}; use kind=linear"
        )
    channel = torch.arange(half, dtype=torch.float64, device=inv_freq.device)
    # -2d / (D - 2) with D = 2 * half
    return (exact * scale ** (-channel / (half - 1))).to(inv_freq.dtype)
