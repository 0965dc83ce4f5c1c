"""Usage: what an answer really used and cost, per sample."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from math import pi
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.cache import segment_ranges
from tempeval.stages import AXIS_ALL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.engine.plan import EnginePlan
    from tempeval.stages import Geometry


@dataclass(frozen=True)
class Usage:
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
        kv_bytes: keys and values of the prefix and of this sample's own tokens when its answer is
            there, scales included; under `kv_quant` each token once, as the method holds it.
        quantised_fraction: share of the prefix's numbers that are in few bits by then.
        quantised_keys: the same of its keys alone.
        quantised_values: the same of its values alone.
        prefix_shared: whether one prefill, as it is held, served all questions of the prefix; False
            under exact prefill and where the question decides what of the prefix is pruned or
            evicted, None without a prefix.
        shared_layers: first layers whose prefix was computed once for all questions; None without
            a prefix.
        prefill_flops: analytic, vision tower, stage `tokens` and text stack (see `prefill_flops`).
        distinct_temporal_ids: different temporal positions among the visual tokens; None without
            a temporal axis.
        positions_per_grid: positions from a temporal grid of a video to the next (from a frame's
            tokens to the next frame's where positions count tokens), the largest of the prompt's
            videos; None without a video of several grids.
        sub_nyquist: whether that step turns the fastest rotary channel that encodes time by more
            than pi, so that it cannot tell steps apart (the condition under which PAS fails).
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
    quantised_keys: float | None = None
    quantised_values: float | None = None
    prefix_shared: bool | None = None
    shared_layers: int | None = None
    prefill_flops: float | None = None
    distinct_temporal_ids: int | None = None
    positions_per_grid: float | None = None
    sub_nyquist: bool | None = None
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


def distinct_temporal_ids(plan: EnginePlan) -> int | None:
    """Count different temporal positions among visual tokens, after stage `positions`."""
    rotary = plan.layers[0].rotary
    channels = rotary.temporal_channels.nonzero()
    if not len(channels):
        return None
    visual = plan.layout.is_visual.to(rotary.positions.device)
    times = rotary.positions[visual, int(channels[0])]
    return len(set(times.tolist()))


@dataclass(frozen=True)
class TemporalStep:
    """How far apart two neighbouring temporal grids are in rotary space.

    Attributes:
        positions: from one to the next.
        radians: by which the fastest channel that encodes time turns in between.
    """

    positions: float
    radians: float

    @property
    def sub_nyquist(self) -> bool:
        """Whether the fastest channel turns by more than pi: a step then looks like another."""
        return self.radians > pi


def temporal_step(plan: EnginePlan) -> TemporalStep | None:
    """Return the largest step from a temporal grid to the next, after stage `positions`.

    Channels that encode time are those of M-RoPE's temporal section, and all where positions count
    tokens. None without a video of several grids.

    Source: PAS, arXiv 2511.10979 (sampling below the Nyquist rate of the temporal channels).
    """
    rotary, layout = plan.layers[0].rotary, plan.layout
    channels = rotary.temporal_channels
    if not bool(channels.any()):
        channels = rotary.axis == AXIS_ALL
    several = [number for number, (grids, _, _) in enumerate(layout.visuals) if grids > 1]
    of_videos = torch.isin(
        layout.grid_index[:, 0], torch.tensor(several, dtype=torch.long).to(layout.grid_index)
    )
    steps = rotary.step.to(of_videos.device)[of_videos]
    if not len(steps) or not bool(channels.any()):
        return None
    step = float(steps.max())
    return TemporalStep(step, step * float(rotary.inv_freq[channels].max()))


def text_flops(plan: EnginePlan, geometry: Geometry, question_length: int) -> float:
    """Count floating-point operations of prefix and question in the text stack.

    Two operations per multiply-add; linear layers (with low-rank changes that are kept) and the
    two attention products, restricted to the rows and columns that the plan leaves. Embedding,
    norms, rotary, softmax and the output head are not counted. That the engine leaves out the last
    layer's attention and MLP on prefix rows is its own saving, the same for every method, and is
    not subtracted.

    Source: counted from the shapes of the linear maps and of the two attention products.

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
