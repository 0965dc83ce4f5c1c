"""Helpers that the YAMLs of the mini audio suite name, beside those of `tempeval.tasks.mini`."""

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
    """Keep the questions about the number of beeps."""
    return of_aspect(docs, "count")


def box(docs: Dataset) -> Dataset:
    """Keep the questions about the box that moved when the horn sounded."""
    return of_aspect(docs, "box")


def order(docs: Dataset) -> Dataset:
    """Keep the questions about what came first, the hum or the change of colour."""
    return of_aspect(docs, "order")


def doc_to_visual(doc: Doc) -> list[VideoPath]:
    """Return the path of the clip, whose file holds its sound; renders it on first use."""
    return [VideoPath(str(rendered_test_split("audio") / doc["video"]))]


def doc_to_messages(doc: Doc) -> list[dict[str, Any]]:
    """Return one user turn: the clip, then the question."""
    return ask(doc_to_visual(doc)[0], doc_to_text(doc))
