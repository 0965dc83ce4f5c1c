"""Write frames to video files and frame folders, the same bytes on every run."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.video.frame import PictureType
from PIL import Image

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from tempeval.mini.sound import Sound

CODECS = {
    "mp4": ("libx264", {"crf": "18", "preset": "veryfast", "x264-params": "threads=1:mbtree=0"}),
    "webm": ("libvpx-vp9", {"crf": "12", "b": "0", "deadline": "good", "cpu-used": "5"}),
}
"""Encoder and its options for each container.

With mbtree, x264 gives other bytes from run to run where a side is no multiple of 16 pixels.
"""
KEYED_CODECS = {
    "mp4": (
        "libx264",
        {
            "qp": "18",
            "preset": "veryfast",
            "forced-idr": "1",
            "x264-params": "threads=1:mbtree=0:bframes=0",
        },
    ),
}
"""Encoder and its options for each container that can hold keyframes where they are asked for.

With a constant quantiser and no frames that look ahead, a keyframe depends on its own pixels alone.
"""
SOUND_CODECS = {"mp4": "alac"}
"""Encoder of the sound for each container that can hold it: lossless, 16 bits per sample."""


def write_video(
    path: Path,
    frames: NDArray[np.uint8],
    fps: int,
    container: str,
    sound: Sound | None = None,
    keyframes: Collection[int] = (),
) -> None:
    """Encode frames to a file.

    Args:
        path: file to write; its ending does not matter.
        frames: uint8 `[T, H, W, 3]`, RGB.
        fps: frames per second (1/s).
        container: one of `CODECS`; of `SOUND_CODECS` with sound, of `KEYED_CODECS` with keyframes.
        sound: track that starts with the first frame.
        keyframes: indices of frames to code alone: decoded, they do not depend on other frames.

    Raises:
        InvalidSetting: if the container is not one of those.
    """
    codecs = KEYED_CODECS if keyframes else CODECS
    _check(container, codecs, " with chosen keyframes" if keyframes else "")
    if sound is not None:
        _check(container, SOUND_CODECS, " with sound")
    encoder, options = codecs[container]
    with av.open(str(path), "w", format=container, options={"fflags": "+bitexact"}) as output:
        stream = cast("VideoStream", output.add_stream(encoder, rate=fps, options=options))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, fps)
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        # A file's header lists all streams, and is written with the first packet.
        track = None if sound is None else _sound_stream(output, SOUND_CODECS[container], sound)
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            if index in keyframes:
                picture.pict_type = PictureType.I
            output.mux(stream.encode(picture))
        output.mux(stream.encode())
        if sound is not None and track is not None:
            _write_sound(output, track, sound)


def _check(container: str, codecs: Collection[str], what: str) -> None:
    if container not in codecs:
        raise InvalidSetting(f"container={container!r}{what} is not one of {', '.join(codecs)}")


def _sound_stream(output: OutputContainer, encoder: str, sound: Sound) -> AudioStream:
    stream = cast("AudioStream", output.add_stream(encoder, rate=sound.rate))
    stream.codec_context.layout = "mono"
    stream.codec_context.format = "s16p"
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    return stream


def _write_sound(output: OutputContainer, stream: AudioStream, sound: Sound) -> None:
    samples = np.rint(np.clip(sound.samples, -1, 1) * 32767).astype(np.int16)[None]  # [1, N]
    block = stream.codec_context.frame_size
    for start in range(0, samples.shape[1], block):
        piece = np.ascontiguousarray(samples[:, start : start + block])
        frame = av.AudioFrame.from_ndarray(piece, format="s16p", layout="mono")
        frame.sample_rate = sound.rate
        frame.pts, frame.time_base = start, Fraction(1, sound.rate)
        output.mux(stream.encode(frame))
    output.mux(stream.encode())


def write_folder(path: Path, frames: NDArray[np.uint8]) -> None:
    """Write frames as `000001.png`, `000002.png`, ... to a new folder."""
    path.mkdir()
    for index, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(path / f"{index:06d}.png", compress_level=1)
