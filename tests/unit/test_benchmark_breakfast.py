"""Breakfast: which videos there are by which list, stereo channels, splits, clusters, scores."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.breakfast import LABELS, VIDEOS
from tempeval.benchmarks.registry import benchmark
from tempeval.benchmarks.sources import label_set, load_docs
from tempeval.run.rescore import read_predictions, rescore
from tempeval.tasks import breakfast as breakfast_task
from tempeval.tasks import label_classification as labels_task

GOLDEN = Path(__file__).parents[1] / "reference/metrics/breakfast"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
NAMES = list(EXPECTED["frame_label_file_of_path"].values())


def docs_of(root: Path, split: str = "all") -> list[dict[str, Any]]:
    return load_docs({"benchmark": "breakfast", "split": split}, root)


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Return a data root with MS-TCN's frame labels of the golden videos."""
    touch(tmp_path / "breakfast", *(f"groundTruth/{name}" for name in NAMES))
    return tmp_path


def test_videos_activities_and_clusters(listed: Path) -> None:
    docs = docs_of(listed)
    assert {d["sample_id"]: d["answers"][0] for d in docs} == EXPECTED["activity_of_path"]
    found = {doc["sample_id"]: doc for doc in docs}
    doc = found[f"{VIDEOS}/P15/stereo/P15_friedegg_ch1.avi"]
    assert doc["video_id"] == f"breakfast/{VIDEOS}/P15/stereo/P15_friedegg_ch1.avi"
    assert doc["cluster"] == "breakfast/P15_friedegg"
    assert (doc["category"], doc["camera"]) == ("s1", "stereo")
    assert doc["video"] == str(listed / "breakfast" / doc["sample_id"])


@pytest.mark.parametrize("kind", ["bundles", "coarse"])
def test_other_lists_name_the_same_videos(tmp_path: Path, listed: Path, kind: str) -> None:
    root = tmp_path / "other"
    if kind == "bundles":
        touch(root, "splits/test.split1.bundle")
        (root / "splits/test.split1.bundle").write_text("\n".join(NAMES[:8]) + "\n")
        # Without a final line end, MS-TCN's own code loses the last video.
        (root / "splits/train.split1.bundle").write_text("\n".join(NAMES[4:]))
    else:
        for name in NAMES:
            activity = name.removesuffix(".txt").rpartition("_")[2]
            touch(root, f"segmentation_coarse/{activity}/{name}")
            touch(root, f"segmentation_coarse/{activity}/{name.replace('.txt', '.xml')}")
            touch(root, f"segmentation_coarse/{activity}/._{name}")
    assert [d["sample_id"] for d in docs_of(root)] == [d["sample_id"] for d in docs_of(listed)]


def test_takes_without_cameras_stand_for_the_videos_on_disk(tmp_path: Path) -> None:
    root = tmp_path / "breakfast"
    takes = ("cereals/P03_cereals.txt", "tea/P03_tea.txt")
    touch(root, *(f"segmentation_coarse/{take}" for take in takes))
    touch(
        root,
        f"{VIDEOS}/P03/cam01/P03_cereals.avi",
        f"{VIDEOS}/P03/webcam02/P03_cereals.avi",
        f"{VIDEOS}/P03/stereo/P03_cereals_ch0.avi",
        f"{VIDEOS}/P03/stereo/P03_cereals_ch1.avi",
        f"{VIDEOS}/P03/cam01/P03_milk.avi",  # in no list
    )
    found = {doc["sample_id"].removeprefix(f"{VIDEOS}/P03/"): doc for doc in docs_of(tmp_path)}
    assert set(found) == {
        "cam01/P03_cereals.avi",
        "stereo/P03_cereals_ch1.avi",
        "webcam02/P03_cereals.avi",
        "cam01/P03_tea.avi",  # no video at all: one that is missing, so that it is counted
    }
    assert not Path(found["cam01/P03_tea.avi"]["video"]).exists()
    assert all(Path(d["video"]).exists() for name, d in found.items() if "tea" not in name)


@pytest.mark.parametrize("folder", [VIDEOS, "videos", f"videos/{VIDEOS}"])
def test_places_of_the_videos(listed: Path, folder: str) -> None:
    touch(listed / "breakfast", f"{folder}/P03/cam01/P03_cereals.avi")
    touch(listed / "breakfast", f"{folder}/P15/stereo/P15_friedegg_ch1.mp4")
    found = {doc["sample_id"]: doc["video"] for doc in docs_of(listed)}
    place = listed / "breakfast" / folder
    assert found[f"{VIDEOS}/P03/cam01/P03_cereals.avi"] == str(place / "P03/cam01/P03_cereals.avi")
    assert found[f"{VIDEOS}/P15/stereo/P15_friedegg_ch1.avi"] == str(
        place / "P15/stereo/P15_friedegg_ch1.mp4"
    )


