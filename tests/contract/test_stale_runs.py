"""A complete run stands only while all that it was made of is as it was, its files included."""

from __future__ import annotations

import errno
import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import recorded
from fake_model import FakeModel

from tempeval import cli, host, host_files, tasklist
from tempeval.errors import RunFailed, TempevalError
from tempeval.host import host_log
from tempeval.leaderboard import build
from tempeval.methods.registry import parse_chain
from tempeval.run import matrix, resume
from tempeval.run.record import RunRecord, read_record, write_record
from tempeval.run.runner import IncompleteRuns, run_matrix
from tempeval.run.scoring import replayed, started_record
from tempeval.run.spec import RunSpec
from tempeval.source_digest import run_code

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Path(__file__).parent.parent / "helpers" / "tiny_tasks" / "tiny"
METHODS = ("baseline", "temporal_exit")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny tasks over files that lie beside them, and complete runs of all methods."""
    root = tmp_path_factory.mktemp("made")
    folder = root / "tasks"
    shutil.copytree(TINY, folder)
    code = folder / "tiny.py"
    text = code.read_text().replace('"/nowhere/', '"{Path(__file__).parent}/')
    code.write_text(text.replace("import Any\n", "import Any\nfrom pathlib import Path\n"))
    lines = (folder / "questions.jsonl").read_text().splitlines()
    for name in {json.loads(line)["video_id"] for line in lines}:
        (folder / f"{name}.mp4").write_bytes(name.encode() * 100)
    with pytest.MonkeyPatch.context() as patch:
        assert _run(patch, root)[0] == list(METHODS)
    return root


def _run(
    patch: pytest.MonkeyPatch, root: Path, *methods: str, **options: Any
) -> tuple[list[str], list[str]]:
    for module in (tasklist, host):
        patch.setattr(module, "tasks_path", lambda: root / "tasks")
    patch.setattr(resume, "_revision", lambda *_asked: "sha256:0")
    tasklist.entries_in.cache_clear()
    model, lines = FakeModel(), []
    chosen = RunSpec(
        out=root / "out", methods=methods or METHODS, tasks=["tempeval_tiny"], **options
    )
    run_matrix(chosen, report=lines.append, load=lambda _options: model)
    return [method for method, _ in model.calls], lines


@pytest.fixture
def tasks(made: Path, tmp_path: Path) -> Path:
    """The folder of tasks, and of the videos."""
    shutil.copytree(made / "tasks", tmp_path / "tasks")
    return tmp_path / "tasks"


@pytest.fixture
def run(tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`run(*methods)` returns the methods that were made again, and what was said."""
    return partial(_run, monkeypatch, tmp_path)


