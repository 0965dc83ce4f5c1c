"""20BN-Jester: 27 hand gestures in front of a webcam, as folders of JPEG frames.

Source: Materzynska et al., "The Jester Dataset", ICCV workshops 2019; file forms as in
open-mmlab/mmaction2 tools/data/parse_file_list.py @ 4d6c93474730 (`parse_jester_splits`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.benchmarks.annotations import annotation, read_lines
from tempeval.benchmarks.base import Archive, BadData, Benchmark, Counts
from tempeval.benchmarks.labels_files import NOTES, indices, label_doc
from tempeval.benchmarks.video_index import FRAME_FOLDERS, VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

#: Frames per second of the JPEG folders.
FPS = 12.0
#: The archive's own folder first.
FOLDERS = ("20bn-jester-v1", "videos", "rawframes")
QUESTION = "Which hand gesture does the person in the video make?"


def _labels_file(root: Path) -> Path:
    return annotation(root, "jester-v1-labels.csv", "labels.csv")


def _annotations(root: Path, split: str) -> list[Path]:
    """Return the files under their names of 2018 (with a prefix) or of Qualcomm's archive."""
    return [annotation(root, f"jester-v1-{split}.csv", f"{split}.csv"), _labels_file(root)]


def _labels(root: Path) -> list[str]:
    """Return the labels; the index of a class is its line in the file, from 0."""
    return [line for _, line in read_lines(_labels_file(root))]


def _read(root: Path, split: str) -> Iterator[Doc]:
    path, labels_path = _annotations(root, split)
    index_of = indices(_labels(root), labels_path)
    videos = VideoIndex(root, *FOLDERS, extensions=FRAME_FOLDERS)
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        clip, separator, label = (part.strip() for part in line.partition(";"))
        if not separator or label not in index_of:
            raise BadData(
                f"{where} is {line!r}; expected <id>;<label> with a label of {labels_path.name}"
            )
        yield label_doc(
            "jester",
            safe_name(clip, where),
            videos.path_of(clip),
            label,
            index_of[label],
            question=QUESTION,
            noun="gesture",
            fps=FPS,
        )


JESTER = Benchmark(
    name="jester",
    title="20BN-Jester",
    licence="Qualcomm's research licence: after sign-in, for research, not to be passed on",
    access=(
        "1. Sign in at https://developer.qualcomm.com/software/ai-datasets/jester and accept the "
        "licence.\n"
        "2. Download the archive of the labels and the parts 20bn-jester-v1-00.zip, -01.zip, ... "
        "(or without .zip) into jester/.\n"
        "3. Run: tempeval data prepare jester"
    ),
    tree=(
        "jester/\n"
        "  jester-v1-labels.csv        one label per line (or in annotations/ or labels/)\n"
        "  jester-v1-validation.csv    <id>;<label>\n"
        "  jester-v1-train.csv         only for the split train\n"
        "  (or labels/labels.csv, labels/validation.csv, labels/train.csv)\n"
        "  20bn-jester-v1/<id>/00001.jpg, 00002.jpg, ...   12 frames per second"
    ),
    splits={
        "validation": Counts(14_787, 14_787, "as published by 20BN"),
        "train": Counts(118_562, 118_562, "as published by 20BN"),
    },
    annotations=_annotations,
    read=_read,
    labels=_labels,
    archives=(
        Archive("20bn-jester*labels.zip", annotations=True),
        Archive("20bn-jester-v1-??", zipped=True),
    ),
    tasks=("tempeval_jester_choice", "tempeval_jester_list", "tempeval_jester_mcq"),
    metrics="top-1, macro-F1",
    notes=(
        "The labels of the test split are hidden: validation is evaluated.",
        "Left and right are the signer's own, so a mirrored clip is another class.",
        "The index of a class is its line in the file of the labels; frames come at 12 per second.",
        *NOTES,
    ),
)
