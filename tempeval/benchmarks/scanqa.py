"""ScanQA: questions about the objects of ScanNet scenes, answered in free words.

Source: Azuma et al., "ScanQA", CVPR 2022; file forms as in ATR-DBI/ScanQA.
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


def _annotations(root: Path, split: str) -> list[Path]:
    places = ("", "annotations", "qa", "data/qa")
    return [annotation(root, f"ScanQA_v1.0_{split}.json", places=places)]


def _read(root: Path, split: str) -> Iterator[Doc]:
    (path,) = _annotations(root, split)
    scenes = scene_index(root)
    for where, item in read_items(path, ("scene_id", "question_id", "question")):
        answers, question = item.get("answers"), str(item["question"])
        if not isinstance(answers, list) or not answers:
            raise BadData(f"{where} has no answers; the test splits have none, evaluate val")
        scene = safe_name(item["scene_id"], where)
        yield make_doc(
            sample_id=str(item["question_id"]),
            video_id=scene_id(scene),
            video=scenes.path_of(scene),
            question=question,
            answers=[str(answer) for answer in answers],
            category=question.split(" ")[0].lower(),
            fps=FPS,
        )


SCANQA = Benchmark(
    name="scanqa",
    title="ScanQA",
    licence="CC BY-NC-SA 3.0 (annotations); ScanNet terms of use (frames)",
    access=(
        "1. Download ScanQA_v1.0_val.json (and _train) as https://github.com/ATR-DBI/ScanQA says, "
        "into scanqa/.\n2. " + ACCESS.format(name="scanqa")
    ),
    tree=(
        "scanqa/\n"
        "  ScanQA_v1.0_{train,val}.json        [{scene_id, question_id, question, answers}]\n"
        "  posed_images_new/<scene>/*.jpg"
    ),
    splits={
        "val": Counts(4_675, 71, "papers evaluate val: 4,675 questions on 71 scenes"),
        "train": Counts(25_563, 562, "paper, table 2"),
    },
    annotations=_annotations,
    read=_read,
    tasks=("tempeval_scanqa",),
    metrics="EM@1, refined EM (official and strict), BLEU-1..4, METEOR, ROUGE-L, CIDEr",
    notes=("BLEU, METEOR, ROUGE-L and CIDEr need Java.", *NOTES),
)
