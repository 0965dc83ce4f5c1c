"""Write files whole or not at all."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write files beside their places first, and move them there when all are written.

    Args:
        contents: bytes by path; folders are made.

    Raises:
        OSError: a file cannot be written; those that were there stay as they were.
    """
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in contents}
    try:
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_bytes(content)
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
