"""Side-channel suites: questions that the sampled frames alone cannot answer, by name.

A suite has test clips, fixed for ever, and training clips, drawn from a seed. Both come as scenes
in memory (`test_scenes`, `training_scenes`) and as splits that `side_render.render_split` writes to
files.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import typing
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.mini.encode import CODECS, KEYED_CODECS, SOUND_CODECS, write_video

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from tempeval.mini.questions import Kind
    from tempeval.mini.sound import Sound

SIDE_SUITES = {
    "audio": "tempeval.mini.sound_suite:SUITE",
    "highfps": "tempeval.mini.highfps_suite:SUITE",
}
CONTAINER = "mp4"
SEED = 20_261
TEST, TRAINING = 1, 2
"""Third number of every seed: no seed of a training split can be that of a test clip."""


class SideScene(Protocol):
    """Everything needed to make a clip and to know the answers about it."""

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        ...

    @property
    def num_frames(self) -> int:
        """Frames in the file."""
        ...

    @property
    def fps(self) -> int:
        """Frames per second (1/s)."""
        ...

    @property
    def keyframes(self) -> tuple[int, ...]:
        """Frames that have to be coded alone."""
        ...

    def paint(self, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Return frames (all if none are named) before encoding, uint8 `[T, H, W, 3]`."""
        ...

    def sound(self) -> Sound | None:
        """Return the sound before encoding, or None for a silent clip."""
        ...

    def answers(self) -> dict[str, str]:
        """Return the right answer to each kind of question, by its name."""
        ...

    def record(self) -> dict[str, Any]:
        """Return the scene as plain JSON values."""
        ...


@dataclass(frozen=True)
class SideClip:
    """A clip of a split.

    Attributes:
        name: unique name, such as `mini-audio-007`.
        scene: what it shows.
        path: where its file lies in the split's folder.
    """

    name: str
    scene: SideScene
    path: str

    def write(self, path: Path) -> None:
        """Encode the clip to a file."""
        scene = self.scene
        frames = scene.paint()
        write_video(path, frames, scene.fps, CONTAINER, scene.sound(), scene.keyframes)


@dataclass(frozen=True)
class SideSuite:
    """One suite.

    Attributes:
        name: one of `SIDE_SUITES`.
        version: changes whenever the making of a clip changes; part of every content hash.
        key: second number of every seed, so that suites share none.
        kinds: of questions; each is asked once about every clip.
        draw: draws a scene from a source of randomness, of a size in pixels if one is given.
        arrange: makes the test scenes, with balanced answers, from a source of randomness and one
            for each scene.
    """

    name: str
    version: str
    key: int
    kinds: tuple[Kind, ...]
    draw: Callable[[np.random.Generator, tuple[int, int] | None], SideScene]
    arrange: Callable[
        [np.random.Generator, Callable[[int], np.random.Generator]], Sequence[SideScene]
    ]

    def test_scenes(self) -> list[SideScene]:
        """Return the scenes of the test split; the same on every call and machine."""
        return list(self.arrange(self._rng(SEED, TEST, 1), lambda i: self._rng(SEED, TEST, 2, i)))

    def training_scenes(
        self, seed: int, size: tuple[int, int] | None = None
    ) -> Iterator[SideScene]:
        """Yield training scenes without end.

        Args:
            seed: 0 or more; each gives other scenes, none of them a test scene.
            size: (width, height) in pixels of all of them; mixed if not given.

        Raises:
            InvalidSetting: if the seed is negative, or the size is none of the suite's.
        """
        if seed < 0:
            raise InvalidSetting(f"seed={seed} must be 0 or more")
        rng = self._rng(seed, TRAINING)
        while True:
            yield self.draw(rng, size)

    def _rng(self, seed: int, *keys: int) -> np.random.Generator:
        return np.random.default_rng([seed, self.key, *keys])

    def answers(self, scene: SideScene) -> list[str]:
        """Return the right answers about a scene, in the order of `kinds`."""
        answers = scene.answers()
        return [answers[kind.name] for kind in self.kinds]

    @cached_property
    def test(self) -> Split:
        """The test split."""
        return self._split("test", self.test_scenes())

    def train(self, count: int, seed: int = 0) -> Split:
        """Return a split of the first `count` training scenes of a seed.

        Raises:
            InvalidSetting: if the count is not positive, or the seed is negative.
        """
        if count < 1:
            raise InvalidSetting(f"count={count} must be at least 1")
        stream = self.training_scenes(seed)
        return self._split("train", [next(stream) for _ in range(count)], seed)

    def _split(self, name: str, scenes: list[SideScene], seed: int | None = None) -> Split:
        stem = f"mini-{self.name}" + ("" if seed is None else f"-{name}-{seed}")
        names = [f"{stem}-{index:03d}" for index in range(len(scenes))]
        return Split(
            self,
            name,
            seed,
            tuple(
                SideClip(found, scene, f"videos/{found}.{CONTAINER}")
                for found, scene in zip(names, scenes, strict=True)
            ),
        )


@dataclass(frozen=True)
class Split:
    """Clips of a suite and the questions about them.

    Attributes:
        suite: whose.
        name: `test` or `train`.
        seed: of training clips; None for the test split.
        clips: all of them.
    """

    suite: SideSuite
    name: str
    seed: int | None
    clips: tuple[SideClip, ...]

    def records(self) -> list[dict[str, Any]]:
        """Return one JSON record per question, clip by clip, as `tempeval.mini.suite` does."""
        codecs = [CODECS[CONTAINER], KEYED_CODECS[CONTAINER], SOUND_CODECS[CONTAINER]]
        records = []
        for clip in self.clips:
            answers, made = clip.scene.answers(), clip.scene.record()
            for kind in self.suite.kinds:
                right = answers[kind.name]
                content = [self.suite.version, codecs, clip.path, made, kind.prompt, right]
                records.append(
                    {
                        "sample_id": f"{clip.name}-{kind.name}",
                        "video_id": clip.name,
                        "video": clip.path,
                        "fps": None,
                        "aspect": kind.aspect,
                        "kind": kind.name,
                        "question": kind.text,
                        "choices": list(kind.choices),
                        "answer": right,
                        "content_hash": _sha256(content)[:16],
                    }
                )
        return records

    @cached_property
    def digest(self) -> str:
        """The digest of all records; names the split's contents."""
        return _sha256(self.records())[:16]


def side_suite(name: str) -> SideSuite:
    """Return a side-channel suite.

    Raises:
        UnknownName: if there is none of that name.
    """
    if name not in SIDE_SUITES:
        raise UnknownName("side-channel suite", name, SIDE_SUITES)
    module, attribute = SIDE_SUITES[name].split(":")
    return typing.cast("SideSuite", getattr(importlib.import_module(module), attribute))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
