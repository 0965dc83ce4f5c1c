"""Render the test clips of the mini suite to a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.mini import rendering
from tempeval.mini.encode import write_folder, write_video
from tempeval.mini.paint import paint_frames
from tempeval.mini.rendering import ClipSet
from tempeval.mini.suite import VERSION, digest, suite_clips, suite_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.mini.suite import MiniClip


def mini_clips() -> ClipSet:
    """Return the suite as a set of clips to render."""
    return ClipSet(
        label="the mini suite",
        version=VERSION,
        digest=digest(),
        clips=[(clip.path, partial(_write, clip)) for clip in suite_clips()],
        items=suite_records,
        maker=(__name__, mini_clips.__name__),
    )


def render_suite(
    folder: Path | str | None = None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Render the suite, unless the folder already holds it whole.

    Args:
        folder: where to; the user's cache if not given.
        progress: called with the number of clips done and their total, after every clip.

    Returns:
        The folder; `annotations.json` in it lists the questions.

    Raises:
        TempevalError: if rendering fails; the message ends with what the renderer said.
    """
    from tempeval.mini.paths import default_suite_dir

    target = Path(folder) if folder is not None else default_suite_dir()
    return rendering.render(mini_clips(), target, progress)


def render_here(folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Render the suite in this process, unless the folder already holds it whole."""
    rendering.render_here(mini_clips(), folder, progress)


def is_complete(folder: Path) -> bool:
    """Return whether a folder holds this version of the suite, every file as it was written."""
    return rendering.is_complete(mini_clips(), folder)


def _write(clip: MiniClip, draft: Path) -> None:
    frames = paint_frames(clip.scene)
    if clip.is_folder:
        write_folder(draft, frames)
    else:
        write_video(draft, frames, clip.scene.fps, Path(clip.path).suffix[1:])
