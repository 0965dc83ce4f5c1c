"""What the readers of the label sets share: annotation files, label indices, documents."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.document import make_doc

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

#: Folders of a benchmark that its annotation files are put in, in practice.
PLACES = ("", "annotations", "labels")
#: Fine print of every label set.
NOTES = (
    "From text to label the rule is ours, no official one: outer quotation marks, one final full "
    "stop, blanks and case are put aside, and the rest must equal one label.",
    "The options of _mcq depend on seed, sample id and label set alone (SHAKE-256), not on order, "
    "platform or the other samples.",
)


def annotation(root: Path, *names: str, places: Sequence[str] = PLACES) -> Path:
    """Return the first annotation file that exists.

    Args:
        root: the benchmark's folder.
        *names: its official names, the first one preferred.
        places: folders under `root` to look in, the first one preferred.

    Raises:
        MissingData: if there is none.
    """
    for name in names:
        for place in places:
            if (root / place / name).is_file():
                return root / place / name
    below = ", ".join(f"{place}/" for place in places if place)
    raise MissingData(f"no {' or '.join(names)} in {root} (looked in {below} below it as well)")


def read_text(path: Path) -> str:
    """Return the text of an annotation file, without a byte order mark.

    Raises:
        BadData: if it cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read as UTF-8 text: {error}") from error


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return `(number, line)` of the lines that are not blank, without blanks around them.

    Raises:
        BadData: if the file cannot be read as UTF-8.
    """
    lines = ((number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1))
    return [(number, line) for number, line in lines if line]


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        BadData: if it is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise BadData(f"{path} is no JSON: {error}") from error


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
    """
    return make_doc(
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
