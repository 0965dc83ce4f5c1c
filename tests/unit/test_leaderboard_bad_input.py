"""Bad input: a clear message, the rest still built, and the right exit code."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from synthetic_runs import Shape, write_runs

from tempeval.cli import main
from tempeval.console import visible
from tempeval.leaderboard import build
from tempeval.leaderboard.csv_file import _plain

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK = "tempeval_mini_action"


def lines(**options):
    return {TASK: made["sample_lines"](TASK, **({"videos": 10} | options))}


@pytest.fixture
def runs(tmp_path):
    """Two runs that can be compared; each test adds a bad one."""
    root = tmp_path / "runs"
    for name in ("baseline", "pas"):
        made["write_run"](root / name, name, tasks=lines())
    return root


@pytest.fixture
def call(tmp_path, capsys):
    """Build through the command line; give exit code, document and standard error."""

    def command(root, *options):
        code = 0
        out = tmp_path / "out"
        try:
            main(["leaderboard", str(root), "-o", str(out), "--draws", "200", *options])
        except SystemExit as stop:
            code = stop.code or 0
        file = out / "leaderboard.json"
        found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        return code, found, capsys.readouterr().err

    return command


def samples_file(folder):
    return next(folder.glob("*.jsonl"))


def edit_lines(folder, change):
    file = samples_file(folder)
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    change(kept)
    file.write_text("".join(json.dumps(line) + "\n" for line in kept))


def only(found):
    """Give the one entry that is not ranked, beside the two runs that are."""
    assert [row["label"] for table in found["tables"] for row in table["rows"]] == [
        "baseline",
        "pas",
    ]
    (item,) = found["not_comparable"]
    assert item["run"] == "bad"
    assert item["action"]
    return item


def test_a_truncated_record(runs, call):
    folder = made["write_run"](runs / "bad", "vrope", tasks=lines())
    record = folder / "run.json"
    record.write_bytes(record.read_bytes()[:300])
    code, found, _ = call(runs)
    item = only(found)
    assert (code, item["kind"], item["field"]) == (0, "unreadable", "run.json")
    assert item["value"].startswith("bad/run.json:")
    assert "not JSON" in item["reason"]


def test_a_truncated_samples_file(runs, call):
    file = samples_file(made["write_run"](runs / "bad", "vrope", tasks=lines()))
    file.write_bytes(file.read_bytes()[:-30])
    code, found, _ = call(runs)
    assert (code, only(found)["value"]) == (0, f"bad/{file.name}:30")
    assert "cut off" in only(found)["reason"]


def test_a_samples_file_cut_at_the_end_of_a_line(runs, call):
    edit_lines(made["write_run"](runs / "bad", "vrope", tasks=lines()), lambda group: group.pop())
    code, found, _ = call(runs)
    assert (code, only(found)["kind"]) == (0, "inconsistent")
    assert "30 answered + 0 failed, the samples file has 29 lines" in only(found)["reason"]


def test_invalid_json_in_a_line(runs, call):
    file = samples_file(made["write_run"](runs / "bad", "vrope", tasks=lines()))
    group = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*group[:3], b"{'single': quotes}\n", *group[4:]]))
    code, found, _ = call(runs)
    assert (code, only(found)["value"]) == (0, f"bad/{file.name}:4")


def test_mixed_schema_versions(runs, call):
    made["write_run"](runs / "bad", "vrope", tasks=lines(), schema=7)
    code, found, _ = call(runs)
    assert code == 0
    assert only(found)["reason"] == "schema 7 is of a newer tempeval; this version reads schema 2"
    assert "tempeval version that wrote it" in only(found)["action"]


@pytest.mark.parametrize("key", ["wall_seconds", "limit", "seed"])
def test_a_number_of_four_hundred_digits(runs, call, key):
    made["write_run"](runs / "bad", "vrope", tasks=lines(), **{key: 10**400})
    code, found, _ = call(runs)
    assert (code, only(found)["kind"]) == (0, "unreadable")
    assert only(found)["reason"].startswith(f"key '{key}' is a number of 401 digits; accepted: ")


def test_a_number_of_four_hundred_digits_in_a_run_that_failed(runs, call):
    """Its record is not checked, and listed all the same."""
    made["write_run"](runs / "bad", "x", tasks=lines(), status="failed", wall_seconds=10**400)
    code, found, _ = call(runs)
    assert (code, only(found)["kind"]) == (0, "unfinished")
    assert [run["wall_seconds"] for run in found["runs"] if run["name"] == "bad"] == [None]


def test_a_missing_samples_file(runs, call):
    samples_file(made["write_run"](runs / "bad", "vrope", tasks=lines())).unlink()
    code, found, _ = call(runs)
    assert (code, only(found)["field"]) == (0, "samples")
    assert "No such file" in only(found)["reason"]


def test_a_samples_file_that_two_runs_of_one_second_wrote(runs, call):
    """lmms-eval appends: the second run's lines follow the first one's."""
    file = samples_file(made["write_run"](runs / "bad", "vrope", tasks=lines()))
    file.write_bytes(file.read_bytes() * 2)
    code, found, _ = call(runs)
    assert code == 0
    assert only(found)["reason"] == f"sample_id '{TASK}/0000' is on line 1 and again on line 31"
    assert "in the same second" in only(found)["action"]


@pytest.mark.parametrize("score", [float("nan"), float("inf"), None])
def test_scores_that_are_no_numbers(runs, call, score):
    folder = made["write_run"](runs / "bad", "vrope", tasks=lines())
    edit_lines(folder, lambda group: group[4].update(score=score))
    code, found, _ = call(runs)
    assert (code, only(found)["value"]) == (0, f"bad/{samples_file(folder).name}:5")
    assert "not a finite number" in only(found)["reason"]


def test_a_long_file(tmp_path, call):
    """Thirty thousand rows, which something that grows with their square would not survive."""
    write_runs(tmp_path / "runs", Shape(methods=2, tasks=1, samples=30_000))
    code, found, _ = call(tmp_path / "runs")
    assert code == 0
    assert found["tables"][0]["n"] == 30_000
    assert found["not_comparable"] == []


@pytest.mark.slow
def test_a_million_rows(tmp_path, call):
    write_runs(tmp_path / "runs", Shape(methods=1, tasks=1, samples=1_000_000))
    code, found, err = call(tmp_path / "runs")
    assert found["tables"][0]["n"] == 1_000_000
    assert code == 1, "a baseline alone: nothing was compared"
    assert err.startswith("error: nothing was compared: no method stands beside a baseline; ")


def test_unicode_names(runs, call):
    """In folders, models, methods, tasks and ids, half surrogates and right-to-left marks too."""
    name = "läufe 视频 ½ \u202e"
    group = made["sample_lines"](TASK, videos=10)
    group[0]["sample_id"] = "问题\ud800"
    odd = {"model": "模型/é\u0301", "method_label": "pas[é=½]\ud800"}
    for method in ("baseline", "pas"):
        made["write_run"](runs / name / method, method, tasks={"tâche_任务": group}, **odd)
    code, found, _ = call(runs)
    assert (code, found["not_comparable"]) == (0, [])
    assert [table["model"] for table in found["tables"]] == ["mini", "模型/é\u0301"]
    assert {run["name"] for run in found["runs"]} >= {f"{name}/pas", "pas"}


def test_paths_that_collide_on_case(runs, call, tmp_path):
    """Both are built, and no file or anchor of one can overwrite the other's."""
    made["write_run"](runs / "PAS", "PAS", tasks=lines())
    code, found, _ = call(runs)
    assert (code, found["not_comparable"]) == (0, [])
    (table,) = found["tables"]
    assert sorted(row["label"] for row in table["rows"]) == ["PAS", "baseline", "pas"]
    ids = [run["id"].casefold() for run in found["runs"]]
    assert len(set(ids)) == 3
    written = [str(path).casefold() for path in (tmp_path / "out").rglob("*")]
    assert len(set(written)) == len(written)


