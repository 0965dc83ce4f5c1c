"""SQA3D: questions about a scene from where somebody stands in it.

Source: Ma et al., "SQA3D", ICLR 2023; file forms as in SilongYong/SQA3D (Zenodo 7792397).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.benchmarks.annotations import annotation, read_items
from tempeval.benchmarks.base import BadData, Benchmark, Counts
from tempeval.benchmarks.document import make_doc
from tempeval.benchmarks.scannet import ACCESS, FPS, NOTES, scene_id, scene_index
from tempeval.benchmarks.video_index import safe_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tempeval.benchmarks.document import Doc

#: The official types: the first word of a question as it is written, anything else is Other.
TYPES = ("What", "Is", "How", "Can", "Which")
OTHER = "Other"


def _annotations(root: Path, split: str) -> list[Path]:
    names = (
        f"v1_balanced_questions_{split}_scannetv2.json",
        f"v1_balanced_sqa_annotations_{split}_scannetv2.json",
    )
    places = ("sqa_task/balanced", "balanced", "", "assets/data/sqa_task/balanced")
    return [annotation(root, name, places=places) for name in names]


def _read(root: Path, split: str) -> Iterator[Doc]:
    questions, annotations = _annotations(root, split)
    given = read_items(annotations, ("question_id", "answers"), "annotations")
    answers = {item["question_id"]: item["answers"] for _, item in given}
    scenes = scene_index(root)
    keys = ("scene_id", "situation", "question", "question_id")
    for where, item in read_items(questions, keys, "questions"):
        known = answers.get(item["question_id"])
        if not known:
            raise BadData(f"{annotations} has no answers to question {item['question_id']}")
        scene = safe_name(item["scene_id"], where)
        first = str(item["question"]).split(" ")[0]
        yield make_doc(
            sample_id=str(item["question_id"]),
            video_id=scene_id(scene),
            video=scenes.path_of(scene),
            question=f"{item['situation']} {item['question']}",
            answers=[str(answer["answer"]) for answer in known],
            category=first if first in TYPES else OTHER,
            fps=FPS,
        )


SQA3D = Benchmark(
    name="sqa3d",
    title="SQA3D",
    licence="CC BY 4.0 (annotations); ScanNet terms of use (frames)",
    access=(
        "1. Download sqa_task.zip from https://zenodo.org/records/7792397 and unpack it into "
        "sqa3d/.\n2. " + ACCESS.format(name="sqa3d")
    ),
    tree=(
        "sqa3d/\n"
        "  sqa_task/balanced/v1_balanced_questions_{train,val,test}_scannetv2.json\n"
        "  sqa_task/balanced/v1_balanced_sqa_annotations_{train,val,test}_scannetv2.json\n"
        "  posed_images_new/<scene>/*.jpg"
    ),
    splits={
        "test": Counts(3_519, 67, "SilongYong/SQA3D; scenes: paper"),
        "val": Counts(3_261, 65, "paper"),
        "train": Counts(26_623, 518, "paper"),
    },
    annotations=_annotations,
    read=_read,
    tasks=("tempeval_sqa3d",),
    metrics="EM@1, refined EM (official and strict), by first word",
    notes=("The question is asked after the situation, as PAVE does.", *NOTES),
)
