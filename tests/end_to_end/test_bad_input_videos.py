"""One run over good, odd and bad videos: each bad one costs its own samples and nothing else."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from bad_videos import BAD, ODD, TIMEOUT_S, Case, DecoderKiller
from commands import Command, journal_lines, started, tempeval_run
from video_task import (
    CHOICE_TASK,
    TASK,
    all_samples,
    record_of,
    samples_of,
    show_tasks,
    write_task,
)

from tempeval.run.counting import error_of
from tempeval.run.runner import IncompleteRuns, run_matrix
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from pathlib import Path

METHODS = ("baseline", "pas")
QUESTIONS = ("Is it faster?", "Which way does the red square move?")
EXPECTED = len(QUESTIONS) * (len(BAD) + len(ODD))
FAILED = len(QUESTIONS) * len(BAD)
#: Two videos are not there, and one is a folder without images: more would be refused at once.
ABSENT = 3 * len(QUESTIONS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task over all videos, odd ones between bad ones."""
    root = tmp_path_factory.mktemp("bad_input")
    videos = root / "videos"
    videos.mkdir()
    for case in BAD:
        case.make(videos / case.name)
    for name, (make, _) in ODD.items():
        make(videos / name)
    names = [name for pair in zip(BAD, ODD, strict=False) for name in (pair[0].name, pair[1])]
    names += [case.name for case in BAD[len(ODD) :]] + list(ODD)[len(BAD) :]
    write_task(root / "tasks", [videos / name for name in names], QUESTIONS)
    return root


@pytest.fixture(scope="module")
def run(root: Path, tiny_qwen2_5_vl_folder: Path) -> Command:
    """`tempeval run` over all of them, with two methods."""
    killer = DecoderKiller(root / "videos" / "dies.mp4")
    options = ("--methods", ",".join(METHODS), "--tasks", TASK, "--decode-timeout", TIMEOUT_S)
    options += ("--pretrained", tiny_qwen2_5_vl_folder, "-o", root / "out")
    options += ("--max-failures", ABSENT)
    with started(tempeval_run(root / "tasks", *options), root / "cwd") as command:
        command.wait(code=None)
        assert command.members() == [], "no decoder is left"
    assert len(killer.killed) == 1
    return command


@pytest.fixture
def options(root: Path, tiny_qwen2_5_vl_folder: Path) -> RunSpec:
    return RunSpec(
        out=root / "out",
        methods=METHODS,
        tasks=[TASK],
        pretrained=str(tiny_qwen2_5_vl_folder),
        decode_timeout=TIMEOUT_S,
    )


def test_missing_samples_end_the_run_non_zero_with_the_reason(run: Command) -> None:
    assert run.process.returncode == 1
    assert f"{EXPECTED - FAILED} of {EXPECTED} answered, {FAILED} failed" in run.stdout
    assert f"0 of {len(METHODS)} runs complete" in run.stdout
    (error,) = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert "baseline, " in error
    assert "pas are partial" in error
    assert error.count("first failure") == 1, "a reason that both methods have is said once"
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
@pytest.mark.usefixtures("run")
def test_a_bad_video_is_a_recorded_failure(root: Path, case: Case, method: str) -> None:
    samples = samples_of(root / "out" / "uniform" / method)
    for number in range(len(QUESTIONS)):
        sample = samples[f"{case.name.rpartition('/')[2]}-{number}"]
        source = re.escape(repr(str(root / "videos" / case.name)))
        assert re.match(f"cannot decode {source}: {case.reason}", error_of(sample) or "")
        assert "failed: cannot decode" in str(sample["filtered_resps"])  # no text that is scored
        assert sample["score"] == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ODD)
@pytest.mark.usefixtures("run")
def test_an_odd_video_is_answered(root: Path, name: str, method: str) -> None:
    samples = samples_of(root / "out" / "uniform" / method)
    for number in range(len(QUESTIONS)):
        (counts,) = samples[f"{name}-{number}"]["token_counts"]
        assert counts["error"] is None
        assert counts["frames"] == 8
        assert counts["visual_tokens"] > 0
        assert counts["output_tokens"] > 0
        assert set(counts["flags"]) == ODD[name][1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("run")
def test_the_record_counts_and_quotes_the_failures(root: Path, method: str) -> None:
    record = record_of(root / "out" / "uniform" / method)
    assert record["status"] == "partial"
    assert f"{FAILED} failed" in record["error"]
    task = record["tasks"][TASK]
    counts = {key: task[key] for key in ("expected", "answered", "failed")}
    assert counts == {"expected": EXPECTED, "answered": EXPECTED - FAILED, "failed": FAILED}
    samples = samples_of(root / "out" / "uniform" / method)
    assert len(samples) == EXPECTED
    assert record["failures"]
    for sample, reason in record["failures"].items():
        assert error_of(samples[sample]) == reason


def test_failures_within_the_limit_are_tried_again_and_complete_the_run(
    run: Command, root: Path, options: RunSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same run with --max-failures: answers are replayed, failed samples tried once more."""
    assert run.process.returncode == 1
    show_tasks(root / "tasks", monkeypatch)
    # A pipe that is a text file by now: another reason, so it is clear that it was read again.
    for name in ("hangs.mp4", "dies.mp4"):
        path = root / "videos" / name
        path.unlink(missing_ok=True)
        path.write_text("no pipe")
    before = all_samples(options.out)
    lines = journal_lines(options.out)
    with pytest.raises(IncompleteRuns, match=f"{FAILED} failed"):
        run_matrix(_with(options, max_failures=str(FAILED - 1)))
    folders = run_matrix(_with(options, max_failures=f"{100 * FAILED / EXPECTED + 1:.0f}%"))
    for folder in folders:
        record = record_of(folder)
        assert (record["status"], record["error"]) == ("complete", None)
        assert record["tasks"][TASK]["failed"] == FAILED
        assert "not a readable video" in (error_of(samples_of(folder)["hangs.mp4-0"]) or "")
    after = all_samples(options.out)
    assert {k: [line for line in v if not error_of(line)] for k, v in after.items()} == {
        k: [line for line in v if not error_of(line)] for k, v in before.items()
    }
    assert journal_lines(options.out) - lines <= 2 * len(METHODS) * len(BAD)


def test_choices_about_a_bad_video_fail_too(
    tmp_path: Path, tiny_qwen2_5_vl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.mp4").touch()
    ODD["sound.mp4"][0](tmp_path / "sound.mp4")
    videos = [tmp_path / name for name in ("empty.mp4", "sound.mp4")]
    show_tasks(write_task(tmp_path / "tasks", videos), monkeypatch)
    chosen = RunSpec(
        out=tmp_path / "out",
        methods=["baseline"],
        tasks=[CHOICE_TASK],
        pretrained=str(tiny_qwen2_5_vl_folder),
    )
    with pytest.raises(IncompleteRuns, match="1 of 2 answered, 1 failed"):
        run_matrix(chosen)
    samples = samples_of(tmp_path / "out" / "uniform" / "baseline", CHOICE_TASK)
    assert "the file is empty" in (error_of(samples["empty.mp4-0"]) or "")
    assert samples["empty.mp4-0"]["score"] == 0
    assert error_of(samples["sound.mp4-0"]) is None


def _with(options: RunSpec, **changes: Any) -> RunSpec:
    return RunSpec(**{**vars(options), **changes})
