"""From run folders to files: golden output, stability, and numbers computed again by hand."""

from __future__ import annotations

import csv
import io
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tempeval.errors import InvalidSetting
from tempeval.leaderboard import build
from tempeval.leaderboard.rounding import rounded

REFERENCE = Path(__file__).parents[1] / "reference" / "leaderboard"
made = runpy.run_path(str(REFERENCE / "make_runs.py"))
TASK, OTHER = "tempeval_mini_action", "tempeval_mini_order"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return made["write_scene"](tmp_path_factory.mktemp("scene") / "runs")


def record(summary):
    return json.loads(summary.json.read_text(encoding="utf-8"))


def lines(*tasks, **options):
    chosen = {"videos": 10} | options
    return {task: made["sample_lines"](task, **chosen) for task in tasks}


def test_golden_files(scene, tmp_path):
    summary = build([scene], tmp_path / "out", draws=2000)
    found = record(summary)
    found["tempeval_version"] = "any"
    text = json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True)
    assert f"{text}\n" == (REFERENCE / "scene.json").read_text(encoding="utf-8")
    assert summary.markdown.read_bytes() == (REFERENCE / "scene.md").read_bytes()
    assert summary.text == (REFERENCE / "scene_summary.md").read_text(encoding="utf-8")
    assert (summary.tables, summary.compared) == (4, 8)
    assert len(summary.refusals) == 15


@pytest.mark.parametrize("name", ["leaderboard.json", "leaderboard.md", "leaderboard.csv"])
def test_stored_runs_give_stored_files(tmp_path, monkeypatch, name):
    """Folders as they were written, with a stock run and two that cannot be ranked, to bytes."""
    monkeypatch.setattr("tempeval.leaderboard.board.__version__", "any")
    build([REFERENCE / "runs"], tmp_path / "out", draws=500)
    expected = REFERENCE / "runs_out" / name
    assert (tmp_path / "out" / name).read_bytes() == expected.read_bytes()


def test_figures_have_nine_digits_and_records_all_of_theirs():
    third = 1 / 3
    given = {"a": [third, 1e-9 * third, 3, True, None, "0.33"], "settings": {"b": third}}
    assert rounded(given) == {
        "a": [0.333333333, 3.33333333e-10, 3, True, None, "0.33"],
        "settings": {"b": third},
    }
    assert rounded(123456789012.0) == 123456789012.0


def test_same_inputs_same_bytes(scene, tmp_path):
    moved = shutil.copytree(scene, tmp_path / "elsewhere")
    one = build([scene], tmp_path / "one", draws=500)
    two = build(sorted(moved.iterdir(), reverse=True), tmp_path / "two", draws=500)
    assert one.markdown.read_bytes() == two.markdown.read_bytes()
    written = {path.relative_to(tmp_path / "one"): path for path in one.files}
    again = {path.relative_to(tmp_path / "two"): path for path in two.files}
    assert written.keys() == again.keys()
    assert all(path.read_bytes() == again[name].read_bytes() for name, path in written.items())
    there = {path for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert there == set(one.files)


def test_scores_by_the_sum_of_log_likelihoods_are_printed_too(tmp_path):
    """Where the samples have them: beside the main score, failed ones counted as wrong."""
    chosen = {"videos": 5, "per_video": 2}
    right = (("baseline", [1] * 6 + [0] * 4), ("pas", [1, 0, 0, 1] + [0] * 5 + [1]))
    for name, sums in right:
        tasks = lines(TASK, OTHER, **chosen, failed=int(name == "pas"))
        for line, value in zip(tasks[OTHER], sums, strict=True):
            line["accuracy_sum"] = float(value)
        made["write_run"](tmp_path / "runs" / name, name, tasks=tasks, status="complete")
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=500, max_failure_ratio=0.5)
    note = "> order by the sum of log-likelihoods, not the mean per token: baseline 60.0, pas 20.0."
    assert note in summary.text.splitlines()
    assert note in summary.markdown.read_text(encoding="utf-8").splitlines()
    (table,) = record(summary)["tables"]
    found = [[cell["score_by_sum"] for cell in row["cells"]] for row in table["rows"]]
    assert sorted(found) == [[None, 0.2], [None, 0.6]]
    assert summary.text.count("sum of log-likelihoods") == 1