def test_no_baseline(tmp_path, call):
    for name in ("pas", "vrope"):
        made["write_run"](tmp_path / "runs" / name, name, tasks=lines())
    code, found, err = call(tmp_path / "runs")
    assert (code, found["tables"]) == (1, [])
    assert err.startswith("error: no run could be compared; ")
    assert {item["kind"] for item in found["not_comparable"]} == {"no_baseline"}
    assert "choose another --baseline: pas, vrope" in found["not_comparable"][0]["action"]


def test_one_run_only(tmp_path, call):
    made["write_run"](tmp_path / "runs", tasks=lines())
    code, found, err = call(tmp_path / "runs")
    assert code == 1
    assert err.startswith("error: nothing was compared: no method stands beside a baseline; ")
    (table,) = found["tables"]
    (row,) = table["rows"]
    assert (row["label"], row["macro_difference"]) == ("baseline", None)
    assert row["cells"][0]["score"] == row["macro"]


def test_one_run_that_is_no_baseline(tmp_path, call):
    made["write_run"](tmp_path / "runs", "pas", tasks=lines())
    code, found, _ = call(tmp_path / "runs")
    assert (code, found["tables"], len(found["not_comparable"])) == (1, [], 1)


def test_nothing_to_read(tmp_path, call):
    (tmp_path / "runs").mkdir()
    code, found, err = call(tmp_path / "runs")
    assert (code, found) == (2, None)
    assert "no run.json and no *_results.json" in err


def test_what_cannot_be_seen_is_visible_in_every_file(tmp_path):
    """A name may neither rewrite a terminal nor look like another."""
    unseen = "\x1b[2J\x1b]0;own\x07 \x9b31m \u200b \u202e \u2066 \ufeff \x7f \u3164 \u2028"
    task = f"tempeval_{unseen}action"
    odd = {"model": f"org/{unseen}model", "gpu": f"GPU{unseen}", "packages": {"torch": unseen}}
    for number, label in enumerate(("baseline", "pas", f"pa{unseen}s")):
        tasks = {task: made["sample_lines"](TASK, videos=6)}
        folder = tmp_path / "runs" / f"{number}{unseen}"
        made["write_run"](folder, label, tasks=tasks, task_changes={"group": unseen}, **odd)
    error = f"RuntimeError: {unseen}"
    made["write_run"](tmp_path / "runs" / "died", unseen, tasks={}, status="failed", error=error)
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=100)
    assert summary.compared == 2
    texts = {path.name: path.read_text("utf-8") for path in summary.files if path.suffix != ".png"}
    assert {".md", ".html", ".csv", ".json", ".svg"} == {Path(name).suffix for name in texts}
    for name, text in {**texts, "console": summary.text}.items():
        shown = text.replace("\xa0%", " %")
        assert visible(shown) == shown, name
        assert "200b" in text, name


@pytest.mark.parametrize(
    "start", ["=", "+", "-", "@", " =", "\t=", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\u200b="]
)
def test_a_spreadsheet_takes_no_name_for_a_formula(start):
    assert _plain(f"{start}HYPERLINK(1)").startswith(("'", "\\u200b"))
    assert _plain(-1.5) == -1.5
