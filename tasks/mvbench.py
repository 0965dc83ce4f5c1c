"""MVBench: the official prompt; a strict reader (ours) beside the official rule with its bugs.

Source: OpenGVLab/Ask-Anything, video_chat2/mvbench.ipynb @ 4dd8210.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.tasks import multiple_choice
from tempeval.tasks.answers import NOTHING, Parsed, final_answer, official_text
from tempeval.tasks.documents import clip
from tempeval.tasks.failed import scorer
from tempeval.tasks.multiple_choice import lettered
from tempeval.tasks.options import LETTERS, parse_option
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
#: `(B a cup`: the official prompt opens a bracket that its answers may repeat and not close.
_OPENED = re.compile(r"[(\[]\s?([A-Z])(?=\s[^)\]]*$)")


def doc_to_text(doc: Doc) -> str:
    """Return the official prompt, without its system text and its prefilled "Best option:("."""
    options = lettered(doc["choices"], "({}) {}")
    return f"Question: {doc['question']}\nOptions:\n{options}\nOnly give the best option."


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question with its options."""
    return ask(clip(doc), doc_to_text(doc))


def strict_letter(text: str, options: int, choices: Sequence[str] = ()) -> Parsed:
    """Read the letter of the first line that says something; an option's text alone is none.

    Args:
        text: what the model wrote.
        options: how many there are.
        choices: their texts, of which one after its letter belongs to it.
    """
    if not text.strip():
        return Parsed(None, "empty")
    first = final_answer(text).partition("\n")[0]
    said = _OPENED.sub(r"(\1)", first, count=1) if _OPENED.match(first) else first
    texts = choices or [""] * options
    return parse_option(said or "-", texts, by_text=False)


def check_ans(text: str, option: str) -> bool:
    """Return True if the official rule takes an answer as right.

    A bracket comes before its first line, as the official prompt ends in one. The first word of
    both, full stops removed, only has to be contained in the right `(x)`, so an empty answer is
    right; a word that contains the right `(x)` is right too.

    Args:
        text: what the model wrote.
        option: letter and text of the right option, such as `(A) a cup`.
    """
    line = "(" + text.strip().split("\n")[0]
    said = line.lower().split(" ")[0]
    right = option.lower().split(" ")[0]
    return said.replace(".", "") in right or right in said


def _scored(doc: Doc, strict: Parsed, *, official: bool) -> dict[str, Any]:
    found = multiple_choice.scored(doc, strict)
    return {
        **{name: value for name, value in found.items() if name != "acc"},
        "acc_strict": found["acc"],
        "acc_strict_macro": found["score"],
        "acc_official": float(official),
    }


@scorer(lambda doc: _scored(doc, NOTHING, official=False))
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text by both rules.

    Returns:
        As `multiple_choice.scored`, with `acc_strict` in place of `acc`, the same again as
        `acc_strict_macro` (of which the group takes the mean over tasks), and `acc_official`.
    """
    choices = doc["choices"]
    right = doc["answer_index"]
    said = official_text(results[0])
    official = said is not None and check_ans(said, f"({LETTERS[right]}) {choices[right]}")
    return _scored(doc, strict_letter(results[0], len(choices), choices), official=official)
