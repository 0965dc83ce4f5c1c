"""What a request lacks is said before the model loads; --skip-missing leaves it out everywhere."""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from fake_model import FakeModel
from tenacity import Future, RetryError
from video_task import CHOICE_TASK, TASK, show_tasks, write_task

from tempeval import host
from tempeval.benchmarks import sources
from tempeval.benchmarks.base import BadData, MissingData
from tempeval.errors import TempevalError
from tempeval.host import UnloadableTask
from tempeval.run import matrix, resume
from tempeval.run.preflight import MissingVideos
from tempeval.run.runner import IncompleteRuns, run_matrix
from tempeval.run.spec import RunSpec
from tempeval.video.clip import VideoPath
from tempeval.video.folder import is_there

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("a.mp4", "b.mp4", "c.mp4", "d.mp4")
QUESTIONS = ("Is it faster?", "Is it red?")


@pytest.fixture(autouse=True)
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "_revision", lambda *_asked: "sha256:0")


@pytest.fixture
def videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task about four videos, none of which is there yet."""
    folder = tmp_path / "videos"
    folder.mkdir()
    tasks = write_task(tmp_path / "tasks", [folder / name for name in NAMES], QUESTIONS)
    show_tasks(tasks, monkeypatch)
    return folder


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., RunSpec]:
    def make(**changes: Any) -> RunSpec:
        methods = ["baseline", "temporal_exit"]
        values = {"out": tmp_path / "out", "methods": methods, "tasks": [TASK]}
        return RunSpec(**{**values, **changes})

    return make


def put(videos: Path, *names: str) -> None:
    for name in names:
        (videos / name).write_text("stands for a video")


def task_of(options: RunSpec, method: str = "baseline") -> dict[str, Any]:
    record = json.loads((options.out / "uniform" / method / "run.json").read_text())
    found: dict[str, Any] = record["tasks"][TASK]
    return found


def ids_of(options: RunSpec, method: str = "baseline") -> list[str]:
    path = options.out / "uniform" / method / task_of(options, method)["samples_file"]
    return [json.loads(line)["sample_id"] for line in path.read_text().splitlines()]


def test_absent_videos_are_said_before_the_model_loads(videos: Path, options: Any) -> None:
    with pytest.raises(MissingVideos) as caught:
        run_matrix(options(), load=pytest.fail)
    said = str(caught.value)
    assert said.startswith(
        f"{TASK}: 0 of 4 videos there, 8 questions will fail; "
        "--skip-missing leaves them out of every method"
    )
    assert repr(str(videos / "a.mp4")) in said
    assert said.count("will fail") == 1, "one line for a cause, not for a method"
    assert not options().out.exists(), "nothing was written"
    put(videos, "a.mp4", "b.mp4", "d.mp4")
    with pytest.raises(MissingVideos, match="3 of 4 videos there, 2 questions will fail"):
        run_matrix(options(), load=pytest.fail)
    with pytest.raises(MissingVideos, match="1 question will fail"):
        run_matrix(options(limit=3), load=pytest.fail)
    run_matrix(options(limit=2), load=lambda _options: FakeModel())


def test_what_max_failures_allows_goes_on_and_is_said(videos: Path, options: Any) -> None:
    put(videos, "a.mp4", "b.mp4", "d.mp4")
    lines: list[str] = []
    run_matrix(options(max_failures="2"), report=lines.append, load=lambda _options: FakeModel())
    assert f"{TASK}: 3 of 4 videos there, 2 questions will fail, as max_failures allows" in lines


def test_skip_missing_leaves_questions_out_of_every_method(videos: Path, options: Any) -> None:
    put(videos, "b.mp4", "d.mp4")
    chosen = options(skip_missing=True)
    lines: list[str] = []
    run_matrix(chosen, report=lines.append, load=lambda _options: FakeModel())
    assert f"{TASK}: 2 of 4 videos there, 4 questions left out of every method" in lines
    kept = ["b.mp4-0", "d.mp4-0", "b.mp4-1", "d.mp4-1"]
    for method in ("baseline", "temporal_exit"):
        task = task_of(chosen, method)
        counts = [task[key] for key in ("expected", "answered", "failed", "skipped")]
        assert counts == [4, 4, 0, 4]
        assert task["videos"]["total"] == 2
        assert ids_of(chosen, method) == kept


def test_runs_over_other_questions_have_other_digests(videos: Path, options: Any) -> None:
    """As many questions, but not the same ones; the foreign ones have no names of their own."""
    digests = []
    for number, names in enumerate((("a.mp4", "b.mp4"), ("c.mp4", "d.mp4"))):
        for path in videos.iterdir():
            path.unlink()
        put(videos, *names)
        chosen = options(skip_missing=True, methods=["baseline"], limit=4)
        chosen = RunSpec(**{**vars(chosen), "out": chosen.out / str(number)})
        run_matrix(chosen, load=lambda _options: FakeModel())
        task = task_of(chosen)
        digests.append((task["dataset_digest"], task["skipped_digest"]))
    assert digests[0][0] != digests[1][0]
    assert digests[0][1] != digests[1][1]
    assert None not in digests[0]


def test_a_video_that_is_put_back_is_not_left_out_again(videos: Path, options: Any) -> None:
    put(videos, "a.mp4", "b.mp4", "c.mp4")
    chosen = options(skip_missing=True)
    run_matrix(chosen, load=lambda _options: FakeModel())
    run_matrix(chosen, load=pytest.fail)  # nothing has changed
    put(videos, "d.mp4")
    run_matrix(chosen, load=lambda _options: FakeModel())
    task = task_of(chosen)
    assert (task["expected"], task["skipped"], task["skipped_digest"]) == (8, 0, None)


def test_a_task_without_any_video_is_left_out_and_the_other_runs(
    videos: Path, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(videos, *NAMES)
    other = write_task(tmp_path / "other", [tmp_path / "gone.mp4"])
    yaml = (tmp_path / "tasks" / "tempeval_videos.yaml").read_text()
    renamed = yaml.replace("task: tempeval_videos", "task: tempeval_gone")
    (tmp_path / "tasks" / "tempeval_gone.yaml").write_text(
        renamed.replace("questions.jsonl", "gone.jsonl")
    )
    (tmp_path / "tasks" / "gone.jsonl").write_text((other / "questions.jsonl").read_text())
    show_tasks(tmp_path / "tasks", monkeypatch)
    both = options(tasks=[TASK, "tempeval_gone"])
    with pytest.raises(MissingVideos, match="tempeval_gone: 0 of 1 videos there, 1 question"):
        run_matrix(both, load=pytest.fail)
    lines: list[str] = []
    chosen = RunSpec(**{**vars(both), "skip_missing": True})
    run_matrix(chosen, report=lines.append, load=lambda _options: FakeModel())
    record = json.loads((chosen.out / "uniform" / "baseline" / "run.json").read_text())
    assert (record["status"], list(record["tasks"])) == ("complete", [TASK])
    assert list(record["left_out"]) == ["tempeval_gone"]
    assert any(line.startswith("tempeval_gone is left out: none of its 1") for line in lines)


def test_failed_questions_are_tried_again(videos: Path, options: Any) -> None:
    """Also of a run that is complete within max_failures: the disk was away, memory was short."""
    put(videos, *NAMES)
    chosen = options(max_failures="8", methods=["baseline"])
    run_matrix(chosen, load=lambda _options: FakeModel(lost=NAMES))
    assert task_of(chosen)["failed"] == 8
    lines: list[str] = []
    run_matrix(chosen, report=lines.append, load=lambda _options: FakeModel(lost=("d.mp4",)))
    assert task_of(chosen)["failed"] == 2
    assert not any("reused" in line for line in lines)
    run_matrix(chosen, load=lambda _options: FakeModel())
    assert task_of(chosen)["failed"] == 0
    run_matrix(chosen, load=pytest.fail)


def test_a_failure_whose_video_is_still_away_is_not_tried_again(videos: Path, options: Any) -> None:
    put(videos, "a.mp4", "b.mp4", "c.mp4")
    chosen = options(max_failures="2", methods=["baseline"], limit=4)
    away = FakeModel(lost=("d.mp4",))
    run_matrix(chosen, load=lambda _options: away)
    assert task_of(chosen)["failed"] == 1
    lines: list[str] = []
    run_matrix(chosen, report=lines.append, load=pytest.fail)
    assert any("reused (3 of 4 answered, 1 failed" in line for line in lines)
    put(videos, "d.mp4")
    run_matrix(chosen, load=lambda _options: FakeModel())
    assert task_of(chosen)["failed"] == 0


def test_the_same_failure_of_several_methods_is_said_once(videos: Path, options: Any) -> None:
    put(videos, *NAMES)
    model = FakeModel(broken={"red": "cannot decode it"})
    with pytest.raises(IncompleteRuns) as caught:
        run_matrix(options(), load=lambda _options: model)
    assert str(caught.value).count("cannot decode it") == 1
    assert "baseline" in str(caught.value)
    assert "temporal_exit" in str(caught.value)


def test_an_empty_folder_of_frames_is_not_there(
    tmp_path: Path, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "whole" / "1.png").touch()
    (tmp_path / "empty" / "notes.txt").touch()
    folders = [tmp_path / name for name in ("whole", "empty", "gone")]
    show_tasks(write_task(tmp_path / "tasks", folders, fps=4.0), monkeypatch)
    for task in (TASK, CHOICE_TASK):
        with pytest.raises(MissingVideos, match="1 of 3 videos there, 2 questions will fail"):
            run_matrix(options(tasks=[task]), load=pytest.fail)


class Manager:
    """Raises what loading a task raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def load_task_or_group(self, *_: Any) -> Any:
        raise self.error


