"""Which steps of a side channel belong to which frames: by time.

Source: PAVE, arXiv 2503.19794, which divides the side channel evenly among the frames. That is the
special case of a side channel that lasts as long as the frames.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from tempeval.errors import BadSideChannel, InvalidSetting

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tempeval.stages import SideFeatures
    from tempeval.video.clip import Clip

    Floats = NDArray[np.float64]

#: Differences that count as rounding, as a fraction of a step.
_ROUNDING = 1e-6


def neighbors(
    frame_spans: torch.Tensor,
    side_spans: torch.Tensor | None,
    *,
    neighborhood: int | None = None,
    shift: float = 0.0,
    steps: int | None = None,
) -> list[range] | None:
    """Match the steps of a side channel to frames.

    Without `neighborhood`, a frame gets the steps whose middles lie in its span; where there is
    none because steps are longer than frames, the step that covers its middle. A frame during
    which there is no side channel gets an empty range.

    Args:
        frame_spans: float64 `[T_q, 2]`, start and end of each frame (temporal grid) in seconds.
        side_spans: float64 `[T_k, 2]`, of each step, ordered by their middles, on the same clock;
            None for equal parts of what the frames span.
        neighborhood: give each frame this many steps on each side of the step nearest to its
            middle, and that one. Past the ends of the side channel steps are counted on, so a
            frame far from it gets none.
        shift: seconds added to the side channel's times.
        steps: T_k; needed only for `side_spans=None` with a neighbourhood or a shift.

    Returns:
        A range of steps for each frame; None for the official equal partition, which the patch
        makes itself: when neither `neighborhood` nor `shift` is set and either the side channel
        has no times, or frames are equal parts of a time that it spans in equal steps (starting
        within half a step of it and ending within one), as many for each frame or fewer than
        frames.

    Raises:
        InvalidSetting: for shapes or settings that are not accepted.
        BadSideChannel: if the frames have no times.
    """
    if neighborhood is not None and neighborhood < 0:
        raise InvalidSetting(f"neighborhood={neighborhood} must be 0 steps or more")
    if not np.isfinite(shift):
        raise InvalidSetting(f"shift={shift} must be finite (seconds)")
    free = neighborhood is None and shift == 0
    if side_spans is None and free:
        return None
    frames = _checked("frame_spans [T_q, 2]", frame_spans)
    if not np.isfinite(frames).all():
        raise BadSideChannel(
            "frames without timestamps", "they cannot be matched in time; re-mux the video"
        )
    side = _equal_side(frames, steps) if side_spans is None else _ordered(side_spans)
    if free and _same_time(frames, side):
        return None
    side = side + shift
    if neighborhood is None:
        return [_within(side, start, end) for start, end in frames]
    return [_around(side, middle, neighborhood) for middle in frames.mean(axis=1)]


def frame_spans(clip: Clip, grids: int, *, num_groups: int = 1) -> torch.Tensor:
    """Return when the frames of each temporal grid are shown.

    Frames stand for equal parts of the clip's time, as long as each is shown in its own part (to
    within one frame of the source); else each stands for what is nearest to its timestamp. In a
    re-ordered clip spans follow the frames, as sound does in a film that is played backwards. A
    grid spans from its earliest frame to its latest.

    Args:
        clip: decoded frames.
        grids: temporal grids T that the family makes of them: equal numbers of frames each, the
            last one perhaps fewer.
        num_groups: strided groups of frames that are encoded separately (see `FramePlan`).

    Returns:
        float64 `[T, 2]`, start and end in seconds from the start of the video; NaN where the clip
        has no timestamps.

    Raises:
        InvalidSetting: if the frames do not make that many grids.
    """
    count = clip.num_frames
    per_grid = -(-count // grids) if grids > 0 else 0
    if not per_grid or -(-count // per_grid) != grids:
        raise InvalidSetting(f"{count} frames do not make {grids} temporal grids of equal size")
    if num_groups > 1 and count % (num_groups * per_grid):
        raise InvalidSetting(
            f"num_groups={num_groups}: {count} frames do not make that many groups of whole grids "
            f"of {per_grid} frames"
        )
    by_frame = _spans_in_time(clip)[np.argsort(np.argsort(clip.indices, kind="stable"))]
    order = np.arange(count)
    if num_groups > 1:
        # [k, j, g] -> [k, g, j]: frame j of grid k of group g, as families encode them
        order = order.reshape(-1, per_grid, num_groups).transpose(0, 2, 1).reshape(-1)
    starts = range(0, count, per_grid)
    ordered = by_frame[order]
    spans = [
        (ordered[n : n + per_grid, 0].min(), ordered[n : n + per_grid, 1].max()) for n in starts
    ]
    return torch.tensor(spans, dtype=torch.float64)


def backwards(side: SideFeatures, frame_spans: torch.Tensor) -> SideFeatures:
    """Play a side channel backwards: what was at the start of the frames' time comes at its end.

    Args:
        side: features with their times; without times they fill that of the frames.
        frame_spans: float64 `[T_q, 2]`, as `neighbors` takes them.

    Raises:
        BadSideChannel: if the side channel has times and the frames have none.
    """
    features = side.features.flip(0)
    if side.spans is None:
        return replace(side, features=features)
    if not bool(torch.isfinite(frame_spans).all()):
        raise BadSideChannel(
            side.source, "the frames have no timestamps, so it cannot be played backwards in them"
        )
    mirrored = frame_spans.min() + frame_spans.max() - side.spans
    return replace(side, features=features, spans=mirrored.flip(0, 1))


def equal_parts(start: float, end: float, count: int) -> torch.Tensor:
    """Return float64 `[count, 2]`: equal parts of a time in seconds."""
    edges = torch.linspace(start, end, count + 1, dtype=torch.float64)
    return torch.stack([edges[:-1], edges[1:]], dim=1)


def clip_span(clip: Clip) -> tuple[float, float] | None:
    """Return start and end in seconds of what a clip was taken from; None without timestamps.

    The last frame lasts for the mean time between frames.
    """
    if clip.span is not None:
        return clip.span
    times = np.sort(clip.timestamps)
    if not np.isfinite(times).all():
        return None
    return float(times[0]), float(times[-1] + (clip.seconds_per_frame or 1.0))


def _spans_in_time(clip: Clip) -> Floats:
    """Return `[T, 2]`, of the frames in order of time."""
    whole = clip_span(clip)
    if whole is None:
        return np.full((clip.num_frames, 2), np.nan)
    start, end = whole
    times = np.sort(clip.timestamps)
    edges = np.linspace(start, end, clip.num_frames + 1)
    margin = 1 / clip.source_fps if clip.source_fps else 0.0
    margin += _ROUNDING * (end - start)
    if (times < edges[:-1] - margin).any() or (times > edges[1:] + margin).any():
        edges[1:-1] = (times[:-1] + times[1:]) / 2
    return np.stack([edges[:-1], edges[1:]], axis=1)


def _checked(name: str, spans: torch.Tensor) -> Floats:
    if spans.ndim != 2 or spans.shape[-1] != 2 or not len(spans):
        raise InvalidSetting(f"{name} has shape {tuple(spans.shape)}; both must be given in pairs")
    return spans.detach().cpu().double().numpy()


def _ordered(spans: torch.Tensor) -> Floats:
    side = _checked("side_spans [T_k, 2]", spans)
    if not np.isfinite(side).all() or (side[:, 1] < side[:, 0]).any():
        raise InvalidSetting("side_spans has times that are not finite, or ends before its start")
    if (np.diff(side.mean(axis=1)) < 0).any():
        raise InvalidSetting("side_spans is not in order of time")
    return side


def _equal_side(frames: Floats, steps: int | None) -> Floats:
    if steps is None or steps < 1:
        raise InvalidSetting(
            f"steps={steps}: a side channel without times needs its number of steps to be shifted "
            "or given by neighbourhood"
        )
    whole = equal_parts(float(frames.min()), float(frames.max()), steps)
    return np.asarray(whole.numpy(), dtype=np.float64)


def _same_time(frames: Floats, side: Floats) -> bool:
    """Tell whether frames and steps are equal parts of the same time, in its order.

    With steps that do not divide among the frames the official partition gives the first frames
    more of them, and so is late by up to a share: that is not by time.
    """
    if len(side) > len(frames) and len(side) % len(frames):
        return False
    frame = frames[:, 1] - frames[:, 0]
    tolerance = _ROUNDING * max(float(frame.max()), 1.0)
    if np.ptp(frame) > tolerance or (np.abs(frames[1:, 0] - frames[:-1, 1]) > tolerance).any():
        return False
    stride = np.diff(side[:, 0]) if len(side) > 1 else side[0, 1:] - side[0, :1]
    usual = float(np.median(stride))
    slack = _ROUNDING * max(usual, 1.0)
    if usual <= 0 or np.ptp(stride) > slack:
        return False
    late = abs(float(side[0, 0] - frames[0, 0]))
    early = abs(float(side[-1, 1] - frames[-1, 1]))
    return late <= usual / 2 + slack and early <= usual + slack


def _within(side: Floats, start: float, end: float) -> range:
    middles = side.mean(axis=1)
    first, last = np.searchsorted(middles, [start, end], side="left").tolist()
    if first < last:
        return range(first, last)
    middle = (start + end) / 2
    covering = np.flatnonzero((side[:, 0] <= middle) & (middle < side[:, 1]))
    if not len(covering):
        return range(0)
    nearest = int(covering[np.argmin(np.abs(middles[covering] - middle))])
    return range(nearest, nearest + 1)


def _around(side: Floats, middle: float, neighborhood: int) -> range:
    middles = side.mean(axis=1)
    centre = int(np.argmin(np.abs(middles - middle)))
    before, after = side[0, 0] - middle, middle - side[-1, 1]
    if max(before, after) > 0:
        # Past an end: as if steps went on at their usual distance.
        stride = np.diff(middles) if len(side) > 1 else side[0, 1:] - side[0, :1]
        usual = max(float(np.median(stride)), 1e-9)
        away = (middles[0] - middle if before > 0 else middle - middles[-1]) / usual
        far = min(round(away), len(side) + neighborhood)  # further makes no difference
        centre = -far if before > 0 else len(side) - 1 + far
    first, last = max(0, centre - neighborhood), min(len(side), centre + neighborhood + 1)
    return range(first, last) if first < last else range(0)
