"""Read a JSON object of a file, so that whatever it holds can be written again."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from tempeval.leaderboard.errors import BadRecord

if TYPE_CHECKING:
    from pathlib import Path

# Records have about five levels; far more would not fit the stack of who writes or shows them.
_MOST_LEVELS = 50


def parse_object(path: Path, text: bytes, action: str) -> dict[str, Any]:
    """Parse a file that holds one object.

    Args:
        path: where it was read, for messages.
        text: the file's bytes.
        action: what to do when it cannot be used.

    Returns:
        The object. NaN and infinity are text in it, since JSON has no such numbers.

    Raises:
        BadRecord: not JSON, no object, or nested too deeply.
    """
    try:
        raw = json.loads(text, parse_constant=str, parse_float=_finite)
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error.msg}); the file may be cut off"
        raise BadRecord(path, error.lineno, reason, action) from None
    except (ValueError, RecursionError):  # bad bytes, or a whole number of thousands of digits
        raise BadRecord(path, None, "not JSON (unreadable bytes)", action) from None
    if not isinstance(raw, dict):
        raise BadRecord(path, None, f"a {type(raw).__name__}, not an object", action)
    if _levels(raw) > _MOST_LEVELS:
        raise BadRecord(path, None, f"nested more than {_MOST_LEVELS} levels deep", action)
    return raw


def _levels(value: object) -> int:
    """Count the levels of a value, up to one more than are accepted."""
    level = [value]
    for depth in range(1, _MOST_LEVELS + 1):
        level = [
            part
            for outer in level
            if isinstance(outer, (dict, list))
            for part in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return depth
    return _MOST_LEVELS + 1


def _finite(number: str) -> float | str:
    """Give a float; one too large for it stays text."""
    value = float(number)
    return value if math.isfinite(value) else number