@pytest.fixture
def folder(made: Path, run: Any, tmp_path: Path) -> Path:
    """The folder of the baseline's run; all methods are complete."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out" / "uniform" / "baseline"


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_what_is_as_it_was_stands(folder: Path, run: Any) -> None:
    assert run()[0] == []


def test_a_replaced_video_makes_every_run_over_it_again(
    folder: Path, run: Any, tasks: Path
) -> None:
    before = json.loads((folder / "run.json").read_text())["tasks"]
    video = next(tasks.glob("*.mp4"))
    video.write_bytes(video.read_bytes()[::-1])
    made, lines = run()
    assert made == list(METHODS)
    assert "made again from the journal: videos of tempeval_tiny_a changed" in lines[0]
    after = json.loads((folder / "run.json").read_text())["tasks"]
    for name, task in after.items():
        assert task["videos_digest"] != before[name]["videos_digest"]


def test_a_small_video_that_is_only_touched_is_the_same(
    folder: Path, run: Any, tasks: Path
) -> None:
    for video in tasks.glob("*.mp4"):
        os.utime(video, (1, 1))
    assert run()[0] == []


def test_other_code_of_one_method_leaves_the_others(
    folder: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def edited(chain: Any, family: str) -> dict[str, str]:
        return run_code(chain, family) | ({"methods": "sha256:1"} if chain.methods else {})

    monkeypatch.setattr(matrix, "run_code", edited)
    made, lines = run()
    assert made == ["temporal_exit"]
    assert any("code (methods) changed" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "old", "new", "again"),
    [
        ("tiny.py", "float(results[0] == doc", "0.5 * float(results[0] == doc", True),
        ("tiny.py", '"""Helpers', '"""Other helpers', False),
        ("tiny.py", "\n\n\ndef doc_to_text", "\n\n\n# why\ndef doc_to_text", False),
        ("tempeval_tiny_a.yaml", "max_new_tokens: 4", "max_new_tokens: 5", True),
        ("tempeval_tiny_a.yaml", "task:", "# why\ntask:", False),
        ("tempeval_tiny_a.yaml", "nothing", "something", False),
        ("tempeval_tiny.yaml", "group:", "group_alias: other\ngroup:", True),
    ],
)
def test_another_scorer_scores_again_and_a_comment_does_not(
    folder: Path, run: Any, tasks: Path, name: str, old: str, new: str, again: bool
) -> None:
    edit(tasks / name, old, new)
    made, lines = run()
    assert made == (list(METHODS) if again else [])
    assert ("are made otherwise" in lines[0]) == again


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("*_results.json", Path.unlink),
        ("*_results.json", _one_byte),
        ("*_samples_tempeval_tiny_b.jsonl", Path.write_bytes),
        ("*_samples_tempeval_tiny_b.jsonl", _cut),
    ],
)
def test_a_damaged_file_is_made_again(
    folder: Path, run: Any, pattern: str, damage: Callable[..., Any]
) -> None:
    (path,) = folder.glob(pattern)
    damage(path, *([b""] if damage is Path.write_bytes else []))
    made, lines = run()
    assert made == ["baseline"]
    assert f"{path.name} is missing or damaged" in lines[0]


@pytest.mark.parametrize("key", ["code", "files", "groups"])
def test_a_record_that_does_not_say_is_refused_by_name(folder: Path, run: Any, key: str) -> None:
    record = json.loads((folder / "run.json").read_text())
    del record[key]
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(TempevalError, match=f"key '{key}' is missing. Remove it, or pass"):
        run()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": None}, "key 'tasks' is NoneType null; accepted: a valid dictionary"),
        ({"tasks": []}, "key 'tasks' is list []; accepted: a valid dictionary"),
        ({"tasks": {"a": None}}, "key 'tasks.a' is NoneType null; accepted: "),
        ({"tasks": {"a": {"expected": "4"}}}, "key 'tasks.a.version' is missing"),
        ({"tasks": {"a": recorded.task(expected="4")}}, "key 'tasks.a.expected' is str \"4\"; acc"),
        (
            {"tasks": {"a": recorded.task(expected=-1)}},
            "key 'tasks.a.expected' is int -1; accepted",
        ),
        ({"request": 3}, "key 'request' is int 3; accepted: "),
        ({"request": {"annotations": 3}}, "key 'request.annotations' is int 3; accepted: "),
        ({"packages": None}, "key 'packages' is NoneType null; accepted: "),
        ({"status": True}, "key 'status' is bool true; accepted: 'complete', 'partial'"),
        ({"files": {"a": 1}}, "key 'files.a' is int 1; accepted: "),
        ({"videos": {}}, "key 'videos.total' is missing"),
        ({"seed": 10**400}, "key 'seed' is a number of 401 digits; accepted: less than "),
        ({"results_file": []}, "key 'results_file' is list []; accepted: a text"),
        ({"left_out": 3}, "key 'left_out' is int 3; accepted: "),
        ({"schema": 1}, "schema 1 is of an older tempeval; this version reads schema 2"),
        ({"method_fingerprint": None}, "key 'method_fingerprint' is NoneType null; accepted: a te"),
    ],
)
def test_a_record_of_another_shape_is_named(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    record = recorded.record(**{"tasks": {"a": recorded.task()}, **changes})
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(TempevalError) as raised:
        read_record(tmp_path)
    assert said in str(raised.value)
    assert "Remove it, or pass --overwrite" in str(raised.value)


@pytest.mark.parametrize(
    ("spec", "scored_anew"),
    [
        ("baseline", False),
        ("pave[adapter=mini:audio]", False),
        ("pave[adapter=mini:audio;shuffle=0]", True),
    ],
)
def test_a_run_over_files_that_no_task_names_is_scored_anew(spec: str, scored_anew: bool) -> None:
    """A shuffled side channel is that of another video, which may be none of the task."""
    assert resume._reads_features(parse_chain(spec, {})) is scored_anew


def test_a_record_of_another_shape_is_replaced_when_asked_for(folder: Path, run: Any) -> None:
    edit(folder / "run.json", '"tasks": {', '"tasks": null, "was": {')
    with pytest.raises(TempevalError, match=r"key .tasks. is NoneType null"):
        run("baseline")
    assert run("baseline", overwrite=True)[0] == ["baseline"]


def test_the_leaderboard_pairs_no_runs_over_different_videos(
    folder: Path, run: Any, tasks: Path, tmp_path: Path
) -> None:
    shutil.rmtree(folder.parent / "temporal_exit")
    next(tasks.glob("*.mp4")).write_bytes(b"another clip")
    run("temporal_exit")
    summary = build([tmp_path / "out"], tmp_path / "board", draws=100)
    document = json.loads(summary.json.read_text())
    (refused,) = [r for r in document["not_comparable"] if r["method"] == "temporal_exit"]
    assert (refused["kind"], refused["field"]) == ("settings", "videos")
    run()
    summary = build([tmp_path / "out"], tmp_path / "board", draws=100)
    assert not json.loads(summary.json.read_text())["not_comparable"]


def test_answers_from_the_journal_are_counted_aloud() -> None:
    whole = recorded.record({"a": recorded.task()})
    for known, said in ((4, ", 4 of 10 answers taken from the journal"), (0, "")):
        record = RunRecord.model_validate(whole | {"replayed": known, "computed": 6})
        assert replayed(record) == said


def no_space(*_arguments: Any, **_options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("what", ["os.fsync", "pathlib.Path.replace"])
def test_a_record_that_cannot_be_written_is_one_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = started_record(parse_chain("pas"), seed=0, limit=None, request={}, code={})
    write_record(tmp_path, first)
    monkeypatch.setattr(what, no_space)
    with pytest.raises(RunFailed, match=r"cannot write .*run\.json: No space left"):
        write_record(tmp_path, first.model_copy(update={"seed": 1}))
    monkeypatch.undo()
    assert read_record(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("what", ["os.fsync", "pathlib.Path.replace"])
def test_a_disk_that_fails_ends_a_matrix_by_name(
    run: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(what, no_space)
    with pytest.raises(RunFailed, match="No space left"):
        run()


def test_results_that_cannot_be_brought_to_disk_are_no_complete_run(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def no_results(handle: int) -> None:
        if "_results.json" in str(Path(f"/proc/self/fd/{handle}").readlink()):
            no_space()
        fsync(handle)

    monkeypatch.setattr(host_files.os, "fsync", no_results)
    with pytest.raises(IncompleteRuns, match=r"cannot bring .*_results\.json to disk"):
        run("baseline")
    record = read_record(tmp_path / "out" / "uniform" / "baseline")
    assert record
    assert record.status == "failed"


def test_a_log_without_room_costs_the_log_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nor does it hide what else is raised."""
    from loguru import logger

    (tmp_path / "host.log").symlink_to("/dev/full")

    def fail() -> None:
        with host_log(tmp_path / "host.log"):
            logger.info("a line")
            logger.info("another one")
            raise RunFailed("the disk is full")

    with pytest.raises(RunFailed, match="the disk is full"):
        fail()
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_of_a_disk_is_one_line_wherever_it_comes_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "app", no_space)
    with pytest.raises(SystemExit) as ended:
        cli.main([])
    assert ended.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot read or write: No space left on device; ")
    monkeypatch.setattr(cli, "app", lambda **_: (_ for _ in ()).throw(FileNotFoundError(2, "x")))
    with pytest.raises(FileNotFoundError):
        cli.main([])
