"""Jester: the reader on the official files, its refusals, and the scores of the golden answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from label_golden import check_reading, check_scores

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.registry import benchmark
from tempeval.benchmarks.roots import using_root
from tempeval.benchmarks.sources import label_set, load_docs
from tempeval.tasks.documents import clip

GOLDEN = Path(__file__).parents[1] / "reference/metrics/jester"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


def docs_of(root: Path, split: str = "validation") -> list[dict[str, Any]]:
    return load_docs({"benchmark": "jester", "split": split}, root)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """Return a copy of the golden annotations, under the benchmark's own folder."""
    shutil.copytree(GOLDEN / "annotations", tmp_path / "jester")
    return tmp_path


def test_classes_are_the_official_ones() -> None:
    for split in ("train", "validation"):
        found = {d["sample_id"]: d["answer_index"] for d in docs_of(GOLDEN / "annotations", split)}
        assert found == EXPECTED["class_ids"][split]


def test_documents(official: Path) -> None:
    docs = docs_of(official)
    (official / "jester/20bn-jester-v1/1013").mkdir(parents=True)
    doc = docs_of(official)[1]
    assert doc["sample_id"] == "1013"
    assert doc["video_id"] == doc["cluster"] == "jester/1013"
    assert doc["video"] == str(official / "jester/20bn-jester-v1/1013")
    assert doc["answers"] == ["Sliding Two Fingers Left"]
    assert clip(doc).fps == 12.0
    assert doc["content_hash"] == docs[1]["content_hash"]  # whether the frames are there or not
    missing = docs_of(official)[0]
    assert missing["video"] == str(official / "jester/20bn-jester-v1/1000")


def test_annotations_as_qualcomms_archive_names_them(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "annotations", tmp_path / "jester" / "labels")
    for path in (tmp_path / "jester" / "labels").glob("jester-v1-*"):
        path.rename(path.with_name(path.name.removeprefix("jester-v1-")))
    assert len(docs_of(tmp_path)) == 54
    assert len(label_set("jester", str(tmp_path / "jester"))) == 27


@pytest.mark.parametrize("place", ["", "annotations", "labels"])
def test_annotations_may_lie_beside_the_frames_or_in_a_folder(tmp_path: Path, place: str) -> None:
    shutil.copytree(GOLDEN / "annotations", tmp_path / "jester" / place)
    assert len(docs_of(tmp_path)) == 54
    assert len(label_set("jester", str(tmp_path / "jester"))) == 27


@pytest.mark.parametrize(
    "line", ["1;Jumping", "1", "1;", "../../etc;Thumb Up", "a/../../b;Thumb Up", ";Thumb Up"]
)
def test_a_bad_line_is_named(official: Path, line: str) -> None:
    path = official / "jester/jester-v1-validation.csv"
    path.write_text(f"1000;Shaking Hand\n{line}\n")
    with pytest.raises(BadData, match=r"jester-v1-validation\.csv, line 2"):
        docs_of(official)


def test_bad_and_missing_files(official: Path) -> None:
    folder = official / "jester"
    windows = (folder / "jester-v1-validation.csv").read_text().replace("\n", "\r\n")
    (folder / "jester-v1-validation.csv").write_bytes(b"\xef\xbb\xbf" + windows.encode())
    assert docs_of(official)[0]["sample_id"] == "1000"  # line ends of Windows, and its mark
    (folder / "jester-v1-labels.csv").write_text("Thumb Up\nThumb Up\n")
    with pytest.raises(BadData, match="'Thumb Up' more than once"):
        docs_of(official)
    (folder / "jester-v1-labels.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(BadData, match="UTF-8"):
        docs_of(official)
    (folder / "jester-v1-labels.csv").unlink()
    with pytest.raises(MissingData, match=r"jester-v1-labels\.csv"):
        docs_of(official)


def test_the_hidden_split_is_not_offered() -> None:
    assert set(benchmark("jester").splits) == {"validation", "train"}
    with pytest.raises(BadData, match="no split 'test'"):
        docs_of(GOLDEN / "annotations", "test")


def test_golden_answers_are_read_as_expected() -> None:
    check_reading(GOLDEN, label_set("jester", str(GOLDEN / "annotations")))


def test_golden_scores() -> None:
    found = check_scores(
        GOLDEN, "tempeval_jester_list", GOLDEN / "annotations", "classification_on_validation"
    )
    assert found["chance"] == pytest.approx(100 / 27)


def test_the_data_root_decides(official: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPEVAL_DATA", str(official / "nowhere"))
    with using_root(official):
        assert len(load_docs({"benchmark": "jester", "split": "validation"})) == 54
    with pytest.raises(MissingData, match="tempeval data check jester"):
        load_docs({"benchmark": "jester", "split": "validation"})
