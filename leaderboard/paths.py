"""Take the folders of the machine out of what a run says: they name users, not what was measured.

A path is what `keys.model_name` takes for one: from the root, the home folder, the current or the
parent folder, or a drive. `org/name` is none: that is how hubs name models.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

_START = r"(?:file://)?(?:/|~[\w.-]*/|\.{1,2}/|[A-Za-z]:[\\/]|\\\\)"
# A path that is the whole text may have spaces; one in a sentence ends where a name would.
_WHOLE = re.compile(rf"{_START}[^\n]*")
# In a sentence "/b" alone may be anything, such as the end of "</b>" or a unit.
_INSIDE = re.compile(rf"(?<![\w:./\\~<-])(?!/[^/\s]*(?:\s|$)){_START}[^\s'\",;:()<>\[\]{{}}|]*")
_VALUE = re.compile(rf"(^|[=,:])({_START}[^,]*)")


def without_folders(value: Any, key: str = "") -> Any:
    """Reduce every path in a JSON value to its last part.

    Args:
        value: of a run's facts; objects and lists are copied.
        key: under which it stands; `command` is taken for a command line.

    Returns:
        The value with the same keys and types.
    """
    if isinstance(value, dict):
        return {_text(name): without_folders(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [without_folders(part) for part in value]
    if not isinstance(value, str):
        return value
    return _command(value) if key == "command" else _text(value)


def _text(text: str) -> str:
    if _WHOLE.fullmatch(text):
        return _last(text)
    return _INSIDE.sub(lambda found: _last(found[0]), text)


def _command(line: str) -> str:
    """Reduce the paths of a command line, word by word: a quoted path may have spaces."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote: no command line after all
        return _text(line)
    short = [_VALUE.sub(lambda found: found[1] + _last(found[2]), word) for word in words]
    return line if short == words else shlex.join(short)


def _last(path: str) -> str:
    """Give the last part of a path; a full stop after it may end a sentence and stays."""
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or path[-1:]
