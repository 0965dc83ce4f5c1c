"""Which plots there are, what they leave out, and that nothing in them is cut off."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tempeval.leaderboard import build, labels
from tempeval.leaderboard.differences import differences
from tempeval.leaderboard.drawing import Text, flat
from tempeval.leaderboard.plots import drawings, panels

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK, OTHER = "tempeval_mini_action", "tempeval_mini_order"


def lines(*tasks, **options):
    return {task: made["sample_lines"](task, **({"videos": 20} | options)) for task in tasks}


def board(tmp_path, runs, **changes):
    """Build runs of (name, tasks), each with layers of its own so that costs differ."""
    for number, (name, tasks) in enumerate(runs):
        for group in tasks.values():
            for line in group:
                line["token_counts"][0]["kv_bytes"] *= 1 + number
        made["write_run"](tmp_path / "runs" / name, name, tasks=tasks, **changes)
    return build([tmp_path / "runs"], tmp_path / "out", draws=200).document


def test_tasks_of_unlike_scales_have_plots_of_their_own(tmp_path):
    """There is no mean of a score in percent and one of other numbers."""
    runs = []
    for name in ("baseline", "pas"):
        tasks = lines(TASK, OTHER, flip=0.3 * (name == "pas"))
        for line in tasks[OTHER]:
            line["score"] *= 5
        runs.append((name, tasks))
    document = board(tmp_path, runs)
    assert sorted(differences(document)) == [("table-1", 0), ("table-1", 1)]
    found = panels(document)
    assert [panel.title for panel in found] == [f"{TASK}: mini", f"{OTHER}: mini"]
    assert not any(panel.is_part for panel in found)
    assert all(panel.figures for panel in found)


def test_tasks_with_a_mean_are_drawn_too_and_say_what_is_left_out(tmp_path):
    runs = [(name, lines(TASK, OTHER)) for name in ("baseline", "pas")]
    document = board(tmp_path, [*runs, ("intp", lines(TASK))])
    mean, action, order = panels(document)
    assert [panel.is_part for panel in (mean, action, order)] == [False, True, True]
    assert mean.figures[0].caption.endswith("Left out, since they lack a task: intp.")
    assert "Left out" not in action.figures[0].caption
    assert order.figures[0].caption.endswith("Left out, since they lack this task: intp.")
    found = differences(document)
    assert sorted(found, key=str) == [("table-1", 0), ("table-1", 1), ("table-1", None)]
    assert "since they lack a task: intp." in found["table-1", None].caption
    assert "Left out" not in found["table-1", 0].caption
    names = [drawing.name for drawing in drawings(document)]
    assert len(set(names)) == len(names)


def test_very_many_tasks_have_plots_of_their_mean_only(tmp_path):
    tasks = [f"task_{number:02d}" for number in range(13)]
    runs = [(name, lines(*tasks, videos=3)) for name in ("baseline", "pas")]
    document = board(tmp_path, runs)
    (panel,) = panels(document)
    assert panel.notes[0] == "Only the mean is drawn, not each of its 13 tasks."
    assert list(differences(document)) == [("table-1", None)]


@pytest.mark.parametrize("model", ["m" * 90, "org/a-model-with-a-long-name " * 4])
def test_no_text_leaves_its_picture(tmp_path, model):
    task = "tempeval_benchmark_with_a_long_name_action_sequence"
    runs = [(name, lines(task)) for name in ("baseline", "pas")]
    document = board(tmp_path, runs, model=model)
    drawn = drawings(document)
    assert drawn
    for drawing in drawn:
        for item in flat(drawing.items):
            if not isinstance(item, Text):
                continue
            length = labels.width(item.content, item.style.size) * (1.08 if item.style.bold else 1)
            if item.turned:
                assert length <= drawing.height
                continue
            left = item.at[0] - {"start": 0, "middle": length / 2, "end": length}[item.anchor]
            assert left >= 0, item
            assert left + length <= drawing.width, item
