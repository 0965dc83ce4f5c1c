"""AVQA: reader, NULL choices, and scores computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tempeval.benchmarks.avqa import AVQA
from tempeval.benchmarks.base import BadData
from tempeval.run.rescore import rescore
from tempeval.tasks.avqa import doc_to_text, process_results

GOLDEN = Path(__file__).parents[1] / "reference" / "metrics" / "avqa"


def item(number: int, kind: str, answer: int, choices: list[str]) -> dict[str, Any]:
    return {
        "id": number,
        "video_name": f"abcdefghij{number % 3}_000030",
        "video_id": number % 3,
        "question_text": "What makes the sound?",
        "multi_choice": choices,
        "answer": answer,
        "question_relation": "Both",
        "question_type": kind,
    }


ITEMS = [
    item(1, "Which", 0, ["dog", "cat", "car", "bell"]),
    item(2, "Which", 3, ["dog", "cat", "car", "bell"]),
    item(3, "Come From", 1, ["a dog", "a cat"]),
    item(4, "Before Next", 2, ["dog", "cat", "car", "bell"]),
    item(5, "Before Next", 2, ["dog", "cat", "car", "bell"]),
]
#: Right, wrong, right by text, ambiguous, empty.
ANSWERS = {"1": "A", "2": "(B)", "3": "a cat", "4": "C or D", "5": ""}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "val_qa.json").write_text(json.dumps(ITEMS))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "abcdefghij1_000030.mp4").touch()
    return tmp_path


def test_the_prompt_is_that_of_pave() -> None:
    doc = {"question": "What makes the sound?", "choices": ["dog", "cat", "car", "bell"]}
    assert doc_to_text(doc) == (
        "Select the best answer to the following multiple-choice question based on the video and "
        "the subtitles. Respond with only the letter (A, B, C, or D) of the correct option.\n"
        "What makes the sound?\nA.dog\nB.cat\nC.car\nD.bell\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_scores_by_hand(root: Path) -> None:
    metrics = rescore("tempeval_avqa", ANSWERS, root).metrics
    assert metrics["acc"] == pytest.approx(100 * 2 / 5)
    assert metrics["acc_which"] == pytest.approx(50)
    assert metrics["acc_come_from"] == pytest.approx(100)
    assert metrics["acc_before_next"] == 0
    assert metrics["chance"] == pytest.approx(25)
    assert metrics["parse_failure"] == pytest.approx(100 * 2 / 5)


def test_the_golden_set_of_our_own() -> None:
    expected = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
    texts = json.loads((GOLDEN / "predictions.json").read_text("utf-8"))
    metrics = rescore("tempeval_avqa", texts, GOLDEN / "annotations").metrics
    assert metrics == pytest.approx(expected["metrics"], abs=2e-4)
    for doc in AVQA.read(GOLDEN / "annotations", "val"):
        found = process_results(doc, [texts[doc["sample_id"]]])
        assert found["score"] == expected["per_item"][doc["sample_id"]]["correct"], doc


def test_documents(root: Path) -> None:
    docs = list(AVQA.read(root, "val"))
    (root / "train_qa.json").write_text(
        json.dumps([{**ITEMS[0], "multi_choice": ["a", None, " ", 2]}])
    )
    assert next(iter(AVQA.read(root, "train")))["choices"] == ["a", "NULL", "NULL", "2"]
    assert docs[2]["choices"] == ["a dog", "a cat", "NULL", "NULL"]
    assert docs[0]["video"] == str(root / "videos" / "abcdefghij1_000030.mp4")
    # A clip that is not there is named where it should be, and fails when it is decoded.
    assert docs[1]["video"] == str(root / "videos" / "abcdefghij2_000030.mp4")
    assert docs[0]["video_id"] == docs[3]["video_id"] == "vggsound/abcdefghij1_000030"


def test_files_as_the_repository_has_them(tmp_path: Path) -> None:
    annotations, video = tmp_path / "data" / "annotation", tmp_path / "data" / "video"
    annotations.mkdir(parents=True)
    video.mkdir()
    (annotations / "val_qa.json").write_text(json.dumps(ITEMS))
    (video / "abcdefghij1_000030.mp4").touch()
    docs = list(AVQA.read(tmp_path, "val"))
    assert docs[0]["video"] == str(video / "abcdefghij1_000030.mp4")
    assert docs[1]["video"] == str(video / "abcdefghij2_000030.mp4")


@pytest.mark.parametrize(
    "broken",
    [{"answer": 4}, {"answer": "A"}, {"multi_choice": []}, {"video_name": "../../etc/passwd"}],
)
def test_a_damaged_item_is_named(root: Path, broken: dict[str, Any]) -> None:
    (root / "val_qa.json").write_text(json.dumps([{**ITEMS[0], **broken}]))
    with pytest.raises(BadData, match="item 0"):
        list(AVQA.read(root, "val"))