@pytest.mark.parametrize(
    ("changed", "note"),
    [
        (
            (),
            "The sum of log-likelihoods gives the same scores as their mean per token: "
            "mini_action.",
        ),
        (
            ("pas",),
            "mini_action by the sum of log-likelihoods, not the mean per token: pas 0.0; no other "
            "score is changed.",
        ),
    ],
)
def test_scores_that_the_sum_does_not_change_are_not_listed(tmp_path, changed, note):
    for name in ("baseline", "pas"):
        tasks = lines(TASK, videos=5, per_video=2)
        for line in tasks[TASK]:
            line["accuracy_sum"] = 0.0 if name in changed else line["score"]
        made["write_run"](tmp_path / "runs" / name, name, tasks=tasks, status="complete")
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=500)
    said = [line for line in summary.text.splitlines() if "log-likelihoods" in line]
    assert said == [f"> {note}"]


def test_an_unrelated_run_changes_no_number(tmp_path):
    for name, options in (("baseline", {}), ("pas", {"flip": 0.5})):
        made["write_run"](tmp_path / "runs" / name, name, tasks=lines(TASK, **options))
    before = record(build([tmp_path / "runs"], tmp_path / "out", draws=500))["tables"][0]
    made["write_run"](tmp_path / "runs" / "aaa", "ntk", tasks=lines(TASK, OTHER, flip=0.3, seed=1))
    after = record(build([tmp_path / "runs"], tmp_path / "out", draws=500))["tables"][0]
    kept = [row for row in after["rows"] if row["method"] != "ntk"]
    # But the correction for the number of tests, which is what that is for.
    corrected = [cell for row in (*kept, *before["rows"]) for cell in row["cells"]]
    assert [cell.pop("p_holm") is None for cell in corrected] == [True, False] * 2
    assert kept == before["rows"]


def test_numbers_by_hand(tmp_path):
    def scored(values, **options):
        made_lines = made["sample_lines"](TASK, videos=2, per_video=2, **options)
        for line, value in zip(made_lines, values, strict=True):
            line["score"] = value
        return {TASK: made_lines}

    made["write_run"](tmp_path / "runs" / "a", tasks=scored([1, 0, 0, 0]))
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=scored([1, 1, 0, 1], layers=0.5))
    table = record(build([tmp_path / "runs"], tmp_path / "out"))["tables"][0]
    baseline, method = (row["cells"][0] for row in table["rows"])
    assert (baseline["score"], method["score"], method["difference"]) == (0.25, 0.75, 0.5)
    # Both clusters gain 1 of 2, so every draw gives 1/2.
    assert method["interval"] == {"low": 0.5, "high": 0.5}
    # Deviations 3/4 -1/4 | -1/4 -1/4: SE_CLT^2 = 3/4/3/4; cross -3/8 + 1/8, over 16.
    assert baseline["se"] == pytest.approx((1 / 16 - 1 / 64) ** 0.5)
    assert method["costs"]["measures"]["visual_tokens"] == 36
    assert method["costs"]["measures"]["token_layers"] == 18
    assert method["costs"]["measures"]["seconds"] == pytest.approx(0.032)
    assert method["costs"]["measures"]["peak_memory_bytes"] is None


def test_macro_is_the_mean_of_tasks_and_empty_when_one_is_missing(tmp_path):
    small = lines(TASK) | lines(OTHER, videos=30)
    changed = lines(TASK, flip=0.5) | lines(OTHER, videos=30, flip=0.5)
    made["write_run"](tmp_path / "runs" / "a", tasks=small)
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=changed)
    made["write_run"](tmp_path / "runs" / "c", "ntk", tasks={TASK: changed[TASK]})
    base, full, part = record(build([tmp_path / "runs"], tmp_path / "out"))["tables"][0]["rows"]
    means = [np.mean([line["score"] for line in group]) for group in changed.values()]
    assert full["macro"] == pytest.approx(np.mean(means))
    assert full["macro_difference"] == pytest.approx(full["macro"] - base["macro"])
    low, high = full["macro_interval"].values()
    assert low < full["macro_difference"] < high
    assert part["cells"][1] is None
    assert (part["macro"], part["macro_difference"], part["costs"]) == (None, None, None)


