"""Where the mini suite and its checkpoints lie."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from tempeval.errors import UnknownName
from tempeval.mini.suite import VERSION, digest

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def cache_dir() -> Path:
    """Return the user's cache folder: `$TEMPEVAL_CACHE`, else `tempeval` in the system's own."""
    if chosen := os.environ.get("TEMPEVAL_CACHE"):
        return Path(chosen).expanduser()
    system = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(system).expanduser() / "tempeval"


def default_suite_dir() -> Path:
    """Return the folder of this version of the suite in the cache; it need not exist."""
    return cache_dir() / "mini" / f"{VERSION}-{digest()}"


@lru_cache(maxsize=1)
def suite_dir() -> Path:
    """Return the folder of the rendered suite, rendering it on first use."""
    from tempeval.mini.render import render_suite

    return render_suite()


def checkpoint(family: str = "qwen2_5_vl") -> Path:
    """Return the folder of the tiny checkpoint of a family that ships with the package.

    Raises:
        UnknownName: if no checkpoint of that family ships.
    """
    folder = CHECKPOINTS / family
    if not (folder / "tokenizer.json").is_file():
        known = sorted(path.parent.name for path in CHECKPOINTS.glob("*/tokenizer.json"))
        raise UnknownName("mini checkpoint", family, known)
    return folder


def located_adapter(name: str) -> str:
    """Return the folder of a shipped PAVE adapter, and any other adapter's path as it is.

    Args:
        name: `mini:audio`, `mini:highfps`, or a path.

    Raises:
        UnknownName: if no adapter of that name ships.
    """
    if not is_mini(name):
        return name
    own = name.partition(":")[2]
    folder = CHECKPOINTS / f"pave_{own}"
    if not (folder / "pave.safetensors").is_file():
        shipped = sorted(path.parent.name for path in CHECKPOINTS.glob("pave_*/pave.safetensors"))
        known = [f"mini:{found.removeprefix('pave_')}" for found in shipped]
        raise UnknownName("PAVE adapter", name, known)
    return str(folder)


def is_mini(pretrained: str) -> bool:
    """Say whether a model's name is that of a shipped checkpoint: `mini`, or `mini:NAME`."""
    return pretrained == "mini" or pretrained.startswith("mini:")


def located(pretrained: str) -> str:
    """Return the folder of a shipped checkpoint, and any other checkpoint's name as it is.

    Args:
        pretrained: `mini`, `mini:NAME` (as `mini:video_llava`), a folder, or a hub id.

    Raises:
        UnknownName: if no checkpoint of that name ships.
    """
    if not is_mini(pretrained):
        return pretrained
    name = pretrained.partition(":")[2]
    return str(checkpoint(name) if name else checkpoint())
