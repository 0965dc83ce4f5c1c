"""Several tasks in one setting: which stand in one table, and what is said of their budgets."""

from __future__ import annotations

import csv
import json
import re
import runpy
from pathlib import Path

import pytest

from tempeval.leaderboard import build

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
NAMES = {short: f"tempeval_mini_{short}" for short in ("action", "direction", "order", "other")}


def write(root, method, tasks, **options):
    """Write a run of tasks, or of tasks with options for each: name -> options of its lines."""
    chosen = tasks if isinstance(tasks, dict) else {name: {} for name in tasks}
    lines = {
        NAMES[name]: made["sample_lines"](NAMES[name], videos=8, per_video=1, **options | own)
        for name, own in chosen.items()
    }
    return made["write_run"](root / "runs" / method, method, tasks=lines)


def built(root, **options):
    summary = build([root / "runs"], root / "out", draws=100, **options)
    return summary, json.loads(summary.json.read_text(encoding="utf-8"))["tables"]


def shape(tables):
    """Give tasks and complete rows of each table; every row with all tasks has means and costs."""
    found = {}
    for table in tables:
        names = " ".join(task["name"].removeprefix("tempeval_mini_") for task in table["tasks"])
        full = [row for row in table["rows"] if None not in row["cells"]]
        assert all(row["macro"] is not None and row["costs"] is not None for row in full)
        found[names] = sorted(row["label"] for row in full)
    return found


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        # What only the baseline has costs the others nothing.
        (
            {
                "baseline": "action direction order",
                "pas": "action direction",
                "vrope": "action direction",
            },
            {"action direction": ["baseline", "pas", "vrope"], "order": ["baseline"]},
        ),
        # Nor does what only one method has.
        (
            {
                "baseline": "action direction order",
                "pas": "action direction",
                "vrope": "action direction order",
                "intp": "action direction",
            },
            {
                "action direction": ["baseline", "intp", "pas", "vrope"],
                "order": ["baseline", "vrope"],
            },
        ),
        # A method that lacks a task which the others have loses its own means alone.
        (
            {
                "baseline": "action direction order",
                "pas": "action direction order",
                "vrope": "action direction order",
                "intp": "action direction",
            },
            {"action direction order": ["baseline", "pas", "vrope"]},
        ),
        # Two that each lack another task are ranked on what both have.
        (
            {"baseline": "action direction order other", "pas": "action direction order",
             "vrope": "direction order other"},
            {"direction order": ["baseline", "pas", "vrope"], "action": ["baseline", "pas"],
             "other": ["baseline", "vrope"]},
        ),
        # No task in common.
        (
            {"baseline": "action order", "pas": "action", "vrope": "order"},
            {"action": ["baseline", "pas"], "order": ["baseline", "vrope"]},
        ),
        ({"baseline": "action order"}, {"action order": ["baseline"]}),
    ],
)  # fmt: skip
def test_the_tasks_of_one_run_cost_the_rows_of_others_nothing(tmp_path, runs, expected):
    for method, tasks in runs.items():
        write(tmp_path, method, tasks.split(), flip=0.3 if method == "pas" else 0.0)
    summary, tables = built(tmp_path)
    assert shape(tables) == expected
    headings = [line for line in summary.text.splitlines() if line.startswith("## ")]
    assert len(set(headings)) == len(tables)
    assert not any(heading.endswith("(2)") for heading in headings)
    alone = sum(rows == ["baseline"] for rows in expected.values())
    assert summary.text.count("Only baseline was run here: nothing is compared.") == alone


def test_a_table_that_was_divided_is_one_family_of_tests(tmp_path):
    """Correcting each part for itself would find more differences the more it is divided."""
    write(tmp_path, "baseline", ("action", "direction", "order"))
    write(tmp_path, "pas", ("action", "direction"), flip=0.9, accuracy=0.9)
    write(tmp_path, "vrope", ("action", "direction", "order"), flip=0.9)
    write(tmp_path, "intp", ("action", "direction"), flip=0.5)
    _, tables = built(tmp_path)
    assert [table["tests"] for table in tables] == [7, 7]
    cells = [c for table in tables for row in table["rows"] for c in row["cells"] if c and c["p"]]
    least = min(cells, key=lambda cell: cell["p"])
    assert least["p_holm"] == pytest.approx(min(1, 7 * least["p"]))


