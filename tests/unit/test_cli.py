"""The command line without a model: listings, help, messages and exit codes."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tempeval import cli_matrix, cli_quickstart, doctor
from tempeval.cli import main
from tempeval.doctor import Check
from tempeval.errors import TempevalError
from tempeval.methods.registry import method_names, parse_chain
from tempeval.plugin import MODELS
from tempeval.run import runner
from tempeval.run.spec import RunSpec
from tempeval.side_channels.registry import SIDE_CHANNELS
from tempeval.tasklist import expand_tasks, group_of, task_entries, tasks_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COMMANDS = (
    "run",
    "leaderboard",
    "quickstart",
    "list",
    "doctor",
    "calibrate",
    "features",
    "tasks-path",
    "mini render",
    "mini train",
    "mini path",
    "pave train",
)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run_command(*arguments: str) -> tuple[int, str, str]:
        code: Any = 0
        try:
            main(arguments)
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RunSpec]:
    """What `run_matrix` would have been given."""
    given: list[RunSpec] = []

    def record(options: RunSpec, **_: object) -> list[Path]:
        given.append(options)
        return []

    monkeypatch.setattr(runner, "run_matrix", record)
    return given


@pytest.mark.parametrize("command", COMMANDS)
def test_every_help_has_an_example(call: Any, command: str) -> None:
    code, out, _ = call(*command.split(), "--help")
    assert code == 0
    assert "Example: " in out
    assert command.split()[-1] in out.split("Example: ")[1]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    begun = time.perf_counter()
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys\n"
            "from tempeval.cli import main\n"
            "try: main(['--help'])\n"
            "except SystemExit: pass\n"
            "heavy = {'torch', 'transformers', 'lmms_eval', 'numpy'} & set(sys.modules)\n"
            "sys.exit(','.join(heavy) or 0)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - begun < 3, "about 0.4 s on an idle machine"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("methods", method_names()),
        ("tasks", ["tempeval_mini"]),
        ("families", ["qwen_vl"]),
        ("models", list(MODELS)),
        ("side-channels", list(SIDE_CHANNELS)),
    ],
)
def test_list(call: Any, what: str, expected: list[str]) -> None:
    code, out, _ = call("list", what)
    assert code == 0
    assert set(expected) <= {line.split()[0] for line in out.splitlines()}


def test_list_tasks_shows_every_yaml(call: Any) -> None:
    _, out, _ = call("list", "tasks")
    assert {line.split()[0] for line in out.splitlines()} == set(task_entries())
    files = {path.stem for path in tasks_path().rglob("*.yaml")}
    assert files == set(task_entries()), "a YAML is named like its task"
    assert all(name.startswith("tempeval_") for name in task_entries())


def test_groups_are_expanded_once_and_in_order() -> None:
    members = expand_tasks(["tempeval_mini"])
    assert len(members) == 5
    assert expand_tasks([members[3], "tempeval_mini"]) == [members[3], *members[:3], members[4]]
    assert {group_of(name) for name in members} == {"tempeval_mini"}
    assert group_of("tempeval_mini") is None


def test_tasks_path_prints_the_path_and_nothing_else(call: Any) -> None:
    code, out, err = call("tasks-path")
    assert (code, out, err) == (0, f"{tasks_path()}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("list method", "did you mean 'methods'"),
        ("run --methods pass --tasks tempeval_mini -o OUT", "did you mean 'pas'"),
        ("run --methods temporal_exitt+pas --tasks tempeval_mini -o OUT", "'temporal_exit'"),
        ("run --methods pas[unti=bin] --tasks tempeval_mini -o OUT", "did you mean 'unit'"),
        ("run --methods pas --tasks tempeval_mni -o OUT", "did you mean 'tempeval_mini'"),
        ("run --methods pas --tasks tempeval_mini --set pas.unti=bin -o OUT", "'unit'"),
        ("run --methods pas --tasks tempeval_mini --set unit=bin -o OUT", "method.field=value"),
        ("run --methods pas --tasks tempeval_mini --budgets 10x -o OUT", "'10x'"),
        ("run --methods pas --tasks tempeval_mini --sampling unifrm -o OUT", "'uniform'"),
        ("run --methods pas --tasks tempeval_mini --pretrained /none -o OUT", "/none"),
        ("run --methods , --tasks tempeval_mini -o OUT", "no methods given"),
        ("run --methods pas --tasks tempeval_mini --budgets , -o OUT", "--budgets"),
        ("run --methods pas --tasks tempeval_mini --max-failures nan% -o OUT", "'nan%'"),
        ("run --methods pas --tasks tempeval_mini --seed -1 -o OUT", "seed is -1"),
        ("run --methods pas --tasks tempeval_mini --seed 4294967296 -o OUT", "4294967295"),
        ("run --methods pas --tasks tempeval_mini --fps inf -o OUT", "fps is inf"),
        ("run --methods pas --tasks tempeval_mini --decode-timeout 0 -o OUT", "decode_timeout"),
        ("run --methods pas --tasks tempeval_mini --decode-timeout nan -o OUT", "is nan"),
        ("bench --device nonsense -o OUT", "'nonsense' is not a device"),
        ("bench --device meta -o OUT", "cpu or cuda"),
        ("bench --questions , -o OUT", "--questions"),
        ("mini path qwen2_5_vll", "no mini checkpoint 'qwen2_5_vll'"),
        (
            "run --methods pas --tasks tempeval_mini --pretrained mini:video_lava -o OUT",
            "did you mean 'video_llava'",
        ),
        ("mini train --family qwen2_5_v -o OUT", "did you mean 'qwen2_5_vl'"),
        ("leaderboard /none -o OUT", "/none"),
    ],
)
def test_mistakes_end_with_one_line_and_code_2(
    call: Any, tmp_path: Path, arguments: str, message: str
) -> None:
    code, out, err = call(*arguments.replace("OUT", str(tmp_path / "out")).split())
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_or_command_ends_with_code_2(call: Any) -> None:
    assert call("run", "--method", "pas")[0] == 2
    assert call("rum")[0] == 2


def test_run_passes_every_option(call: Any, asked: list[RunSpec], tmp_path: Path) -> None:
    line = (
        "run --methods baseline,pas[unit=position;offsets=0/0.5]+temporal_exit "
        "--tasks tempeval_mini,mvbench --pretrained some/model --num-frames 16 "
        "--fps 2 --sampling fps --budgets 64,128 --limit 5 --batch-size 3 --device cuda:1 "
        "--dtype bfloat16 --position-rule native --mm-newline-position grid --seed 7 --overwrite "
        "--set temporal_exit.layer=3 --set pas.K=4"
    )
    code, _, _ = call(*line.split(), "-o", str(tmp_path))
    assert code == 0
    assert asked == [
        RunSpec(
            out=tmp_path,
            methods=["baseline", "pas[unit=position;offsets=0/0.5]+temporal_exit"],
            tasks=["tempeval_mini", "mvbench"],
            pretrained="some/model",
            num_frames=16,
            fps=2.0,
            sampling="fps",
            budgets=[64, 128],
            limit=5,
            batch_size=3,
            device="cuda:1",
            dtype="bfloat16",
            position_rule="native",
            mm_newline_position="grid",
            settings={"temporal_exit": {"layer": "3"}, "pas": {"K": "4"}},
            seed=7,
            overwrite=True,
        )
    ]


def test_a_bench_on_a_gpu_that_is_not_there_is_refused(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, out, err = call("bench", "--device", "cuda", "-o", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert err.startswith("error: device='cuda': no CUDA device here")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    code, _, err = call("bench", "--device", "cuda:1", "-o", str(tmp_path / "out"))
    assert code == 2
    assert "1 CUDA device" in err
    assert not (tmp_path / "out").exists()


def test_a_quick_bench_uses_the_sizes_that_are_given(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tempeval.bench import command
    from tempeval.bench.options import labels_of, settings_of

    given: list[Any] = []

    def record(options: Any, _report: object) -> None:
        given.append((settings_of(options, 1).questions, labels_of(options)))
        raise TempevalError("enough")

    monkeypatch.setattr(command, "run_bench", record)
    call("bench", "--quick", "--questions", "5", "-o", str(tmp_path))
    call("bench", "--quick", "-o", str(tmp_path))
    call("bench", "-o", str(tmp_path))
    assert given == [((5,), (5, 9)), ((1, 3), (5, 9)), ((1, 5, 15), (27, 174, 700))]


def test_ctrl_c_twice_cleans_up_and_ends_with_one_line_and_code_130(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The second one interrupts neither the clean-up nor the interpreter's end."""
    cleaned = []

    def interrupted(*_: object, **__: object) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            cleaned.append(True)

    monkeypatch.setattr(runner, "run_matrix", interrupted)
    before = {each: signal.getsignal(each) for each in cli_matrix.SIGNALS}
    try:
        code, out, err = call("run", "--methods", "pas", "--tasks", "t", "-o", str(tmp_path))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (code, out, cleaned) == (130, "", [True])
    assert err == "\ninterrupted; run the same command to go on where it stopped\n"


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_ends_a_job_ends_with_one_line_and_its_own_code(
    call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    number = signal.Signals[name]
    monkeypatch.setattr(runner, "run_matrix", lambda *_, **__: signal.raise_signal(number))
    before = {each: signal.getsignal(each) for each in cli_matrix.SIGNALS}
    try:
        code, out, err = call("run", "--methods", "pas", "--tasks", "t", "-o", str(tmp_path))
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert (code, out) == (128 + number, "")
    assert err == f"interrupted by {name}; run the same command to go on where it stopped\n"


def test_a_signal_that_is_ignored_stays_ignored(call: Any, asked: list[RunSpec]) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with cli_matrix.patient_interrupts():
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handler_of_ctrl_c_is_put_back(call: Any, asked: list[RunSpec]) -> None:
    before = signal.getsignal(signal.SIGINT)
    assert call("run", "--methods", "pas", "--tasks", "t", "-o", "out")[0] == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_incomplete_runs_end_with_code_1(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise runner.IncompleteRuns("out/pas is partial: 7 of 8 answered")

    monkeypatch.setattr(runner, "run_matrix", fail)
    code, out, err = call("run", "--methods", "pas", "--tasks", "tempeval_mini", "-o", "out")
    assert (code, out, err) == (1, "", "error: out/pas is partial: 7 of 8 answered\n")


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The folders of the parts that a second process would have been given."""
    given: list[list[str]] = []

    @contextlib.contextmanager
    def record(out: Path, limit: int | None, overwrite: bool, parts: Any) -> Any:
        given.append([part.folder for part in parts])
        yield lambda: None

    monkeypatch.setattr(cli_quickstart, "_beside", record)
    return given


def test_quickstart_compares_every_method(
    call: Any, asked: list[RunSpec], beside: list[list[str]], tmp_path: Path
) -> None:
    call("quickstart", "-o", str(tmp_path), "--limit", "3")
    named = {m.name for o in asked for text in o.methods for m in parse_chain(text).methods}
    assert named | {"baseline"} == set(method_names())
    assert all(options.methods[0] == "baseline" for options in asked)
    suites = ["", "", "_audio_choice", "_highfps_choice"]
    assert [options.tasks for options in asked] == [[f"tempeval_mini{suite}"] for suite in suites]
    assert [list(options.budgets) for options in asked] == [[], [48], [], []]
    assert {(options.pretrained, options.limit) for options in asked} == {("mini", 3)}
    assert len({options.out for options in asked}) == len(asked)
    # The second process takes what is not first here, and each part once.
    assert beside == [[options.out.name for options in asked[1:]]]


def test_the_second_process_of_the_quickstart_runs_its_parts_alone(
    call: Any, asked: list[RunSpec], beside: list[list[str]], tmp_path: Path
) -> None:
    only = ("--only", "runs-audio", "--only", "runs-budget")
    code, out, _ = call("quickstart", "-o", str(tmp_path), *only)
    assert (code, out, beside) == (0, "", [])
    assert {options.out.name for options in asked} == {"runs-audio", "runs-budget"}


@pytest.mark.parametrize(("marks", "code"), [(("ok", "warn"), 0), (("ok", "fail", "ok"), 1)])
def test_doctor_fails_when_a_check_fails(
    call: Any, monkeypatch: pytest.MonkeyPatch, marks: tuple[doctor.Mark, ...], code: int
) -> None:
    rows = [Check(mark, f"check {i}", "detail") for i, mark in enumerate(marks)]
    monkeypatch.setattr(doctor, "checks", lambda _pretrained: iter(rows))
    found, out, _ = call("doctor")
    assert found == code
    assert [line.split()[0] for line in out.splitlines()] == list(marks)


def test_doctor_turns_a_broken_check_into_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> doctor.Found:
        raise TempevalError("no such thing")

    for name in ("_host_models", "_host_tasks", "_gpu", "_decord"):
        monkeypatch.setattr(doctor, name, lambda: ("ok", ""))
    monkeypatch.setattr(doctor, "_av", broken)
    rows = {check.name: check for check in doctor.checks("/nowhere")}
    assert rows["decoder av"] == Check("fail", "decoder av", "TempevalError: no such thing")
    assert rows["checkpoint"].mark == "fail"
    assert rows["transformers"].mark == "ok"


def test_doctor_refuses_versions_outside_the_accepted_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda _name: "0.6.1")
    mark, detail = doctor._version("lmms-eval")
    assert mark == "fail"
    assert "pip install 'lmms-eval" in detail


def test_a_broken_record_says_what_to_do(tmp_path: Path) -> None:
    from tempeval.run.record import read_record

    assert read_record(tmp_path) is None
    (tmp_path / "run.json").write_text('{"schema": ')
    with pytest.raises(TempevalError, match="--overwrite"):
        read_record(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps([1]))
    with pytest.raises(TempevalError, match="a list, not an object"):
        read_record(tmp_path)
