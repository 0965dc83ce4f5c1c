"""`tempeval leaderboard`: options and exit codes."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tempeval.cli import main

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK = "tempeval_mini_action"


def lines(**options):
    return {TASK: made["sample_lines"](TASK, **({"videos": 10} | options))}


@pytest.fixture
def runs(tmp_path):
    for name in ("baseline", "pas"):
        made["write_run"](tmp_path / "runs" / name, name, tasks=lines())
    return tmp_path / "runs"


@pytest.fixture
def call(tmp_path, runs, capsys):
    def command(*options):
        code = 0
        try:
            main(
                ["leaderboard", str(runs), "-o", str(tmp_path / "out"), "--draws", "200", *options]
            )
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


def document(tmp_path):
    return json.loads((tmp_path / "out" / "leaderboard.json").read_text(encoding="utf-8"))


BAD = {
    "partial": {"status": "partial"},
    "limited": {"limit": 30},
    "older version": {"task_changes": {"version": 0}},
    "settings": {"dtype": "float16"},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_strict_fails_when_anything_is_not_ranked(call, runs, changes):
    assert call("--strict")[0] == 0
    made["write_run"](runs / "bad", "vrope", tasks=lines(), **changes)
    assert call()[0] == 0
    code, out, err = call("--strict")
    assert code == 1
    assert "| pas " in out, "the rest is built and printed"
    assert err.startswith("error: --strict: 1 run is not ranked, at least in part (")
    assert "bad" in err


def test_strict_fails_for_duplicates_failures_and_stock_runs(call, runs):
    made["write_run"](runs / "again", "pas", tasks=lines(), finished="2025-01-01T00:00:00+00:00")
    made["write_run"](runs / "failing", "vrope", tasks=lines(failed=3))
    (runs / "stock").mkdir()
    stock = {"results": {}, "configs": {}}
    (runs / "stock" / "20260101_000000_results.json").write_text(json.dumps(stock))
    code, _, err = call("--strict")
    assert code == 1
    assert "3 runs are not ranked, at least in part (duplicate, failures, stock)" in err


@pytest.mark.parametrize("share", ["10%", "0.1", "12 %", "100%"])
def test_max_failures_is_a_share(call, runs, tmp_path, share):
    made["write_run"](runs / "failing", "vrope", tasks=lines(failed=3))
    call()
    assert len(document(tmp_path)["not_comparable"]) == 1
    call("--max-failures", share)
    assert document(tmp_path)["not_comparable"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-failures", "3"], "--max-failures has '3'"),
        (["--max-failures", "nan%"], "a share such as 5% or 0.05"),
        (["--max-failures", "-1%"], "--max-failures has '-1%'"),
        (["--tolerance", "-1"], "tolerance is -1.0"),
        (["--draws", "10"], "draws is 10"),
        (["--match-on", "tokens"], "no budget to match on 'tokens'"),
    ],
)
def test_options_out_of_range_end_with_code_2(call, tmp_path, options, message):
    code, out, err = call(*options)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "out").exists()


def test_options_reach_the_document(call, tmp_path):
    options = "--baseline pas --tolerance 0.05 --match-on kv_bytes --max-failures 1%"
    call(*options.split())
    found = document(tmp_path)["methodology"]
    kept = ("baseline", "tolerance", "match_on", "max_failure_ratio", "draws")
    assert [found[key] for key in kept] == ["pas", 0.05, "kv_bytes", 0.01, 200]
    assert document(tmp_path)["tables"][0]["rows"][0]["label"] == "pas"


def test_a_place_that_cannot_be_written_is_one_line(call, tmp_path):
    (tmp_path / "out").write_text("a file")
    code, _, err = call()
    assert code == 2
    assert err.startswith(f"error: cannot write to {tmp_path / 'out'}: it is a file; ")
    assert err.count("\n") == 1


def test_update_replaces_a_block_unless_the_build_fails(call, runs, tmp_path):
    readme = tmp_path / "README.md"
    text = "before\n<!-- tempeval-leaderboard -->\nold\n<!-- /tempeval-leaderboard -->\nafter\n"
    readme.write_text(text)
    made["write_run"](runs / "bad", "vrope", tasks=lines(), dtype="float16")
    assert call("--update", str(readme), "--strict")[0] == 1
    assert readme.read_text() == text
    code, out, _ = call("--update", str(readme))
    assert code == 0
    assert f"updated: {readme}" in out
    assert "| pas " in readme.read_text()
    assert readme.read_text().endswith("<!-- /tempeval-leaderboard -->\nafter\n")
    assert f"unchanged: {readme}" in call("--update", str(readme))[1]


def test_nothing_is_published_when_nothing_was_compared(tmp_path, capsys):
    """A baseline and a method at another budget: the table has one row."""
    made["write_run"](tmp_path / "runs" / "base", tasks=lines())
    made["write_run"](tmp_path / "runs" / "pas", "pas", tasks=lines(tokens=72))
    readme = tmp_path / "README.md"
    text = "<!-- tempeval-leaderboard -->\n<!-- /tempeval-leaderboard -->\n"
    readme.write_text(text)
    place = ["-o", str(tmp_path / "out"), "--update", str(readme)]
    with pytest.raises(SystemExit) as stop:
        main(["leaderboard", str(tmp_path / "runs"), *place])
    assert stop.value.code == 1
    assert "error: nothing was compared: no method stands" in capsys.readouterr().err
    assert readme.read_text() == text
    assert [row["label"] for row in document(tmp_path)["tables"][0]["rows"]] == ["baseline"]


def test_a_file_that_cannot_be_updated_is_one_line(call, tmp_path):
    (tmp_path / "folder").mkdir()
    code, _, err = call("--update", str(tmp_path / "folder"))
    assert code == 2
    assert err == (
        f"error: cannot update {tmp_path / 'folder'}: Is a directory; give --update a file that "
        "can be written\n"
    )


def test_the_terminal_shows_text_and_not_markdown(runs, call):
    made["write_run"](runs / "odd", "odd", tasks=lines(), method_label="a|b_*c*<d>")
    out = call()[1]
    assert "| a|b_*c*<d> " in out
    assert "\\" not in out
    assert "&lt;" not in out


def test_an_old_terminal_shows_escapes(runs, tmp_path):
    """A delta has no place in cp1252."""
    code = "from tempeval.cli import main; main()"
    command = ["leaderboard", str(runs), "-o", str(tmp_path / "out"), "--draws", "200"]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\u0394 [95 % CI]" in done.stdout


def left(tmp_path):
    folder = tmp_path / "out"
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_only_files_of_the_last_leaderboard_are_replaced_or_deleted(call, runs, tmp_path):
    own = {
        "plots/budget-2026.png": b"mine",
        "plots/pareto-notes.svg": b"mine",
        "notes.md": b"mine",
    }
    (tmp_path / "out" / "plots").mkdir(parents=True)
    for name, content in own.items():
        (tmp_path / "out" / name).write_bytes(content)
    assert call()[0] == 0
    before = document(tmp_path)["files"]
    assert set(before) == left(tmp_path).keys() - own.keys()
    assert any(name.startswith("plots/") for name in before)
    # Another model: other names of plots, and those of before go.
    for path in runs.glob("*/run.json"):
        path.write_text(path.read_text().replace('"model": "mini"', '"model": "other"'))
    assert call()[0] == 0
    after = document(tmp_path)["files"]
    assert set(after) == left(tmp_path).keys() - own.keys()
    assert set(before) - set(after)
    assert own.items() <= left(tmp_path).items()


@pytest.mark.parametrize("name", ["index.html", "leaderboard.json", "leaderboard.csv"])
def test_a_file_of_somebody_else_is_refused_before_writing(call, tmp_path, name):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    code, out, err = call()
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {tmp_path / 'out' / name} ")
    assert "choose another -o" in err
    assert left(tmp_path) == {name: b"mine"}


def test_a_list_of_files_cannot_reach_outside(call, runs, tmp_path):
    assert call()[0] == 0
    path = tmp_path / "out" / "leaderboard.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "out" / "notes.md").write_text("mine")
    found["files"] += ["../precious", "notes.md", str(tmp_path / "precious"), 3]
    path.write_text(json.dumps(found), encoding="utf-8")
    assert call()[0] == 0
    assert (tmp_path / "precious").exists()
    assert (tmp_path / "out" / "notes.md").exists()


def test_a_misspelt_baseline_is_refused_before_writing(call, tmp_path):
    assert call()[0] == 0
    before = left(tmp_path)
    code, out, err = call("--baseline", "basline")
    assert (code, out) == (2, "")
    assert err.startswith("error: no run of the method 'basline'; did you mean 'baseline'? Known: ")
    assert left(tmp_path) == before


def test_a_leaderboard_is_not_replaced_by_an_empty_one(call, runs, tmp_path):
    assert call()[0] == 0
    before = left(tmp_path)
    path = runs / "baseline" / "run.json"
    path.write_text(path.read_text().replace('"complete"', '"failed"'))
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "holds a leaderboard with tables, and of these runs none could be compared: " in err
    assert left(tmp_path) == before


def test_trial_runs_are_compared_and_not_called_incomparable(call, runs):
    for path in runs.glob("*/run.json"):
        path.write_text(path.read_text().replace('"limit": null', '"limit": 30'))
    code, out, _ = call()
    assert code == 0
    trial = (
        "Every run was comparable. Compared and not ranked, because they are trial runs over some "
        "of the samples (--limit): baseline, pas."
    )
    assert trial in out.splitlines()
