"""Means over samples, some of which a metric does not apply to."""

from __future__ import annotations

from typing import Any

import pytest

from tempeval.task_config import task_config
from tempeval.tasklist import task_entries
from tempeval.tasks.means import mean_of_known, parts


def test_samples_of_other_parts_do_not_count() -> None:
    assert mean_of_known([1.0, None, 0.0, None]) == 0.5
    assert mean_of_known([0.0]) == 0.0
    assert mean_of_known([None]) is None


def test_every_part_is_named_for_every_sample() -> None:
    assert parts(("a", "b"), {"b": 1.0, "c": 2.0}) == {"a": None, "b": 1.0}


DOC: dict[str, Any] = {
    "sample_id": "s",
    "video_id": "v",
    "cluster": "c",
    "content_hash": "h",
    "fine": "order",
    "choices": ["x", "y"],
    "answer_index": 0,
    "answers": ["yes"],
    "question": "Q\nA. x\nB. y",
}


@pytest.mark.parametrize(
    ("task", "categories"),
    [
        ("tempeval_nextqa_mc", ("CW", "TP", "DO")),
        ("tempeval_nextqa_oe", ("CW", "TP", "DB")),
        ("tempeval_avqa", ("Which", "Come From", "Used For")),
        ("tempeval_sqa3d", ("What", "Other")),
        ("tempeval_music_avqa", ("Audio/Counting", "Audio-Visual/Temporal")),
        ("tempeval_tempcompass_multi_choice", ("action", "order")),
        ("tempeval_tempcompass_yes_no", ("action", "order")),
        ("tempeval_tempcompass_caption_matching", ("action", "order")),
        ("tempeval_tempcompass_captioning_mcq", ("action", "order")),
    ],
)
def test_every_sample_gives_every_metric(task: str, categories: tuple[str, ...]) -> None:
    """lmms-eval weighs a task by the number of items of the metric that came up last."""
    assert task in task_entries()
    config = task_config(task)
    metrics = {entry["metric"] for entry in config["metric_list"]}
    for category in categories:
        found = config["process_results"]({**DOC, "category": category}, ["A"])
        assert metrics <= set(found), metrics - set(found)
        known = [name for name in metrics if found[name] is not None]
        assert len(known) < len(metrics)