def test_tasks_without_a_common_method_are_tables_of_their_own(tmp_path):
    """Joined through a method that both have, they are one table, its gaps empty."""
    runs = tmp_path / "runs"
    for folder, name, tasks in (
        ("a/baseline", "baseline", [TASK]),
        ("a/pas", "pas", [TASK]),
        ("b/baseline", "baseline", [OTHER]),
        ("b/vrope", "vrope", [OTHER]),
    ):
        made["write_run"](runs / folder, name, tasks=lines(*tasks))
    tables = record(build([runs], tmp_path / "apart", draws=500))["tables"]
    found = {tuple(task["name"] for task in t["tasks"]): t["rows"] for t in tables}
    assert {k: {row["method"] for row in rows} for k, rows in found.items()} == {
        (TASK,): {"baseline", "pas"},
        (OTHER,): {"baseline", "vrope"},
    }
    assert all(row["macro"] is not None for rows in found.values() for row in rows)
    made["write_run"](runs / "b/pas", "pas", tasks=lines(OTHER))
    (joined,) = record(build([runs], tmp_path / "joined", draws=500))["tables"]
    assert [row["method"] for row in joined["rows"]] == ["baseline", "pas", "vrope"]
    assert joined["rows"][2]["macro"] is None


def test_tasks_of_a_row_may_come_from_several_runs(tmp_path):
    for task in (TASK, OTHER):
        made["write_run"](tmp_path / "runs" / f"base_{task}", tasks=lines(task))
    made["write_run"](tmp_path / "runs" / "pas", "pas", tasks=lines(TASK, OTHER))
    table = record(build([tmp_path / "runs"], tmp_path / "out", draws=200))["tables"][0]
    assert [cell["run"] for cell in table["rows"][0]["cells"]] == [f"base_{TASK}", f"base_{OTHER}"]
    assert table["rows"][1]["macro"] is not None


def test_failures_are_wrong_and_shown_only_where_there_are_some(tmp_path):
    made["write_run"](tmp_path / "runs" / "a", tasks=lines(TASK, videos=20))
    assert "failed |" not in build([tmp_path / "runs"], tmp_path / "out").text
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=lines(TASK, videos=20, failed=2))
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=200)
    assert "failed |" in summary.text
    cell = record(summary)["tables"][0]["rows"][1]["cells"][0]
    scores = [line["score"] for line in lines(TASK, videos=20)[TASK]]
    assert cell["score"] == pytest.approx(sum(scores[2:]) / 60)
    assert cell["costs"]["failed"] == 2
    assert cell["costs"]["measures"]["visual_tokens"] == 36


def test_a_difference_that_only_failures_make_is_not_bold(tmp_path):
    """Equal answers, but the baseline failed on 60 questions of 1200."""
    runs = tmp_path / "runs"
    made["write_run"](runs / "a", tasks=lines(TASK, videos=400, failed=60))
    made["write_run"](runs / "b", "pas", tasks=lines(TASK, videos=400))
    summary = build([runs], tmp_path / "out", draws=500)
    cell = record(summary)["tables"][0]["rows"][1]["cells"][0]
    assert (cell["difference"] > 0.03, cell["p_holm"] < 0.001) == (True, True)
    assert cell["both_answered"] == {"n": 1140, "difference": 0.0, "p": 1.0, "p_holm": 1.0}
    assert not cell["significant"]
    assert (
        "> pas and the baseline failed on other questions. Differences over those that both "
        "answered: mini_action 0.0 (1140 of 1200 questions, p 1.000). Bold needs the test to hold "
        "there too."
    ) in summary.text.splitlines()


