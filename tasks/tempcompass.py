"""TempCompass: official prompts, official rule-based scores, a strict reader (ours) beside them.

Source: llyx97/TempCompass @ e1b4631, eval_{multi-choice,yes_no,caption_matching}.py with
`--disable_llm`: what no rule matches scores 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.tasks import multiple_choice
from tempeval.tasks.documents import clip
from tempeval.tasks.multiple_choice import LETTERS, Parsed, lettered, parse_option
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
_BEST, _YES_NO = "\nPlease directly give the best option:", "\nPlease answer yes or no:"
_LABEL = re.compile(r"(?:caption|option|sentence)\s+", re.IGNORECASE)
_DIGIT = re.compile(r"^(\W*)([1-4])(?=\W*$|[).:])")
_YES_NO_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def best_option_text(doc: Doc) -> str:
    """Return the official prompt of the multiple-choice and caption-matching formats."""
    return f"{doc['question']}{_BEST}"


def best_option_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then `best_option_text`."""
    return ask(clip(doc), best_option_text(doc))


def yes_no_text(doc: Doc) -> str:
    """Return the official prompt of the yes/no format."""
    return f"{doc['question']}{_YES_NO}"


def yes_no_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then `yes_no_text`."""
    return ask(clip(doc), yes_no_text(doc))


def captioning_mcq_text(doc: Doc) -> str:
    """Return the captioning question's pieces of information as options, asked for by letter."""
    options = lettered(doc["choices"])
    return f"Which information is consistent with the video?\n{options}{_BEST}"


def captioning_mcq_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then `captioning_mcq_text`."""
    return ask(clip(doc), captioning_mcq_text(doc))


def doc_to_target(doc: Doc) -> str:
    """Return the official answer."""
    return str(doc["answers"][0])


def official_multi_choice(text: str, answer: str) -> bool | None:
    """Return whether the official rule takes a text as right; None where it matches nothing."""
    if text == answer:
        return True
    if text in tuple("ABCD") or text[:2] in {
        f"{letter}{mark}" for letter in "ABCD" for mark in ".)"
    }:
        return text[0] == answer[0]
    return None


def official_yes_no(text: str, answer: str) -> bool | None:
    """Return whether the official rule takes a text as right: by its first letters, no more."""
    for word in ("yes", "no"):
        if text.lower().startswith(word):
            return word == answer
    return None


def official_caption_matching(text: str, answer: str, question: str) -> bool | None:
    """Return whether the official rule takes a text as right: equal strings, nothing near them."""
    lines = question.split("\n")[1:]
    said = [text, *text.split(") ")[1:2]]
    for line in lines:
        label, _, rest = line.partition(": ")
        sentence = rest.split(": ")[0]
        names = (label, label.rpartition(" ")[2])
        if (
            text == line
            or (sentence and sentence in said)
            or text in names
            or text.replace(".", "") in names
        ):
            return line == answer
    return None


def process_multi_choice(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text of the multiple-choice format."""
    text = _cleaned(results[0])
    strict = parse_option(text, doc["choices"])
    return _scored(doc, official_multi_choice(text, doc["answers"][0]), strict)


def process_yes_no(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text of the yes/no format."""
    text = _cleaned(results[0])
    return _scored(doc, official_yes_no(text, doc["answers"][0]), strict_yes_no(text))


def process_caption_matching(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text of the caption-matching format."""
    text = _cleaned(results[0])
    # "Option 2" and "2." name the second option as "B" does.
    named = _DIGIT.sub(lambda m: m[1] + LETTERS[int(m[2]) - 1], _LABEL.sub("", text, count=1))
    strict = parse_option(named, doc["choices"])
    official = official_caption_matching(text, doc["answers"][0], doc["question"])
    return _scored(doc, official, strict)


def process_captioning_mcq(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a letter that should name the information which fits the video."""
    found = multiple_choice.process_results(doc, results)
    item = found.pop("acc")
    return {**found, "avg": item, doc["category"]: found["score"]}


def strict_yes_no(text: str) -> Parsed:
    """Read an answer that begins with the word yes or no, and does not name the other one."""
    if not text.strip():
        return Parsed(None, "empty")
    match = _YES_NO_WORD.match(text)
    if match is None:
        return Parsed(None, "unparsed")
    word = match[1].lower()
    other = "no" if word == "yes" else "yes"
    if re.search(rf"\b{other}\b", text[match.end() :], re.IGNORECASE):
        return Parsed(None, "ambiguous")
    return Parsed(("yes", "no").index(word), "parsed")


def _cleaned(text: str) -> str:
    return text.replace("</s>", "").strip()


def _scored(doc: Doc, official: bool | None, strict: Parsed) -> dict[str, Any]:
    """Return the official score (the main one), by aspect and fine type, and the strict one."""
    found = multiple_choice.scored(doc, strict)
    by_reader = found.pop("acc")["score"]
    score = float(official is True)
    return {
        **found,
        "score": score,
        "avg": {"score": score, "cluster": doc["cluster"]},
        "pooled": score,
        doc["category"]: score,
        "avg_strict": by_reader,
        "match_success": float(official is not None),
        "fine_type": doc["fine"],
    }
