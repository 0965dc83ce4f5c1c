"""Render a split of a side-channel suite: once, whole, and safely when several processes ask.

As `tempeval.mini.render` does for the mini suite.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tempeval.errors import TempevalError
from tempeval.mini.paths import cache_dir
from tempeval.mini.render import ANNOTATIONS
from tempeval.mini.side import side_suite

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.mini.side import SideClip, Split

logger = logging.getLogger(__name__)

CHILD = """
import json, sys
from pathlib import Path
sys.path[:] = json.loads(sys.argv[1])
from tempeval.mini.side import side_suite
from tempeval.mini.side_render import render_here
name, count, seed = json.loads(sys.argv[2])
suite = side_suite(name)
split = suite.test if seed is None else suite.train(count, seed)
render_here(split, Path(sys.argv[3]), lambda done, total: print(done, total, flush=True))
"""


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

    A fresh interpreter does the work, as for the mini suite: decord, once imported, gets in the way
    of PyAV's encoders.

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
    if is_complete(split, target):
        return target
    logger.info("rendering the %s split of mini %s to %s", split.name, split.suite.name, target)
    asked = json.dumps([split.suite.name, len(split.clips), split.seed])
    command = [sys.executable, "-c", CHILD, json.dumps(sys.path), asked, str(target)]
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
            raise TempevalError(f"rendering {split.suite.name!r} to {str(target)!r} failed: {said}")
    return target


def render_here(
    split: Split, folder: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Render a split in this process, unless the folder already holds it whole.

    The annotations are written last and list the digest of every file, so a folder that was left
    half-written, or changed since, is rendered again. A lock lets one process at a time do so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(str(folder / ".lock")):
        if not is_complete(split, folder):
            _render(split, folder, progress)


def is_complete(split: Split, folder: Path) -> bool:
    """Return whether a folder holds a split, every file as it was written."""
    try:
        record = json.loads((folder / ANNOTATIONS).read_text("utf-8"))
        if record["digest"] != split.digest:
            return False
        files: dict[str, str] = record["files"]
        return all(_file_digest(folder / name) == known for name, known in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _render(split: Split, folder: Path, progress: Callable[[int, int], None] | None) -> None:
    (folder / ANNOTATIONS).unlink(missing_ok=True)
    drafts = folder / "partial"
    shutil.rmtree(drafts, ignore_errors=True)
    drafts.mkdir()
    (folder / "videos").mkdir(exist_ok=True)
    files: dict[str, str] = {}
    for done, clip in enumerate(split.clips, start=1):
        files[clip.path] = _render_clip(folder, clip)
        if progress is not None:
            progress(done, len(split.clips))
    record: dict[str, Any] = {
        "version": split.suite.version,
        "digest": split.digest,
        "files": files,
        "items": split.records(),
    }
    draft = drafts / ANNOTATIONS
    draft.write_text(json.dumps(record, indent=1), "utf-8")
    draft.replace(folder / ANNOTATIONS)
    drafts.rmdir()


def _render_clip(folder: Path, clip: SideClip) -> str:
    """Write one clip and return its digest."""
    draft = folder / "partial" / f"{clip.name}.draft"
    clip.write(draft)
    draft.replace(folder / clip.path)
    return _file_digest(folder / clip.path)


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
