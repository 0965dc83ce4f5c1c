"""`kill -9` at any moment: what was paid for is kept, and the next run ends as if nothing was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import journalled_runs
import numpy as np
import pytest
from commands import journal_lines, started, tempeval_run
from PIL import Image
from video_files import write_video
from video_task import TASK, all_samples, record_of, show_tasks, write_task

from tempeval.engine.journal import Journal
from tempeval.run.runner import run_matrix
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KILLS = 24
VIDEOS = 6
BATCHES = VIDEOS * journalled_runs.BATCHES_PER_VIDEO


class Runs:
    """Runs over one plan into one journal, each in a process of its own that may be killed."""

    def __init__(self, checkpoint: Path, videos: Path, folder: Path) -> None:
        self.journal = folder / "journal"
        self.computed = folder / "computed"
        self.kills = 0
        self.process = subprocess.Popen(
            [
                sys.executable,
                journalled_runs.__file__,
                *(str(path) for path in (checkpoint, videos, self.journal, self.computed)),
            ],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, moment: Callable[[], Any] | None = None) -> bool:
        """Run until the end, or until `moment` returns; say whether it came to its end."""
        self._tell()
        child = int(self._hear())
        if moment is not None:
            moment()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        status = int(self._hear())
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        assert killed or status == 0
        self.kills += killed
        return not killed

    def start_again(self) -> None:
        """Forget everything."""
        shutil.rmtree(self.journal, ignore_errors=True)
        self.computed.unlink(missing_ok=True)
        self.kills = 0

    @property
    def lines(self) -> list[bytes]:
        """The journal's lines; the last one is empty unless it was cut."""
        path = self.journal / "rank0.jsonl"
        return path.read_bytes().split(b"\n") if path.exists() else [b""]

    @property
    def batches_computed(self) -> int:
        return self.computed.read_bytes().count(b"\n") if self.computed.exists() else 0

    @property
    def answers(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.journal.with_suffix(".answers").read_text())
        return found

    def keys(self) -> Counter[str]:
        """How often each key is in the journal."""
        return Counter(key for line in self.lines if line for key in json.loads(line[9:])["batch"])

    def assert_complete(self) -> None:
        """Every batch is journalled once, and at most one per kill was computed in vain."""
        assert set(self.keys().values()) == {1}
        assert len(self.keys()) == len(self.answers)
        assert len(self.lines) == BATCHES + 1
        assert BATCHES <= self.batches_computed <= BATCHES + self.kills

    def _tell(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def _hear(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_qwen2_5_vl_folder: Path) -> Iterator[Runs]:
    root = tmp_path_factory.mktemp("kill")
    for number in range(VIDEOS):
        folder = root / "videos" / f"video{number}"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(number)
        for frame in range(8):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame}.png")
    made = Runs(tiny_qwen2_5_vl_folder, root / "videos", root)
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture(scope="module")
def uninterrupted(runs: Runs) -> tuple[dict[str, Any], float]:
    """The answers of a run that nothing stops, and how long it takes."""
    runs.start_again()
    runs.run()  # the first one also warms the file cache
    runs.start_again()
    began = time.perf_counter()
    assert runs.run()
    elapsed = time.perf_counter() - began
    runs.assert_complete()
    assert len(runs.answers) == VIDEOS * len(journalled_runs.TEXTS) * len(journalled_runs.CHAINS)
    return runs.answers, elapsed


def test_kills_at_random_moments(runs: Runs, uninterrupted: tuple[dict[str, Any], float]) -> None:
    """Killed again and again until the plan is done; then from the start, until 24 kills landed.

    Half of the moments are random in time, the others lie right behind a growth of the journal:
    after the write and before or in the fsync.
    """
    answers, elapsed = uninterrupted
    dice = random.Random(0)  # noqa: S311
    total, progress = 0, []
    while total < KILLS:
        runs.start_again()
        while not runs.run(_moment(runs, dice, elapsed)):
            progress.append(len(runs.lines) - 1)
        runs.assert_complete()
        assert runs.answers == answers
        total += runs.kills
    assert total >= KILLS
    assert len(set(progress)) > KILLS // 3, "the kills were spread over the plan"


