"""Keep a block of a document, such as a README, current: what stands between two markers."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.leaderboard.errors import LeaderboardError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MARKER = "tempeval-leaderboard"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_INDENTED = re.compile(r" {0,3}\t| {4}")


class BadMarkers(LeaderboardError):
    """A document whose block cannot be replaced without guessing where it is.

    Args:
        path: the document.
        name: the name of the block.
        reason: what is wrong, with line numbers.
        action: what to do, where that is not to write the markers.
    """

    def __init__(self, path: Path, name: str, reason: str, action: str = "") -> None:
        self.path, self.name, self.reason = path, name, reason
        first, last = _markers(name)
        markers = (
            f"Give one line '{first}' and, below it, one line '{last}'; "
            "the leaderboard replaces what is between them"
        )
        super().__init__(f"{path}: {reason}. {action or markers}")


def update_block(path: Path, text: str, name: str = MARKER) -> bool:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` in a document.

    The markers stand on lines of their own; lines inside code blocks and comments are not markers,
    so a document may show how to write them. Line ends, byte order mark and permissions stay as
    they are. The new document appears at once or not at all, and is not written when nothing
    changes.

    Args:
        path: the document, UTF-8; a link is followed.
        text: markdown that takes the place of the block's content.
        name: the name of the block.

    Returns:
        True when the document changed.

    Raises:
        BadMarkers: the document is missing or not UTF-8, a marker is missing, there are several,
            they are in the wrong order, or the text itself has a marker as a line.
        OSError: the document cannot be read or written.
    """
    if not _NAME.fullmatch(name):
        raise BadMarkers(path, name, f"{name!r} is no name of a block (letters, digits, . _ -)")
    try:
        old = path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise BadMarkers(path, name, "there is no such file") from None
    except UnicodeDecodeError as error:
        reason = f"not UTF-8 (byte {error.start})"
        raise BadMarkers(path, name, reason, "Save it as UTF-8") from None
    lines = old.splitlines(keepends=True)
    start, end = _place(path, name, lines)
    content = _lines(text)
    if any(line.strip() in _markers(name) for line in content):
        raise BadMarkers(path, name, "the text to insert has a marker of its own")
    line_end = "\r\n" if lines[start].endswith("\r\n") else "\n"
    block = [line + line_end for line in content]
    new = "".join([*lines[: start + 1], *block, *lines[end:]])
    if new == old:
        return False
    _replace(path.resolve(), new.encode("utf-8", errors="backslashreplace"))
    return True


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def _lines(text: str) -> list[str]:
    return text.strip("\r\n").replace("\r\n", "\n").split("\n") if text.strip() else []


def _place(path: Path, name: str, lines: Sequence[str]) -> tuple[int, int]:
    """Return the line numbers, from 0, of the two markers."""
    first, last = _markers(name)
    found: dict[str, list[int]] = {first: [], last: []}
    for number, line in _shown(lines):
        if line in found:
            found[line].append(number)
    for marker, numbers in found.items():
        if not numbers:
            raise BadMarkers(path, name, f"there is no line '{marker}'")
        if len(numbers) > 1:
            places = ", ".join(str(number + 1) for number in numbers)
            raise BadMarkers(path, name, f"'{marker}' stands in lines {places}")
    (start,), (end,) = found[first], found[last]
    if end < start:
        reason = f"'{last}' (line {end + 1}) stands above '{first}' (line {start + 1})"
        raise BadMarkers(path, name, reason)
    return start, end


def _shown(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are in no code block or longer comment, stripped, with their numbers.

    As in CommonMark: a fenced block ends with a fence of the same character, at least as long and
    with nothing after it, a comment with the line that has its end, and both with the document.
    """
    fence, in_comment = "", False
    for number, raw in enumerate(lines):
        line = raw.lstrip("\ufeff")
        if in_comment:
            in_comment = "-->" not in line
            continue
        mark = _FENCE.fullmatch(line.rstrip("\r\n"))
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
        elif mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence = mark[1]
        elif not _INDENTED.match(line):
            in_comment = line.lstrip().startswith("<!--") and "-->" not in line
            yield number, line.strip()


def _replace(path: Path, content: bytes) -> None:
    """Write beside the file and move it there, with the permissions of the old one."""
    mode = path.stat().st_mode & 0o7777
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(part).chmod(mode)
        Path(part).replace(path)
    finally:
        Path(part).unlink(missing_ok=True)
