"""The test clips and questions: 120 scenes with balanced answers, and their annotations."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from tempeval.mini.encode import CODECS
from tempeval.mini.questions import KINDS, answer
from tempeval.mini.scene import (
    ACTIONS,
    BALL_COLOURS,
    DIRECTIONS,
    LAMP_COLOURS,
    SIZES,
    SPEEDS,
    Facts,
    Scene,
    make_scene,
)

VERSION = "1"
"""Changes whenever the painting of a clip changes; part of every content hash."""
NUM_CLIPS = 120
SEED = 20_240


@dataclass(frozen=True)
class MiniClip:
    """A test clip.

    Attributes:
        name: unique name, such as `mini-007`.
        scene: what it shows.
        path: where its file or folder lies in the suite.
    """

    name: str
    scene: Scene
    path: str

    @property
    def is_folder(self) -> bool:
        """Whether the clip is a folder of numbered images."""
        return "." not in self.path

    @property
    def folder_fps(self) -> float | None:
        """Frames per second (1/s) of a frame folder, which has no clock of its own; else None."""
        return float(self.scene.fps) if self.is_folder else None


def _balanced(rng: np.random.Generator, values: list[Any]) -> list[Any]:
    """Return `NUM_CLIPS` values, each equally often, in random order."""
    repeated = [values[i % len(values)] for i in range(NUM_CLIPS)]
    return [repeated[i] for i in rng.permutation(NUM_CLIPS)]


def suite_clips() -> list[MiniClip]:
    """Return the test clips; the same on every call and machine."""
    rng = np.random.default_rng(SEED)
    columns = {
        "direction": _balanced(rng, list(DIRECTIONS)),
        "speed": _balanced(rng, list(SPEEDS)),
        "colours": _balanced(rng, list(permutations(BALL_COLOURS, 2))),
        "action": _balanced(rng, list(ACTIONS)),
        "lamp": _balanced(rng, list(permutations(LAMP_COLOURS, 2))),
    }
    sizes = _balanced(rng, list(SIZES))
    clips = []
    for index in range(NUM_CLIPS):
        facts = Facts(**{name: column[index] for name, column in columns.items()})
        scene = make_scene(np.random.default_rng([SEED, index]), facts, sizes[index])
        name = f"mini-{index:03d}"
        ending = {3: ".webm", 7: ""}.get(index % 10, ".mp4")
        clips.append(MiniClip(name, scene, f"videos/{name}{ending}"))
    return clips


def suite_records() -> list[dict[str, Any]]:
    """Return one JSON record per question, clip by clip."""
    records = []
    for clip in suite_clips():
        for kind in KINDS:
            right = answer(kind, clip.scene.facts)
            content = [VERSION, CODECS, clip.path, clip.scene.record(), kind.prompt, right]
            records.append(
                {
                    "sample_id": f"{clip.name}-{kind.name}",
                    "video_id": clip.name,
                    "video": clip.path,
                    "fps": clip.folder_fps,
                    "aspect": kind.aspect,
                    "kind": kind.name,
                    "question": kind.text,
                    "choices": list(kind.choices),
                    "answer": right,
                    "content_hash": _sha256(content)[:16],
                }
            )
    return records


def digest() -> str:
    """Return the digest of all annotations; names the suite's contents."""
    return _sha256(suite_records())[:16]


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
