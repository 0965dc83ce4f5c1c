"""The per-sample ledger: what an answer really used and cost (design rule 6)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tempeval.engine.cache import segment_ranges

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from tempeval.engine.plan import EnginePlan
    from tempeval.stages import Geometry


@dataclass(frozen=True)
class Ledger:
    """What one sample used, as measured; None where it could not be measured.

    Milliseconds of decode, encode (side channels included) and prefill are measured once and
    charged in full to every sample that uses them (the standalone cost). `answer_ms` is the
    batch's wall time divided by its rows.

    Attributes:
        input_tokens: prompt tokens fed, visual ones included.
        output_tokens: generated (or scored) tokens.
        frames: decoded frames.
        visual_tokens: visual tokens that entered the text stack.
        token_layers: visual tokens present, averaged over layers.
        kv_bytes: storage held for the prefix plus this sample's own tail, scales included.
        quantised_fraction: share of the prefix's numbers that a codec quantised.
        prefix_shared: whether one prefill served all questions of the prefix; False under exact
            prefill, None without a prefix.
        prefill_flops: analytic, vision tower, stage `encode` and text stack (see `prefill_flops`).
        distinct_temporal_ids: different temporal positions among the visual tokens; None without
            a temporal axis.
        decode_ms, encode_ms, prefill_ms, answer_ms: wall milliseconds.
        amortised_ms: wall milliseconds per sample as this run shared them: decode and encode over
            all samples and methods of the video, prefill over the questions of the prefix.
        peak_memory_bytes: CUDA peak while the sample's batch ran; None on CPU.
        attention_kernel: names of the attention kernels that ran, joined by `+`; None for none.
        flags: what was wrong with the video though it could be decoded.
        error: why the sample failed; None when it was answered.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    frames: int | None = None
    visual_tokens: int | None = None
    token_layers: float | None = None
    kv_bytes: int | None = None
    quantised_fraction: float | None = None
    prefix_shared: bool | None = None
    prefill_flops: float | None = None
    distinct_temporal_ids: int | None = None
    decode_ms: float | None = None
    encode_ms: float | None = None
    prefill_ms: float | None = None
    answer_ms: float | None = None
    amortised_ms: float | None = None
    peak_memory_bytes: int | None = None
    attention_kernel: str | None = None
    flags: tuple[str, ...] = ()
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        return {**asdict(self), "flags": list(self.flags)}


def combined(ledgers: Sequence[Ledger]) -> Ledger:
    """Combine the ledgers of one question whose choices were asked for in several parts.

    Tokens and times of answering add up; so do the amortised times, because each part carries its
    own share of what the choices share.
    """
    first = next((ledger for ledger in ledgers if ledger.error is not None), ledgers[0])
    if first.error is not None:
        return first
    kernels = {name for ledger in ledgers for name in (ledger.attention_kernel or "").split("+")}
    return replace(
        first,
        attention_kernel="+".join(sorted(kernels - {""})) or None,
        output_tokens=sum(ledger.output_tokens or 0 for ledger in ledgers),
        kv_bytes=max(ledger.kv_bytes or 0 for ledger in ledgers),
        answer_ms=sum(ledger.answer_ms or 0.0 for ledger in ledgers),
        amortised_ms=sum(ledger.amortised_ms or 0.0 for ledger in ledgers),
    )


def distinct_temporal_ids(plan: EnginePlan) -> int | None:
    """Count different temporal positions among visual tokens, after stage `place`."""
    rotary = plan.layers[0].rotary
    channels = rotary.temporal_channels.nonzero()
    if not len(channels):
        return None
    visual = plan.layout.is_visual.to(rotary.positions.device)
    times = rotary.positions[visual, int(channels[0])]
    return len(set(times.tolist()))


def text_flops(plan: EnginePlan, geometry: Geometry, question_length: int) -> float:
    """Count floating-point operations of prefix and question in the text stack.

    Two operations per multiply-add; linear layers (with low-rank changes that are kept) and the
    two attention products, restricted to the rows and columns that the plan leaves. Embedding,
    norms, rotary, softmax and the output head are not counted. That the engine leaves out the last
    layer's attention and MLP on prefix rows is its own saving, the same for every method, and is
    not subtracted.

    Source: the cost model of `host.md` section 4.2.

    Args:
        plan: rows and visibility per layer.
        geometry: sizes of the text stack.
        question_length: tokens after the prefix.
    """
    width = geometry.num_heads * geometry.head_dim
    kv_width = geometry.num_kv_heads * geometry.head_dim
    hidden = geometry.hidden_size
    weights = 2 * hidden * width + 2 * hidden * kv_width + 3 * hidden * geometry.intermediate_size
    total = 0.0
    memo: dict[tuple[int, bytes | None], float] = {}
    for number, layer in enumerate(plan.layers):
        rows = len(layer.segment)
        mask = None if layer.visible is None else layer.visible.numpy().tobytes()
        if (rows, mask) not in memo:
            pairs = _pairs(layer.segment, layer.visible, plan, question_length)
            memo[rows, mask] = 2.0 * weights * (rows + question_length) + 4.0 * width * pairs
        total += memo[rows, mask]
        if plan.low_rank is not None:
            total += plan.low_rank.flops_in(number) * (rows + question_length)
    return total


def _pairs(
    segment: torch.Tensor, visible: torch.Tensor | None, plan: EnginePlan, question: int
) -> float:
    rows = len(segment)
    if visible is None:
        whole = rows + question
        return whole * (whole + 1) / 2
    ranges = segment_ranges(segment)
    names = plan.segments
    pairs = 0.0
    for number, (own, start, stop) in enumerate(ranges):
        size = stop - start
        pairs += size * (size + 1) / 2
        pairs += size * sum(b - a for s, a, b in ranges[:number] if bool(visible[own, s]))
    for own, count in ((names.question, question - 1), (names.last, 1)):
        pairs += count * sum(b - a for s, a, b in ranges if bool(visible[own, s]))
    asked = question - 1
    pairs += asked * (asked + 1) / 2 + 1
    if bool(visible[names.last, names.question]):
        pairs += asked
    return pairs


def prefill_flops(
    plan: EnginePlan, geometry: Geometry, question_length: int, vision_flops: float
) -> float:
    """Return the analytic prefill cost: `vision_flops`, of all before it, plus `text_flops`."""
    return vision_flops + text_flops(plan, geometry, question_length)
