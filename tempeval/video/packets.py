"""The packet index: which frames a file holds and when they are shown, without decoding them."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tempeval.video import container as files
from tempeval.video.ending import ends_early

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

# AV_TIME_BASE, the unit of a container's duration and start.
_MICROSECONDS = 1_000_000
# Containers whose header states the duration; others (MPEG-TS, raw streams) only estimate it.
_STATED_DURATION = frozenset({"matroska", "webm", "mov", "mp4", "flv", "asf", "nut"})
# Containers whose duration is a time of the clock that the packets use, not a length.
_DURATION_IS_AN_END = frozenset({"matroska", "webm", "flv", "asf", "nut"})

# Steps between frames that show a steady clock; containers round times to milliseconds, so a step
# is off by two halves.
_CLOCK_STEPS = 20
_CLOCK_ROUNDING_S = 1.1e-3
_DRAWN_CLOCKS = frozenset({"gif", "apng", "webp_pipe"})


@dataclass(frozen=True)
class PacketIndex:
    """What demuxing a file once tells about its video stream.

    Attributes:
        pts: int64 `[n]`, presentation times of the shown frames in `time_base` units, sorted.
        key_pts: int64 `[m]`, times at which decoding can start, sorted; also those of frames that
            an edit list hides.
        time_base: seconds per unit of `pts`.
        sound: whether every packet was readable, has its own pts and is not marked corrupt; only
            then does frame i of the file have time `pts[i]`.
        timeless: number of shown packets without a pts.
        damaged: number of packets that are unreadable or marked corrupt.
        truncated: whether the file ends before its header says.
        skips: whether a clock that is steady otherwise leaves out two frames or more at one place.
        held: number of packets of the stream, those that are hidden too, or that the header names.
    """

    pts: NDArray[np.int64]
    key_pts: NDArray[np.int64]
    time_base: Fraction
    sound: bool
    timeless: int
    damaged: int
    truncated: bool
    skips: bool
    held: int

    @property
    def times(self) -> NDArray[np.float64]:
        """Return `[n]` seconds from the first shown frame."""
        return self.seconds(self.pts)

    @property
    def num_packets(self) -> int:
        """Number of packets that hold a frame to show, with or without a timestamp."""
        return len(self.pts) + self.timeless

    def seconds(self, pts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return times in seconds from the first shown frame, as float64."""
        origin = self.pts[:1] if len(self.pts) else pts[:1]
        units: NDArray[np.int64] = (pts - origin) * self.time_base.numerator
        return units / self.time_base.denominator


def index_packets(container: InputContainer, stream: VideoStream) -> PacketIndex:
    """Demux a whole file and index its video packets. The container is left at its end."""
    pts: list[int] = []
    key_pts: list[int] = []
    seen = damaged = timeless = 0
    last_end = 0.0
    for packet in files.packets(container):
        if packet is None:
            damaged += 1
            continue
        last_end = max(last_end, _end(packet))
        if packet.stream_index != stream.index:
            continue
        seen += 1
        damaged += packet.is_corrupt
        shown = not packet.is_discard and _is_shown(stream, packet)
        if packet.pts is None:
            timeless += shown
            continue
        if shown:
            pts.append(packet.pts)
        if packet.is_keyframe:
            key_pts.append(packet.pts)
    times = np.sort(np.array(pts, dtype=np.int64))
    return PacketIndex(
        pts=times,
        key_pts=np.sort(np.array(key_pts, dtype=np.int64)),
        time_base=stream.time_base or Fraction(1),
        sound=not damaged and not timeless and bool(np.all(np.diff(times) > 0)),
        timeless=timeless,
        damaged=damaged,
        truncated=_is_truncated(container, stream, seen, last_end),
        skips=_skips(container, np.array(pts, dtype=np.int64), float(stream.time_base or 1)),
        held=max(seen, stream.frames),
    )


def _skips(container: InputContainer, pts: NDArray[np.int64], unit: float) -> bool:
    """Return True if a steady clock stands still at one place, for three steps or more.

    A decoder of VP8 or VP9 does not notice that frames are missing, so their times are all there
    is to see. One frame left out may be one that a camera dropped, and recordings that leave out
    frames without motion do so in many places. In a GIF a pause is drawn on purpose. A copy of a
    part of a video with B-frames lacks those of its last group, which were stored behind the end.

    Args:
        container: the file.
        pts: `[n]`, when its frames are shown, in the order of their packets.
        unit: seconds per unit of `pts`.
    """
    steps = np.diff(pts) * unit
    if len(steps) < _CLOCK_STEPS or container.format.name in _DRAWN_CLOCKS or steps.min() < 0:
        return False
    usual = np.median(steps)
    off = np.abs(steps - usual) > max(_CLOCK_ROUNDING_S, 0.05 * usual)
    return bool(np.count_nonzero(off) == 1 and steps.max() >= 2.5 * usual)


def _is_shown(stream: VideoStream, packet: Packet) -> bool:
    """Tell whether a packet holds a frame to show: VP8 keeps hidden reference frames in packets."""
    return stream.codec_context.name not in ("vp8", "libvpx") or bool(bytes(packet)[0] & 0x10)


def _end(packet: Packet) -> float:
    """Return when a packet of any stream stops being shown or heard, in seconds."""
    start = packet.pts if packet.pts is not None else packet.dts
    if start is None:
        return 0.0
    return float((start + (packet.duration or 0)) * packet.time_base)


def _is_truncated(
    container: InputContainer, stream: VideoStream, seen: int, last_end: float
) -> bool:
    """Tell whether a file ends before its header says.

    Args:
        container: the file.
        stream: its video stream.
        seen: number of packets of that stream.
        last_end: when the last packet of any stream ends, in seconds.
    """
    place = Path(container.name.removeprefix("file:"))
    if place.is_file() and ends_early(place):
        return True
    formats = set(container.format.name.split(","))
    stated = (container.duration or 0) / _MICROSECONDS
    begin = (container.start_time or 0) / _MICROSECONDS
    if "avi" in formats:
        # FFmpeg scales the duration of a cut file down to what is there; the header's number of
        # frames stays. It includes dropped frames, so it says how long the video is, not more.
        stated = float(stream.frames * (stream.time_base or 0))
    elif seen < 0.9 * stream.frames:
        # A margin here too: MP4 tables count empty samples, which stand for dropped frames.
        return True
    elif not formats & _STATED_DURATION:
        return False
    elif formats & _DURATION_IS_AN_END:
        begin = 0.0
    # The margin covers writers that round durations or leave the last one out.
    return last_end < begin + stated - max(0.25, 0.02 * stated)
