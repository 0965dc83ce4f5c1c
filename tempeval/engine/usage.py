"""Usage: what an answer really used and cost, per sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


def _measured(description: str, unit: str | None = None, default: Any = None) -> Any:
    """Return a field with what docs/records.md says of it."""
    return field(default=default, metadata={"description": description, "unit": unit})


@dataclass(frozen=True)
class Usage:
    """What one sample used, as measured; None where it could not be measured.

    Milliseconds of decode, encode (side channels included) and prefill are measured once and
    charged in full to every sample that uses them (the standalone cost). `answer_ms` is the
    batch's wall time divided by its rows.
    """

    input_tokens: int | None = _measured("prompt tokens fed, visual ones included", "tokens")
    output_tokens: int | None = _measured("generated, or scored", "tokens")
    frames: int | None = _measured("decoded", "frames")
    visual_tokens: int | None = _measured("that entered the text stack", "tokens")
    token_layers: float | None = _measured(
        "visual tokens present, averaged over layers",
        "tokens (sum over layers of visual tokens present / layers)",
    )
    kv_bytes: int | None = _measured(
        "keys and values of the prefix and of this sample's own tokens when its answer is there, "
        "scales included; under `kv_quant` each token once, as the method holds it",
        "bytes",
    )
    quantised_fraction: float | None = _measured(
        "share of the prefix's numbers that are in few bits by then", "fraction"
    )
    quantised_keys: float | None = _measured("the same of its keys alone", "fraction")
    quantised_values: float | None = _measured("the same of its values alone", "fraction")
    prefix_shared: bool | None = _measured(
        "one prefill, as it is held, served all questions of the prefix; false under exact prefill "
        "and where the question decides what of the prefix is pruned or evicted, null without a "
        "prefix"
    )
    shared_layers: int | None = _measured(
        "first layers whose prefix was computed once for all questions; null without a prefix",
        "layers",
    )
    prefill_flops: float | None = _measured(
        "of vision tower, stage `tokens` and text stack, counted from the plan",
        "floating-point operations",
    )
    distinct_temporal_ids: int | None = _measured(
        "different temporal positions among the visual tokens; null without a temporal axis", "ids"
    )
    positions_per_grid: float | None = _measured(
        "from a temporal grid of a video to the next (from a frame's tokens to the next frame's "
        "where positions count tokens), the largest of the prompt's videos; null without a video "
        "of several grids",
        "positions",
    )
    sub_nyquist: bool | None = _measured(
        "that step turns the fastest rotary channel that encodes time by more than pi, so that it "
        "cannot tell steps apart (the condition under which PAS fails)"
    )
    decode_ms: float | None = _measured("wall time of decoding the video", "ms")
    encode_ms: float | None = _measured("wall time of the vision tower", "ms")
    prefill_ms: float | None = _measured("wall time of the prefix", "ms")
    answer_ms: float | None = _measured("wall time of the batch, by its rows", "ms")
    amortised_ms: float | None = _measured(
        "wall time as this run shared it: decode and encode over all samples and methods of the "
        "video, prefill over the questions of the prefix",
        "ms",
    )
    peak_memory_bytes: int | None = _measured(
        "CUDA peak while the sample's batch ran; null on a CPU", "bytes"
    )
    attention_kernel: str | None = _measured(
        "attention kernels that ran, joined by `+`; null for none"
    )
    flags: tuple[str, ...] = _measured(
        "what was wrong with the video though it could be decoded", default=()
    )
    error: str | None = _measured("why the sample failed; null when it was answered")

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**asdict(self), "flags": list(self.flags)}


def combined(usages: Sequence[Usage]) -> Usage:
    """Combine the usage of one question whose choices were asked for in several parts.

    Tokens and times of answering add up; so do the amortised times, because each part carries its
    own share of what the choices share.
    """
    first = next((usage for usage in usages if usage.error is not None), usages[0])
    if first.error is not None:
        return first
    kernels = {name for usage in usages for name in (usage.attention_kernel or "").split("+")}
    return replace(
        first,
        attention_kernel="+".join(sorted(kernels - {""})) or None,
        output_tokens=sum(usage.output_tokens or 0 for usage in usages),
        kv_bytes=max(usage.kv_bytes or 0 for usage in usages),
        answer_ms=sum(usage.answer_ms or 0.0 for usage in usages),
        amortised_ms=sum(usage.amortised_ms or 0.0 for usage in usages),
    )
