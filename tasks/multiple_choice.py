"""Multiple choice: one prompt, one careful reader of answers, one way to score. Nothing is guessed.

The reader's rule is ours; where a benchmark has an official one, its own module has that beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.document import identity
from tempeval.tasks.answers import normalise
from tempeval.tasks.documents import clip
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Doc = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_INSTRUCTION = "Answer with the option's letter from the given choices directly."

#: `(B)` or `[b]` anywhere but at the end of a word, as in "object(s)".
_BRACKETED = re.compile(r"(?<!\w)[(\[]\s*([A-Za-z])\s*[)\]]")
#: `(a)` before a word other than a reason, and what makes it a letter there too.
_BEFORE_WORD = re.compile(r"[ \t]+(?!(?:because|since|as)\b)\w")
_ASKED_FOR = re.compile(
    r"(?:^|\b(?:answer|option|choice)\b(?:\s+(?:is|would\s+be|should\s+be))?)[\s:\"'“*]*$",
    re.IGNORECASE,
)
#: A letter that begins a line: alone, or before `)`, `.`, `:`, a closing quote or bracket; the dot
#: of "e.g." is none.
_LEADING = re.compile(
    r"^[\s\"'“*_(\[]*([A-Za-z])\s*(?:[)\]:*_]|\.(?!\w\.)|[\"'”](?!\w)|$)", re.MULTILINE
)
#: `answer is B`, `Answer: b`, `option B`, when nothing but an end or a reason follows the letter.
#: A small "a" needs the colon: "the answer is a" may be the start of more.
_NAMED = re.compile(
    r"\b(?:answer|option|choice)\b(?:\s+(?:is|would\s+be|should\s+be))?\s*"
    r"(?::\s*(?:option\s+)?[\"'“*(\[]*([a-z])|(?:option\s+)?[\"'“*(\[]*((?-i:[A-Zb-z])))"
    r"(?=[\s\"'”*)\]]*(?:$|[.,;:\n]|\b(?:because|since|as)\b))",
    re.IGNORECASE,
)
#: `D or A`, `B, C`: a text of nothing but capital letters.
_LISTED = re.compile(r"\W*[A-Z](?:\s*(?:,|/|&|\bor\b|\band\b)\s*[A-Z])+\W*")
#: What may stand before an option's text.
_LEAD_IN = re.compile(
    r"^\s*(?:the\s+)?(?:best\s+|correct\s+|right\s+)?(?:answer|option|choice)\s*(?:is|:)\s*:?\s*",
    re.IGNORECASE,
)
#: With one of these, an option's words in a sentence may say what is not so.
_NEGATIONS = re.compile(r"\b(?:not?|none|nor|neither|never|cannot|without|\w+n t)\b")


@dataclass(frozen=True)
class Parsed:
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
    "answer" or "option"; the word "a" does not. Without a letter, an option's text counts when it
    is the whole answer or follows "the answer is", or when its words stand in the answer, those of
    no other option do, and nothing is negated. A letter and a text that contradict each other are
    ambiguous.

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
    whole = _equal(_LEAD_IN.sub("", stripped), options) or _equal(stripped, options)
    if whole:
        return _one(whole, options)
    letters = _letters(stripped)
    if not letters:
        return _one(_contained(stripped, options), options)
    found = {LETTERS.index(letter) for letter, _ in letters}
    # "D) a cup" where a cup is option B: nobody knows what was meant.
    for _, rest in letters:
        for piece in (rest, rest.partition("\n")[0], re.split(r"(?<=[.!?])\s", rest)[0]):
            found |= _equal(piece, options)
    return _one(found, options)


def _one(found: set[int], options: Sequence[str]) -> Parsed:
    if len(found) > 1:
        return Parsed(None, "ambiguous")
    index = next(iter(found), None)
    if index is None or index >= len(options):
        return Parsed(None, "unparsed")
    return Parsed(index, "parsed")


def _equal(text: str, options: Sequence[str]) -> set[int]:
    """Return the one option whose words are those of a text, if there is one."""
    wanted = normalise(text)
    same = {i for i, option in enumerate(options) if wanted and normalise(option) == wanted}
    return same if len(same) == 1 else set()


def _contained(text: str, options: Sequence[str]) -> set[int]:
    """Return the options whose words stand in a text, none if the rest of it negates something.

    An option that only occurs inside a longer one ("red" in "dark red") is not meant by itself, and
    a bare "no" is no answer in "there is no way to tell".
    """
    rest = f" {normalise(text)} "
    found: set[int] = set()
    named = [normalise(option) for option in options]
    for words in sorted(set(named), key=lambda known: (-len(known), known)):
        if words and not _NEGATIONS.fullmatch(words) and f" {words} " in rest:
            found |= {index for index, option in enumerate(named) if option == words}
            rest = rest.replace(f" {words} ", " | ")
    return set() if _NEGATIONS.search(rest) else found


def _letters(text: str) -> list[tuple[str, str]]:
    """Return the letters that a text names, each with what follows it."""
    if _LISTED.fullmatch(text):
        return [(letter, "") for letter in re.findall(r"\b[A-Z]\b", text)]
    matches = [m for m in _BRACKETED.finditer(text) if not _is_article(m)]
    matches += [m for rule in (_LEADING, _NAMED) for m in rule.finditer(text)]
    ends = [(m, m.end(m.lastindex or 0)) for m in matches]
    return [(m[m.lastindex or 0].upper(), text[end:].lstrip(" \t\n.):*]\"'”_")) for m, end in ends]


def _is_article(bracketed: re.Match[str]) -> bool:
    """Tell whether a small `a` in brackets is the article, as in "holding (a) cup"."""
    before, after = bracketed.string[: bracketed.start()], bracketed.string[bracketed.end() :]
    lone = bracketed[1] == "a" and _BEFORE_WORD.match(after)
    return bool(lone) and not _ASKED_FOR.search(before.rpartition("\n")[2])


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