def test_one_channel_does_not_stand_in_for_the_other(listed: Path) -> None:
    touch(listed / "breakfast", f"{VIDEOS}/P15/stereo/P15_friedegg_ch0.avi")
    found = {doc["sample_id"]: doc["video"] for doc in docs_of(listed)}
    assert not Path(found[f"{VIDEOS}/P15/stereo/P15_friedegg_ch1.avi"]).exists()


@pytest.mark.parametrize("kind", ["groundTruth", "splits"])
def test_splits_are_those_of_the_participants(tmp_path: Path, kind: str) -> None:
    people = {"s1": (3, 15), "s2": (16, 28), "s3": (29, 41), "s4": (42, 54)}
    names = [f"P{p:02d}_cam01_P{p:02d}_tea.txt" for p in range(3, 55)]
    root = tmp_path / "breakfast"
    if kind == "groundTruth":
        touch(root, *(f"groundTruth/{name}" for name in names))
    else:
        touch(root, "splits/test.split1.bundle")
        (root / "splits/test.split1.bundle").write_text("\n".join(names))
    assert Counter(doc["category"] for doc in docs_of(tmp_path)) == dict.fromkeys(people, 13)
    for split, (first, last) in people.items():
        found = [doc["sample_id"] for doc in docs_of(tmp_path, split)]
        assert found == [
            f"{VIDEOS}/P{p:02d}/cam01/P{p:02d}_tea.avi" for p in range(first, last + 1)
        ]
    annotations = benchmark("breakfast").annotations
    assert len(annotations(root, "s2")) == (13 if kind == "groundTruth" else 1)


@pytest.mark.parametrize(
    "name",
    [
        "P02_cam01_P02_tea.txt",
        "P55_cam01_P55_tea.txt",
        "P03_cam01_P04_tea.txt",
        "P03_cam01_P03_soup.txt",
        "tea.txt",
        "P03_phone_P03_tea.txt",
    ],
)
def test_a_bad_name_is_named(listed: Path, name: str) -> None:
    touch(listed / "breakfast", f"groundTruth/{name}")
    with pytest.raises(BadData, match=name):
        docs_of(listed)


def test_missing_lists(tmp_path: Path) -> None:
    touch(tmp_path / "breakfast", f"{VIDEOS}/P03/cam01/P03_tea.avi")
    with pytest.raises(MissingData, match="groundTruth"):
        docs_of(tmp_path)


def test_labels_and_their_readable_forms(listed: Path) -> None:
    doc = docs_of(listed)[0]
    assert label_set("breakfast", doc["root"]) == LABELS == tuple(sorted(LABELS))
    shown = labels_task.doc_to_choice(doc)
    assert len(shown) == 10
    assert {"fried egg", "scrambled eggs", "fruit salad", "tea"} <= set(shown)
    assert "\nfriedegg\n" in labels_task.list_text(doc)


def test_aliases_count_beside_and_not_in_top1(listed: Path) -> None:
    docs = {doc["answers"][0]: doc for doc in docs_of(listed)}

    def scores(activity: str, text: str) -> tuple[float, float]:
        found = breakfast_task.process_list_with_aliases(docs[activity], [text])
        return found["score"], found["top1_aliases"]

    assert scores("friedegg", "Friedegg.") == (1.0, 1.0)
    assert scores("friedegg", "fried egg") == (0.0, 1.0)
    assert scores("scrambledegg", "Scrambled eggs.") == (0.0, 1.0)
    assert scores("salat", "fruit salad") == (0.0, 1.0)
    assert scores("salat", "The person prepares fruit salad.") == (0.0, 0.0)
    assert scores("salat", "salad") == (0.0, 0.0)
    assert scores("tea", "fried egg") == (0.0, 0.0)


def test_golden_scores(listed: Path) -> None:
    answers = read_predictions(GOLDEN / "predictions.json")
    found = rescore("tempeval_breakfast_list", answers, listed).metrics
    expected = EXPECTED["metrics"]
    plain = expected["activity_10way_label_equality"]
    assert found["top1"] == pytest.approx(plain["top1"], abs=2e-4)
    assert found["top1_s1"] == found["top1"]
    assert "top1_s2" not in found
    assert found["macro_f1"] == pytest.approx(plain["macro_f1_10_classes"], abs=2e-4)
    assert found["parse_failure"] == pytest.approx(100 * plain["unparsed"] / 12)
    aliased = expected["activity_10way_with_three_aliases"]
    assert found["top1_aliases"] == pytest.approx(aliased["top1"], abs=2e-4)
