"""What every benchmark YAML names: documents in place of the source row, and the clip of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.sources import load_docs
from tempeval.video.clip import VideoPath

if TYPE_CHECKING:
    from datasets import Dataset

Doc = dict[str, Any]


def load(rows: Dataset) -> Dataset:
    """Return the documents that the one row of a `source.jsonl` stands for.

    A row with `lazy: true` stays as it is: it stands for a training split, which is large and only
    wanted by `tempeval pave train`, which reads it itself.

    Raises:
        MissingData, BadData: see `tempeval.benchmarks.sources.load_docs`.
    """
    return rows if rows[0].get("lazy") else as_dataset(docs_of(rows))


def clip(doc: Doc) -> VideoPath:
    """Return the video of a document, with its part and the rate of a frame folder."""
    return VideoPath(doc["video"], start=doc["start"], end=doc["end"], fps=doc["fps"])


def doc_to_visual(doc: Doc) -> list[VideoPath]:
    """Return the video of a document, in a list."""
    return [clip(doc)]


def docs_of(rows: Any) -> list[Doc]:
    """Return the documents of a data set, or of what `load` would make of its one source row."""
    found = [dict(row) for row in rows]
    is_source = len(found) == 1 and "sample_id" not in found[0]
    return load_docs(found[0]) if is_source else found


def as_dataset(docs: list[Doc]) -> Dataset:
    """Return documents as the data set that the host wants from `process_docs`."""
    from datasets import Dataset as Rows

    return Rows.from_list(docs)
