"""Something-Something V2: classes by template, both file layouts, and the golden scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from label_golden import check_reading, check_scores

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.sources import label_set, load_docs

GOLDEN = Path(__file__).parents[1] / "reference/metrics/ssv2"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
PREFIX = "something-something-v2-"


def docs_of(root: Path, split: str = "validation") -> list[dict[str, Any]]:
    return load_docs({"benchmark": "ssv2", "split": split}, root)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "annotations", tmp_path / "ssv2")
    return tmp_path


def write(root: Path, kind: str, content: Any) -> None:
    (root / f"ssv2/{PREFIX}{kind}.json").write_text(json.dumps(content))


def test_classes_are_the_official_ones() -> None:
    for split in ("train", "validation"):
        found = {d["sample_id"]: d["answer_index"] for d in docs_of(GOLDEN / "annotations", split)}
        assert found == EXPECTED["class_ids"][split]


def test_the_class_is_the_template_and_not_the_filled_sentence(official: Path) -> None:
    doc = docs_of(official)[0]
    assert doc["answers"] == ["Tipping something over"]
    assert "ottoman" not in json.dumps(doc)
    write(official, "labels", {"Tipping something over": "0", "tipping ottoman over": "1"})
    items = json.loads((official / f"ssv2/{PREFIX}validation.json").read_text())
    write(official, "validation", items[:1])
    assert docs_of(official)[0]["answer_index"] == 0


def test_qualcomm_layout(tmp_path: Path) -> None:
    folder = tmp_path / "ssv2/labels"
    folder.mkdir(parents=True)
    for kind in ("labels", "validation"):
        shutil.copy(GOLDEN / f"annotations/{PREFIX}{kind}.json", folder / f"{kind}.json")
    assert [d["sample_id"] for d in docs_of(tmp_path)] == [
        d["sample_id"] for d in docs_of(GOLDEN / "annotations")
    ]


def test_videos(official: Path) -> None:
    videos = official / "ssv2/20bn-something-something-v2"
    videos.mkdir()
    (videos / "100000.webm").touch()
    (official / "ssv2/videos").mkdir()
    (official / "ssv2/videos/100017.mp4").touch()
    first, second, third = docs_of(official)[:3]
    assert first["video"] == str(videos / "100000.webm")
    assert second["video"] == str(official / "ssv2/videos/100017.mp4")
    assert third["video"] == str(videos / "100034.webm")
    assert first["fps"] is None
    assert first["cluster"] == "ssv2/100000"


@pytest.mark.parametrize(
    "item",
    [
        {"id": "1", "label": "tipping cup over"},
        {"id": "1", "template": None},
        {"id": "1", "template": "Juggling [something]"},
        {"id": "../1", "template": "Tipping [something] over"},
        {"template": "Tipping [something] over"},
        {"id": None, "template": "Tipping [something] over"},
        "1",
    ],
)
def test_a_bad_item_is_named(official: Path, item: Any) -> None:
    write(official, "validation", [{"id": 7, "template": "Tipping [something] over"}, item])
    with pytest.raises(BadData, match=rf"{PREFIX}validation\.json, item 1"):
        docs_of(official)


@pytest.mark.parametrize(
    "labels",
    [{}, {"a": "0", "b": "0"}, {"a": "1", "b": "2"}, {"a": "x"}, ["a"], {"a": None}],
)
def test_bad_labels_are_refused(official: Path, labels: Any) -> None:
    write(official, "labels", labels)
    with pytest.raises(BadData, match=rf"{PREFIX}labels\.json"):
        docs_of(official)


def test_bad_and_missing_files(official: Path) -> None:
    write(official, "validation", {"id": "1"})
    with pytest.raises(BadData, match="expected a list"):
        docs_of(official)
    (official / f"ssv2/{PREFIX}validation.json").write_text("[{]")
    with pytest.raises(BadData, match="no JSON"):
        docs_of(official)
    (official / f"ssv2/{PREFIX}validation.json").unlink()
    with pytest.raises(MissingData, match=rf"{PREFIX}validation\.json or validation\.json"):
        docs_of(official)


def test_golden_answers_are_read_as_expected() -> None:
    check_reading(GOLDEN, label_set("ssv2", str(GOLDEN / "annotations")))


def test_golden_scores() -> None:
    check_scores(
        GOLDEN, "tempeval_ssv2_list", GOLDEN / "annotations", "classification_on_validation"
    )
