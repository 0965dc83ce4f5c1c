"""Round the figures of a document, so that machines that add in another order write the same."""

from __future__ import annotations

from typing import Any

#: Significant digits of every figure that is no whole number. Sums differ between machines from
#: about the 14th on.
DIGITS = 9
# What stands in a document as the run's record has it.
_AS_RECORDED = ("setting", "settings")


def rounded(value: Any) -> Any:
    """Copy a JSON value with its fractional numbers rounded to DIGITS significant digits.

    Whole numbers, and what is under `setting` or `settings`, stay as they are.
    """
    if isinstance(value, dict):
        return {key: part if key in _AS_RECORDED else rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part) for part in value]
    if isinstance(value, float) and not value.is_integer():
        return float(f"{value:.{DIGITS}g}")
    return value
