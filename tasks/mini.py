"""Helpers that the YAMLs of the mini suite name, and those of the side-channel suites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.mini.paths import suite_dir
from tempeval.mini.questions import prompt
from tempeval.tasks.answers import match_choice
from tempeval.tasks.choice_task import choose
from tempeval.tasks.failed import scorer
from tempeval.tasks.turns import ask
from tempeval.video.clip import VideoPath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from datasets import Dataset

Doc = dict[str, Any]


def of_aspect(docs: Dataset, aspect: str) -> Dataset:
    """Keep the questions about an aspect."""
    return docs.select([i for i, found in enumerate(docs["aspect"]) if found == aspect])


def action(docs: Dataset) -> Dataset:
    """Keep the questions about actions."""
    return of_aspect(docs, "action")


def direction(docs: Dataset) -> Dataset:
    """Keep the questions about directions."""
    return of_aspect(docs, "direction")


def speed(docs: Dataset) -> Dataset:
    """Keep the questions about speed."""
    return of_aspect(docs, "speed")


def order(docs: Dataset) -> Dataset:
    """Keep the questions about the order of events."""
    return of_aspect(docs, "order")


def attribute_change(docs: Dataset) -> Dataset:
    """Keep the questions about changes of colour."""
    return of_aspect(docs, "attribute_change")


def doc_to_visual(doc: Doc) -> list[VideoPath]:
    """Return the path of the clip, with the rate of a frame folder; renders it on first use."""
    return [VideoPath(str(suite_dir() / doc["video"]), fps=doc["fps"])]


def doc_to_text(doc: Doc) -> str:
    """Return the question with its choices."""
    return prompt(doc["question"], doc["choices"])


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question.

    The video part carries `fps` (frames per second) when the clip is a frame folder.
    """
    return ask(doc_to_visual(doc)[0], doc_to_text(doc))


def _scored(doc: Doc, parsed: str | None) -> dict[str, Any]:
    score = float(parsed == doc["answer"])
    return {
        "accuracy": {"score": score, "video_id": doc["video_id"]},
        "parse_failure": float(parsed is None),
        "score": score,
        "sample_id": doc["sample_id"],
        "video_id": doc["video_id"],
        "content_hash": doc["content_hash"],
        "parsed": parsed,
    }


@scorer(lambda doc: _scored(doc, None))
def process_results(doc: Doc, results: Sequence[str]) -> dict[str, Any]:
    """Score one answer.

    Returns:
        The metrics `accuracy` (with its cluster) and `parse_failure`, and what joins samples of
        different runs: `sample_id`, `video_id`, `content_hash`, `score` (0 or 1).
    """
    return _scored(doc, match_choice(results[0], doc["choices"]))


def _chosen(
    doc: Doc, by_mean: str | None, by_sum: str | None, *, greedy: bool, losses: list[float] | None
) -> dict[str, Any]:
    return {
        **_scored(doc, by_mean),
        "parse_failure": 0.0,  # nothing is parsed
        "accuracy_sum": float(by_sum == doc["answer"]),
        "is_greedy": greedy,
        "losses": losses,
    }


@scorer(lambda doc: _chosen(doc, None, None, greedy=False, losses=None))
def process_choices(doc: Doc, results: Sequence[tuple[Any, bool]]) -> dict[str, Any]:
    """Score the log-likelihoods of all choices.

    Returns:
        The metrics `accuracy` (by mean log-likelihood per token, with its cluster) and
        `accuracy_sum` (by its sum), and what joins samples of different runs.
    """
    by_mean, by_sum, greedy = choose(results, doc["choices"])
    losses = [float(loss) for loss, _ in results]
    return _chosen(doc, by_mean, by_sum, greedy=greedy, losses=losses)
