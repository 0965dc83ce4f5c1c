"""Helpers that the YAMLs of the mini highfps suite name, beside those of `tempeval.tasks.mini`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.mini.side_render import rendered_test_split
from tempeval.tasks.mini import doc_to_text, of_aspect
from tempeval.tasks.turns import ask
from tempeval.video.clip import VideoPath

if TYPE_CHECKING:
    from datasets import Dataset

Doc = dict[str, Any]


def count(docs: Dataset) -> Dataset:
    """Keep the questions about the number of blinks."""
    return of_aspect(docs, "count")


def colour(docs: Dataset) -> Dataset:
    """Keep the questions about the colour of the blinks."""
    return of_aspect(docs, "colour")


def side(docs: Dataset) -> Dataset:
    """Keep the questions about the side of the blinks."""
    return of_aspect(docs, "side")


def doc_to_visual(doc: Doc) -> list[VideoPath]:
    """Return the path of the clip; renders it on first use."""
    return [VideoPath(str(rendered_test_split("highfps") / doc["video"]))]


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question."""
    return ask(doc_to_visual(doc)[0], doc_to_text(doc))
