"""MVBench: the official prompt; a strict reader (ours) beside the official rule with its bugs.

Source: OpenGVLab/Ask-Anything, video_chat2/mvbench.ipynb @ 4dd8210.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.tasks import multiple_choice
from tempeval.tasks.documents import clip
from tempeval.tasks.multiple_choice import LETTERS, Parsed, lettered
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
#: `(B` needs no closing bracket, as the official prompt opens one; "(a cup" is no letter.
_START = re.compile(r"[*\s]*(?:[(\[]\s*([A-Z]\b|[a-z]\b(?![ \t]+\w))|([A-Za-z])\s*(?=[).:,*]|$))")
#: The "a" of "the answer is a cup" is no letter.
_NAMED = re.compile(
    r"\b(?:answer|option)\b(?:\s+is)?\s*:?\s*[(\[*]*(?!(?-i:a)[ \t]+\w)([A-Za-z])(?=[\s)\].:,*]|$)",
    re.IGNORECASE,
)


def doc_to_text(doc: Doc) -> str:
    """Return the official prompt, without its system text and its prefilled "Best option:("."""
    options = lettered(doc["choices"], "({}) {}")
    return f"Question: {doc['question']}\nOptions:\n{options}\nOnly give the best option."


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question with its options."""
    return ask(clip(doc), doc_to_text(doc))


def strict_letter(text: str, options: int) -> Parsed:
    """Read a letter and nothing else: at the start, else after "answer" or "option".

    At the start it is in brackets, or before `)`, `.`, `:`, `,`, `*` or the end.

    Args:
        text: what the model wrote.
        options: how many there are.
    """
    stripped = text.strip()
    if not stripped:
        return Parsed(None, "empty")
    match = _START.match(stripped) or _NAMED.search(stripped)
    letter = next(filter(None, match.groups()), None) if match else None
    index = options if letter is None else LETTERS.index(letter.upper())
    return Parsed(index, "parsed") if index < options else Parsed(None, "unparsed")


def check_ans(text: str, option: str) -> bool:
    """Tell whether the official rule takes an answer as right.

    Its first word, full stops removed, only has to be contained in the right `(x)`, so an empty
    answer and `(` are right; a word that begins with the right `(x)` is right too.

    Args:
        text: what the model wrote.
        option: letter and text of the right option, such as `(A) a cup`.
    """
    said = text.lower().split(" ")[0]
    right = option.lower().split(" ")[0]
    return said.replace(".", "") in right or right in said


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text by both rules.

    Returns:
        As `multiple_choice.scored`, with `acc_strict` in place of `acc`, the same again as
        `acc_strict_macro` (of which the group takes the mean over tasks), and `acc_official`.
    """
    choices = doc["choices"]
    found = multiple_choice.scored(doc, strict_letter(results[0], len(choices)))
    right = doc["answer_index"]
    official = check_ans(results[0], f"({LETTERS[right]}) {choices[right]}")
    return {
        **{name: value for name, value in found.items() if name != "acc"},
        "acc_strict": found["acc"],
        "acc_strict_macro": found["score"],
        "acc_official": float(official),
    }
