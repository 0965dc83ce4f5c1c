"""TempCompass, captioning: a judge answers the multiple-choice question from the caption.

Source: llyx97/TempCompass @ e1b4631, eval_captioning.py. The judge's instructions are worded here;
the form of its answer and the rule that reads it are official. Off unless a judge is named.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.document import identity
from tempeval.console import visible
from tempeval.tasks.answers import final_answer
from tempeval.tasks.documents import clip, load
from tempeval.tasks.failed import FAILED, scorer
from tempeval.tasks.judge import JudgeFailed, named_judge
from tempeval.tasks.tempcompass import by_aspect
from tempeval.tasks.turns import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

Doc = dict[str, Any]
_LOG = logging.getLogger(__name__)
#: What the official code adds up for a caption that the judge gave no reply to.
_NO_REPLY = -1
_INSTRUCTIONS = (
    "Below are a description of a video and a multiple-choice question about the same video. You "
    "cannot see the video: choose the option that follows from the description, and say briefly "
    "why. If no option follows from it, the answer is: None of the choices are correct.\n"
    "Reply in two lines of this form:\n"
    "Reasoning: <why>\n"
    "Answer: <letter>. <text of the option>"
)


def load_captioning(rows: Dataset) -> Dataset:
    """Return the documents, after making sure that there is a judge.

    Raises:
        JudgeMissing: before anything is computed.
    """
    named_judge()
    return load(rows)


def doc_to_text(doc: Doc) -> str:
    """Return the official question, which asks for a caption and has no further instruction."""
    return str(doc["question"])


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question."""
    return ask(clip(doc), doc_to_text(doc))


def judge_prompt(caption: str, question: str) -> str:
    """Return what the judge is asked about a caption."""
    return f"{_INSTRUCTIONS}\n\nVideo description: {caption}\nMultiple-choice question:\n{question}"


def judge_rating(reply: str, answer: str) -> int:
    """Read a judge's reply by the official rule.

    Args:
        reply: what it wrote.
        answer: letter and text of the right option, such as `B. jumping`.

    Returns:
        1 where its answer begins with the right letter and a full stop, and has one option letter
        with a full stop in all (so a bare "B" is 0); -1 where there is no reply; else 0.
    """
    if reply in ("", "invalid_request_error"):
        return _NO_REPLY
    said = _said(reply)
    count = sum(said.count(f"{letter}.") for letter in "ABCD")
    return int(said.split(". ")[0] == answer.split(". ")[0] and count == 1)


def _said(reply: str) -> str:
    """Return the last line with "Answer", without that word and its colon; else the reply."""
    lines = [line.strip() for line in reply.split("\n")]
    named = [line.replace("Answer:", "").strip() for line in lines if "Answer" in line]
    return named[-1] if named else reply


@scorer(lambda doc: _scored(doc, "", "", rating=0))
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score a caption by the judge's answer.

    Returns:
        `avg` and the aspects with a missing reply as 0, `avg_official` with the -1 that the
        official code adds up for it, `parse_failure` (1 without a reply), and the reply itself.
        Where the judge failed the sample did, `failure` says why.
    """
    caption = final_answer(results[0])
    if not caption:  # 0 for the official code too
        return _scored(doc, "", "empty", rating=0)
    try:
        reply = named_judge().ask(judge_prompt(caption, doc["judge_question"]))
    except JudgeFailed as error:
        _LOG.warning("%s: %s", visible(doc["sample_id"]), visible(str(error)))
        found = _scored(doc, "", "unparsed", rating=_NO_REPLY)
        return {**found, FAILED: 1, "failure": str(error)}
    status = "parsed" if reply else "unparsed"
    return _scored(doc, reply, status, rating=judge_rating(reply, doc["judge_answer"]))


def _scored(doc: Doc, reply: str, status: str, *, rating: int) -> dict[str, Any]:
    score = float(max(rating, 0))
    return {
        **identity(doc),
        "score": score,
        "parsed": _said(reply) if reply else None,
        "parse_status": status,
        "avg": {"score": score, "cluster": doc["cluster"]},
        "avg_official": float(rating),
        **by_aspect(doc, score),
        "parse_failure": float(not reply),
        "judge": named_judge().name,
        "judge_reply": reply,
    }
