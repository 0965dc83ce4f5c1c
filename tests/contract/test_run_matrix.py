"""The run orchestrator on the host's real evaluator, with a model that is none and tiny tasks."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_model import FakeModel

from tempeval import host, tasklist
from tempeval.errors import InvalidSetting, TempevalError, UnknownName
from tempeval.leaderboard.load import load as load_runs
from tempeval.run import matrix, resume
from tempeval.run.counting import allowed_failures
from tempeval.run.matrix import plan_matrix
from tempeval.run.runner import IncompleteRuns, run_matrix
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Path(__file__).parent.parent / "helpers" / "tiny_tasks"


@pytest.fixture(autouse=True)
def tiny_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tasklist, host):
        monkeypatch.setattr(module, "tasks_path", lambda: TINY)
    monkeypatch.setattr(resume, "_revision", lambda *_asked: "sha256:0")


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., RunSpec]:
    def make(**changes: Any) -> RunSpec:
        values = {"out": tmp_path / "out", "methods": ["baseline"], "tasks": ["tempeval_tiny"]}
        return RunSpec(**{**values, **changes})

    return make


def record_in(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return record


def samples_of(folder: Path, task: str) -> list[dict[str, Any]]:
    path = folder / record_in(folder)["tasks"][task]["samples_file"]
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_matrix_loads_one_model_and_writes_one_folder_per_run(options: Any) -> None:
    model, loads, lines = FakeModel(), [], []
    chosen = options(methods=["baseline", "temporal_exit"], budgets=[64, 128])
    folders = run_matrix(
        chosen, report=lines.append, load=lambda given: loads.append(given) or model
    )
    assert len(loads) == 1
    assert model.calls == [
        (method, budget) for budget in (64, 128) for method in ("baseline", "temporal_exit")
    ]
    assert [str(f.relative_to(chosen.out)) for f in folders] == [
        "tokens64/baseline",
        "tokens64/temporal_exit",
        "tokens128/baseline",
        "tokens128/temporal_exit",
    ]
    assert lines[-1] == f"4 of 4 runs complete in {chosen.out}"


def test_the_record_says_what_ran_and_how_it_went(options: Any) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel())
    record = record_in(folder)
    assert (record["status"], record["error"]) == ("complete", None)
    assert record["method"] == "baseline"
    assert record["method_settings"] == {}
    assert record["wall_seconds"] > 0
    assert record["limit"] is None
    task = record["tasks"]["tempeval_tiny_a"]
    name = task["samples_file"]
    assert name.endswith("_samples_tempeval_tiny_a.jsonl")
    assert task == {
        **task,
        "version": "3",
        "expected": 4,
        "answered": 4,
        "failed": 0,
        "unparsed": 0,
        "score_key": "score",
        "cluster_key": "video_id",
        "higher_is_better": True,
        "group": "tempeval_tiny",
    }
    other = record["tasks"]["tempeval_tiny_b"]
    assert task["prompt_hash"] == other["prompt_hash"]
    assert task["dataset_digest"] == other["dataset_digest"]


def test_the_host_files_are_official_and_the_leaderboard_reads_them(options: Any) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel())
    results = json.loads((folder / record_in(folder)["results_file"]).read_text())
    assert results["results"]["tempeval_tiny_a"]["accuracy,none"] == 0.5
    assert results["config"]["model_args"].startswith("method=baseline,")
    assert results["model_source"] == "tempeval"
    lines = samples_of(folder, "tempeval_tiny_a")
    assert [line["sample_id"] for line in lines] == ["q0", "q1", "q2", "q3"]
    assert lines[0]["token_counts"] == [{"visual_tokens": 16, "error": None, "flags": []}]
    loaded = load_runs([folder])
    assert not loaded.refusals
    assert [entry.samples.score.mean() for entry in loaded.entries] == [0.5, 0.5]


def test_a_task_most_of_whose_answers_are_not_read_is_warned_of(
    options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel(silent=True))
    assert record_in(folder)["status"] == "complete"
    said = [line for line in caplog.messages if "no answer was read in 4 of 4 texts" in line]
    assert [line.partition(":")[0] for line in said] == ["tempeval_tiny_a", "tempeval_tiny_b"]
    caplog.clear()
    run_matrix(options(out=folder.parent / "read"), load=lambda _options: FakeModel())
    assert not any("no answer was read" in line for line in caplog.messages)


def test_the_terminal_gets_no_noise(options: Any, capfd: pytest.CaptureFixture[str]) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel())
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""
    assert (folder / "host.log").stat().st_size > 0


def test_limit_is_recorded_and_counted(options: Any) -> None:
    (folder,) = run_matrix(options(limit=3), load=lambda _options: FakeModel())
    record = record_in(folder)
    assert record["limit"] == 3
    assert {task["expected"] for task in record["tasks"].values()} == {3}
    assert len(samples_of(folder, "tempeval_tiny_b")) == 3


def test_failed_samples_make_the_run_partial_and_the_matrix_fail(options: Any) -> None:
    chosen = options(methods=["baseline", "temporal_exit"])
    model = FakeModel(broken={"One?": "BadVideo: cannot decode 'v0'"})
    with pytest.raises(IncompleteRuns, match=r"6 of 8 answered, 2 failed.*q1: BadVideo"):
        run_matrix(chosen, load=lambda _options: model)
    assert len(model.calls) == 2, "the other methods still run"
    record = record_in(chosen.out / "uniform" / "baseline")
    assert record["status"] == "partial"
    assert record["failures"] == {"q1": "BadVideo: cannot decode 'v0'"}
    assert record["tasks"]["tempeval_tiny_a"]["failed"] == 1


def test_unparsed_answers_are_counted_and_complete(options: Any) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel(silent=True))
    record = record_in(folder)
    assert record["status"] == "complete"
    assert record["tasks"]["tempeval_tiny_a"]["unparsed"] == 4


def test_a_named_error_ends_its_run_and_no_other(options: Any) -> None:
    chosen = options(methods=["temporal_exit", "baseline"])
    model = FakeModel(crash={"temporal_exit": TempevalError("no such layer")})
    with pytest.raises(IncompleteRuns, match="no such layer"):
        run_matrix(chosen, load=lambda _options: model)
    assert record_in(chosen.out / "uniform" / "temporal_exit")["status"] == "failed"
    assert record_in(chosen.out / "uniform" / "baseline")["status"] == "complete"


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_any_other_exception_is_recorded_and_raised(options: Any, error: BaseException) -> None:
    chosen = options()
    with pytest.raises(type(error)):
        run_matrix(chosen, load=lambda _options: FakeModel(crash={"baseline": error}))
    record = record_in(chosen.out / "uniform" / "baseline")
    stopped = isinstance(error, KeyboardInterrupt)
    assert record["status"] == ("interrupted" if stopped else "failed")
    assert ("interrupted" if stopped else type(error).__name__) in record["error"]
    assert record["finished"]


def test_an_interrupt_during_scoring_marks_only_what_it_interrupted(options: Any) -> None:
    """What was scored stays complete; what was answered and not yet scored is interrupted too."""
    chosen = options(methods=["baseline", "temporal_exit", "reverse_order", "pas"])

    class Stopped(FakeModel):
        def set_method(self, method: str) -> None:
            if method == "pas":
                raise InvalidSetting("no such layer")
            super().set_method(method)

    model = Stopped(crash={"temporal_exit": KeyboardInterrupt("SIGTERM")})
    with pytest.raises(KeyboardInterrupt):
        run_matrix(chosen, load=lambda _options: model)
    records = {m: record_in(chosen.out / "uniform" / m) for m in chosen.methods}
    assert {m: record["status"] for m, record in records.items()} == {
        "baseline": "complete",
        "temporal_exit": "interrupted",
        "reverse_order": "interrupted",
        "pas": "failed",
    }
    assert records["pas"]["error"] == "no such layer"
    said = "interrupted by SIGTERM; run the same command to go on where it stopped"
    assert records["temporal_exit"]["error"] == records["reverse_order"]["error"] == said
    assert load_runs([chosen.out]).refusals, "an interrupted run is listed, not unreadable"
    again = FakeModel()
    run_matrix(options(methods=["baseline", "temporal_exit"]), load=lambda _options: again)
    assert [method for method, _ in again.calls] == ["temporal_exit"]


def test_the_time_of_all_is_said_once(options: Any) -> None:
    lines: list[str] = []
    chosen = options(methods=["baseline", "temporal_exit"])
    run_matrix(chosen, report=lines.append, load=lambda _options: FakeModel())
    (together,) = [line for line in lines if line.startswith("answered in")]
    assert "all 2 together" in together
    assert sum("scored in" in line for line in lines) == 2


def test_runs_that_the_command_itself_has_made_are_not_called_reused(options: Any) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel())
    made = (folder / "run.json").stat().st_mtime
    for since, reused in ((made - 1, False), (made + 1, True), (None, True)):
        lines: list[str] = []
        run_matrix(options(), report=lines.append, load=pytest.fail, since=since)
        assert ("reused" in lines[0]) == reused
        assert "8 of 8 answered" in lines[0]


def test_what_a_killed_process_left_half_written_is_removed(options: Any) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel())
    process = subprocess.Popen(["true"])
    process.wait()
    dead = folder / f".run.json.{process.pid}"
    alive = folder / f".run.json.{os.getpid()}"
    for path in (dead, alive):
        path.write_text("{")
    run_matrix(options(), load=pytest.fail)
    assert [path.exists() for path in (dead, alive)] == [False, True]
    run_matrix(options(overwrite=True), load=lambda _options: FakeModel())
    assert not alive.exists(), "nobody but the holder of the journal writes here"


def test_a_killed_run_leaves_a_failed_record(options: Any) -> None:
    chosen = options()
    seen = []

    class Nosy(FakeModel):
        def generate_until(self, requests: Any) -> Any:
            seen.append(record_in(chosen.out / "uniform" / "baseline"))
            return super().generate_until(requests)

    run_matrix(chosen, load=lambda _options: Nosy())
    assert (seen[0]["status"], seen[0]["error"]) == ("failed", "the run did not finish")


def test_complete_equal_runs_are_reused_without_a_model(options: Any) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel())
    before = record_in(folder)
    lines: list[str] = []
    again = run_matrix(options(batch_size=2), report=lines.append, load=pytest.fail)
    assert again == [folder]
    assert record_in(folder) == before
    assert "reused (8 of 8 answered" in lines[0]


def test_incomplete_runs_are_run_again(options: Any) -> None:
    with pytest.raises(IncompleteRuns):
        run_matrix(options(), load=lambda _options: FakeModel(broken={"One?": "bad"}))
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel())
    assert record_in(folder)["status"] == "complete"
    assert len(list(folder.glob("*_samples_*.jsonl"))) == 2, "files of the first try are gone"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 2}, "limit: null -> 2"),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"tasks": ["tempeval_tiny_a"]}, "tasks: "),
    ],
)
def test_a_run_with_other_settings_is_never_replaced_silently(
    options: Any, changes: dict[str, Any], message: str
) -> None:
    (folder,) = run_matrix(options(), load=lambda _options: FakeModel())
    with pytest.raises(TempevalError, match=message):
        run_matrix(options(**changes), load=pytest.fail)
    run_matrix(options(**changes, overwrite=True), load=lambda _options: FakeModel())
    assert record_in(folder)["status"] == "complete"


def test_only_what_differs_is_replaced_when_asked_for(options: Any) -> None:
    both = {"methods": ["baseline", "temporal_exit"], "overwrite_different": True}
    run_matrix(options(), load=lambda _options: FakeModel())
    model, lines = FakeModel(), []
    run_matrix(options(**both), report=lines.append, load=lambda _options: model)
    assert model.calls == [("temporal_exit", None)]
    run_matrix(options(**both, limit=2), load=lambda _options: model)
    assert [method for method, _ in model.calls[1:]] == ["baseline", "temporal_exit"]


def test_a_changed_model_or_package_is_noticed(
    options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_matrix(options(), load=lambda _options: FakeModel(revision="sha256:1"))
    with pytest.raises(TempevalError, match="model_revision"):
        run_matrix(options(), load=pytest.fail)
    monkeypatch.setattr(resume, "_revision", lambda *_asked: "old packages")
    run_matrix(options(overwrite=True), load=lambda _options: FakeModel(revision="old packages"))
    with pytest.raises(TempevalError, match="typer"):
        run_matrix(options(), load=pytest.fail)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": ["pass"]}, UnknownName, "did you mean 'pas'"),
        ({"methods": []}, InvalidSetting, "no methods given"),
        ({"methods": ["pas", "pas"]}, InvalidSetting, "listed twice"),
        ({"tasks": ["tempeval_tiny_c"]}, UnknownName, "did you mean 'tempeval_tiny"),
        ({"tasks": ["mvbenchh"]}, UnknownName, "did you mean 'mvbench'"),
        ({"settings": {"pas": {"unit": "bin"}}}, InvalidSetting, "no chain has 'pas'"),
        ({"settings": {"pass": {"unit": "bin"}}}, UnknownName, "did you mean 'pas'"),
        ({"num_frames": 0}, InvalidSetting, "num_frames is 0"),
        ({"limit": -1}, InvalidSetting, "limit is -1"),
        ({"budgets": [0]}, InvalidSetting, "budget 0 is 0"),
        ({"sampling": "fps"}, InvalidSetting, "needs fps"),
        ({"fps": 2.0, "sampling": "segment"}, InvalidSetting, "exclude each other"),
        ({"fps": 0.0}, InvalidSetting, "fps is 0"),
        ({"sampling": "uniforms"}, UnknownName, "did you mean 'uniform'"),
        ({"position_rule": "nativ"}, UnknownName, "did you mean 'native'"),
        ({"mm_newline_position": "rows"}, UnknownName, "one_token"),
        ({"pretrained": "/nowhere"}, TempevalError, "/nowhere"),
    ],
)
def test_bad_options_are_refused_before_the_model_loads(
    options: Any, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    chosen = options(**changes)
    with pytest.raises(error, match=message):
        run_matrix(chosen, load=pytest.fail)
    assert not chosen.out.exists()


def test_an_unwritable_folder_is_refused(options: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TempevalError, match="cannot write to"):
        run_matrix(options(out=tmp_path / "file" / "out"), load=pytest.fail)


def test_settings_reach_the_methods_that_have_them(options: Any) -> None:
    chosen = options(
        methods=["baseline", "pas", "pas+temporal_exit"], settings={"pas": {"unit": "position"}}
    )
    plans = plan_matrix(chosen)
    assert [plan.chain.spec for plan in plans] == [
        "baseline",
        "pas[unit=position]",
        "pas[unit=position]+temporal_exit",
    ]
    names = [plan.folder.name for plan in plans]
    assert len(set(names)) == 3
    assert all(set(name) <= set(matrix.FOLDER_CHARACTERS) for name in names)


def test_failures_within_the_limit_leave_a_complete_run(options: Any) -> None:
    chosen = options(max_failures="2")
    broken = {"One?": "cannot decode"}
    (folder,) = run_matrix(chosen, load=lambda _options: FakeModel(broken=broken))
    record = record_in(folder)
    assert record["status"] == "complete"
    assert sum(task["failed"] for task in record["tasks"].values()) == 2


def test_a_stricter_limit_runs_a_complete_run_again(options: Any) -> None:
    broken = {"One?": "cannot decode"}
    run_matrix(options(max_failures="2"), load=lambda _options: FakeModel(broken=broken))
    model = FakeModel(broken=broken)
    with pytest.raises(IncompleteRuns, match="2 failed"):
        run_matrix(options(max_failures="1"), load=lambda _options: model)
    assert model.calls == [("baseline", None)]


def test_a_looser_limit_tries_failed_samples_again(options: Any) -> None:
    broken = {"One?": "cannot decode"}
    with pytest.raises(IncompleteRuns):
        run_matrix(options(), load=lambda _options: FakeModel(broken=broken))
    model = FakeModel(broken=broken)
    (folder,) = run_matrix(options(max_failures="25%"), load=lambda _options: model)
    assert model.calls == [("baseline", None)]
    record = record_in(folder)
    assert (record["status"], record["error"]) == ("complete", None)
    assert record["failures"] == {"q1": "cannot decode"}


def test_a_run_that_did_not_finish_is_complete_under_no_limit(options: Any) -> None:
    crash = {"baseline": RuntimeError("out of memory")}
    with pytest.raises(RuntimeError):
        run_matrix(options(), load=lambda _options: FakeModel(crash=crash))
    model = FakeModel()
    run_matrix(options(max_failures="100%"), load=lambda _options: model)
    assert model.calls == [("baseline", None)]


@pytest.mark.parametrize(
    ("text", "allowed"), [("0", 0), ("3", 3), ("5%", 10), ("0.4%", 0), ("100%", 200)]
)
def test_max_failures_is_a_number_or_a_share(text: str, allowed: int) -> None:
    assert allowed_failures(text, 200) == allowed


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "101%", "-5%", ""])
def test_other_max_failures_are_refused(text: str, options: Any) -> None:
    with pytest.raises(InvalidSetting, match="max_failures"):
        run_matrix(options(max_failures=text), load=pytest.fail)


FLAGS = {"One?": ("repeated_frames", "truncated"), "Two?": ("truncated", "corrupt_packets")}


def test_damaged_videos_are_counted_and_said(options: Any) -> None:
    lines: list[str] = []
    model = FakeModel(flags=FLAGS)
    (folder,) = run_matrix(options(), report=lines.append, load=lambda _options: model)
    record = record_in(folder)
    task = record["tasks"]["tempeval_tiny_a"]
    assert record["status"] == "complete", "said, not refused"
    expected = {"total": 2, "damaged": 2, "flags": {"corrupt_packets": 1, "truncated": 2}}
    assert task["videos"] == expected
    assert task["damaged"] == 2
    assert record["videos"] == expected, "a video that two tasks ask about is one"
    said = "2 of 2 videos damaged: truncated 2, corrupt_packets 1"
    assert any(said in line and "complete" in line for line in lines)


def test_flags_that_are_no_damage_are_not_counted(options: Any) -> None:
    model = FakeModel(flags={"One?": ("repeated_frames", "end_clamped", "sequential")})
    (folder,) = run_matrix(options(max_damaged="0"), load=lambda _options: model)
    task = record_in(folder)["tasks"]["tempeval_tiny_a"]
    assert task["videos"] == {"total": 2, "damaged": 0, "flags": {}}
    assert task["damaged"] == 0


@pytest.mark.parametrize(
    ("allowed", "status"), [("1", "partial"), ("50%", "partial"), ("2", "complete")]
)
def test_more_damaged_videos_than_allowed_are_no_complete_run(
    options: Any, allowed: str, status: str
) -> None:
    chosen = options(max_damaged=allowed)
    folder = chosen.out / "uniform" / "baseline"
    if status == "complete":
        run_matrix(chosen, load=lambda _options: FakeModel(flags=FLAGS))
    else:
        with pytest.raises(IncompleteRuns, match=r"2 of 2 videos damaged.*max_damaged"):
            run_matrix(chosen, load=lambda _options: FakeModel(flags=FLAGS))
    assert record_in(folder)["status"] == status
    lines: list[str] = []
    run_matrix(options(), report=lines.append, load=pytest.fail)
    assert "reused" in lines[0], "how many are allowed is asked anew"
    assert record_in(folder)["status"] == "complete"


@pytest.mark.parametrize("text", ["-1", "x", "101%", ""])
def test_other_max_damaged_are_refused(text: str, options: Any) -> None:
    with pytest.raises(InvalidSetting, match="max_damaged"):
        run_matrix(options(max_damaged=text), load=pytest.fail)


def test_a_method_that_the_model_refuses_costs_the_others_nothing(options: Any) -> None:
    class Picky(FakeModel):
        def set_method(self, method: str) -> None:
            if method == "temporal_exit":
                raise InvalidSetting("no such layer")
            super().set_method(method)

    chosen = options(methods=["baseline", "temporal_exit"])
    with pytest.raises(IncompleteRuns, match="no such layer"):
        run_matrix(chosen, load=lambda _options: Picky())
    assert record_in(chosen.out / "uniform" / "baseline")["status"] == "complete"
    assert record_in(chosen.out / "uniform" / "temporal_exit")["status"] == "failed"
