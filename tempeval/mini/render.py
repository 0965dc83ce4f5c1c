"""Render the test clips to a folder: once, whole, and safely when several processes ask for it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock

from tempeval.errors import TempevalError
from tempeval.mini.encode import write_folder, write_video
from tempeval.mini.paint import paint_frames
from tempeval.mini.suite import VERSION, digest, suite_clips, suite_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.mini.suite import MiniClip

logger = logging.getLogger(__name__)

ANNOTATIONS = "annotations.json"

CHILD = """
import json, sys
from pathlib import Path
sys.path[:] = json.loads(sys.argv[1])
from tempeval.mini.render import render_here
render_here(Path(sys.argv[2]), lambda done, total: print(done, total, flush=True))
"""


def render_suite(
    folder: Path | str | None = None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Render the suite, unless the folder already holds it whole.

    A fresh interpreter does the work: decord, once imported, puts its own libvpx in the way of
    PyAV's, and no VP9 file can be written.

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
    if is_complete(target):
        return target
    logger.info("rendering the mini suite to %s", target)
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path), str(target)]
    with (
        TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as child,  # noqa: S603
    ):
        for line in child.stdout or ():
            if progress is not None:
                done, total = map(int, line.split())
                progress(done, total)
        if child.wait() != 0:
            errors.seek(0)
            said = errors.read()[-2000:]
            raise TempevalError(f"rendering the mini suite to {str(target)!r} failed: {said}")
    return target


def render_here(folder: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Render the suite in this process, unless the folder already holds it whole.

    The annotations are written last and list the digest of every file, so a folder that was left
    half-written, or changed since, is rendered again. A lock lets one process at a time do so; it
    ends with its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder / ".lock")):
        if not is_complete(folder):
            _render(folder, progress)


def is_complete(folder: Path) -> bool:
    """Return whether a folder holds this version of the suite, every file as it was written."""
    try:
        record = json.loads((folder / ANNOTATIONS).read_text("utf-8"))
        if record["digest"] != digest():
            return False
        files: dict[str, str] = record["files"]
        return all(_file_digest(folder / name) == known for name, known in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _render(folder: Path, progress: Callable[[int, int], None] | None) -> None:
    (folder / ANNOTATIONS).unlink(missing_ok=True)
    shutil.rmtree(folder / "partial", ignore_errors=True)
    (folder / "partial").mkdir()
    (folder / "videos").mkdir(exist_ok=True)
    clips = suite_clips()
    files: dict[str, str] = {}
    for done, clip in enumerate(clips, start=1):
        files |= _render_clip(folder, clip)
        if progress is not None:
            progress(done, len(clips))
    record: dict[str, Any] = {
        "version": VERSION,
        "digest": digest(),
        "files": files,
        "items": suite_records(),
    }
    draft = folder / "partial" / ANNOTATIONS
    draft.write_text(json.dumps(record, indent=1), "utf-8")
    draft.replace(folder / ANNOTATIONS)
    (folder / "partial").rmdir()


def _render_clip(folder: Path, clip: MiniClip) -> dict[str, str]:
    """Write one clip and return the digests of its files."""
    draft, final = folder / "partial" / uuid4().hex, folder / clip.path
    frames = paint_frames(clip.scene)
    if final.is_dir():
        shutil.rmtree(final)
    if clip.is_folder:
        write_folder(draft, frames)
    else:
        write_video(draft, frames, clip.scene.fps, final.suffix[1:])
    draft.replace(final)
    written = sorted(final.iterdir()) if clip.is_folder else [final]
    return {path.relative_to(folder).as_posix(): _file_digest(path) for path in written}


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
