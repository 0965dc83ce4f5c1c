"""The default reader: PyAV, with every sought frame checked by its timestamp.

A file is demuxed once into a packet index. Wanted frames are then sought, and a frame counts only
if decoding began at a key frame of the index and the frame's own timestamp is the wanted one.
Where that fails (MPEG-TS, missing timestamps, damage) the whole file is decoded in order, packet
by packet, skipping what is damaged; frames are then what the decoder really gives.
"""

from __future__ import annotations

from itertools import chain, groupby
from typing import TYPE_CHECKING

import numpy as np
from av.error import FFmpegError
from av.packet import Packet

from tempeval.errors import BadVideo
from tempeval.video import container as files
from tempeval.video import flags
from tempeval.video.packets import PacketIndex, index_packets
from tempeval.video.reading import Choose, Gatherer, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from tempeval.video.convert import Resize

# A second pass only differs from the first if the decoder is not repeatable.
_MAX_PASSES = 3
# Decoding an empty packet makes the decoder give the frames that it still holds.
_FLUSH = Packet()


class _Unverified(Exception):
    """A seek did not land where the packet index says."""


def read(path: str, choose: Choose, resize: Resize | None, *, square: bool = True) -> Reading:
    """Read the frames that `choose` picks.

    Args:
        path: a video file.
        choose: picks from the times of its frames.
        resize: gives the size of the output; see `FrameConverter`.
        square: False leaves pixels as they are stored.

    Raises:
        BadVideo: the file cannot be opened, or holds no decodable frame.
    """
    with files.opened(path) as (container, stream):
        index = index_packets(container, stream)
        aspect = files.pixel_aspect(stream)

        def gatherer_of(times: NDArray[np.float64]) -> Gatherer:
            return Gatherer(choose(times), resize, aspect, square=square)

        if index.sound and len(index.pts):
            gatherer = gatherer_of(index.times)
            try:
                _seek_all(container, stream, index, gatherer)
            except (FFmpegError, _Unverified):
                pass
            else:
                return gatherer.reading(index.times, _flags_of(index), index.held)
    return _read_in_order(path, index, gatherer_of)


def _seek_all(
    container: InputContainer, stream: VideoStream, index: PacketIndex, gatherer: Gatherer
) -> None:
    def key_of(position: int) -> int:
        # By presentation time: the leading frames of an open group need the key frame before.
        return int(np.searchsorted(index.key_pts, index.pts[position], side="right")) - 1

    for key, targets in groupby(sorted(gatherer.missing), key_of):
        if key < 0:
            raise _Unverified
        _seek_group(container, stream, index, int(index.key_pts[key]), list(targets), gatherer)


def _seek_group(
    container: InputContainer,
    stream: VideoStream,
    index: PacketIndex,
    key_pts: int,
    targets: list[int],
    gatherer: Gatherer,
) -> None:
    """Gather frames that follow one key frame; `targets` are their positions in the index."""
    container.seek(key_pts, stream=stream)
    wanted = set(targets)
    position = int(np.searchsorted(index.pts, key_pts))
    for frame in _frames_from_key(container, stream, index):
        if frame.pts is None or frame.is_corrupt:
            raise _Unverified
        if frame.pts < key_pts:
            continue
        # Every frame since the key frame, not only the wanted ones: AVI files with B-frames number
        # their packets in decoding order, which shows in what lies between.
        if position == len(index.pts) or frame.pts != index.pts[position]:
            raise _Unverified
        if position in wanted:
            gatherer.take(position, frame)
            wanted.remove(position)
            if not wanted:
                return
        position += 1
    raise _Unverified


def _frames_from_key(
    container: InputContainer, stream: VideoStream, index: PacketIndex
) -> Iterator[VideoFrame]:
    """Decode from where the container stands, which must be a key frame of the index."""
    begun = False
    for packet in files.packets(container, stream):
        if packet is None or (not begun and packet.pts not in index.key_pts):
            raise _Unverified
        begun = True
        yield from stream.decode(packet)
    yield from stream.decode(None)


def _read_in_order(
    path: str, index: PacketIndex, gatherer_of: Callable[[NDArray[np.float64]], Gatherer]
) -> Reading:
    times = index.times if index.sound else np.zeros(0)
    for _ in range(_MAX_PASSES):
        gatherer = gatherer_of(times) if len(times) else None
        pts, damaged = _decode_all(path, gatherer)
        damaged += index.damaged
        if not pts:
            raise BadVideo(path, f"no frame can be decoded ({damaged} damaged packets)")
        actual, in_order = _seconds(pts, index)
        if gatherer and np.array_equal(actual, times, equal_nan=True):
            found = {
                flags.SEQUENTIAL: True,
                flags.CORRUPT_PACKETS: damaged > 0 or len(pts) < index.num_packets,
                flags.UNORDERED_TIMESTAMPS: not in_order,
            }
            named = frozenset(name for name in found if found[name])
            return gatherer.reading(actual, named | _flags_of(index), index.held)
        times = actual
    raise BadVideo(path, f"decoding it {_MAX_PASSES} times gave different frames each time")


def _flags_of(index: PacketIndex) -> frozenset[str]:
    """Return what the packet index says of the source, however it is read."""
    found = {flags.TRUNCATED: index.truncated, flags.TIME_GAP: index.skips}
    return frozenset(name for name in found if found[name])


def _decode_all(path: str, gatherer: Gatherer | None) -> tuple[list[int | None], int]:
    """Decode a file in order; return every frame's pts, and how much was damaged."""
    pts: list[int | None] = []
    damaged = 0
    with files.opened(path) as (container, stream):
        for packet in chain(files.packets(container, stream), [_FLUSH]):
            if packet is None:
                damaged += 1
                continue
            try:
                frames = stream.decode(packet)
            except FFmpegError:
                damaged += 1
                continue
            for frame in frames:
                damaged += frame.is_corrupt
                if gatherer:
                    gatherer.take(len(pts), frame)
                pts.append(frame.pts)
    return pts, damaged


def _seconds(pts: list[int | None], index: PacketIndex) -> tuple[NDArray[np.float64], bool]:
    """Return `[n]` seconds on the clock of the packet index, sorted, and whether they were.

    Decoders give frames in display order, but some files (H.264 with B-frames in AVI) number them
    in decoding order. Frames without a timestamp are NaN, and then nothing is sorted.
    """
    times = np.full(len(pts), np.nan)
    known = [place for place, value in enumerate(pts) if value is not None]
    times[known] = index.seconds(np.array([v for v in pts if v is not None], dtype=np.int64))
    if len(known) < len(pts):
        return times, True
    return np.sort(times), bool((np.diff(times) > 0).all())
