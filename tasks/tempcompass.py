"""TempCompass: official prompts, official rule-based scores, a strict reader (ours) beside them.

Source: llyx97/TempCompass @ e1b4631, eval_{multi-choice,yes_no,caption_matching}.py with
`--disable_llm`: what no rule matches scores 0.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.tempcompass import DIMENSIONS
from tempeval.tasks import multiple_choice
from tempeval.tasks.answers import (
    NOTHING,
    Parsed,
    final_answer,
    official_text,
    plain,
    strict_yes_no,
)
from tempeval.tasks.documents import clip
from tempeval.tasks.failed import scorer
from tempeval.tasks.means import parts
from tempeval.tasks.options import LETTERS, parse_option
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

Doc = dict[str, Any]
_PLACES = ("first", "second", "third", "fourth")
_BEST, _YES_NO = "\nPlease directly give the best option:", "\nPlease answer yes or no:"
#: Fine types of `meta_info.json` to the names of their metrics.
FINE = {
    "fine-grained action": "fine_grained_action",
    "coarse-grained action": "coarse_grained_action",
    "object motion": "object_motion",
    "camera motion": "camera_motion",
    "absolute speed": "absolute_speed",
    "relative speed": "relative_speed",
    "color & light change": "color_and_light_change",
    "size & shape change": "size_and_shape_change",
    "combined change": "combined_change",
    "other change": "other_change",
}


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
    """Return the official captioning question, asked for the letter of the information instead.

    Its last line ("Generated Caption:") makes place for the question for the letter.
    """
    asked, _, last = doc["question"].rpartition("\n")
    question = asked if last.strip() == "Generated Caption:" else doc["question"]
    return f"{question}\nAnswer with the letter of the consistent information only:"


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
    """Return whether the official rule takes a text as right; None where it matches nothing.

    A text matches a whole option line, its sentence (also after the first `) `; a sentence ends at
    a second `: `), its label ("Caption A") or the label's letter or digit, full stops aside. Of
    several matches the last one in this order counts.

    Args:
        text: without `</s>` and outer blanks.
        answer: the right option's line.
        question: with one option a line after its first line.
    """
    options = [line.split(": ") for line in question.split("\n")[1:]]
    labels = [option[0] for option in options]
    bare = [re.sub("Sentence |Option |Caption ", "", label) for label in labels]
    after = text.split(") ")[1] if ") " in text else None
    matches = [": ".join(option) for option in options if ": ".join(option) == text]
    matches += [s for s in (option[1] for option in options if option[1:]) if s in (text, after)]
    matches += [label for label in labels + bare if label in (text, text.replace(".", ""))]
    if not matches:
        return None
    label, *rest = answer.split(": ")
    return matches[-1] in (answer, answer.split(":")[0], *rest[:1], *label.split()[1:2])


def unanswered(doc: Doc) -> dict[str, Any]:
    """Return the metrics of a question that failed."""
    return _scored(doc, None, NOTHING)


@scorer(unanswered)
def process_multi_choice(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text of the multiple-choice format."""
    text = _official(results[0])
    official = None if text is None else official_multi_choice(text, doc["answers"][0])
    return _scored(doc, official, parse_option(results[0], doc["choices"]))


@scorer(unanswered)
def process_yes_no(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text of the yes/no format."""
    text = _official(results[0])
    official = None if text is None else official_yes_no(text, doc["answers"][0])
    return _scored(doc, official, strict_yes_no(results[0]))


@scorer(unanswered)
def process_caption_matching(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a text of the caption-matching format."""
    text, question = _official(results[0]), doc["question"]
    official = (
        None if text is None else official_caption_matching(text, doc["answers"][0], question)
    )
    return _scored(doc, official, strict_caption_matching(results[0], question, doc["choices"]))


def strict_caption_matching(text: str, question: str, choices: Sequence[str]) -> Parsed:
    """Read which caption a text means, by its label, its sentence or both.

    Args:
        text: what the model wrote.
        question: with one option a line after its first line, each after its label.
        choices: the options' sentences.
    """
    return parse_option(_with_letters(plain(final_answer(text)), question), choices)


def _with_letters(text: str, question: str) -> str:
    """Return a text in which the question's labels ("Option 2", "2.", "Caption B") are letters."""
    lines = question.split("\n")[1:]
    for letter, line, place in zip(LETTERS, lines, _PLACES, strict=False):
        noun, _, mark = line.partition(": ")[0].rpartition(" ")
        nth = rf"\b{place}\s+(?:caption|sentence|option|description)\b"
        text = re.sub(nth, f"({letter})", text, flags=re.IGNORECASE)
        if noun and len(mark) == 1:
            named = rf"\b{re.escape(noun)}\s+{re.escape(mark)}\b"
            text = re.sub(named, f"({letter})", text, flags=re.IGNORECASE)
            if mark.isdigit():
                text = re.sub(rf"^(\W*){mark}(?=\W*$|[).:])", rf"\g<1>{letter}", text)
    return text


def _by_letter(doc: Doc, found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "avg": found.pop("acc"), **by_aspect(doc, found["score"])}


@scorer(lambda doc: _by_letter(doc, multiple_choice.unanswered(doc)))
def process_captioning_mcq(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a letter that should name the information which fits the video."""
    return _by_letter(doc, multiple_choice.process_results(doc, results))


def by_aspect(doc: Doc, score: float) -> dict[str, Any]:
    """Return the metrics of all aspects and fine types: a score under those of a question."""
    known = {doc["category"]: score, FINE.get(doc["fine"], ""): score}
    return {**parts((*DIMENSIONS, *FINE.values()), known), "fine_type": doc["fine"]}


def _official(text: str) -> str | None:
    """Return what the official rules are given, None where a text is nothing but thinking."""
    said = official_text(text)
    return None if said is None else said.replace("</s>", "").strip()


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
        **by_aspect(doc, score),
        "avg_strict": by_reader,
        "match_success_rate": float(official is not None),
    }
