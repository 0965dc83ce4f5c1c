"""Kinetics: the label set and its order, clip names, layouts, refusals, and the golden scores."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from label_golden import check_reading, check_scores

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.kinetics import clip_name
from tempeval.benchmarks.sources import label_set, load_docs

GOLDEN = Path(__file__).parents[1] / "reference/metrics/kinetics"
LISTS = GOLDEN / "annotations/kinetics700/annotations"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
HEADER = "label,youtube_id,time_start,time_end,split"


def docs_of(root: Path, split: str = "val", classes: int = 700) -> list[dict[str, Any]]:
    return load_docs({"benchmark": f"kinetics{classes}", "split": split}, root)


def write(folder: Path, val: list[str], train: list[str], header: str = HEADER) -> Path:
    """Write the two lists, and return the folder above the benchmark's."""
    (folder / "annotations").mkdir(parents=True)
    for name, rows in (("val", val), ("train", train)):
        (folder / f"annotations/{name}.csv").write_text("\n".join([header, *rows]) + "\n")
    return folder.parent


def test_classes_are_the_official_ones() -> None:
    root = GOLDEN / "annotations"
    found = {doc["sample_id"]: doc["answer_index"] for doc in docs_of(root)}
    assert found == EXPECTED["class_ids"]["val"]
    train = [[doc["sample_id"], doc["answer_index"]] for doc in docs_of(root, "train")]
    assert train == EXPECTED["class_ids"]["train"]
    assert (
        list(label_set("kinetics700", str(root / "kinetics700"))) == (EXPECTED["label_of_class_id"])
    )


def test_the_order_is_that_of_the_underscored_labels(tmp_path: Path) -> None:
    labels = ["tai chi", "tai's kick", "Zumba", "zumba", "a b", "aAb", "ab", '""a b"" c']
    rows = [f'"{label}",id{number:09d},0,10,train' for number, label in enumerate(labels)]
    root = write(tmp_path / "kinetics400", rows[:1], rows)
    plain = [label.replace('"', "") for label in labels]
    found = list(label_set("kinetics400", str(root / "kinetics400")))
    assert found == sorted(plain, key=lambda label: label.replace(" ", "_"))
    assert found != sorted(plain)
    assert found.index("aAb") < found.index("a b") < found.index("ab")
    assert docs_of(root, classes=400)[0]["answer_index"] == found.index("tai chi")


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [("0", "10", "x_000000_000010"), ("104.0", "114", "x_000104_000114"), ("1500", "1510", None)],
)
def test_clip_names(start: str, end: str, name: str | None) -> None:
    assert clip_name("x", start, end) == (name or "x_001500_001510")


@pytest.mark.parametrize(
    ("place", "val", "train"),
    [
        ("annotations", "kinetics_val.csv", "kinetics_train.csv"),
        ("annotations", "val.csv", "train.csv"),
        ("", "validate.csv", "train.csv"),
        ("k400/annotations", "val.csv", "train.csv"),
        ("kinetics400", "validate.csv", "train.csv"),
    ],
)
def test_lists_under_their_official_names(tmp_path: Path, place: str, val: str, train: str) -> None:
    folder = tmp_path / "kinetics400" / place
    folder.mkdir(parents=True)
    shutil.copy(LISTS / "kinetics_val.csv", folder / val)
    shutil.copy(LISTS / "kinetics_train.csv", folder / train)
    docs = docs_of(tmp_path, classes=400)
    assert [d["sample_id"] for d in docs] == [
        d["sample_id"] for d in docs_of(GOLDEN / "annotations")
    ]
    assert docs[0]["video_id"] == "kinetics400/fAmbGp3EmCq_000000_000010"
    assert docs[0]["cluster"] == "kinetics/fAmbGp3EmCq"


def test_a_column_more_and_another_order(tmp_path: Path) -> None:
    row = "val,abcdefghijk,tai chi,0,10,0"
    root = write(
        tmp_path / "kinetics400", [row], [row], "split,youtube_id,label,time_start,time_end,is_cc"
    )
    (doc,) = docs_of(root, classes=400)
    assert (doc["sample_id"], doc["answers"]) == ("abcdefghijk_000000_000010", ["tai chi"])


def test_videos_in_the_official_layouts(tmp_path: Path) -> None:
    rows = [f"tai chi,clip{number},0,10,val" for number in range(7)]
    root = write(tmp_path / "kinetics400", rows, rows)
    top = root / "kinetics400"
    places = [
        "val/clip0_000000_000010.mp4",
        "val/tai_chi/clip1_000000_000010.mp4",
        "k400/val/clip2_000000_000010.mp4",
        "videos_val/tai chi/clip3_000000_000010.mkv",
        "videos/clip4_000000_000010.webm",
        "val/clip5_000000_000010.mp4",
        "replacement/replacement_for_corrupted_k400/clip5_000000_000010.mp4",
    ]
    for place in places:
        (top / place).parent.mkdir(parents=True, exist_ok=True)
        (top / place).touch()
    found = [doc["video"] for doc in docs_of(root, classes=400)]
    assert found[:5] == [str(top / place) for place in places[:5]]
    assert found[5] == str(top / places[6])  # the replacement, and not the damaged file
    assert found[6] == str(top / "val/clip6_000000_000010.mp4")  # missing: where it should be


@pytest.mark.parametrize(
    "row",
    [
        "juggling,abcdefghijk,0,10,val",
        "tai chi,abcdefghijk,soon,10,val",
        "tai chi,abcdefghijk,inf,10,val",
        "tai chi,../../etc/passwd,0,10,val",
        "tai chi,a/b,0,10,val",
        "tai chi,abcdefghijk",
        ",abcdefghijk,0,10,val",
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str) -> None:
    good = "tai chi,abcdefghijk,0,10,val"
    root = write(tmp_path / "kinetics700", [good, row], [good])
    with pytest.raises(BadData, match=r"val\.csv, line 3"):
        docs_of(root)


def test_bad_and_missing_lists(tmp_path: Path) -> None:
    root = write(tmp_path / "kinetics700", ["test,abcdefghijk,0,10"], [], "a,youtube_id,b,c")
    with pytest.raises(BadData, match="expected label, youtube_id, time_start, time_end"):
        docs_of(root)
    (root / "kinetics700/annotations/train.csv").write_text(HEADER + "\n")
    with pytest.raises(BadData, match="holds no label"):
        docs_of(root)
    (root / "kinetics700/annotations/train.csv").unlink()
    with pytest.raises(MissingData, match=r"kinetics_train\.csv or train\.csv"):
        docs_of(root)


def test_a_changed_training_list_changes_the_labels(tmp_path: Path) -> None:
    rows = ["tai chi,abcdefghijk,0,10,val"]
    root = write(tmp_path / "kinetics700", rows, rows)
    assert docs_of(root)[0]["answer_index"] == 0
    path = root / "kinetics700/annotations/train.csv"
    path.write_text("\n".join([HEADER, *rows, "archery,bbcdefghijk,0,10,train"]))
    assert docs_of(root)[0]["answer_index"] == 1


def test_golden_answers_are_read_as_expected() -> None:
    check_reading(GOLDEN, EXPECTED["label_of_class_id"])


@pytest.mark.parametrize("root", ["annotations", "annotations/kinetics700"])
def test_golden_scores(root: str) -> None:
    check_scores(GOLDEN, "tempeval_kinetics700_list", GOLDEN / root, "classification_on_val")
