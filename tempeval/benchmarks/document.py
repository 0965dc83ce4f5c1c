"""One question of a benchmark, as a flat row that Arrow can hold and every task helper can read."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: One row; `make_doc` says what is in it.
Doc = dict[str, Any]
#: What joins and groups samples of different runs; every task writes it into its samples.
IDENTITY = ("sample_id", "video_id", "cluster", "content_hash", "category")


def make_doc(
    *,
    sample_id: str,
    video_id: str,
    video: Path,
    question: str,
    cluster: str | None = None,
    choices: Sequence[str] = (),
    answer_index: int = -1,
    answers: Sequence[str] = (),
    category: str = "",
    start: float | None = None,
    end: float | None = None,
    fps: float | None = None,
    **extra: Any,
) -> Doc:
    """Build one document.

    Args:
        sample_id: unique within the benchmark, as the golden predictions name it.
        video_id: `<benchmark>/<official id>`: the file, the same in every task that uses it.
        video: where the file or frame folder is, or would be.
        question: what is asked, without options and instructions; may be empty.
        cluster: `<benchmark>/<...>`: what samples that are not independent share; the video if not
            given.
        choices: the options of this question, as official; empty for label sets and free answers.
        answer_index: the right option (or label), -1 when it is not known.
        answers: the accepted texts.
        category: question type, as official; of the label sets the class, of Breakfast the split.
        start: where the part of the video begins in seconds, None for its own start.
        end: where it ends in seconds, None for its own end.
        fps: frame rate of a frame folder (1/s), None for files.
        **extra: further columns, of one type throughout a benchmark.

    Returns:
        The row. `content_hash` (16 hex digits) covers all but where the file lies.
    """
    content = {
        "sample_id": sample_id,
        "video_id": video_id,
        "question": question,
        "choices": list(choices),
        "answer_index": answer_index,
        "answers": list(answers),
        "category": category,
        "start": start,
        "end": end,
        "fps": fps,
        **extra,
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return {
        **content,
        "video": str(video),
        "cluster": video_id if cluster is None else cluster,
        "content_hash": hashlib.sha256(text.encode()).hexdigest()[:16],
    }


def identity(doc: Doc) -> dict[str, str]:
    """Return the columns of `IDENTITY`, for a samples line."""
    return {name: doc[name] for name in IDENTITY}


def numbered_ids() -> Callable[[str], str]:
    """Return a function that makes the ids of one file distinct: `7`, `7#2`, `7#3` for `7` again.

    For official files in which an id names several questions, all of which are asked.
    """
    seen: Counter[str] = Counter()

    def numbered(name: str) -> str:
        seen[name] += 1
        return f"{name}#{seen[name]}" if seen[name] > 1 else name

    return numbered
