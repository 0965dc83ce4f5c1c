"""Scores of single samples of tasks that know means only."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.host_scores import Metric, check_metric, score_samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VIDEOS = [("/data/a/1.mp4",), ("/data/a/1.mp4",), ("/data/b/2.mp4",), ("/data/b/3.mp4",)]


def mean(items: Sequence[float]) -> float:
    return sum(items) / len(items)


def share_right(items: Sequence[dict[str, Any]]) -> float:
    return 100.0 * sum(item["pred"] == item["answer"] for item in items) / len(items)


def by_category(items: Sequence[dict[str, Any]]) -> float:
    groups: dict[str, list[float]] = {}
    for item in items:
        groups.setdefault(item["category"], []).append(item["pred"] == item["answer"])
    return mean([mean(values) for values in groups.values()])


def task_of(metrics: dict[str, Callable[..., Any]], **config: Any) -> Any:
    return SimpleNamespace(
        config=SimpleNamespace(task="theirs", **config),
        aggregation=lambda: metrics,
        higher_is_better=lambda: dict.fromkeys(metrics, True),
        args=Namespace(output_path="/nowhere"),
    )


def samples_of(name: str, items: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"doc_id": i, "doc_hash": f"h{i}", name: item} for i, item in enumerate(items)]


def test_numbers_under_a_mean_are_the_scores() -> None:
    samples = samples_of("acc", [1, 0, True, 0.5])
    found = score_samples(task_of({"acc": mean}), samples, {"acc,none": 0.625}, VIDEOS)
    assert (found.unranked, found.metric, found.cluster_key) == ("", "acc", "video_id")
    assert [sample[found.score_key] for sample in samples] == [1, 0, 1, 0.5]
    assert [sample["sample_id"] for sample in samples] == ["h0", "h1", "h2", "h3"]
    assert [sample["video_id"] for sample in samples] == [
        "a/1.mp4",
        "a/1.mp4",
        "b/2.mp4",
        "b/3.mp4",
    ]


ITEMS = [
    {"pred": "A", "answer": "A", "category": "x"},
    {"pred": "B", "answer": "A", "category": "x"},
    {"pred": "C", "answer": "C", "category": "x"},
    {"pred": "C", "answer": "C", "category": "y"},
]


def test_an_aggregation_of_objects_is_applied_to_each_sample() -> None:
    task = task_of({"submission": lambda _items: None, "their_score": share_right})
    results = {"submission,none": None, "their_score,none": 75.0}
    samples = samples_of("their_score", ITEMS)
    found = score_samples(task, samples, results, VIDEOS)
    assert [sample[found.score_key] for sample in samples] == [100, 0, 100, 100]
    percent = score_samples(task, samples, results, VIDEOS, Metric.parse("their_score:percent"))
    assert [sample[percent.score_key] for sample in samples] == [1, 0, 1, 1]
    wrong = score_samples(task, samples, results, VIDEOS, Metric.parse("their_score:fraction"))
    assert wrong.unranked == "their_score is said to be in fraction, and a sample scores 100"


def test_a_mean_over_categories_is_not_ranked() -> None:
    samples = samples_of("macro", ITEMS)
    found = score_samples(task_of({"macro": by_category}), samples, {"macro,none": 5 / 6}, VIDEOS)
    assert "its macro is 0.833333, and the mean" in found.unranked
    assert "0.75" in found.unranked
    assert all(found.score_key not in sample for sample in samples)


def test_a_failed_sample_scores_nothing_and_the_others_are_checked() -> None:
    samples = samples_of("acc", [1, 1, 0, None])
    samples[3] |= {"failure": "its video is not there"}
    found = score_samples(task_of({"acc": mean}), samples, {"acc,none": 0.5}, VIDEOS)
    assert [sample[found.score_key] for sample in samples] == [1, 1, 0, 0]


def test_what_cannot_be_told_apart_is_not_ranked() -> None:
    twice = [*samples_of("acc", [1, 0]), *samples_of("acc", [0, 0])]
    task = task_of({"acc": mean})
    assert "4 samples of 2 documents" in score_samples(task, twice, {"acc,a": 0.5}, VIDEOS).unranked
    bare = samples_of("acc", [[1], [0]])
    assert "is no number" in score_samples(task, bare, {"acc,none": 0.5}, VIDEOS).unranked
    none = score_samples(task, samples_of("acc", [1]), {"acc,none": "N/A"}, VIDEOS)
    assert none.unranked == "it has no metric that is a number (acc is N/A)"


def test_equal_documents_are_two_samples_and_unknown_videos_one_cluster_each() -> None:
    samples = [{"doc_id": i, "doc_hash": "same", "acc": 1.0} for i in range(2)]
    score_samples(task_of({"acc": mean}), samples, {"acc,none": 1.0}, [(), ()])
    assert [sample["sample_id"] for sample in samples] == ["same", "same-2"]
    assert [sample["video_id"] for sample in samples] == ["same", "same-2"]


def test_aggregations_of_one_sample_write_nothing_where_the_run_is(tmp_path: Path) -> None:
    written: list[str] = []

    def writes(items: list[float], args: Namespace) -> float:
        (Path(args.output_path) / "submission.json").write_text(str(items))
        written.append(args.output_path)
        print("noise")  # noqa: T201
        return mean(items)

    task = task_of({"acc": writes})
    task.args = Namespace(output_path=str(tmp_path))
    assert not score_samples(task, samples_of("acc", [1, 0]), {"acc,none": 0.5}, VIDEOS).unranked
    assert len(written) == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", ":percent", "acc:percents"])
def test_metrics_that_cannot_be_read(text: str) -> None:
    with pytest.raises(InvalidSetting):
        Metric.parse(text)


def test_a_metric_that_a_task_lacks_is_named() -> None:
    with pytest.raises(UnknownName, match=r"acc.*accuracy"):
        check_metric(task_of({"accuracy": mean}), Metric("acc"))
