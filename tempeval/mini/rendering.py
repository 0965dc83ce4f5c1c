"""Render a set of clips to a folder: once, whole, and safely when several processes ask for it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tempeval.errors import TempevalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)

ANNOTATIONS = "annotations.json"

CHILD = """
import json, sys
from importlib import import_module
from pathlib import Path
sys.path[:] = json.loads(sys.argv[1])
from tempeval.mini.rendering import render_here
module, function, *arguments = json.loads(sys.argv[2])
clips = getattr(import_module(module), function)(*arguments)
render_here(clips, Path(sys.argv[3]), lambda done, total: print(done, total, flush=True))
"""


@dataclass(frozen=True)
class ClipSet:
    """What is rendered.

    Attributes:
        label: what to call it in messages.
        version: version of the suite.
        digest: changes when anything about the clips does.
        clips: pairs of a path in the folder and what writes the clip, a file or a folder, to
            another path.
        items: makes the questions, for `items` in `annotations.json`.
        maker: module, function and arguments that make this set again in a fresh interpreter.
    """

    label: str
    version: str
    digest: str
    clips: Sequence[tuple[str, Callable[[Path], None]]]
    items: Callable[[], list[dict[str, Any]]]
    maker: tuple[Any, ...]


def render(clips: ClipSet, folder: Path, progress: Progress | None = None) -> Path:
    """Render a set, unless the folder already holds it whole.

    A fresh interpreter does the work: decord, once imported, puts its own libvpx in the way of
    PyAV's, and no VP9 file can be written.

    Args:
        clips: what to render.
        folder: where to.
        progress: called with the number of clips done and their total, after every clip.

    Returns:
        The folder; `annotations.json` in it lists the questions under `items`.

    Raises:
        TempevalError: if rendering fails; the message ends with what the renderer said.
    """
    if is_complete(clips, folder):
        return folder
    logger.info("rendering %s to %s", clips.label, folder)
    made = [json.dumps(sys.path), json.dumps(clips.maker), str(folder)]
    with (
        TemporaryFile("w+", encoding="utf-8") as errors,
        subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", CHILD, *made], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as child,
    ):
        for line in child.stdout or ():
            if progress is not None:
                done, total = map(int, line.split())
                progress(done, total)
        if child.wait() != 0:
            errors.seek(0)
            said = errors.read()[-2000:]
            raise TempevalError(f"rendering {clips.label} to {str(folder)!r} failed: {said}")
    return folder


def render_here(clips: ClipSet, folder: Path, progress: Progress | None = None) -> None:
    """Render a set in this process, unless the folder already holds it whole.

    The annotations are written last and list the digest of every file, so a folder that was left
    half-written, or changed since, is rendered again. A lock lets one process at a time do so; it
    ends with its process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder / ".lock")):
        if not is_complete(clips, folder):
            _render(clips, folder, progress)


def is_complete(clips: ClipSet, folder: Path) -> bool:
    """Return whether a folder holds a set, every file as it was written."""
    try:
        record = json.loads((folder / ANNOTATIONS).read_text("utf-8"))
        if record["digest"] != clips.digest:
            return False
        files: dict[str, str] = record["files"]
        return all(file_digest(folder / name) == known for name, known in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _render(clips: ClipSet, folder: Path, progress: Progress | None) -> None:
    (folder / ANNOTATIONS).unlink(missing_ok=True)
    drafts = folder / "partial"
    shutil.rmtree(drafts, ignore_errors=True)
    drafts.mkdir()
    (folder / "videos").mkdir(exist_ok=True)
    files: dict[str, str] = {}
    for done, (name, write) in enumerate(clips.clips, start=1):
        draft, final = drafts / "draft", folder / name
        write(draft)
        if final.is_dir():
            shutil.rmtree(final)
        draft.replace(final)
        for path in _written(final):
            files[path.relative_to(folder).as_posix()] = file_digest(path)
        if progress is not None:
            progress(done, len(clips.clips))
    record: dict[str, Any] = {
        "version": clips.version,
        "digest": clips.digest,
        "files": files,
        "items": clips.items(),
    }
    draft = drafts / ANNOTATIONS
    draft.write_text(json.dumps(record, indent=1), "utf-8")
    draft.replace(folder / ANNOTATIONS)
    drafts.rmdir()


def _written(final: Path) -> Iterable[Path]:
    return sorted(final.iterdir()) if final.is_dir() else [final]


def file_digest(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
