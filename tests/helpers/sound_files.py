"""Writes videos with a sound track that is made of given samples, at given times."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from video_files import picture

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

RATE = 16_000
FPS = 10
SIZE = (48, 64)


def tone(seconds: float, at: float, length: float = 0.2, pitch: float = 1000.0) -> NDArray:
    """Return float32 `[N]`: silence with one tone that begins at `at` seconds."""
    time = np.arange(round(seconds * RATE)) / RATE
    heard = (time >= at) & (time < at + length)
    return (0.5 * np.sin(2 * np.pi * pitch * time) * heard).astype(np.float32)


def write_sounding(
    path: Path,
    sounds: Sequence[tuple[float, NDArray]],
    *,
    seconds: float = 4.0,
    first_ms: int = 0,
    rate: int = RATE,
    codec: str = "pcm_s16le",
    channels: int = 1,
) -> Path:
    """Write a video, and a sound track of pieces, each (seconds from the first frame, samples).

    Args:
        path: file to write; Matroska takes any codec.
        sounds: in order of time.
        seconds: duration of the picture.
        first_ms: time of its first frame, in the file.
        rate: samples per second of the pieces.
        codec: of the sound.
        channels: each of them gets the same samples.
    """
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": "10"})
        stream.height, stream.width, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        layout = {1: "mono", 2: "stereo"}[channels]
        track = out.add_stream(codec, rate=rate, layout=layout) if sounds is not None else None
        packets = []
        for place in range(round(seconds * FPS)):
            frame = av.VideoFrame.from_ndarray(picture(place, *SIZE), format="rgb24")
            frame.pts, frame.time_base = first_ms + place * 1000 // FPS, Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for begin, samples in sounds:
            start = round((begin + first_ms / 1000) * rate)
            for offset in range(0, len(samples), 1024):
                piece = np.rint(32767 * samples[offset : offset + 1024]).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(np.repeat(piece, channels)[None]), "s16", layout
                )
                frame.sample_rate, frame.pts = rate, start + offset
                frame.time_base = Fraction(1, rate)
                packets += track.encode(frame)
        if track is not None:
            packets += track.encode(None)
        out.start_encoding()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            out.mux(packet)
    return path
