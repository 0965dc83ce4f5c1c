"""How LEO's evaluator cleans answers about scenes, its oddities included.

Source: facts of `clean_answer` in embodied-generalist/embodied-generalist data/data_utils.py
@ 477dc44, which PAVE's ScanQA and SQA3D evaluators use. The order of the rules is part of it: the
letters outside ASCII are gone before a cedilla could be replaced, `let` becomes `left`, `none`
becomes `zero`, and an article goes only before a word.
"""

from __future__ import annotations

import re

_NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
_WORDS = {
    "letf": "left",
    "let": "left",
    "tehre": "there",
    "rigth": "right",
    "rght": "right",
    "behine": "behind",
    "tv": "TV",
    "chai": "chair",
    "wasing": "washing",
    "waslked": "walked",
    "oclock": "o'clock",
}


def _word(old: str, new: str) -> tuple[re.Pattern[str], str]:
    return re.compile(rf"\b{old}\b"), new


_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r" {2,}"), " "),
    (re.compile(r"[^a-zA-Z0-9,'\s\-:]+"), ""),
    *(_word(old, new) for old, new in _WORDS.items()),
    _word(r"o' +clock", "o'clock"),
    _word("0", "zero"),
    _word("none", "zero"),
    *(_word(str(number), name) for number, name in enumerate(_NUMBERS) if number),
    _word("23", "twenty-three"),
    (re.compile(r"\b([a-zA-Z]+)[0-9]\b"), r"\1"),
    *((re.compile(rf"\b{article}\b ([a-zA-Z]+)"), r"\1") for article in ("a", "an", "the")),
    _word("backwards", "backward"),
)


def clean_answer(text: str) -> str:
    """Return an answer as the official evaluators compare it."""
    # Of the official ` +$` and `^ +`; the first takes quadratic time on blanks inside a text.
    found, end = text.lower(), ""
    if found.endswith("\n"):
        found, end = found[:-1], "\n"
    found = (found.rstrip(" ") + end).lstrip(" ")
    for pattern, replacement in _RULES:
        found = pattern.sub(replacement, found)
    return found
