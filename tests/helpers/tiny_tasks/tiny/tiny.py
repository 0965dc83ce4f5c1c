"""Helpers of the tiny tasks; the host loads this file by its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

VIDEOS = Path(__file__).parent


def doc_to_visual(doc: dict[str, Any]) -> list[str]:
    return [str(VIDEOS / f"{doc['video_id']}.mp4")]


def doc_to_text(doc: dict[str, Any]) -> str:
    return str(doc["question"])


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, Any]:
    score = float(results[0] == doc["answer"])
    return {
        "accuracy": score,
        "score": score,
        "parse_failure": float(results[0] not in ("yes", "no")),
        **{key: doc[key] for key in ("sample_id", "video_id", "content_hash")},
    }
