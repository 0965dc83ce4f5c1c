"""Tables that one task could stand in several of: tasks are joined only where that is sure."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tempeval.leaderboard import build

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
ACTION, ORDER, DIRECTION = "tempeval_mini_action", "tempeval_mini_order", "tempeval_mini_direction"


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


def write(root, name, tasks, day=1, tokens=36, **changes):
    """Write a baseline and a method of one setting over some tasks."""
    for method in ("baseline", "pas"):
        lines = {task: made["sample_lines"](task, videos=5, tokens=tokens) for task in tasks}
        finished = f"2026-01-{day:02d}T00:00:00+00:00"
        folder = root / f"{method}_{name}"
        made["write_run"](folder, method, tasks=lines, finished=finished, **changes)


def tables(root, **options):
    """Give tasks -> (runs of the baseline, budgets, notes), in the order of the document."""
    document = build([root], root.parent / "out", draws=200, **options).document
    assert not document["not_comparable"]
    return [
        (
            tuple(task["name"].removeprefix("tempeval_mini_") for task in table["tasks"]),
            tuple(cell["run"].removeprefix("baseline_") for cell in table["rows"][0]["cells"]),
            table["budgets"],
            table["notes"],
        )
        for table in document["tables"]
    ]


def test_tasks_are_joined_by_their_measured_budget(runs):
    """Not by which of them ran last."""
    write(runs, "a36", [ACTION], day=3)
    write(runs, "a72", [ACTION], day=2, tokens=72)
    write(runs, "o36", [ORDER], day=2)
    write(runs, "o72", [ORDER], day=3, tokens=72)
    note = f"{ACTION}, {ORDER} also stand in another table, with another measured budget."
    assert tables(runs) == [
        (("action", "order"), ("a36", "o36"), [36, 36], [note]),
        (("action", "order"), ("a72", "o72"), [72, 72], [note]),
    ]


def test_tasks_are_joined_by_their_runs(runs):
    """Prompts of two tasks say nothing of each other, but one run had both."""
    write(runs, "x", [ACTION, ORDER], task_changes={"prompt_hash": "x"}, day=2)
    write(runs, "y", [ACTION], task_changes={"prompt_hash": "y"}, day=3)
    write(runs, "z", [ORDER], task_changes={"prompt_hash": "z"}, day=1)
    found = {names: (tasks, notes) for tasks, names, _, notes in tables(runs)}
    assert {names: tasks for names, (tasks, _) in found.items()} == {
        ("x", "x"): ("action", "order"),
        ("y",): ("action",),
        ("z",): ("order",),
    }
    assert found["x", "x"][1] == [
        f"{ACTION}, {ORDER} also stand in another table, with another prompt."
    ]
    assert found["y",][1] == [f"{ACTION} also stands in another table, with another prompt."]


def test_tasks_of_unknown_relation_are_not_joined(runs):
    for day, (name, task, prompt) in enumerate(
        (
            ("new_a", ACTION, "new"),
            ("old_a", ACTION, "old"),
            ("old_o", ORDER, "old"),
            ("new_o", ORDER, "new"),
        ),
        1,
    ):
        write(runs, name, [task], day=day, task_changes={"prompt_hash": prompt})
    found = tables(runs)
    assert sorted(names for _, names, _, _ in found) == [
        ("new_a",),
        ("new_o",),
        ("old_a",),
        ("old_o",),
    ]
    assert all("with another prompt" in notes[0] for *_, notes in found)


def test_tasks_that_are_there_once_stay_together(runs):
    """Whatever another task is there twice with, as they did without it."""
    write(runs, "d", [DIRECTION])
    write(runs, "o", [ORDER], tokens=50)
    assert [tasks for tasks, *_ in tables(runs)] == [("direction", "order")]
    for prompt in ("x", "y"):
        write(runs, f"a_{prompt}", [ACTION], task_changes={"prompt_hash": prompt})
    found = tables(runs)
    assert sorted(tasks for tasks, *_ in found) == [
        ("action",),
        ("action",),
        ("direction", "order"),
    ]
    assert {tasks: notes for tasks, _, _, notes in found}["direction", "order"] == []


def test_two_plans_of_a_method_are_joined_by_plan(runs):
    """The same plan in both tasks, whichever ran last in each."""
    write(runs, "b", [ACTION, ORDER], max_pixels=3000, min_pixels=None)
    (runs / "pas_b" / "run.json").unlink()
    for name, task, pixels, day in (
        ("a4", ACTION, 4000, 2),
        ("a5", ACTION, 5000, 1),
        ("o4", ORDER, 4000, 1),
        ("o5", ORDER, 5000, 2),
    ):
        lines = {task: made["sample_lines"](task, videos=5)}
        changes = {"max_pixels": pixels, "min_pixels": None}
        finished = f"2026-02-0{day}T00:00:00+00:00"
        made["write_run"](runs / name, "pas", tasks=lines, finished=finished, **changes)
    summary = build([runs], runs.parent / "out", draws=200)
    document = summary.document
    assert not document["not_comparable"]
    for pixels in (4000, 5000):
        assert f"no min pixels, at most {pixels} pixels per frame" in summary.text
    found = {
        table["setting"]["methods_plan"]["max_pixels"]: [
            c["run"] for c in table["rows"][1]["cells"]
        ]
        for table in document["tables"]
    }
    assert found == {4000: ["a4", "o4"], 5000: ["a5", "o5"]}
    notes = [table["notes"] for table in document["tables"]]
    assert (
        notes
        == [[f"{ACTION}, {ORDER} also stand in another table, with another plan of the methods."]]
        * 2
    )
