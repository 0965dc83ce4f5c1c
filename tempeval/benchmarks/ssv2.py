"""Something-Something V2: 174 actions whose class is the template, never the filled sentence.

Source: Goyal et al., "The 'something something' video database", ICCV 2017; file forms as in
open-mmlab/mmaction2 tools/data/parse_file_list.py @ 4d6c93474730 (`parse_sthv2_splits`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.benchmarks.annotations import annotation, read_items, read_json
from tempeval.benchmarks.base import Archive, BadData, Benchmark, Counts
from tempeval.benchmarks.labels_files import NOTES, indices, label_doc
from tempeval.benchmarks.video_index import VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

#: The archive's own folder first.
FOLDERS = ("20bn-something-something-v2", "videos")
EXTENSIONS = (".webm", ".mp4", ".mkv", ".avi")
QUESTION = 'Which action is shown in the video? The objects in it are called "something".'
_PREFIX = "something-something-v2-"


def _labels_file(root: Path) -> Path:
    return annotation(root, f"{_PREFIX}labels.json", "labels.json")


def _annotations(root: Path, split: str) -> list[Path]:
    """Return the files under their names of 2018 (with a prefix) or of Qualcomm's archive."""
    return [annotation(root, f"{_PREFIX}{split}.json", f"{split}.json"), _labels_file(root)]


def _labels(root: Path) -> list[str]:
    """Return the labels in the order of the indices that the file gives them.

    Raises:
        BadData: if the file is no `{template without brackets: index}` with the indices 0 to N-1.
    """
    path = _labels_file(root)
    found = read_json(path)
    try:
        by_index = {int(index): str(label) for label, index in found.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise BadData(f"{path} is no object {{template without brackets: index}}") from error
    if sorted(by_index) != list(range(len(found))):
        raise BadData(f"{path} holds {len(found)} labels; expected each index from 0 on once")
    return [by_index[index] for index in range(len(found))]


def _read(root: Path, split: str) -> Iterator[Doc]:
    path, labels_path = _annotations(root, split)
    index_of = indices(_labels(root), labels_path)
    videos = VideoIndex(root, *FOLDERS, extensions=EXTENSIONS)
    for where, item in read_items(path, ("id", "template")):
        # `label` is the sentence with the objects filled in, and no class.
        label = str(item["template"]).replace("[", "").replace("]", "")
        if label not in index_of:
            raise BadData(f"{where} has the template {label!r}, which {labels_path} does not list")
        name = item.get("id")
        clip = safe_name(str(name) if isinstance(name, int) else name, where)
        yield label_doc(
            "ssv2",
            clip,
            videos.path_of(clip),
            label,
            index_of[label],
            question=QUESTION,
            noun="action",
        )


SSV2 = Benchmark(
    name="ssv2",
    title="Something-Something V2",
    licence="Qualcomm's research licence: after sign-in, for research, not to be passed on",
    access=(
        "1. Sign in at https://developer.qualcomm.com/software/ai-datasets/something-something "
        "and accept the licence.\n"
        "2. Download the archive of the labels and the parts 20bn-something-something-v2-00.zip, "
        "-01.zip, ... (or without .zip) into ssv2/.\n"
        "3. Run: tempeval data prepare ssv2"
    ),
    tree=(
        "ssv2/\n"
        "  something-something-v2-labels.json       {template without brackets: index}\n"
        "  something-something-v2-validation.json   [{id, label, template, placeholders}]\n"
        "  something-something-v2-train.json        only for the split train\n"
        "  (or labels/labels.json, labels/validation.json, labels/train.json)\n"
        "  20bn-something-something-v2/<id>.webm"
    ),
    splits={
        "validation": Counts(24_777, 24_777, "as published by 20BN"),
        "train": Counts(168_913, 168_913, "as published by 20BN"),
    },
    annotations=_annotations,
    read=_read,
    labels=_labels,
    archives=(
        Archive("20bn-something-something*labels.zip", annotations=True),
        Archive("20bn-something-something-v2-??", zipped=True),
    ),
    tasks=("tempeval_ssv2_choice", "tempeval_ssv2_list", "tempeval_ssv2_mcq"),
    metrics="top-1, macro-F1",
    notes=(
        "The class is the template without brackets, never the sentence with the objects.",
        "Papers evaluate validation: the answers of the test split were hidden for years.",
        "Videos are .webm as downloaded; .mp4, .mkv and .avi of the same name are read as well.",
        "lmms-eval's own task ssv2 shows no label and wants the exact text: another protocol. "
        "Its copy on the hub (lmms-lab-eval/ssv2) is not read: its columns could not be seen here, "
        "and one that holds filled sentences would give wrong classes.",
        *NOTES,
    ),
)
