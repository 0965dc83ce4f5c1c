"""Videos as the world has them: some that every run must survive, some that it must read."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import av
from video_files import rotate_metadata, write_audio, write_video

if TYPE_CHECKING:
    from collections.abc import Callable

#: Decode limit that a sound clip of this module stays far below.
TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Case:
    """A video that cannot be used.

    Attributes:
        name: file name.
        make: writes it, or does not.
        reason: regular expression that the sample's error matches.
    """

    name: str
    make: Callable[[Path], object]
    reason: str


def _nothing(_path: Path) -> None:
    """Leave the path free."""


def _without_index(path: Path) -> None:
    """Cut an MP4 before its index, which comes last."""
    data = write_video(path, range(60)).read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])


def _no_frames(path: Path) -> None:
    """Write the headers of a video stream and not one packet."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        out.start_encoding()


def _unknown_codec(path: Path) -> None:
    data = write_video(path, range(30)).read_bytes()
    path.write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_NONSENSE/CODE"))


#: `hangs.mp4` needs `--decode-timeout`, `dies.mp4` a `DecoderKiller`.
BAD = (
    Case("missing.mp4", _nothing, "no such file or folder"),
    Case("nowhere/gone.mp4", _nothing, "no such file, and no such folder '.*nowhere'"),
    Case("empty.mp4", Path.touch, r"the file is empty \(0 bytes\)"),
    Case("truncated.mp4", _without_index, "not a readable video: Invalid data"),
    Case("audio_only.mp4", write_audio, "has no video stream, only audio"),
    Case("zero_frames.avi", _no_frames, "no frame can be decoded"),
    Case("text.mp4", lambda path: path.write_text("not a video\n" * 99), "not a readable video"),
    Case("noise.mkv", lambda path: path.write_bytes(bytes(range(256)) * 40), "not a readable"),
    Case("unknown_codec.mkv", _unknown_codec, "its video codec is unknown to this build of FFmpeg"),
    Case("no_images.mp4", Path.mkdir, "a folder of images needs its frame rate"),
    Case("hangs.mp4", os.mkfifo, f"decoder timed out after {TIMEOUT_S:g} s"),
    Case("dies.mp4", os.mkfifo, r"decoder process died \(signal 11\)"),
)


def _cut_in_the_middle(path: Path) -> None:
    data = write_video(path, range(60)).read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])


def _irregular(path: Path) -> None:
    """Frames whose distances in time differ by a factor of ten."""
    steps = [33, 330, 33, 100, 200, 50] * 5
    write_video(path, range(30), milliseconds=[sum(steps[:n]) for n in range(30)])


#: Videos that are odd and must be answered, with the flags that their samples carry.
ODD: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "sound.mp4": (lambda path: write_video(path, range(60)), set()),
    "cut.mkv": (_cut_in_the_middle, {"truncated"}),
    "one_frame.mp4": (lambda path: write_video(path, range(1)), {"repeated_frames"}),
    "rotated.mp4": (lambda path: rotate_metadata(write_video(path, range(30)), 90), set()),
    "odd_size.mkv": (
        lambda path: write_video(path, range(30), size=(97, 161), pixel_format="yuv444p"),
        set(),
    ),
    "variable_rate.mkv": (_irregular, set()),
    "an_mp4.webm": (lambda path: write_video(path, range(30), container_format="mp4"), set()),
}


class DecoderKiller:
    """Waits for a decoder to open a named pipe, and kills it (SIGSEGV) while it reads.

    Args:
        pipe: the video that the decoder is asked for.
    """

    def __init__(self, pipe: Path) -> None:
        self.pipe = pipe
        self.killed: list[int] = []
        # A daemon: opening the pipe would wait for ever if no decoder came.
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with self.pipe.open("wb"):
            for process in _readers(self.pipe):
                os.kill(process, signal.SIGSEGV)
                self.killed.append(process)


def _readers(path: Path) -> list[int]:
    """Return the other processes that have a file open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == path and int(link.parts[2]) != os.getpid():
                found.add(int(link.parts[2]))
        except OSError:
            continue
    return sorted(found)
