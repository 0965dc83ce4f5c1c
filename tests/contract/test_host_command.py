"""Runs of lmms-eval's own command have a record beside their results, and are ranked."""

from __future__ import annotations

import importlib
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tempeval.leaderboard import build
from tempeval.run.runner import run_matrix
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

TASKS = ("tempeval_mini_direction", "tempeval_mini_order_choice")
#: Of a record, what differs between two runs of one thing: times, files, who asked for it, and the
#: seed, which lmms-eval has a default of its own for.
OWN = {
    *("seed", "started", "finished", "wall_seconds", "answering_seconds", "shared_with"),
    *("command", "request", "results_file", "files", "replayed", "computed"),
}


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run lmms-eval's command in this process."""

    def run(
        model: str, *options: object, arguments: str = "", tasks: Sequence[str] = TASKS[:1]
    ) -> None:
        main = importlib.import_module("lmms_eval.__main__")
        given = f"pretrained=mini,num_frames=4{arguments}"
        line = ["--model", model, "--model_args", given, "--tasks", ",".join(tasks)]
        line += ["--limit", "4", "--device", "cpu", "--batch_size", "4", *map(str, options)]
        monkeypatch.setattr(sys, "argv", ["lmms_eval", *line])
        _, args = main.parse_eval_args()
        main.cli_evaluate_single(args)

    return run


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("*run.json"))]


def rows(out: Path) -> list[dict[str, Any]]:
    """Return the rows of the only table, apart from measured times and names of runs."""
    (table,) = json.loads((out / "leaderboard.json").read_text())["tables"]
    found = table["rows"]
    for row in found:
        for part in (row, *row["cells"]):
            part.pop("run", None)
            for name in [name for name in part["costs"]["measures"] if "seconds" in name]:
                del part["costs"]["measures"][name]
    return [row for row in found if row]


def test_its_runs_are_those_of_tempeval_run_and_settings_are_rows(
    tmp_path: Path, command: Callable[..., None]
) -> None:
    sizes: dict[str, Any] = {"limit": 4, "num_frames": 4, "device": "cpu", "batch_size": 4}
    run_matrix(RunSpec(out=tmp_path / "run", methods=["baseline", "pas"], tasks=TASKS, **sizes))
    for model in ("tempeval_baseline", "tempeval_pas"):
        command(model, "--log_samples", "--output_path", tmp_path / "host", tasks=TASKS)
    ours = {record["method"]: record for record in records(tmp_path / "run")}
    theirs = {record["method"]: record for record in records(tmp_path / "host")}
    assert set(ours) == set(theirs) == {"baseline", "pas"}
    for method, record in theirs.items():
        assert record["status"] == "complete"
        for task in record["tasks"].values():
            assert list((tmp_path / "host").rglob(task["samples_file"]))
        for each in (record, ours[method]):
            for task in each["tasks"].values():
                for name in ("samples_file", "p_c_change", "p_c_pairs"):
                    del task[name]
        assert {k: v for k, v in record.items() if k not in OWN} == {
            k: v for k, v in ours[method].items() if k not in OWN
        }
    for name in ("run", "host"):
        build([tmp_path / name], tmp_path / f"board_{name}", draws=200)
    assert rows(tmp_path / "board_host") == rows(tmp_path / "board_run")
    assert len(rows(tmp_path / "board_host")) == 2
    out = ("--log_samples", "--output_path", tmp_path / "host")
    command("tempeval_pas", *out, arguments=",pas.unit=position", tasks=TASKS)
    build([tmp_path / "host"], tmp_path / "board", draws=200)
    labels = [row["label"].partition(" (")[0] for row in rows(tmp_path / "board")]
    assert labels == ["baseline", "pas", "pas[unit=position]"]


def test_without_an_output_path_nothing_is_written_or_said(
    tmp_path: Path,
    command: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    command("tempeval_baseline")
    assert list(tmp_path.rglob("*.json*")) == []
    assert "run.json" not in caplog.text


def test_a_run_that_is_killed_leaves_no_record(
    tmp_path: Path, command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tempeval.run import host_command

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(host_command.CommandRun, "samples_written", killed)
    with pytest.raises(KeyboardInterrupt):
        command("tempeval_baseline", "--log_samples", "--output_path", tmp_path / "host")
    assert list(tmp_path.rglob("*_results.json"))
    assert records(tmp_path) == []