def _moment(runs: Runs, dice: random.Random, elapsed: float) -> Callable[[], None]:
    if dice.random() < 0.5:
        delay = dice.uniform(0, elapsed)
        return lambda: time.sleep(delay)
    goal = min(len(runs.lines) - 1 + dice.randrange(1, BATCHES // 2), BATCHES)

    def after_a_line() -> None:
        deadline = time.monotonic() + 10 * elapsed
        while time.monotonic() < deadline and len(runs.lines) - 1 < goal:
            time.sleep(0.0005)

    return after_a_line


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_line_is_detected_and_computed_again(
    runs: Runs, uninterrupted: tuple[dict[str, Any], float], keep: float
) -> None:
    answers, _ = uninterrupted
    runs.start_again()
    assert runs.run()
    path = runs.journal / "rank0.jsonl"
    whole, last = path.read_bytes(), runs.lines[-2]
    start = len(whole) - len(last) - 1
    os.truncate(path, start + int(keep * len(last)))
    with Journal(runs.journal) as journal:
        assert journal.damaged == (keep > 0)
        assert len(journal) == len(answers) - len(json.loads(last[9:])["batch"])
    before = runs.batches_computed
    assert runs.run()
    assert runs.batches_computed == before + 1
    assert set(runs.keys().values()) == {1}
    assert len(runs.lines) == BATCHES + 1
    assert runs.answers == answers


def test_a_line_damaged_in_the_middle_is_computed_again(
    runs: Runs, uninterrupted: tuple[dict[str, Any], float]
) -> None:
    runs.start_again()
    assert runs.run()
    path = runs.journal / "rank0.jsonl"
    content = bytearray(path.read_bytes())
    content[content.index(b"\n") + 100] ^= 1
    path.write_bytes(content)
    before = runs.batches_computed
    assert runs.run()
    assert runs.batches_computed == before + 1
    assert runs.answers == uninterrupted[0]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("task")
    numbers = (range(start, start + 30) for start in range(12))
    videos = [write_video(root / f"{n}.mp4", shown) for n, shown in enumerate(numbers)]
    return write_task(root / "tasks", videos, journalled_runs.TEXTS)


@pytest.mark.slow
def test_killing_the_command_line(
    tasks: Path, tiny_qwen2_5_vl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tempeval run` is killed in its first and in its last videos, and then left alone."""
    methods, batches = ("baseline", "pas"), 2 * 12 * 3
    out = tmp_path / "out"
    settings = ("--methods", ",".join(methods), "--tasks", TASK, "--batch-size", 2)
    command_line = tempeval_run(tasks, *settings, "--pretrained", tiny_qwen2_5_vl_folder, "-o", out)
    for goal in (3, batches - 8):
        with started(command_line, tmp_path) as command:
            command.until(lambda goal=goal: journal_lines(out) >= goal)  # type: ignore[misc]
            command.kill()
            _wait_until(lambda: not command.members())  # the decoders end by themselves
        assert goal <= journal_lines(out) < batches
        for method in methods:
            record = record_of(out / "uniform" / method)
            assert (record["status"], record["error"]) == ("failed", "the run did not finish")
    show_tasks(tasks, monkeypatch)
    options = RunSpec(
        out=out,
        methods=methods,
        tasks=[TASK],
        pretrained=str(tiny_qwen2_5_vl_folder),
        batch_size=2,
    )
    for folder in run_matrix(options):
        assert record_of(folder)["status"] == "complete"
    assert journal_lines(out) == batches
    whole = RunSpec(**{**vars(options), "out": tmp_path / "whole"})
    run_matrix(whole)
    assert all_samples(out) == all_samples(whole.out)


def _wait_until(condition: Callable[[], bool], patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
