"""Multiple choice: one prompt, one careful reader of answers, one way to score. Nothing is guessed.

The reader's rule is ours; where a benchmark has an official one, its own module has that beside it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from tempeval.benchmarks.document import identity
from tempeval.tasks.answers import normalise
from tempeval.tasks.documents import clip
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Doc = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_INSTRUCTION = "Answer with the option's letter from the given choices directly."

#: `(B)` or `[b]` anywhere.
_BRACKETED = re.compile(r"[(\[]\s*([A-Za-z])\s*[)\]]")
#: A letter that begins a line: alone, or before `)`, `.`, `:`, a closing quote or bracket.
_LEADING = re.compile(r"^[\s\"'“*_(\[]*([A-Za-z])\s*(?:[)\].:*_]|[\"'”](?!\w)|$)", re.MULTILINE)
#: `answer is B`, `Answer: B`, `option B`, when nothing but an end or a reason follows the letter.
_NAMED = re.compile(
    r"\b(?:[Aa]nswer|ANSWER|[Oo]ption|[Cc]hoice)\b(?:\s+(?:is|would be|should be))?\s*:?\s*"
    r"(?:[Oo]ption\s+)?[\"'“*(\[]*([A-Z])(?=[\s\"'”*)\]]*(?:$|[.,;:\n]|\b(?:because|since|as)\b))"
)
#: `D or A`, `B, C`: a text of nothing but capital letters.
_LISTED = re.compile(r"\W*[A-Z](?:\s*(?:,|/|&|\bor\b|\band\b)\s*[A-Z])+\W*")
#: What may stand before an option's text.
_LEAD_IN = re.compile(
    r"^\s*(?:the\s+)?(?:best\s+|correct\s+|right\s+)?(?:answer|option|choice)\s*(?:is|:)\s*:?\s*",
    re.IGNORECASE,
)


class Parsed(NamedTuple):
    """What an answer names.

    Attributes:
        index: the option, or None.
        status: `parsed`, `ambiguous` (several options), `unparsed` (none) or `empty`.
    """

    index: int | None
    status: str


def parse_option(text: str, options: Sequence[str], *, digits: bool = False) -> Parsed:
    """Read which option an answer means: exactly one, or none.

    A letter counts alone, in brackets, before `)`, `.` or `:` at the start of a line, or after
    "answer" or "option"; the word "a" does not. An option's text counts when it is the whole
    answer, its first line or sentence, or what follows "the answer is". A letter and a text that
    contradict each other are ambiguous.

    Args:
        text: what the model wrote.
        options: the options' texts, in order of their letters.
        digits: whether a bare number is an index from 0.
    """
    stripped = text.strip()
    if not stripped:
        return Parsed(None, "empty")
    if digits and stripped.isascii() and stripped.isdigit():
        return _one({int(stripped)}, options)
    whole = _equal(stripped, options)
    if len(whole) == 1:
        return Parsed(whole.pop(), "parsed")
    letters = _letters(stripped)
    if letters:
        found = {LETTERS.index(letter) for letter in letters}
        # "D) a cup" where a cup is option B: nobody knows what was meant.
        said = _LEADING.sub("", stripped, count=1)
        return _one(found | _equal(said, options), options)
    pieces = (stripped.splitlines()[0], re.split(r"(?<=[.!?])\s", stripped)[0], stripped)
    named = {index for p in pieces for index in _equal(_LEAD_IN.sub("", p), options)}
    return _one(named, options)


def _one(found: set[int], options: Sequence[str]) -> Parsed:
    if len(found) > 1:
        return Parsed(None, "ambiguous")
    index = next(iter(found), None)
    if index is None or index >= len(options):
        return Parsed(None, "unparsed")
    return Parsed(index, "parsed")


def _equal(text: str, options: Sequence[str]) -> set[int]:
    wanted = normalise(text)
    same = {i for i, option in enumerate(options) if wanted and normalise(option) == wanted}
    return same if len(same) == 1 else set()


def _letters(text: str) -> set[str]:
    if _LISTED.fullmatch(text):
        return set(re.findall(r"\b[A-Z]\b", text))
    found = [
        *_BRACKETED.findall(text),
        *(m[1] for m in _LEADING.finditer(text)),
        *(m[1] for m in _NAMED.finditer(text)),
    ]
    return {letter.upper() for letter in found}


def lettered(choices: Iterable[str], form: str = "{}. {}") -> str:
    """Return options one a line, each with its letter."""
    return "\n".join(form.format(*pair) for pair in zip(LETTERS, choices, strict=False))


def doc_to_text(doc: Doc) -> str:
    """Return question, options and the instruction, worded as lmms-eval words it."""
    return f"{doc['question']}\n{lettered(doc['choices'])}\n{_INSTRUCTION}"


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question with its options."""
    return ask(clip(doc), doc_to_text(doc))


def doc_to_target(doc: Doc) -> str:
    """Return the letter of the right option, empty where it is not public."""
    return LETTERS[doc["answer_index"]] if doc["answer_index"] >= 0 else ""


def scored(doc: Doc, parsed: Parsed) -> dict[str, Any]:
    """Return the metrics of one sample, and what joins it with those of other runs.

    Returns:
        `acc` (with its cluster), `chance`, `parse_failure`, `score`, `parsed` (a letter),
        `parse_status`, and the identity of the document.
    """
    score = float(parsed.index is not None and parsed.index == doc["answer_index"])
    return {
        **identity(doc),
        "score": score,
        "parsed": None if parsed.index is None else LETTERS[parsed.index],
        "parse_status": parsed.status,
        "acc": {"score": score, "cluster": doc["cluster"]},
        "chance": 1.0 / len(doc["choices"]),
        "parse_failure": float(parsed.index is None),
    }


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text that should name one option."""
    return scored(doc, parse_option(results[0], doc["choices"]))