def test_budgets_that_differ_by_task_are_named_and_never_averaged(tmp_path):
    """50 and 5,000 tokens are no 2525."""
    for method in ("baseline", "pas"):
        write(tmp_path, method, {"action": {"tokens": 50}, "order": {"tokens": 5000}})
    summary, (table,) = built(tmp_path)
    assert (table["budget"], table["budgets"]) == (None, [50, 5000])
    heading = "## tempeval_mini: mini, 50 and 5000 visual tokens per question, by task"
    assert heading in summary.text.splitlines()
    assert "(action 50, order 5000)" in summary.text
    assert "| 50/5000 |" in summary.text
    with (tmp_path / "out" / "leaderboard.csv").open(encoding="utf-8") as file:
        assert [row["budget"] for row in csv.DictReader(file)] == ["50.0", "5000.0"] * 2
    for path in summary.files:
        if path.suffix in (".md", ".html", ".csv", ".svg"):
            shown = re.findall(r"\b2,?525\b", path.read_text(encoding="utf-8"))
            assert not shown, path.name


def test_many_budgets_are_a_span_and_near_ones_are_one(tmp_path):
    sizes = {"action": 50, "direction": 70, "order": 90, "other": 200}
    for method in ("baseline", "pas"):
        write(tmp_path, method, {name: {"tokens": size} for name, size in sizes.items()})
    summary, _ = built(tmp_path)
    assert "mini, 50 to 200 visual tokens per question, by task" in summary.text
    assert "| 50 to 200 |" in summary.text
    near = tmp_path / "near"
    for method in ("baseline", "pas"):
        write(near, method, {"action": {"tokens": 100}, "order": {"tokens": 101}})
    summary, (table,) = built(near)
    assert table["budget"] == 100.5
    assert "mini, 100.5 visual tokens per question\n" in summary.text


def test_costs_that_are_missing_or_below_zero_are_named(tmp_path):
    write(tmp_path, "baseline", ("action",))
    folder = write(tmp_path, "pas", ("action",))
    path = next(folder.glob("*.jsonl"))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[1]["token_counts"][0]["kv_bytes"] = None
    rows[2]["token_counts"][0]["prefill_ms"] = -1e6
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    summary, (table,) = built(tmp_path)
    note = (
        "> No mean of some costs of pas: kv_bytes is missing on 1 questions, seconds is below 0 on "
        "1 questions."
    )
    assert note in summary.text.splitlines()
    costs = table["rows"][1]["costs"]
    assert (costs["unmeasured"], costs["negative"]) == ({"kv_bytes": 1}, {"seconds": 1})
    assert (costs["measures"]["kv_bytes"], costs["measures"]["seconds"]) == (None, None)


def columns(summary):
    header = next(line for line in summary.text.splitlines() if line.startswith("| method"))
    return [name.strip() for name in header.split("|")[1:-1]]


def test_operations_stand_beside_scores_where_tokens_do_not_tell_rows_apart(tmp_path):
    write(tmp_path, "baseline", ("action",))
    write(tmp_path, "pas", ("action",))
    assert "TFLOPs" not in columns(built(tmp_path)[0])
    write(tmp_path, "staged_sparse", ("action",), layers=0.7)
    assert "TFLOPs" in columns(built(tmp_path)[0])


def test_a_note_on_intervals_stands_over_the_table_that_has_them(tmp_path):
    """pas changes nothing in one of two tasks: the interval of the mean has a width."""
    write(tmp_path, "baseline", ("action", "order"))
    write(tmp_path, "pas", {"action": {"flip": 0.9}, "order": {}})
    summary, (table,) = built(tmp_path)
    action, order = (cell["interval"] for cell in table["rows"][1]["cells"])
    assert order["low"] == order["high"]
    assert action["low"] < action["high"]
    note = "Intervals of zero width say that no draw differs"
    assert note not in summary.text
    text = summary.markdown.read_text(encoding="utf-8")
    before, after = text.split("\n### tempeval_mini_order\n")
    assert note not in before
    assert note in after
    assert (tmp_path / "out" / "index.html").read_text(encoding="utf-8").count(note) == 1
