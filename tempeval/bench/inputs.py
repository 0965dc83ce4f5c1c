"""The inputs of a benchmark: rendered video files, questions and labels; the same on every run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tempeval.mini.encode import write_video

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FPS = 25
#: Source frames between two sampled ones: both samplers then choose the same frames exactly.
STRIDE = 6

_COLOURS = ("red", "blue", "green", "yellow", "white")
_FORMS = (
    "Is the {0} square moving faster than the {1} square? Please answer yes or no:",
    "Which way does the {0} square move after the {1} square stops?\nA. left\nB. right\nC. up\n"
    "D. down\nPlease directly give the best option:",
    "What does the {0} square do before it turns {1}?\nA. it grows\nB. it spins\nC. it waits\n"
    "Please directly give the best option:",
    "Does the {0} square appear before the {1} square? Please answer yes or no:",
)
_VERBS = (
    "Pushing",
    "Pulling",
    "Lifting",
    "Dropping",
    "Turning",
    "Moving",
    "Throwing",
    "Rolling",
    "Covering",
    "Opening",
    "Closing",
    "Shaking",
    "Folding",
    "Tilting",
    "Spinning",
)
_ENDINGS = (
    "something up",
    "something down",
    "something from left to right",
    "something from right to left",
    "something away from the camera",
    "something until it falls off the table",
    "something onto something",
    "something without letting it drop",
    "two things closer to each other",
    "something behind something",
    "something so that it almost tips over",
    "something with both hands",
)


def questions(count: int) -> list[str]:
    """Return different questions of about 20 to 45 tokens, yes/no and multiple choice by turns."""
    pairs = [(a, b) for a in _COLOURS for b in _COLOURS if a != b]
    made = [
        _FORMS[number % len(_FORMS)].format(*pairs[number // len(_FORMS) % len(pairs)])
        for number in range(count)
    ]
    # Beyond 80 the forms repeat; a number keeps the questions apart.
    size = len(_FORMS) * len(pairs)
    return [text if n < size else f"({n // size}) {text}" for n, text in enumerate(made)]


def labels(count: int) -> list[str]:
    """Return different action labels in the style of Something-Something, of 3 to 10 tokens."""
    size = len(_VERBS) * len(_ENDINGS)
    made = []
    for number in range(count):
        # A step that is prime to the size mixes verbs and endings.
        place = number * 7 % size
        text = f"{_VERBS[place // len(_ENDINGS)]} {_ENDINGS[place % len(_ENDINGS)]}"
        made.append(text if number < size else f"{text} {number // size}")
    return made


def corpus() -> list[str]:
    """Return the texts that the random checkpoints' tokenizer is trained on."""
    texts = ["system user assistant You are a helpful assistant.", "yes no"]
    return [*texts, *questions(80), *labels(len(_VERBS) * len(_ENDINGS))]


def write_clip(path: Path, frames: int, size: tuple[int, int], seed: int) -> Path:
    """Render moving squares on a gradient to a video file with more frames than are sampled.

    Args:
        path: file to write.
        frames: frames that will be sampled; the file has `STRIDE * (frames - 1) + 1`.
        size: (height, width) in pixels.
        seed: of the squares.
    """
    write_video(path, _frames(STRIDE * (frames - 1) + 1, size, seed), FPS, "mp4")
    return path


def _frames(count: int, size: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    height, width = size
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    ground = np.stack([columns * 255 // width, rows * 255 // height, 0 * rows + 60], axis=-1)
    video = np.repeat(ground.astype(np.uint8)[None], count, axis=0)
    side = max(min(size) // 5, 2)
    for _ in range(3):
        colour = rng.integers(0, 256, 3)
        start, speed = rng.uniform(0, size), rng.uniform(-3, 3, 2)
        for number in range(count):
            top, left = (start + speed * number) % (np.array(size) - side)
            video[number, int(top) : int(top) + side, int(left) : int(left) + side] = colour
    return video
