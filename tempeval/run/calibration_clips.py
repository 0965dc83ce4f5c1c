"""Which clips a calibration may see: a folder or list of videos, or rendered ones; no test data."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tempeval.errors import InvalidSetting
from tempeval.mini.encode import write_folder
from tempeval.mini.paint import paint_frames
from tempeval.mini.paths import default_suite_dir
from tempeval.mini.rendering import ANNOTATIONS
from tempeval.mini.scene import make_scene
from tempeval.video.clip import VIDEO_SUFFIXES, VideoRef

if TYPE_CHECKING:
    from collections.abc import Iterable

MINI = "mini"
#: Folder names that say whether a benchmark trains on or evaluates what is in them.
TRAIN_SPLITS = frozenset({"train", "training"})
TEST_SPLITS = frozenset({"test", "testing", "tests", "val", "valid", "validation", "eval"})


@dataclass(frozen=True)
class CalibrationClip:
    """One clip, and how a calibration file names it."""

    ref: VideoRef
    name: str
    digest: str


def find_clips(source: str, limit: int, seed: int, scratch: Path) -> list[CalibrationClip]:
    """Return the clips of a source, in a fixed order.

    Args:
        source: `mini` (scenes drawn as the mini suite's training draws them), a folder that is
            searched for videos, or a text file with one path per line.
        limit: most clips; of more files, evenly spaced ones are taken.
        seed: of the drawn scenes.
        scratch: folder that rendered clips are written to.

    Raises:
        InvalidSetting: for a source without clips, a missing file, or one that is recognised as
            test data (see `refuse_test_data`).
    """
    if limit < 1:
        raise InvalidSetting(f"limit={limit}; accepted: 1 clip or more")
    if source == MINI:
        return [_rendered(seed, number, scratch) for number in range(limit)]
    paths = list(_files(Path(source).expanduser()))
    if not paths:
        raise InvalidSetting(
            f"{source!r} has no video; accepted: {MINI!r}, a folder with files ending in "
            f"{', '.join(sorted(VIDEO_SUFFIXES))}, or a text file with one path per line"
        )
    for path in paths:
        if not path.is_file():
            raise InvalidSetting(f"{str(path)!r}, listed in {source!r}, is not a file")
    places = np.linspace(0, len(paths) - 1, min(limit, len(paths))).round().astype(int)
    clips = [
        CalibrationClip(VideoRef(str(paths[i])), paths[i].name, _file_digest(paths[i]))
        for i in places.tolist()
    ]
    refuse_test_data(clips)
    return clips


def refuse_test_data(clips: Iterable[CalibrationClip]) -> None:
    """Refuse clips that are known to be test data.

    Known are: the mini suite's own test clips, by content; whatever lies below the Hugging Face
    cache, where lmms-eval puts the videos of its benchmarks; and files below a folder called
    `test`, `val` or the like, unless one called `train` is nearer. Test clips that were copied
    elsewhere under other names are not recognised.

    Raises:
        InvalidSetting: naming the first one and why.
    """
    mini = _mini_digests()
    cache = _hub_cache()
    for clip in clips:
        path = Path(clip.ref.path).resolve()
        why = ""
        if clip.digest in mini:
            why = "it is a test clip of the mini suite"
        elif path.is_relative_to(cache):
            why = f"it lies below {cache}, where lmms-eval keeps the videos of benchmarks"
        elif (split := _split_of(path)) in TEST_SPLITS:
            why = f"it lies in a folder called {split!r}"
        if why:
            raise InvalidSetting(
                f"{clip.ref.path!r} may not be used for calibration: {why}. Ranges taken from test "
                "data would leak it into the method; use training clips, in a folder of their own"
            )


def _files(source: Path) -> Iterable[Path]:
    if source.is_dir():
        found = (path for path in source.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
        return sorted(path for path in found if path.is_file())
    if not source.is_file():
        raise InvalidSetting(
            f"clips {str(source)!r} do not exist; accepted: {MINI!r}, a folder, or a text file "
            "with one path per line"
        )
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InvalidSetting(
            f"{str(source)!r} is not a text file; give a folder, or a list with one path per line"
        ) from None
    return [source.parent / line.strip() for line in lines if line.strip()]


def _split_of(path: Path) -> str | None:
    """Return the name of the nearest folder above a file that names a split."""
    names = (part.lower() for part in reversed(path.parent.parts))
    return next((name for name in names if name in TRAIN_SPLITS | TEST_SPLITS), None)


def _rendered(seed: int, number: int, scratch: Path) -> CalibrationClip:
    # Training draws from [seed, 1] and the test clips from [SEED, index]: three keys are neither.
    scene = make_scene(np.random.default_rng([seed, 2, number + 1]))
    frames = paint_frames(scene)
    scratch.mkdir(parents=True, exist_ok=True)
    folder = scratch / f"scene-{number:04d}"
    write_folder(folder, frames)
    digest = hashlib.sha256(frames.tobytes()).hexdigest()
    ref = VideoRef(str(folder), fps=float(scene.fps))
    return CalibrationClip(ref, f"mini scene {number} of seed {seed}", digest)


def _mini_digests() -> frozenset[str]:
    """Return the digests of the mini suite's test clips, where it has been rendered."""
    try:
        record = json.loads((default_suite_dir() / ANNOTATIONS).read_text("utf-8"))
        return frozenset(record["files"].values())
    except (OSError, ValueError, KeyError):
        return frozenset()


def _hub_cache() -> Path:
    return Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser().resolve()


def _file_digest(path: Path) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            whole.update(block)
    return whole.hexdigest()
