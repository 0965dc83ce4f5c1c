"""Which frames of a video are shown: pure functions from timestamps to frame indices."""

from __future__ import annotations

import math
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from tempeval.video.clip import Sampling


SCENES, SCENE_VIEWS = ("posed_images_new", "posed_images"), 32
"""Folders of ScanNet scenes, `<folder>/<scene>/*.jpg`, and how many views PAVE's features have.

The first is PAVE's, and holds the views; the second EmbodiedScan's, of the whole scan. Depth maps
lie beside the images.
Source: dragonlzm/PAVE.
"""

TVQA_FRAMES = "frames_fps3_hq"
"""Folder of TVQA's frame folders, `frames_fps3_hq/<clip>/00001.jpg`: image n is at n / 3 seconds.

Source: MVBench, `read_frame` of OpenGVLab/Ask-Anything's video_chat2/mvbench.ipynb @ 4dd8210, which
takes `round(seconds * 3)` for the number of an image, counted from 1.
"""


# Containers round times to milliseconds: a frame may be due that much before it says.
_CLOCK_ROUNDING_S = 1e-3


class SamplingError(ValueError):
    """A range or a rate that the given timestamps cannot serve."""


def frame_indices(
    sampling: Sampling,
    timestamps: NDArray[np.float64],
    start: float | None = None,
    end: float | None = None,
) -> NDArray[np.int64]:
    """Choose frames, in time order; an index repeats when there are too few frames.

    `uniform` and `segment` count frames, so on a video with a variable frame rate they are uniform
    in frame number rather than in time; `fps` goes by time, and takes the frame that is on screen
    at each moment.

    Args:
        sampling: the rule and the number of frames, or the cap on it.
        timestamps: `[n]` seconds from the first frame, increasing; NaN where unknown.
        start: first moment of the range in seconds; None is the first frame.
        end: last moment of the range in seconds; None is the last frame.

    Returns:
        int64 `[T]`, T = `sampling.num_frames`, or at most that for `fps`.

    Raises:
        SamplingError: the range lies outside the video, or timestamps are needed and missing.
    """
    first, last = trim(timestamps, start, end)
    if sampling.rule == "segment":
        return _segment_centres(first, last, sampling.num_frames)
    if sampling.rule == "fps" and sampling.fps is not None:
        paced = _at_rate(timestamps, first, last, sampling.fps, sampling.num_frames)
        if paced is not None:
            return paced
    return np.linspace(first, last, sampling.num_frames, dtype=np.int64)


def trim(
    timestamps: NDArray[np.float64], start: float | None = None, end: float | None = None
) -> tuple[int, int]:
    """Return the first and last frame index of a range: the frames nearest to its two ends.

    An `end` after the last frame gives the last frame, as the official readers do.

    Raises:
        SamplingError: no frames, a `start` outside the video, an `end` that is not after it, or
            timestamps are needed and missing.
    """
    count = len(timestamps)
    if count == 0:
        raise SamplingError("there are no frames to choose from")
    if start is None and end is None:
        return 0, count - 1
    _require_times(timestamps, f"start={start}, end={end}")
    lasts = duration(timestamps)
    if start is not None and not 0 <= start < lasts:
        raise SamplingError(f"start={start:g} s lies outside the video, which lasts {lasts:.2f} s")
    if end is not None and not end > (start or 0.0):
        raise SamplingError(f"end={end:g} s is not after start={start or 0.0:g} s")
    first = 0 if start is None else _nearest(timestamps, start)
    last = count - 1 if end is None else _nearest(timestamps, end)
    return first, last


