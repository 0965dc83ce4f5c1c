"""Reading run folders: both sample layouts, and every kind of broken input with its place."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path

import numpy as np
import pytest

from tempeval.errors import TempevalError
from tempeval.leaderboard import RunsNotFound, scan
from tempeval.leaderboard.load import load

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK = "tempeval_mini_action"


def write(folder, change=None, **changes):
    lines = made["sample_lines"](TASK, videos=4)
    if change:
        change(lines[1])
    return made["write_run"](folder, tasks={TASK: lines}, **changes)


def samples(folder):
    loaded = load([folder])
    assert not loaded.refusals
    return loaded.entries[0].samples


def refusal(folder):
    loaded = load([folder])
    assert not loaded.entries
    assert len(loaded.refusals) == 1
    return loaded.refusals[0]


def edit(folder, change):
    path = folder / "run.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_ids_at_the_top_level_or_in_the_sample_metric(tmp_path):
    def nest(line):
        line["sample"] = {k: line.pop(k) for k in ("sample_id", "video_id", "content_hash")}

    assert samples(write(tmp_path / "a")).digest == samples(write(tmp_path / "b", nest)).digest


def test_columns(tmp_path):
    read = samples(write(tmp_path / "a"))
    assert read.ids[1] == f"{TASK}/0001"
    assert read.clusters[3] == "video_id=clip_001"
    assert read.measures["visual_tokens"].tolist() == [36] * 12
    assert read.measures["seconds"] == pytest.approx(np.full(12, 0.042))
    assert np.isnan(read.measures["peak_memory_bytes"]).all()


def test_requests_of_one_question_share_the_video_and_add_their_answers(tmp_path):
    def three_labels(line):
        line["token_counts"] *= 3

    read = samples(write(tmp_path / "a", three_labels))
    assert read.measures["visual_tokens"][1] == 36
    assert read.measures["seconds"][1] == pytest.approx(0.038 + 3 * 0.004)


def test_a_missing_time_makes_the_seconds_missing(tmp_path):
    read = samples(write(tmp_path / "a", lambda line: line["token_counts"][0].pop("encode_ms")))
    assert math.isnan(read.measures["seconds"][1])
    assert not math.isnan(read.measures["seconds"][0])


@pytest.mark.parametrize("counts", [None, [], [None]])
def test_unknown_budgets_are_missing_not_zero(tmp_path, counts):
    read = samples(write(tmp_path / "a", lambda line: line.update(token_counts=counts)))
    assert all(math.isnan(column[1]) for column in read.measures.values())
    assert not read.failed[1]


def test_failed_samples_score_zero_whatever_the_file_says(tmp_path):
    def fail(line):
        line["token_counts"][0]["error"] = "BadVideo"
        line["score"] = None

    read = samples(write(tmp_path / "a", fail))
    assert read.failed.tolist() == [False, True] + [False] * 10
    assert read.score[1] == 0


def test_unicode_names(tmp_path):
    folder = write(tmp_path / "läufe ½", lambda line: line.update(sample_id="视频\ud800"))
    assert "视频\ud800" in samples(folder).ids


def test_runs_are_found_once_and_named_by_what_differs(tmp_path):
    write(tmp_path / "x" / "a")
    write(tmp_path / "x" / "b" / "c")
    paths = [tmp_path, tmp_path / "x" / "a", tmp_path / "x" / "b" / "c" / "run.json"]
    assert [run.name for run in load(paths).runs] == ["a", "b/c"]
    assert [run.name for run in load(paths[1:2]).runs] == ["a"]


def test_a_run_inside_a_run(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "a" / "b")
    assert [run.name for run in load([tmp_path]).runs] == ["a", "a/b"]


@pytest.mark.parametrize("name", ["nowhere", "empty", "file.txt"])
def test_paths_without_runs_are_errors(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").touch()
    with pytest.raises(RunsNotFound, match=name) as caught:
        load([tmp_path / name])
    assert isinstance(caught.value, TempevalError)


def test_no_paths():
    with pytest.raises(RunsNotFound, match="no run was given"):
        load([])


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ('{"schema": 2,\n"status": ', "run.json:2", "not JSON"),
        ("[1]", "run.json", "a list, not an object"),
        ("{}", "run.json", "no key 'schema'"),
        ('{"schema":' + "[" * 60 + "]" * 60 + "}", "run.json", "more than 50 levels"),
        ("", "run.json:1", "not JSON"),
        ("[" * 100_000, "run.json", "not JSON"),
        ("1" * 10_000, "run.json", "not JSON"),
        ('{"schema": 3}', "run.json", "schema 3 is of a newer tempeval; this version reads"),
        ('{"schema": 1}', "run.json", "schema 1 is of an older tempeval; this version reads"),
        ('{"schema": 0}', "run.json", "schema 0 is not known"),
        ('{"schema": 2, "method": 1, "method": ""}', "run.json", 'key "method" stands twice'),
        ('{"schema": true}', "run.json", "schema true is not known"),
        ('{"schema": 2, "status": "complete"}', "run.json", "key 'method' is missing"),
        ('{"schema": 2, "status": "odd", "method": "", "error": null}', "run.json", '"odd"'),
    ],
)
def test_broken_run_records(tmp_path, text, place, reason):
    write(tmp_path / "a")
    (tmp_path / "a" / "run.json").write_text(text)
    found = refusal(tmp_path)
    assert found.value == f"a/{place}"
    assert reason in found.reason
    assert found.action


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda r: r.pop("dtype"), "key 'dtype' is missing"),
        (lambda r: r.update(colour=3), "key 'colour' is not known"),
        (
            lambda r: r.update(method_notes=["a", 3]),
            "'method_notes.1' is int 3; accepted: a text",
        ),
        (lambda r: r.update(model=3), "key 'model' is int 3; accepted: a text"),
        (
            lambda r: r.update(world_size=True),
            "'world_size' is bool true; accepted: a valid int",
        ),
        (
            lambda r: r.update(wall_seconds=math.nan),
            "'wall_seconds' is str \"NaN\"; accepted: a valid number",
        ),
        (lambda r: r.update(tasks={}), "tasks is empty"),
        (lambda r: r.update(tasks={TASK: 1}), f"'tasks.{TASK}' is int 1; accepted: "),
        (lambda r: r["tasks"][TASK].pop("expected"), f"key 'tasks.{TASK}.expected' is missing"),
        (lambda r: r.update(limit=0), "key 'limit' is int 0; accepted: greater than 0"),
        (lambda r: r.update(limit=-1), "key 'limit' is int -1"),
        (lambda r: r.update(visual_token_budget=0), "key 'visual_token_budget' is int 0"),
        (lambda r: r.update(min_pixels=-3136), "key 'min_pixels' is int -3136"),
        (lambda r: r["frame_policy"].update(fps=0.0), "key 'frame_policy.fps' is float 0.0"),
        (lambda r: r["frame_policy"].update(num_frames=0), "'frame_policy.num_frames' is int 0"),
        (lambda r: r["tasks"][TASK].update(samples_file="../x"), "outside the run folder"),
        (lambda r: r["tasks"][TASK].update(samples_file="/etc/passwd"), "outside the run folder"),
        (lambda r: r["tasks"][TASK].update(samples_file="a\0b"), "outside the run folder"),
        (lambda r: r["tasks"][TASK].update(samples_file="lost.jsonl"), "No such file"),
    ],
)
def test_run_records_with_wrong_keys(tmp_path, change, reason):
    edit(write(tmp_path / "a"), change)
    assert reason in refusal(tmp_path).reason


@pytest.mark.parametrize("status", ["partial", "failed"])
def test_unfinished_runs_keep_their_error(tmp_path, status):
    write(tmp_path / "a", status=status, error="RuntimeError: boom")
    found = refusal(tmp_path)
    assert (found.field, found.value) == ("status", status)
    assert "RuntimeError: boom" in found.reason


def test_an_unfinished_run_need_not_have_all_keys(tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps({"schema": 2, "status": "failed", "method": "pas", "error": None})
    )
    assert refusal(tmp_path).field == "status"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: s.pop("sample_id"), "no 'sample_id' at the top level or inside 'sample'"),
        (lambda s: s.pop("content_hash"), "no 'content_hash'"),
        (lambda s: s.pop("video_id"), "no 'video_id'"),
        (lambda s: s.update(sample_id=1.5), "no 'sample_id'"),
        (lambda s: s.pop("score"), "score 'score' is None, not a finite number"),
        (lambda s: s.update(score=math.nan), "score 'score' is nan"),
        (lambda s: s.update(score="1"), "score 'score' is '1'"),
        (lambda s: s.update(score=10**400), "not a finite number"),
        (lambda s: s.update(score=1e200), "not a finite number"),
        (lambda s: s.update(token_counts=3), "'token_counts' is 3, not a list"),
        (lambda s: s["token_counts"][0].update(kv_bytes="9"), "'kv_bytes' is '9', not a number"),
        (lambda s: s.update(sample_id=f"{TASK}/0000"), "is on line 1 and again on line 2"),
    ],
)
def test_broken_sample_lines_name_the_line(tmp_path, change, reason):
    write(tmp_path / "a", change)
    found = refusal(tmp_path)
    assert found.value.endswith(f"samples_{TASK}.jsonl:2")
    assert reason in found.reason
    assert found.tasks == (TASK,)


@pytest.mark.parametrize("text", [b"[1]", b"{", b"\xff\xfe", b"3", b"[" * 100_000])
def test_broken_lines(tmp_path, text):
    file = next(write(tmp_path / "a").glob("*.jsonl"))
    kept = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(kept[0] + text + b"\n" + b"".join(kept[2:]))
    assert refusal(tmp_path).value.endswith(".jsonl:2")


@pytest.mark.parametrize("score", [None, 1.0])
def test_a_task_whose_answers_are_hidden_is_refused_by_name(tmp_path, score):
    """Also where an older version of the task wrote another number as its score."""
    lines = made["sample_lines"](TASK, videos=4)
    for line in lines:
        line["score"] = score
    made["write_run"](tmp_path / "a", tasks={"tempeval_egoschema": lines})
    found = refusal(tmp_path)
    assert (found.kind, found.tasks) == ("unscored", ("tempeval_egoschema",))
    assert "answers are hidden" in found.reason
    assert "tempeval_egoschema_subset" in found.action


def test_one_bad_task_leaves_the_others(tmp_path):
    other = "tempeval_mini_order"
    tasks = {task: made["sample_lines"](task, videos=4) for task in (TASK, other)}
    folder = made["write_run"](tmp_path / "a", tasks=tasks)
    next(folder.glob(f"*{TASK}.jsonl")).write_text("broken\n")
    loaded = load([tmp_path])
    assert [entry.task.name for entry in loaded.entries] == [other]
    assert [found.tasks for found in loaded.refusals] == [(TASK,)]


def test_the_amortised_time_is_read_and_added_over_requests(tmp_path):
    def three_labels(line):
        line["token_counts"][0]["amortised_ms"] = 5.0
        line["token_counts"] *= 3

    read = samples(write(tmp_path / "a", three_labels))
    assert read.measures["amortised_seconds"][1] == pytest.approx(0.015)
    assert math.isnan(read.measures["amortised_seconds"][0])


@pytest.mark.parametrize("value", [math.inf, 1e200, 10**400])
def test_infinite_measures_are_missing(tmp_path, value):
    read = samples(write(tmp_path / "a", lambda s: s["token_counts"][0].update(kv_bytes=value)))
    assert math.isnan(read.measures["kv_bytes"][1])
    assert read.measures["kv_bytes"][0] > 0


def test_every_way_of_reading_gives_the_same(tmp_path, monkeypatch):
    """In pieces of 700 bytes, less than a line or two, with processes and without."""
    folder = write(tmp_path / "a", lambda line: line.update(sample_id="视频"))
    whole = samples(folder)
    monkeypatch.setattr(scan, "PIECE", 700)
    monkeypatch.setattr(scan, "_processors", lambda: 2)
    for worth in (10**9, 0):
        monkeypatch.setattr(scan, "WORTH_A_PROCESS", worth)
        read = samples(folder)
        monkeypatch.delattr(scan, "scan", raising=False)  # only other processes read from now on
        assert (read.ids, read.contents, read.clusters) == (
            whole.ids,
            whole.contents,
            whole.clusters,
        )
        assert read.digest == whole.digest
        for name, column in whole.measures.items():
            np.testing.assert_array_equal(read.measures[name], column)
        np.testing.assert_array_equal(read.score, whole.score)


@pytest.mark.parametrize("line", [2, 9])
def test_a_broken_line_is_named_in_pieces_too(tmp_path, monkeypatch, line):
    monkeypatch.setattr(scan, "PIECE", 700)
    file = next(write(tmp_path / "a").glob("*.jsonl"))
    kept = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(kept[: line - 1]) + b"\n{broken\n" + b"".join(kept[line:]))
    assert refusal(tmp_path).value.endswith(f".jsonl:{line + 1}")


def test_processes_that_die_leave_no_hole(tmp_path, monkeypatch):
    folder = write(tmp_path / "a")
    whole = samples(folder)
    monkeypatch.setattr(scan, "WORTH_A_PROCESS", 0)
    monkeypatch.setattr(scan, "PIECE", 700)
    monkeypatch.setattr(scan, "_processors", lambda: 2)
    monkeypatch.setattr(scan.sys, "executable", "/bin/false")
    assert samples(folder).digest == whole.digest
    monkeypatch.setattr(scan.sys, "executable", "/no/such/python")
    assert samples(folder).digest == whole.digest


def test_runs_over_the_same_samples_share_their_ids(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    one, two = (entry.samples for entry in load([tmp_path]).entries)
    assert one.ids is two.ids


def test_right_answers_are_hashed_by_sample_and_may_be_missing(tmp_path):
    def changed(value):
        return lambda line: line.update(target=value)

    one = samples(write(tmp_path / "a"))
    assert one.targets == samples(write(tmp_path / "b", changed("A"))).targets
    others = ["B", ["A"], {"x": 1}, None, "A" * 100, "A" * 101, "\ud800", "\ud800" * 100]
    found = [
        samples(write(tmp_path / f"c{i}", changed(value))).targets for i, value in enumerate(others)
    ]
    assert len({one.targets, *found}) == len(others) + 1
    plain = made["sample_lines"](TASK, videos=4)
    for line in plain:
        del line["target"]
    assert not samples(made["write_run"](tmp_path / "d", tasks={TASK: plain})).targets


def test_ids_with_line_ends_do_not_hash_alike(tmp_path):
    def named(first, second):
        def change(line):
            line["sample_id"], line["content_hash"] = first, second

        return change

    one = samples(write(tmp_path / "a", named("x\n", "y")))
    two = samples(write(tmp_path / "b", named("x", "\ny")))
    assert one.digest != two.digest


def test_a_run_found_by_two_paths_is_read_once(tmp_path):
    write(tmp_path / "x" / "a")
    (tmp_path / "y").symlink_to(tmp_path / "x")
    loaded = load([tmp_path / "x", tmp_path / "y", tmp_path / "y" / "a" / "run.json"])
    assert [run.name for run in loaded.runs] == ["a"]


def test_names_that_differ_in_case_only_are_two_runs(tmp_path):
    write(tmp_path / "Run")
    write(tmp_path / "run")
    assert [run.name for run in load([tmp_path]).runs] == ["Run", "run"]


def test_a_missing_samples_file_with_another_case_is_named(tmp_path):
    file = next(write(tmp_path / "a").glob("*.jsonl"))
    file.rename(file.with_name(file.name.upper()))
    assert f"{file.name.upper()!r} is there, which differs in case" in refusal(tmp_path).reason


def test_a_task_that_its_record_says_cannot_be_ranked_is_listed(tmp_path):
    made["write_run"](tmp_path / "a", tasks={TASK: made["sample_lines"](TASK, videos=4)})

    def change(record):
        record["tasks"][TASK]["unranked"] = "its number is a mean over categories"

    edit(tmp_path / "a", change)
    found = refusal(tmp_path)
    assert (found.kind, found.reason) == ("unscored", "its number is a mean over categories")
    assert "--metric" in found.action