def given_up(error: BaseException) -> RetryError:
    """What the host raises when it has tried in vain."""
    attempt = Future(5)
    attempt.set_exception(error)
    return RetryError(attempt)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (
            "tempcompass",
            KeyError("HF_HOME"),
            "lmms-eval's task tempcompass cannot be loaded: it needs the environment variable "
            "HF_HOME; did you mean tempeval_tempcompass?",
        ),
        (
            "videomme",
            given_up(OSError("no snapshot\nmore lines")),
            "lmms-eval's task videomme cannot be loaded: OSError: no snapshot",
        ),
        ("vnbench", SystemExit("no data"), "SystemExit: no data"),
        (
            "tempeval_avqa",
            ValueError("odd"),
            "task tempeval_avqa cannot be loaded: ValueError: odd",
        ),
        ("tempeval_avqa", given_up(BadData("avqa.json is cut")), "^avqa.json is cut$"),
    ],
)
def test_a_task_that_cannot_be_loaded_says_why(
    name: str, error: BaseException, message: str
) -> None:
    with pytest.raises(TempevalError) as caught:
        host._load_one(Manager(error), name)
    assert re.search(message.replace("?", "[?]"), str(caught.value))
    assert "\n" not in str(caught.value)
    assert "Future" not in str(caught.value)


