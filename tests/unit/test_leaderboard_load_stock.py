"""Runs of lmms-eval without a run.json: shown with their scores, never ranked."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tempeval.leaderboard import build
from tempeval.leaderboard.load import load

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK, OTHER = "tempcompass_yes_no", "mvbench_action_sequence"
TIME = "20260102_030405"


def results(**changes):
    """Give a results file as lmms-eval 0.7 writes it, with a group and two tasks."""
    return {
        "results": {
            "tempcompass": {"avg_accuracy,none": 0.5, "alias": "tempcompass"},
            TASK: {
                "alias": " - tempcompass_yes_no",
                "avg_accuracy,none": 0.625,
                "avg_accuracy_stderr,none": "N/A",
                "avg_accuracy_stderr_clt,none": 0.2,
                "avg_accuracy_stderr_clustered,none": 0.25,
                "submission,none": [],
            },
            OTHER: {"accuracy,flexible": 0.75, "accuracy_stderr,flexible": 0.1},
        },
        "groups": {"tempcompass": {"avg_accuracy,none": 0.5}},
        "configs": {
            TASK: {"metric_list": [{"metric": "submission"}, {"metric": "avg_accuracy"}]},
            OTHER: {"metric_list": [{"metric": "accuracy"}]},
        },
        "versions": {TASK: 1.0, OTHER: "Yaml"},
        "higher_is_better": {TASK: {"avg_accuracy": True, "submission": None}},
        "n-samples": {TASK: {"original": 100, "effective": 8}, OTHER: {"effective": 4}},
        "config": {"model": "qwen2_5_vl", "model_args": "pretrained=x", "limit": 8},
        "model_source": "qwen2_5_vl",
        "model_name": "Qwen/Qwen2.5-VL-7B-Instruct",
        "date": "20260102_110405",
        "lmms_eval_version": "0.7.3",
        "task_hashes": {},
    } | changes


def write_stock(folder, content=None, time=TIME, samples=()):
    folder.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content or results())
    (folder / f"{time}_results.json").write_text(text, encoding="utf-8")
    for task, lines in dict(samples).items():
        rows = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{time}_samples_{task}.jsonl").write_text(rows, encoding="utf-8")
    return folder


def plain_lines(count):
    """Give sample lines of a stock wrapper: no ids, no usage."""
    return [
        {"doc_id": i, "target": "yes", "filtered_resps": "no", "token_counts": [None], "input": "?"}
        for i in range(count)
    ]


def refusal(root):
    (found,) = load([root]).refusals
    return found


def test_scores_are_shown_and_the_budget_is_unknown(tmp_path):
    write_stock(tmp_path / "org__model", samples={TASK: plain_lines(8)})
    found = refusal(tmp_path)
    assert (found.run, found.kind) == (f"org__model/{TIME}", "stock")
    assert found.method == "qwen2_5_vl Qwen/Qwen2.5-VL-7B-Instruct"
    assert found.tasks == (OTHER, TASK), "groups are no tasks"
    other, first = found.scores
    assert (first["metric"], first["score"], first["se"]) == ("avg_accuracy", 0.625, 0.25)
    assert (first["version"], first["n"], first["higher_is_better"]) == ("1.0", 8, True)
    assert (other["metric"], other["score"], other["se"]) == ("accuracy", 0.75, 0.1)
    assert (other["higher_is_better"], other["n"]) == (None, 4)
    assert first["costs"] is None
    assert other["costs"] is None


def test_a_task_whose_answers_are_hidden_shows_no_score(tmp_path):
    name = "tempeval_egoschema"
    content = results(
        results={name: {"answered,none": 0.9, "parse_failure,none": 0.1}},
        configs={name: {"metric_list": [{"metric": "answered"}, {"metric": "parse_failure"}]}},
    )
    write_stock(tmp_path / "a", content)
    (score,) = refusal(tmp_path).scores
    assert (score["task"], score["score"], score["se"]) == (name, None, None)


def test_they_are_never_ranked(tmp_path):
    """Not even beside a baseline of the same task whose budget they would match."""
    lines = {TASK: made["sample_lines"](TASK, videos=4)}
    for name in ("baseline", "pas"):
        made["write_run"](tmp_path / "runs" / name, name, tasks=lines)
    write_stock(tmp_path / "runs" / "stock", samples=lines)
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=200)
    (table,) = summary.document["tables"]
    assert [row["label"] for row in table["rows"]] == ["baseline", "pas"]
    (item,) = summary.document["not_comparable"]
    assert item["run"] == f"stock/{TIME}"
    (run,) = (run for run in summary.document["runs"] if run["status"] == "stock")
    assert run["facts"]["config"]["model_args"] == "pretrained=x"
    assert (run["model"], run["tables"]) == ("Qwen/Qwen2.5-VL-7B-Instruct", [])
    assert "Qwen/Qwen2.5-VL-7B-Instruct" in summary.markdown.read_text(encoding="utf-8")


def test_our_wrappers_under_lmms_eval_show_what_they_measured(tmp_path):
    lines = made["sample_lines"](TASK, videos=4, per_video=2)
    write_stock(tmp_path / "a", samples={TASK: lines})
    costs = refusal(tmp_path).scores[1]["costs"]
    assert costs["measures"]["visual_tokens"] == 36
    assert costs["measures"]["peak_memory_bytes"] is None


def test_several_runs_of_one_folder(tmp_path):
    for time in (TIME, "20260102_030406"):
        write_stock(tmp_path / "a", time=time)
    assert [found.run for found in load([tmp_path]).refusals] == [
        f"a/{TIME}",
        "a/20260102_030406",
    ]


@pytest.mark.parametrize("named", [True, False])
def test_results_beside_a_record_are_that_runs_own(tmp_path, named):
    """Where the record names them, or samples of the same time."""
    tasks = {TASK: made["sample_lines"](TASK, videos=2)}
    changes = {"results_file": f"{TIME}_results.json"} if named else {}
    folder = made["write_run"](tmp_path / "a", tasks=tasks, **changes)
    time = TIME if named else "20260101_120000"
    write_stock(folder, time=time)
    for path in (tmp_path, folder / f"{time}_results.json"):
        loaded = load([path])
        assert (len(loaded.runs), loaded.refusals) == (1, ())


def test_results_beside_the_record_of_another_run_are_listed(tmp_path):
    folder = made["write_run"](tmp_path / "a", tasks={TASK: made["sample_lines"](TASK, videos=2)})
    write_stock(folder)
    loaded = load([tmp_path])
    assert [run.name for run in loaded.runs] == ["a"]
    assert [(found.run, found.kind) for found in loaded.refusals] == [(f"a/{TIME}", "stock")]
    alone = load([folder / f"{TIME}_results.json"])
    assert (alone.runs, [found.kind for found in alone.refusals]) == ((), ["stock"])


@pytest.mark.parametrize("text", ["{", '{"schema": 1, "status": "failed", "method": "m"}'])
def test_results_beside_a_record_that_says_nothing_of_them_are_its_own(tmp_path, text):
    write_stock(tmp_path / "a")
    (tmp_path / "a" / "run.json").write_text(text)
    assert [found.kind for found in load([tmp_path]).refusals] == ["unreadable"]


def test_a_samples_file_of_two_runs_is_noticed(tmp_path):
    write_stock(tmp_path / "a", samples={TASK: plain_lines(8) * 2})
    assert "has 16 lines, the results are over 8 samples (two runs may" in refusal(tmp_path).reason


def test_a_broken_samples_file_is_noticed(tmp_path):
    folder = write_stock(tmp_path / "a", samples={TASK: plain_lines(8)})
    file = next(folder.glob("*.jsonl"))
    file.write_bytes(file.read_bytes()[:-9])
    found = refusal(tmp_path)
    assert f"line 8 of {file.name} cannot be used (not JSON" in found.reason
    assert found.scores[1]["score"] == 0.625


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"results": {', "not JSON"),
        ("[]", "a list, not an object"),
        ("{}", "no object 'results'"),
        ('{"results": {}}', "no object 'configs'"),
        ('{"results": {}, "configs": 3}', "no object 'configs'"),
    ],
)
def test_broken_results(tmp_path, content, reason):
    write_stock(tmp_path / "a", content)
    found = refusal(tmp_path)
    assert (found.kind, found.field) == ("unreadable", f"{TIME}_results.json")
    assert reason in found.reason


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "NaN"), ("N/A", "N/A")])
def test_a_second_metric_is_named_and_the_first_said_to_be_missing(tmp_path, value, shown):
    changed = results()
    changed["results"][TASK] |= {"main,none": value}
    metrics = [{"metric": "submission"}, {"metric": "main"}, {"metric": "avg_accuracy"}]
    changed["configs"][TASK] = {"metric_list": metrics}
    write_stock(tmp_path / "runs", changed)
    summary = build([tmp_path / "runs"], tmp_path / "out")
    text = summary.markdown.read_text(encoding="utf-8")
    assert f"{TASK}: main is {shown}; avg_accuracy is shown instead" in text
    assert f"{TASK} 62.5 ± 25.0 (avg_accuracy, 8 questions)" in text
    assert f"{OTHER} 75.0 ± 10.0 (accuracy, 4 questions)" in text


def test_a_score_that_is_no_share_is_not_in_percent(tmp_path):
    changed = results()
    changed["results"][OTHER] = {"accuracy,none": 61.25}
    changed["n-samples"] = {}
    write_stock(tmp_path / "runs", changed)
    text = build([tmp_path / "runs"], tmp_path / "out").markdown.read_text(encoding="utf-8")
    assert f"{OTHER} 61.250 (accuracy)" in text


@pytest.mark.parametrize("score", [None, "N/A", float("nan"), [], True, 10**400])
def test_a_score_that_is_no_number_is_missing(tmp_path, score):
    changed = results()
    changed["results"][OTHER] = {"accuracy,none": score}
    write_stock(tmp_path / "a", changed)
    assert refusal(tmp_path).scores[0]["score"] is None
    build([tmp_path], tmp_path / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": None, "n-samples": 3, "higher_is_better": [], "config": None},
        {"configs": {TASK: {"metric_list": None}, OTHER: {"metric_list": [3, {}]}}},
        {"configs": {TASK: "odd"}, "model_source": None, "model_name": None},
        {"results": {TASK: None, OTHER: 3}},
    ],
)
def test_odd_values_are_unknown_not_fatal(tmp_path, changes):
    write_stock(tmp_path / "a", results(**changes))
    summary = build([tmp_path / "a"], tmp_path / "out")
    assert [item["kind"] for item in summary.document["not_comparable"]] == ["stock"]
