"""A run that is stopped from outside: it says how to go on, and going on gives the same files."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from commands import journal_lines, started, tempeval_run
from video_files import write_video
from video_task import TASK, all_samples, record_of, show_tasks, write_task

from tempeval.run.runner import IncompleteRuns, run_matrix
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

METHODS = ("baseline", "pas")
VIDEOS = 10
QUESTIONS = ("Is it faster?", "What happens first?", "left", "up or down?")
BATCHES = len(METHODS) * VIDEOS * len(QUESTIONS)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("task")
    numbers = (range(start, start + 30) for start in range(VIDEOS))
    videos = [write_video(root / f"{n}.mp4", shown) for n, shown in enumerate(numbers)]
    return write_task(root / "tasks", videos, QUESTIONS)


@pytest.fixture(autouse=True)
def shown(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_tasks(tasks, monkeypatch)


@pytest.fixture
def options(tiny_qwen2_5_vl_folder: Path, tmp_path: Path) -> RunSpec:
    """Every question is a batch of its own, so that there are many moments to stop at."""
    return RunSpec(
        out=tmp_path / "out",
        methods=METHODS,
        tasks=[TASK],
        pretrained=str(tiny_qwen2_5_vl_folder),
        batch_size=1,
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[RunSpec], Path]:
    """Run the same options in one go, once for all tests; returns the folder of the matrix."""
    out = tmp_path_factory.mktemp("uninterrupted")

    def run(options: RunSpec) -> Path:
        run_matrix(replace(options, out=out))
        return out

    return run


@pytest.fixture
def command_line(options: RunSpec, tasks: Path) -> list[object]:
    settings = ("--methods", ",".join(METHODS), "--tasks", TASK, "--batch-size", 1)
    places = ("--pretrained", options.pretrained, "-o", options.out)
    return tempeval_run(tasks, *settings, *places)


def assert_the_rerun_completes(options: RunSpec, whole: Path) -> None:
    """The same options go on from the journal and end as if nothing had happened."""
    for folder in run_matrix(options):
        record = record_of(folder)
        assert (record["status"], record["error"]) == ("complete", None)
    assert journal_lines(options.out) == BATCHES, "every batch was journalled exactly once"
    assert all_samples(options.out) == all_samples(whole)


def test_ctrl_c(
    options: RunSpec,
    command_line: list[object],
    uninterrupted: Callable[[RunSpec], Path],
    tmp_path: Path,
) -> None:
    with started(command_line, tmp_path) as command:
        command.until(lambda: journal_lines(options.out) >= BATCHES // 4)
        command.interrupt()
        command.wait(code=130)
        assert command.members() == [], "no decoder is left"
    assert "interrupted; run the same command to go on where it stopped" in command.stderr
    assert "Traceback" not in command.stderr
    for method in METHODS:
        record = record_of(options.out / "uniform" / method)
        assert record["status"] == "interrupted"
        assert record["error"].startswith("interrupted; run the same command")
    assert 0 < journal_lines(options.out) < BATCHES, "it was stopped in the middle"
    assert_the_rerun_completes(options, uninterrupted(options))


def test_a_full_disk_while_journalling(
    options: RunSpec,
    command_line: list[object],
    uninterrupted: Callable[[RunSpec], Path],
    tmp_path: Path,
) -> None:
    """The journal may not grow beyond a size that lies inside its next line (EFBIG)."""
    journal = options.out / "journal" / "rank0.jsonl"
    with started(command_line, tmp_path) as command:
        command.until(lambda: journal_lines(options.out) >= BATCHES // 4)
        room = journal.stat().st_size + 1000
        resource.prlimit(command.process.pid, resource.RLIMIT_FSIZE, (room, room))
        command.wait(code=1)
    (error,) = [line for line in command.stderr.splitlines() if line.startswith("error: ")]
    assert f"cannot write the journal {journal}" in error
    assert "free some space and run the same command again" in error
    assert "Traceback" not in command.stderr
    assert journal.read_bytes().endswith(b"\n"), "no torn line is left"
    for method in METHODS:
        record = record_of(options.out / "uniform" / method)
        assert record["status"] == "failed"
        assert "cannot write the journal" in record["error"]
    assert 0 < journal_lines(options.out) < BATCHES, "it was stopped in the middle"
    assert_the_rerun_completes(options, uninterrupted(options))


#: Runs a command with a small disk of its own at $1, whose content then replaces that folder's.
ON_A_SMALL_DISK = """
out=$1; shift
mount -t tmpfs -o size=40k none "$out" || exit 99
"$@"; code=$?
cp -a "$out" "$out.kept" && umount "$out" && cp -a "$out.kept/." "$out" && exit $code
exit 98
"""


def test_a_disk_that_is_really_full(
    options: RunSpec,
    command_line: list[object],
    uninterrupted: Callable[[RunSpec], Path],
    tmp_path: Path,
) -> None:
    """Not even the record can be written any more; the journal's error is still what is said."""
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "true"], check=False).returncode
    ):
        pytest.skip("may not mount a small disk (needs unshare -m)")
    options.out.mkdir()
    small = ["unshare", "-m", "bash", "-c", ON_A_SMALL_DISK, "bash", options.out]
    with started([*small, *command_line], tmp_path) as command:
        command.wait(code=1)
    (error,) = [line for line in command.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot write the journal" in error
    assert "No space left on device" in error
    assert "Traceback" not in command.stderr
    assert 0 < journal_lines(options.out) < BATCHES
    for method in METHODS:
        assert record_of(options.out / "uniform" / method)["status"] == "failed"
    assert_the_rerun_completes(options, uninterrupted(options))
    assert not list(options.out.rglob(".run.json.*")), "no half-written record is left"


def test_a_full_disk_while_scoring(
    options: RunSpec, uninterrupted: Callable[[RunSpec], Path]
) -> None:
    """The host logs that it cannot write its files and goes on; the run does not."""
    whole = uninterrupted(options)
    shutil.copytree(whole / "journal", options.out / "journal")
    with largest_file(16_000), pytest.raises(IncompleteRuns, match=r"is the disk full\?"):
        run_matrix(options)
    for method in METHODS:
        record = record_of(options.out / "uniform" / method)
        assert record["status"] == "failed"
        assert "is the disk full?" in record["error"]
    assert_the_rerun_completes(options, whole)


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let this process write no file beyond a number of bytes (EFBIG, as on a full disk)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