def test_numbers_over_what_both_answered_by_hand(tmp_path):
    """Holm's correction is over all cells, with the usual p where failures do not differ."""
    runs = tmp_path / "runs"
    base = lines(TASK, videos=40, accuracy=0.2, failed=1)
    made["write_run"](runs / "a", tasks=base)
    made["write_run"](runs / "b", "pas", tasks=lines(TASK, videos=40, accuracy=0.9, failed=3))
    made["write_run"](runs / "c", "ntk", tasks=lines(TASK, videos=40, flip=0.1, failed=1))
    _, *rows = record(build([runs], tmp_path / "out", draws=500))["tables"][0]["rows"]
    cells = {row["method"]: row["cells"][0] for row in rows}
    better = lines(TASK, videos=40, accuracy=0.9)[TASK]
    gaps = [m["score"] - b["score"] for m, b in zip(better, base[TASK], strict=True)][3:]
    both = cells["pas"]["both_answered"]
    assert (both["n"], both["difference"]) == (117, pytest.approx(np.mean(gaps)))
    assert cells["ntk"]["both_answered"] is None
    assert cells["pas"]["significant"]
    raw = sorted([both["p"], cells["ntk"]["p"]])
    expected = {raw[0]: 2 * raw[0], raw[1]: max(2 * raw[0], raw[1])}
    assert both["p_holm"] == pytest.approx(min(1, expected[both["p"]]))


def test_one_unmeasured_sample_makes_a_cost_missing(tmp_path):
    changed = lines(TASK)
    changed[TASK][3]["token_counts"][0]["kv_bytes"] = None
    made["write_run"](tmp_path / "runs" / "a", tasks=changed)
    row = record(build([tmp_path / "runs"], tmp_path / "out"))["tables"][0]["rows"][0]
    assert row["costs"]["measures"]["kv_bytes"] is None
    assert row["costs"]["measures"]["token_layers"] == 36


def test_scores_off_the_unit_scale_have_no_percent_and_no_macro(tmp_path):
    changed = lines(TASK, OTHER)
    for line in changed[TASK]:
        line["score"] = 3.25
    made["write_run"](tmp_path / "runs" / "a", tasks=changed)
    summary = build([tmp_path / "runs"], tmp_path / "out")
    assert record(summary)["tables"][0]["rows"][0]["macro"] is None
    assert "3.250" in summary.text
    assert "own scale: tempeval_mini_action" in summary.text


def test_lower_is_better_sorts_up(tmp_path):
    lower = {"task_changes": {"higher_is_better": False}}
    made["write_run"](tmp_path / "runs" / "a", tasks=lines(TASK), **lower)
    for name, accuracy in (("bad", 0.9), ("good", 0.1)):
        made["write_run"](
            tmp_path / "runs" / name, name, tasks=lines(TASK, accuracy=accuracy), **lower
        )
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=200)
    rows = record(summary)["tables"][0]["rows"]
    assert [row["label"] for row in rows] == ["baseline", "good", "bad"]
    assert "mini_action ↓" in summary.text


def test_tables_of_two_plans_are_told_apart_by_their_headings(tmp_path):
    for tokens in (36, 72):
        for method in ("baseline", "pas"):
            changes = {"visual_token_budget": tokens}
            group = lines(TASK, tokens=tokens)
            made["write_run"](
                tmp_path / "runs" / f"{method}{tokens}", method, tasks=group, **changes
            )
    printed = build([tmp_path / "runs"], tmp_path / "out", draws=200, match_on="frames").text
    for tokens in (36, 72):
        assert f"8 frames per question, planned for {tokens} visual tokens" in printed


def test_two_groups_of_one_task_are_two_tables(tmp_path):
    for prompt in ("aa", "bb"):
        changed = {"prompt_hash": f"sha256:{prompt}"}
        for method in ("baseline", "pas"):
            folder = tmp_path / "runs" / f"{method}_{prompt}"
            made["write_run"](folder, method, tasks=lines(TASK), task_changes=changed)
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=200)
    assert (summary.tables, summary.compared, summary.refusals) == (2, 2, ())
    assert summary.text.count(f"> {TASK} also stands in another table, with another prompt.") == 2