def part_of_folder(
    path: str | Path, fps: float, start: float | None, end: float | None
) -> tuple[float | None, float | None]:
    """Return a part of a frame folder in seconds from its first image.

    Both are given so for all folders but TVQA's, whose clock begins one image before the first.

    Args:
        path: the folder, of which the name alone matters.
        fps: its frame rate (1/s).
        start: where the part begins in seconds; None is the first image.
        end: where it ends in seconds; None is the last image.
    """
    if PurePath(path).parent.name != TVQA_FRAMES or not math.isfinite((start or 0) + (end or 0)):
        return start, end
    first = None if start is None else max(round(start * fps), 1) - 1
    last = None if end is None else round(end * fps) - 1
    begin = None if first is None else first / fps
    if last is None:
        return begin, None
    # A part of one image is no empty one.
    return begin, (last + 0.25 if last == (first or 0) else last) / fps


def duration(timestamps: NDArray[np.float64]) -> float:
    """Return how long the frames last in seconds, the last one for the mean time between frames.

    A single frame counts as one second.
    """
    count = len(timestamps)
    if count < 2:
        return 1.0
    first, last = float(timestamps[0]), float(timestamps[-1])
    return last + (last - first) / (count - 1)


def is_posed(path: str | Path) -> bool:
    """Tell whether a path is that of a ScanNet scene's folder of images, by its name alone."""
    return PurePath(path).parent.name in SCENES


def is_scene(path: str | Path) -> bool:
    """Tell whether a path is that of a ScanNet scene's folder of views, by its name alone."""
    return PurePath(path).parent.name == SCENES[0]


def scene_views(count: int) -> NDArray[np.int64]:
    """Return which image each of a scene's 32 views is: cut after 32, or filled up with the last.

    So image i is view i of the scene's 3D features, however many images a folder has.

    Args:
        count: images in the folder, at least 1.

    Returns:
        int64 `[32]`.
    """
    return np.minimum(np.arange(SCENE_VIEWS), count - 1)


def _segment_centres(first: int, last: int, num_segments: int) -> NDArray[np.int64]:
    """Return the centres of equal segments.

    Source: MVBench, `get_index` of Ask-Anything's video_chat2/mvbench.ipynb.
    """
    size = float(last - first) / num_segments
    offsets = np.round(size * np.arange(num_segments))
    return (first + size / 2 + offsets).astype(np.int64)


def _at_rate(
    timestamps: NDArray[np.float64], first: int, last: int, fps: float, cap: int
) -> NDArray[np.int64] | None:
    """Return the frames on screen 0, 1/fps, 2/fps, ... after the first; None above `cap`."""
    _require_times(timestamps, f"fps={fps:g}")
    times = timestamps[first : last + 1]
    if len(times) > 1 and not times[-1] > times[0]:
        raise SamplingError(
            f"its {len(times)} frames all have the same time, and fps={fps:g} goes by time; "
            "use rule='uniform' or 'segment', or re-mux the file"
        )
    # The small surplus keeps a tick that falls on the last frame in spite of rounding.
    ticks = int(np.floor((times[-1] - times[0]) * fps + 1e-6)) + 1
    if ticks > cap:
        return None
    wanted = times[0] + np.arange(ticks) / fps
    begun = np.searchsorted(times, wanted + _CLOCK_ROUNDING_S, side="right")
    return np.asarray(first - 1 + begun, dtype=np.int64)


def _nearest(timestamps: NDArray[np.float64], time: float) -> int:
    """Return the index of the frame nearest in time, the earlier of two equally near ones."""
    return int(np.argmin(np.abs(timestamps - time)))


def _require_times(timestamps: NDArray[np.float64], purpose: str) -> None:
    missing = int(np.count_nonzero(~np.isfinite(timestamps)))
    if missing:
        raise SamplingError(
            f"{missing} of {len(timestamps)} frames have no timestamp, which {purpose} needs; "
            "use rule='uniform' or 'segment' without start and end, or re-mux the file"
        )


def nearest_multiple(number: int, unit: int) -> int:
    """Return the positive multiple of `unit` nearest to `number`; of two, the larger."""
    return max(1, (2 * number + unit) // (2 * unit)) * unit
