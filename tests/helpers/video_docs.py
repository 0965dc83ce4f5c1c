"""What the YAMLs of `tiny_tasks/videos` name; data-only folders hold no code."""

from __future__ import annotations

from typing import Any

from tempeval.tasks.choice_task import choose
from tempeval.video.clip import VideoPath

CHOICES = ("yes", "no")


def doc_to_visual(doc: dict[str, Any]) -> list[VideoPath]:
    return [VideoPath(doc["video"], fps=doc["fps"])]


def doc_to_text(doc: dict[str, Any]) -> str:
    return str(doc["question"])


def doc_to_choice(doc: dict[str, Any]) -> list[str]:
    return list(CHOICES)


def doc_to_messages(doc: dict[str, Any]) -> list[dict[str, Any]]:
    video = {"type": "video", "url": doc_to_visual(doc)[0]}
    return [{"role": "user", "content": [video, {"type": "text", "text": doc_to_text(doc)}]}]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    return _scored(doc, results[0] if results[0] in CHOICES else None)


def process_choices(doc: dict[str, Any], results: list[tuple[Any, bool]]) -> dict[str, Any]:
    by_mean, _, _ = choose(results, CHOICES)
    return _scored(doc, by_mean)


def _scored(doc: dict[str, Any], parsed: str | None) -> dict[str, Any]:
    score = float(parsed == doc["answer"])
    return {
        "accuracy": score,
        "score": score,
        "parse_failure": float(parsed is None),
        **{key: doc[key] for key in ("sample_id", "video_id", "content_hash")},
    }
