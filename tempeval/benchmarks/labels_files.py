"""What the readers of the label sets share: fine print, label indices, documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.base import BadData
from tempeval.benchmarks.document import make_doc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

#: Fine print of every label set.
NOTES = (
    "From text to label the rule is ours, no official one: outer quotation marks, one final full "
    "stop, blanks and case are put aside, and the rest must equal one label.",
    "The options of _mcq depend on seed, sample id and label set alone (SHAKE-256), not on order, "
    "platform or the other samples.",
)


def indices(labels: Sequence[str], path: Path) -> dict[str, int]:
    """Return the index of every label.

    Args:
        labels: in official order.
        path: where they come from, for messages.

    Raises:
        BadData: if there is none, or one is there twice.
    """
    found = {label: number for number, label in enumerate(labels)}
    if not labels or len(found) != len(labels):
        twice = next((label for label in labels if labels.count(label) > 1), None)
        what = "holds no label" if twice is None else f"holds the label {twice!r} more than once"
        raise BadData(f"{path} {what}; expected one different label per class")
    return found


def label_doc(
    benchmark: str,
    clip: str,
    video: Path,
    label: str,
    index: int,
    *,
    question: str,
    noun: str,
    cluster: str | None = None,
    **more: Any,
) -> Doc:
    """Build the document of one labelled clip.

    Args:
        benchmark: name of the benchmark.
        clip: official id of the clip, also the sample id.
        video: where it is, or would be.
        label: its class, as official.
        index: of the class.
        question: what is asked about every clip of the benchmark.
        noun: what a class is called in instructions, such as `gesture`.
        cluster: as in `make_doc`.
        **more: further fields of `make_doc`.

    Returns:
        The row; its category is the class, where no other is given.
    """
    doc = make_doc(
        sample_id=clip,
        video_id=f"{benchmark}/{clip}",
        video=video,
        question=question,
        cluster=cluster,
        answer_index=index,
        answers=[label],
        noun=noun,
        **more,
    )
    # Set afterwards: the hash has the class in `answers`, and stays that of earlier runs.
    return doc if doc["category"] else {**doc, "category": label}
