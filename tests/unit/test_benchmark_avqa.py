"""AVQA: reader, NULL choices, and scores computed by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tempeval.benchmarks.avqa import AVQA
from tempeval.benchmarks.base import BadData
from tempeval.rescore import rescore

if TYPE_CHECKING:
    from pathlib import Path


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


def test_scores_by_hand(root: Path) -> None:
    metrics = rescore("tempeval_avqa", ANSWERS, root).metrics
    assert metrics["acc"] == pytest.approx(100 * 2 / 5)
    assert metrics["acc_which"] == pytest.approx(50)
    assert metrics["acc_come_from"] == pytest.approx(100)
    assert metrics["acc_before_next"] == 0
    assert metrics["chance"] == pytest.approx(25)
    assert metrics["parse_failure"] == pytest.approx(100 * 2 / 5)


def test_documents(root: Path) -> None:
    docs = list(AVQA.read(root, "val"))
    assert docs[2]["choices"] == ["a dog", "a cat", "NULL", "NULL"]
    assert docs[0]["video"] == str(root / "videos" / "abcdefghij1_000030.mp4")
    # A clip that is not there is named where it should be, and fails when it is decoded.
    assert docs[1]["video"] == str(root / "videos" / "abcdefghij2_000030.mp4")
    assert docs[0]["video_id"] == docs[3]["video_id"] == "vggsound/abcdefghij1_000030"


@pytest.mark.parametrize(
    "broken",
    [{"answer": 4}, {"answer": "A"}, {"multi_choice": []}, {"video_name": "../../etc/passwd"}],
)
def test_a_damaged_item_is_named(root: Path, broken: dict[str, Any]) -> None:
    (root / "val_qa.json").write_text(json.dumps([{**ITEMS[0], **broken}]))
    with pytest.raises(BadData, match="item 0"):
        list(AVQA.read(root, "val"))