def test_unparsed_answers_are_counted_in_the_samples(tmp_path):
    """Whatever run.json says of them."""
    made["write_run"](tmp_path / "runs", tasks=lines(TASK), task_changes={"unparsed": 29})
    (row,) = record(build([tmp_path / "runs"], tmp_path / "out"))["tables"][0]["rows"]
    assert row["cells"][0]["costs"]["parse_failure_rate"] == pytest.approx(1 / 30)


def test_rows_of_one_label_are_told_apart(tmp_path):
    made["write_run"](tmp_path / "runs" / "a", tasks=lines(TASK))
    for name in ("111111", "222222"):
        changed = {"method_fingerprint": f"sha256:{name}000"}
        made["write_run"](tmp_path / "runs" / name, "pas", tasks=lines(TASK), **changed)
    printed = build([tmp_path / "runs"], tmp_path / "out", draws=200).text
    assert "pas (111111)" in printed
    assert "pas (222222)" in printed


def test_differing_devices_are_noted(tmp_path):
    made["write_run"](tmp_path / "runs" / "a", tasks=lines(TASK), gpu="A100")
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=lines(TASK), gpu="H100")
    assert "The runs differ in gpu: A100, H100." in build([tmp_path], tmp_path / "out").text


def test_frames_of_their_own_are_noted(tmp_path):
    own = lines(TASK)
    for line in own[TASK]:
        line["token_counts"][0]["frames"] = 25
    made["write_run"](tmp_path / "runs" / "a", tasks=lines(TASK))
    made["write_run"](tmp_path / "runs" / "b", "slowfast", tasks=own)
    made["write_run"](tmp_path / "runs" / "c", "pas", tasks=lines(TASK))
    printed = build([tmp_path], tmp_path / "out").text
    note = "The frames above are the baseline's; other methods see: slowfast 25."
    assert note in printed


@pytest.mark.parametrize(
    ("model", "mini"),
    [
        ("mini", True),
        ("mini:video_llava", True),
        ("/site-packages/tempeval/mini/checkpoints/qwen", True),
        (r"C:\tempeval\mini\checkpoints\qwen", True),
        ("Qwen/Qwen2.5-VL-7B-Instruct", False),
        ("my/mini", False),
        ("minimal", False),
    ],
)
def test_mini_models_are_labelled(tmp_path, model, mini):
    made["write_run"](tmp_path / "runs", tasks=lines(TASK), model=model)
    summary = build([tmp_path / "runs"], tmp_path / "out")
    assert ("say nothing about 7B models" in summary.text) is mini
    assert record(summary)["tables"][0]["is_mini"] is mini


def test_names_cannot_break_the_table(tmp_path):
    label = "a|b\n| c | <script>alert(1)</script> `x` \ud800"
    made["write_run"](tmp_path / "runs" / "a", tasks=lines(TASK), model=label)
    made["write_run"](
        tmp_path / "runs" / "b", "pas", tasks=lines(TASK), method_label=label, model=label
    )
    summary = build([tmp_path / "runs"], tmp_path / "out")
    document = summary.markdown.read_text(encoding="utf-8")
    assert "<script>" not in document.replace(
        "`a/b / c / <script>alert(1)</script> 'x' \\ud800`", ""
    )
    rows = [line for line in document.splitlines() if line.startswith("|")]
    assert not [row for row in rows if row.startswith("| c ")]
    record(summary)


def test_nothing_comparable_still_writes(tmp_path):
    made["write_run"](tmp_path / "runs" / "a", "pas", tasks=lines(TASK))
    summary = build([tmp_path / "runs"], tmp_path / "out")
    assert (summary.tables, summary.compared, len(summary.refusals)) == (0, 0, 1)
    assert "No run could be compared" in summary.markdown.read_text(encoding="utf-8")


