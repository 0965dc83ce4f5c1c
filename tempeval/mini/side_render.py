"""Render a split of a side-channel suite to a folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.mini import rendering
from tempeval.mini.paths import cache_dir
from tempeval.mini.rendering import ClipSet
from tempeval.mini.side import side_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.mini.side import Split


def split_dir(split: Split) -> Path:
    """Return the folder of a split in the user's cache; it need not exist.

    Its name says whether it is test data: `.../mini-audio/test/1-0123456789abcdef`.
    """
    suite = split.suite
    return cache_dir() / f"mini-{suite.name}" / split.name / f"{suite.version}-{split.digest}"


@cache
def rendered_test_split(suite: str) -> Path:
    """Return the folder of a suite's test clips, rendering them on first use.

    Raises:
        UnknownName: if there is no such suite.
        TempevalError: if rendering fails.
    """
    return render_split(side_suite(suite).test)


def render_split(
    split: Split,
    folder: Path | str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render a split, unless the folder already holds it whole.

    Args:
        split: what to render.
        folder: where to; the user's cache if not given.
        progress: called with the number of clips done and their total, after every clip.

    Returns:
        The folder; `annotations.json` in it lists the questions under `items`.

    Raises:
        TempevalError: if rendering fails; the message ends with what the renderer said.
    """
    target = Path(folder) if folder is not None else split_dir(split)
    return rendering.render(_clip_set(split), target, progress)


def render_here(
    split: Split, folder: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Render a split in this process, unless the folder already holds it whole."""
    rendering.render_here(_clip_set(split), folder, progress)


def is_complete(split: Split, folder: Path) -> bool:
    """Return whether a folder holds a split, every file as it was written."""
    return rendering.is_complete(_clip_set(split), folder)


def split_clips(name: str, count: int, seed: int | None) -> ClipSet:
    """Return a split of a suite as a set of clips: the test split when there is no seed."""
    suite = side_suite(name)
    return _clip_set(suite.test if seed is None else suite.train(count, seed))


def _clip_set(split: Split) -> ClipSet:
    return ClipSet(
        label=f"the {split.name} split of mini {split.suite.name}",
        version=split.suite.version,
        digest=split.digest,
        clips=[(clip.path, clip.write) for clip in split.clips],
        items=split.records,
        maker=(__name__, split_clips.__name__, split.suite.name, len(split.clips), split.seed),
    )
