"""AVQA: four-way questions about what is seen and heard in VGG-Sound clips.

Source: Yang et al., "AVQA", ACM MM 2022; keys of the official `train_qa.json` and `val_qa.json`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.benchmarks.annotations import annotation, read_items
from tempeval.benchmarks.base import BadData, Benchmark, Counts
from tempeval.benchmarks.document import make_doc
from tempeval.benchmarks.video_index import VideoIndex, safe_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

_KEYS = ("video_name", "question_text", "multi_choice", "answer", "question_type")
OPTIONS = 4
#: What stands in place of a choice that an item lacks.
MISSING_CHOICE = "NULL"
#: `data/` as in the repository, AlyssaYoung/AVQA.
FOLDERS = ("videos", "video", "VGGSound", "", "data/video", "data/videos")
#: Where the annotation files lie, as in the repository too.
PLACES = ("", "annotations", "data", "data/annotation", "data/annotations")


def _annotations(root: Path, split: str) -> list[Path]:
    return [annotation(root, f"{split}_qa.json", places=PLACES)]


def _read(root: Path, split: str) -> Iterator[Doc]:
    (path,) = _annotations(root, split)
    videos = VideoIndex(root, *FOLDERS)
    for number, (where, item) in enumerate(read_items(path, _KEYS)):
        given = item["multi_choice"]
        if not isinstance(given, list) or not 1 <= len(given) <= OPTIONS:
            raise BadData(f"{where} has multi_choice {given!r}; expected one to {OPTIONS} texts")
        choices = ["" if choice is None else str(choice) for choice in given]
        choices = [choice if choice.strip() else MISSING_CHOICE for choice in choices]
        choices += [MISSING_CHOICE] * (OPTIONS - len(choices))
        index = item["answer"]
        if type(index) is not int or not 0 <= index < len(given):
            raise BadData(f"{where} has answer {index!r}; expected an index of multi_choice")
        name = safe_name(item["video_name"], where)
        yield make_doc(
            sample_id=str(item.get("id", number)),
            video_id=f"vggsound/{name}",
            video=videos.path_of(name),
            question=str(item["question_text"]),
            choices=choices,
            answer_index=index,
            answers=[choices[index]],
            category=str(item["question_type"]),
        )


_COUNTED = "recalled; both splits add up to the 57,335 of its README (on 57,015 videos in all)"
AVQA = Benchmark(
    name="avqa",
    title="AVQA (VGG-Sound)",
    licence="CC BY 4.0 (VGG-Sound annotations); videos from YouTube",
    access=(
        "1. Download train_qa.json and val_qa.json from https://mn.cs.tsinghua.edu.cn/avqa into "
        "avqa/.\n"
        "2. Get the VGG-Sound clips (https://www.robots.ox.ac.uk/~vgg/data/vggsound) into "
        "avqa/videos/. Many of their YouTube ids are gone.\n"
        "3. Check: tempeval data check avqa"
    ),
    tree=(
        "avqa/\n"
        "  {train,val}_qa.json    [{id, video_name, question_text, multi_choice, answer, "
        "question_type}]\n"
        "  videos/<youtube id>_<start, 6 digits>.mp4\n"
        "  (or as in its repository: data/annotation/*_qa.json, data/video/)"
    ),
    splits={
        "val": Counts(16_910, None, _COUNTED, checked=False),
        "train": Counts(40_425, None, _COUNTED, checked=False),
    },
    annotations=_annotations,
    read=_read,
    tasks=("tempeval_avqa",),
    metrics="accuracy, by question type",
    notes=("Missing choices are shown as NULL.",),
)