def test_one_baseline_run_only(tmp_path):
    made["write_run"](tmp_path / "runs" / "a", tasks=lines(TASK))
    summary = build([tmp_path / "runs"], tmp_path / "out")
    assert (summary.tables, summary.compared, summary.refusals) == (1, 0, ())
    assert "Every run was comparable." in summary.markdown.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": -0.1},
        {"tolerance": float("nan")},
        {"draws": 0},
        {"seed": -1},
        {"max_failure_ratio": 1.5},
    ],
)
def test_settings_out_of_range(tmp_path, options):
    with pytest.raises(InvalidSetting, match=next(iter(options))):
        build([tmp_path], tmp_path / "out", **options)


def test_a_failed_write_leaves_the_old_files(tmp_path, monkeypatch):
    made["write_run"](tmp_path / "runs", tasks=lines(TASK))
    summary = build([tmp_path / "runs"], tmp_path / "out")
    before = summary.markdown.read_bytes()
    plots = (tmp_path / "out" / "plots",)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        build([tmp_path / "runs"], tmp_path / "out", seed=1)
    assert summary.markdown.read_bytes() == before
    assert not [path for path in (tmp_path / "out").rglob("*") if path not in summary.files + plots]


def test_it_needs_neither_torch_nor_the_host(tmp_path):
    made["write_run"](tmp_path / "runs", tasks=lines(TASK))
    code = (
        "import sys, pathlib\n"
        "for name in ('torch', 'lmms_eval', 'transformers'): sys.modules[name] = None\n"
        "from tempeval.leaderboard import build\n"
        "build([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "runs"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "leaderboard.md").is_file()


def test_the_summary_shows_unparsed_answers_and_empty_intervals(tmp_path):
    silent = lines(TASK)
    for line in silent[TASK]:
        line.update(score=0.0, parse_failure=1.0)
    made["write_run"](tmp_path / "runs" / "a", tasks=silent)
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=silent)
    printed = build([tmp_path / "runs"], tmp_path / "out", draws=200).text
    assert printed.count("100.0 %") == 2
    assert "not that the difference is known: pas." in printed


def test_failed_damaged_skipped_and_unparsed_samples_are_shown(tmp_path):
    """In every file: which rows have them, how many, and what is wrong with the videos."""
    for name in ("baseline", "pas"):
        failed = 1 if name == "pas" else 0
        damage = {
            "skipped": 4,
            "skipped_digest": "sha256:aa",
            "damaged": 6,
            "videos": {"total": 5, "damaged": 3, "flags": {"corrupt_packets": 1, "truncated": 2}},
        }
        tasks = lines(TASK, failed=failed, per_video=5)
        made["write_run"](tmp_path / "runs" / name, name, tasks=tasks, task_changes=damage)
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=100)
    note = (
        "mini_action: 3 of 5 videos damaged: truncated 2, corrupt_packets 1; 4 questions left out, "
        "whose videos are not there."
    )
    assert f"> {note}" in summary.text.splitlines()
    assert note.replace("_", r"_") in summary.markdown.read_text(encoding="utf-8")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert note in page
    assert "1 failed, 6 over damaged videos, 4 skipped" in page
    header = next(line for line in summary.text.splitlines() if line.startswith("| method"))
    assert header.split("|")[-5:-1] == [" unparsed ", " failed ", " damaged ", " skipped "]
    (table,) = record(summary)["tables"]
    cell = table["rows"][1]["cells"][0]
    assert cell["videos"] == {
        "total": 5,
        "damaged": 3,
        "flags": {"corrupt_packets": 1, "truncated": 2},
    }
    costs = cell["costs"]
    assert [costs[key] for key in ("failed", "unparsed", "damaged", "skipped")] == [1, 1, 6, 4]
    text = (tmp_path / "out" / "leaderboard.csv").read_text(encoding="utf-8")
    row = list(csv.DictReader(io.StringIO(text)))[1]
    named = ("failed", "unparsed", "damaged", "skipped", "videos", "damaged_videos", "damage")
    found = [row[name] for name in named]
    assert found == ["1", "1", "6", "4", "5", "3", "truncated 2, corrupt_packets 1"]