def test_a_malformed_annotation_is_read_once_and_before_the_model(
    tmp_path: Path, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / "mvbench" / "json" / "action_sequence.json"
    path.parent.mkdir(parents=True)
    path.write_text('[{"video": "a.mp4", "question": ')
    monkeypatch.setenv("TEMPEVAL_DATA", str(tmp_path / "data"))
    reads: list[Any] = []
    read = sources.load_docs

    def counted(row: Any, given: Any = None) -> Any:
        reads.append(row)
        return read(row, given)

    for module in ("tempeval.tasks.documents", "tempeval.benchmarks.sources"):
        monkeypatch.setattr(f"{module}.load_docs", counted)
    chosen = options(tasks=["tempeval_mvbench_action_sequence"])
    with pytest.raises(BadData, match=r"action_sequence\.json"):
        run_matrix(chosen, load=pytest.fail)
    assert len(reads) == 1
    assert not chosen.out.exists()


def test_skip_unloadable_runs_the_other_tasks(
    videos: Path, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(videos, *NAMES)
    yaml = (tmp_path / "tasks" / "tempeval_videos.yaml").read_text()
    broken = yaml.replace("task: tempeval_videos", "task: tempeval_broken")
    broken = re.sub(r"doc_to_text: .*", "doc_to_text: !function no.such.module", broken)
    (tmp_path / "tasks" / "tempeval_broken.yaml").write_text(broken)
    show_tasks(tmp_path / "tasks", monkeypatch)
    both = options(tasks=["tempeval_broken", TASK])
    with pytest.raises(TempevalError, match=r"tempeval_broken cannot be loaded|no\.such\.module"):
        run_matrix(both, load=pytest.fail)
    assert not both.out.exists()
    chosen = RunSpec(**{**vars(both), "skip_unloadable": True})
    lines: list[str] = []
    run_matrix(chosen, report=lines.append, load=lambda _options: FakeModel())
    record = json.loads((chosen.out / "uniform" / "baseline" / "run.json").read_text())
    assert (record["status"], list(record["tasks"])) == ("complete", [TASK])
    assert list(record["left_out"]) == ["tempeval_broken"]
    assert any(line.startswith("tempeval_broken is left out: ") for line in lines)
    run_matrix(chosen, load=pytest.fail)
    with pytest.raises(UnloadableTask, match="no task can be loaded"):
        run_matrix(RunSpec(**{**vars(chosen), "tasks": ["tempeval_broken"]}), load=pytest.fail)


def test_a_task_that_can_be_loaded_again_is_evaluated_too(
    videos: Path, options: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command goes on; the annotations that are there now are no other setting."""
    put(videos, *NAMES)
    yaml = (tmp_path / "tasks" / "tempeval_videos.yaml").read_text()
    second = yaml.replace("task: tempeval_videos", "task: tempeval_second")
    (tmp_path / "tasks" / "tempeval_second.yaml").write_text(second)
    show_tasks(tmp_path / "tasks", monkeypatch)
    chosen = options(tasks=[TASK, "tempeval_second"], methods=["baseline"], skip_unloadable=True)

    def away(name: str) -> None:
        if name == "tempeval_second":
            raise MissingData("no folder second")

    monkeypatch.setattr(host, "read_documents", away)
    run_matrix(chosen, load=lambda _options: FakeModel())
    run_matrix(chosen, load=pytest.fail)
    monkeypatch.setattr(host, "read_documents", lambda _name: None)
    digests = {"second/test": "sha256:0"}
    monkeypatch.setattr(matrix, "source_digests", lambda _names, **_: digests)
    (folder,) = run_matrix(chosen, load=lambda _options: FakeModel())
    record = json.loads((folder / "run.json").read_text())
    assert sorted(record["tasks"]) == ["tempeval_second", TASK]
    assert (record["status"], record["left_out"]) == ("complete", {})


def test_a_run_that_answered_nothing_blocks_nothing(videos: Path, options: Any) -> None:
    put(videos, *NAMES)
    chosen = options(methods=["baseline"])
    with pytest.raises(RuntimeError, match="no memory"):
        run_matrix(
            chosen, load=lambda _options: FakeModel(crash={"baseline": RuntimeError("no memory")})
        )
    other = RunSpec(**{**vars(chosen), "seed": 7})
    run_matrix(other, load=lambda _options: FakeModel())
    assert task_of(chosen)["answered"] == 8


def test_feature_files_that_a_method_reads_are_looked_for(
    videos: Path, options: Any, tmp_path: Path
) -> None:
    """Without them one method would fail; they are left out of every method alike."""
    put(videos, *NAMES)
    features = tmp_path / "features"
    features.mkdir()
    for name in ("a", "b", "c"):
        (features / f"{name}.safetensors").touch()
    pave = f"pave[adapter=mini:audio;side_channel=features;features={features}]"
    chosen = options(methods=["baseline", pave])
    with pytest.raises(MissingVideos) as caught:
        run_matrix(chosen, load=pytest.fail)
    said = f"{TASK}: 3 of 4 features files of {features} there, 2 questions will fail"
    assert said in str(caught.value)
    skipping = RunSpec(**{**vars(chosen), "skip_missing": True})
    run_matrix(skipping, load=lambda _options: FakeModel())
    assert task_of(skipping)["skipped"] == 2, "of the baseline too"
    run_matrix(options(), load=lambda _options: FakeModel())


@pytest.mark.parametrize(
    ("visual", "paths"),
    [
        (["/data/a.mp4"], ("/data/a.mp4",)),
        (VideoPath("clips/a", fps=3.0), ("clips/a",)),
        (["a.webm", object(), None], ("a.webm",)),
        (["https://host/a.mp4", "data:video/mp4;base64,AA", "dQw4w9WgXcQ", "", "/9j/" * 2000], ()),
        (None, ()),
    ],
)
def test_only_what_names_a_file_is_looked_for(visual: Any, paths: tuple[str, ...]) -> None:
    task = SimpleNamespace(
        config=SimpleNamespace(doc_to_visual="shown"), doc_to_visual=lambda _doc: visual
    )
    assert host._paths(task, {}) == paths


def test_a_task_that_exits_for_a_missing_video_lacks_it() -> None:
    """As tasks of lmms-eval do; whatever else their code raises is no missing video."""

    def exits(_doc: Any) -> Any:
        sys.exit("video path:/data/a.mp4 does not exist")

    task = SimpleNamespace(config=SimpleNamespace(doc_to_visual="shown"), doc_to_visual=exits)
    (said,) = host._paths(task, {})
    assert "/data/a.mp4" in said
    assert not is_there(said)
    task.doc_to_visual = lambda doc: doc["video"]
    assert host._paths(task, {}) == ()
