"""Writes videos whose frames carry their own number, so that a test can tell which one it got.

A frame shows 16 bits as black and white blocks, and the inverted bits in a second row as a check:
`number_of` returns -1 when the two rows disagree.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tempeval.video.clip import Clip

BITS = 16
HEIGHT, WIDTH = 96, 160
X264 = {"preset": "ultrafast", "g": "30", "x264-params": "bframes=2:b-adapt=0"}
QUIET_X265 = "log-level=none"


def picture(number: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """Draw `[height, width, 3]` with a number in it."""
    columns = np.arange(width) * BITS // width
    bits = np.array([(number >> bit) & 1 for bit in range(BITS)], dtype=np.uint8)
    row = 255 * bits[columns]
    image = np.empty((height, width, 3), dtype=np.uint8)
    image[: height // 2] = row[:, None]
    image[height // 2 :] = 255 - row[:, None]
    return image


def number_of(frame: NDArray[np.uint8]) -> int:
    """Read the number back from a frame of any size; -1 when it is not readable."""
    height, width = frame.shape[:2]
    number = 0
    for bit in range(BITS):
        left, right = (bit + 0.25) * width / BITS, (bit + 0.75) * width / BITS
        columns = slice(int(left), max(int(right), int(left) + 1))
        upper = frame[height // 8 : 3 * height // 8, columns].mean() > 127
        lower = frame[5 * height // 8 : 7 * height // 8, columns].mean() > 127
        if upper == lower:
            return -1
        number |= int(upper) << bit
    return number


def numbers_of(clip: Clip) -> list[int]:
    """Read the number of every frame of a clip."""
    return [number_of(frame) for frame in clip.frames]


def write_video(
    path: Path,
    numbers: Iterable[int] = range(90),
    *,
    codec: str = "libx264",
    rate: int = 30,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    container_format: str | None = None,
    milliseconds: Sequence[int] | None = None,
    first_ms: int = 0,
    audio_seconds: float = 0.0,
    draw: Callable[[int, int, int], NDArray[np.uint8]] = picture,
) -> Path:
    """Encode one frame per number.

    Args:
        path: file to write; its suffix gives the container unless `container_format` does.
        numbers: what the frames show.
        codec: an encoder of PyAV's wheel.
        rate: frames per second, for the frames' times unless `milliseconds` is given.
        size: (height, width) in pixels.
        pixel_format: what the encoder gets.
        options: encoder options; `X264` if None and the codec is libx264.
        container: muxer options.
        container_format: muxer name.
        milliseconds: when each frame is shown.
        first_ms: added to all times.
        audio_seconds: length of a silent audio track; 0 is none.
        draw: `(number, height, width)` to uint8 `[height, width, 3]`.
    """
    if options is None:
        options = X264 if codec == "libx264" else {}
    with av.open(str(path), "w", format=container_format, options=container or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = size
        stream.pix_fmt = pixel_format
        if milliseconds is not None or first_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        sound = out.add_stream("aac", rate=8000) if audio_seconds else None
        for place, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(draw(number, *size), format="rgb24")
            if milliseconds is not None:
                frame.pts, frame.time_base = first_ms + milliseconds[place], Fraction(1, 1000)
            elif first_ms:
                frame.pts = first_ms + place * 1000 // rate
                frame.time_base = Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound is not None:
            for start in range(0, int(audio_seconds * 8000), 1024):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
                )
                silence.sample_rate, silence.pts = 8000, start
                silence.time_base = Fraction(1, 8000)
                out.mux(sound.encode(silence))
            out.mux(sound.encode(None))
    return path


def write_audio(path: Path) -> Path:
    """Write a file with sound and no picture."""
    with av.open(str(path), "w") as out:
        sound = out.add_stream("aac", rate=8000)
        silence = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
        )
        silence.sample_rate, silence.pts = 8000, 0
        out.mux(sound.encode(silence))
        out.mux(sound.encode(None))
    return path


def cut_without_encoding(
    source: Path,
    target: Path,
    start: float,
    change: Callable[[int, av.Packet], av.Packet | None] = lambda _, packet: packet,
) -> Path:
    """Copy packets from the key frame before `start` (seconds) on, with `start` as time zero.

    In MP4 the frames before `start` get negative timestamps and an edit list hides them.
    `change` sees every packet with its place and may replace it, or drop it with None.
    """
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        shift = int(start / stream.time_base) + (stream.start_time or 0)
        packets = [packet for packet in given.demux(stream) if packet.size]
        keys = [n for n, p in enumerate(packets) if p.is_keyframe and p.pts <= shift]
        for place, packet in enumerate(packets[keys[-1] :]):
            changed = change(place, packet)
            if changed is None:
                continue
            changed.pts, changed.dts = packet.pts - shift, packet.dts - shift
            changed.time_base = stream.time_base
            changed.is_keyframe = packet.is_keyframe
            changed.stream = copy
            out.mux(changed)
    return target


def rotate_metadata(path: Path, clockwise: int) -> Path:
    """Tell players of an MP4 to turn the picture clockwise."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    return set_display_matrix(path, cosine, sine, -sine, cosine)


def set_display_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """Tell players of an MP4 to turn or mirror the picture, by its track header's matrix.

    Source: ISO/IEC 14496-12, 8.3.2: (x, y) is shown at (a x + c y + tx, b x + d y + ty).
    """
    data = bytearray(path.read_bytes())
    # After the type: version and flags, two dates, id, reserved, duration (24 bytes), then 16 more.
    place = data.index(b"tkhd") + 4 + 40
    turned = [round(value * (1 << 16)) for value in (a, b, c, d)]
    matrix = [*turned[:2], 0, *turned[2:], 0, 0, 0, 1 << 30]
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(bytes(data))
    return path
