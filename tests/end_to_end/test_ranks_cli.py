"""Two processes give what one gives, through both command lines; a dead one ends the other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
from commands import (
    free_port,
    journal_lines,
    rank_variables,
    started,
    tempeval_run,
    torchrun,
)
from video_task import TASK, all_samples, without_times, write_task

from tempeval.run.runner import run_matrix
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from commands import Command

pytestmark = pytest.mark.slow

METHODS = ("baseline", "pas")
TASKS = ("tempeval_mini_action", "tempeval_mini_direction", "tempeval_mini_order_choice")
LIMIT = 8


def options_for(checkpoint: Path, out: Path) -> RunSpec:
    return RunSpec(out=out, methods=METHODS, tasks=TASKS, pretrained=str(checkpoint), limit=LIMIT)


@pytest.fixture
def options(tiny_qwen2_5_vl_folder: Path, tmp_path: Path) -> RunSpec:
    return options_for(tiny_qwen2_5_vl_folder, tmp_path / "out")


def arguments_of(options: RunSpec) -> list[object]:
    names = {"methods": ",".join(METHODS), "tasks": ",".join(TASKS)}
    names |= {"pretrained": options.pretrained, "limit": LIMIT, "out": options.out}
    pairs = [(f"--{name}", value) for name, value in names.items()]
    return ["-m", "tempeval", "run", *(part for pair in pairs for part in pair)]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the same options in this process, once for all tests; returns the folder."""
    out = tmp_path_factory.mktemp("one_process") / "out"

    def run(options: RunSpec) -> Path:
        if not out.exists():
            run_matrix(RunSpec(**{**vars(options), "out": out}))
        return out

    return run


def batches_of(out: Path, rank: int) -> list[dict[str, Any]]:
    """Return what one rank journalled, batch by batch."""
    lines = (out / "journal" / f"rank{rank}.jsonl").read_bytes().splitlines()
    return [json.loads(line[9:])["batch"] for line in lines]


def keys_of(batches: Iterable[dict[str, Any]]) -> set[str]:
    return {key for batch in batches for key in batch}


@pytest.fixture(scope="module")
def two_ranks(
    tiny_qwen2_5_vl_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Command, RunSpec]:
    """A finished `tempeval run` on two ranks."""
    root = tmp_path_factory.mktemp("two_ranks")
    options = options_for(tiny_qwen2_5_vl_folder, root / "out")
    with started(torchrun(2, *arguments_of(options)), root) as command:
        command.wait()
    return command, options


def test_two_ranks_write_what_one_process_writes(
    two_ranks: tuple[Command, RunSpec], one_process: Any
) -> None:
    command, options = two_ranks
    assert command.stdout.count("complete, ") == len(METHODS), "only the first rank reports"
    whole = one_process(options)
    assert all_samples(options.out) == all_samples(whole)
    assert len(all_samples(whole)) == len(METHODS) * len(TASKS)
    for record in options.out.rglob("run.json"):
        assert json.loads(record.read_text())["world_size"] == 2


def test_each_rank_journals_whole_batches_in_its_own_file(
    two_ranks: tuple[Command, RunSpec], one_process: Any
) -> None:
    _, options = two_ranks
    halves = [batches_of(options.out, rank) for rank in (0, 1)]
    keys = [keys_of(batches) for batches in halves]
    assert keys[0]
    assert keys[1]
    assert not keys[0] & keys[1], "nothing was answered twice"
    together = sorted(sorted(batch) for half in halves for batch in half)
    whole = batches_of(one_process(options), 0)
    assert together == sorted(sorted(batch) for batch in whole)


def test_a_video_is_one_ranks_in_all_tasks(two_ranks: tuple[Command, RunSpec]) -> None:
    """A clip is decoded once for all methods and tasks, so its measured time names it."""
    _, options = two_ranks
    decodes = [_decodes(batches_of(options.out, rank)) for rank in (0, 1)]
    assert not decodes[0] & decodes[1]
    samples = all_samples(options.out)
    clips = {line["video_id"] for lines in samples.values() for line in lines}
    assert len(decodes[0] | decodes[1]) == len(clips)


def _decodes(batches: Iterable[dict[str, Any]]) -> set[float]:
    return {entry["usage"]["decode_ms"] for batch in batches for entry in batch.values()}


def host_command(checkpoint: Path) -> list[object]:
    """Return the arguments of the host's own command line, after `python` or `torchrun`."""
    options = (
        f"-m lmms_eval eval --model tempeval_pas --model_args pretrained={checkpoint},num_frames=4 "
        f"--tasks {','.join(TASKS)} --limit {LIMIT} --device cpu --batch_size 4 "
        "--output_path out --log_samples"
    )
    return list(options.split())


def host_samples(cwd: Path) -> dict[str, dict[str, Any]]:
    """Return the samples of a run of the host, by task and sample id, apart from times."""
    found: dict[str, dict[str, Any]] = {}
    for task in TASKS:
        (path,) = cwd.glob(f"out/*/*_samples_{task}.jsonl")
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[task] = {line["sample_id"]: without_times(line) for line in lines}
        assert len(found[task]) == len(lines) == LIMIT
    return found


def host_record(cwd: Path) -> dict[str, Any]:
    """Return the record beside the host's results."""
    (path,) = cwd.glob("out/*/*_run.json")
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def test_lmms_eval_on_two_ranks(tiny_qwen2_5_vl_folder: Path, tmp_path: Path) -> None:
    arguments = host_command(tiny_qwen2_5_vl_folder)
    with started([sys.executable, *arguments], tmp_path / "one") as command:
        command.wait()
    with started(torchrun(2, *arguments), tmp_path / "two") as command:
        command.wait()
    assert host_samples(tmp_path / "two") == host_samples(tmp_path / "one")
    one, two = (host_record(tmp_path / name) for name in ("one", "two"))
    assert (one["status"], two["status"]) == ("complete", "complete")
    assert (one["world_size"], two["world_size"]) == (1, 2)
    for name in ("code", "frame_policy", "method_label", "model_revision", "generation"):
        assert one[name] == two[name]
    assert one["computed"] == two["computed"] > 0
    for task in TASKS:
        for name in ("prompt_hash", "dataset_digest", "task_digest", "videos_digest", "expected"):
            assert one["tasks"][task][name] == two["tasks"][task][name]


@pytest.mark.parametrize("dying", [0, 1])
def test_a_rank_that_dies_ends_the_others(
    options: RunSpec, one_process: Any, tmp_path: Path, dying: int
) -> None:
    """Killed in the middle: non-zero, nothing left running, and one process can go on."""
    with started(torchrun(2, *arguments_of(options)), tmp_path) as command:
        command.until(lambda: journal_lines(options.out, dying) >= 4)
        os.kill(command.ranks()[dying], signal.SIGKILL)
        command.wait(code=None)
        assert command.process.returncode != 0
        assert command.members() == []
    kept = [journal_lines(options.out, rank) for rank in (0, 1)]
    assert kept[dying] >= 4
    for record in options.out.rglob("run.json"):
        # torchrun ends the other rank with SIGTERM.
        assert json.loads(record.read_text())["status"] in ("failed", "interrupted")
    run_matrix(options)
    assert all_samples(options.out) == all_samples(one_process(options))
    assert journal_lines(options.out, 1) == kept[1], "what the other rank did was not repeated"


#: `tempeval`, less patient with ranks that do not answer.
IMPATIENT = (
    "import tempeval.run.ranks as r; r.GRACE_SECONDS = 5; import tempeval.cli as c; c.main()"
)


@pytest.mark.parametrize("dying", [0, 1])
def test_ranks_that_nothing_watches_over_notice_a_death(
    options: RunSpec, tmp_path: Path, dying: int
) -> None:
    """As on several nodes: no torchrun ends the rank that lives on, it does so by itself."""
    arguments = [sys.executable, "-c", IMPATIENT, *arguments_of(options)[2:]]
    port, living = free_port(), 1 - dying
    with contextlib.ExitStack() as stack:
        ranks = [
            stack.enter_context(
                started(arguments, tmp_path / str(rank), rank_variables(rank, 2, port))
            )
            for rank in (0, 1)
        ]
        ranks[dying].until(lambda: journal_lines(options.out, dying) >= 4)
        ranks[dying].kill()
        ranks[living].wait(code=1)
    assert f"error: rank {dying} of 2 ended before it was done" in ranks[living].stderr
    assert "Traceback" not in ranks[living].stderr
    assert all(journal_lines(options.out, rank) >= 4 for rank in (0, 1)), "the journals are kept"
    for record in options.out.rglob("run.json"):
        assert json.loads(record.read_text())["status"] == "failed"


#: `tempeval` on a disk that is full after four batches.
FULL = """
import tempeval.engine.journal as j
write, count = j.Journal._write, []
def full(self, record):
    count.append(record)
    if len(count) > 4:
        raise j.JournalError("cannot write the journal: no space")
    write(self, record)
j.Journal._write = full
import tempeval.cli as c
c.main()
"""


@pytest.mark.parametrize("failing", [0, 1])
def test_a_rank_that_fails_ends_the_others_with_its_reason(
    options: RunSpec, one_process: Any, tmp_path: Path, failing: int
) -> None:
    port, living = free_port(), 1 - failing
    programs = {failing: FULL, living: "import tempeval.cli as c; c.main()"}
    with contextlib.ExitStack() as stack:
        ranks = [
            stack.enter_context(
                started(
                    [sys.executable, "-c", programs[rank], *arguments_of(options)[2:]],
                    tmp_path / str(rank),
                    rank_variables(rank, 2, port),
                )
            )
            for rank in (0, 1)
        ]
        for rank in ranks:
            rank.wait(code=1)
    assert "error: cannot write the journal: no space" in ranks[failing].stderr
    assert f"error: rank {failing} of 2 failed: cannot write" in ranks[living].stderr
    for record in options.out.rglob("run.json"):
        assert json.loads(record.read_text())["status"] == "failed"
    assert journal_lines(options.out, failing) == 4
    run_matrix(options)
    assert all_samples(options.out) == all_samples(one_process(options))


@pytest.mark.parametrize("extra", [(), ("--overwrite",)])
def test_a_second_run_on_the_same_folder_is_refused_and_harms_nothing(
    options: RunSpec, one_process: Any, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    with started(torchrun(2, *arguments_of(options)), tmp_path / "one") as command:
        command.until(lambda: all(journal_lines(options.out, rank) >= 2 for rank in (0, 1)))
        # Both ranks stand still, so that the second run finds them alive.
        for process in command.ranks().values():
            os.kill(process, signal.SIGSTOP)
        try:
            second = [sys.executable, *arguments_of(options), *extra]
            with started(second, tmp_path / "two") as other:
                other.wait(code=1)
            assert "another process is writing the journal" in other.stderr
        finally:
            for process in command.ranks().values():
                os.kill(process, signal.SIGCONT)
        command.wait()
    assert all_samples(options.out) == all_samples(one_process(options))


def test_overwrite_keeps_the_answers_of_methods_that_are_not_named(options: RunSpec) -> None:
    run_matrix(options)
    before = {path: path.read_bytes() for path in options.out.rglob("pas/*_samples_*.jsonl")}
    for record in options.out.rglob("pas/run.json"):
        record.unlink()  # as if it had been killed before the end
    batches = journal_lines(options.out)
    run_matrix(RunSpec(**{**vars(options), "methods": ["baseline"], "overwrite": True}))
    lines = journal_lines(options.out)
    assert lines == batches + 1 + batches // 2, "what is forgotten, and the baseline again"
    run_matrix(options)
    assert journal_lines(options.out) == lines, "pas is replayed"
    after = {path: path.read_bytes() for path in options.out.rglob("pas/*_samples_*.jsonl")}
    assert len(after) == len(before) == len(TASKS)


def test_a_bad_video_of_another_rank_is_not_tried_again_while_scoring(
    tiny_qwen2_5_vl_folder: Path, tmp_path: Path
) -> None:
    videos = [tmp_path / f"{number}.mp4" for number in range(4)]
    for video in videos:
        video.touch()
    tasks, out = write_task(tmp_path / "tasks", videos), tmp_path / "out"
    choices = ("--methods", ",".join(METHODS), "--tasks", TASK)
    places = ("--pretrained", tiny_qwen2_5_vl_folder, "-o", out)
    arguments = tempeval_run(tasks, *choices, *places)[1:]
    with started(torchrun(2, *arguments), tmp_path) as command:
        command.wait(code=1)
    keys = [[key for batch in batches_of(out, rank) for key in batch] for rank in (0, 1)]
    assert [len(of_rank) for of_rank in keys] == [len(METHODS) * len(videos) // 2] * 2
    assert len(set(keys[0] + keys[1])) == len(METHODS) * len(videos)
    for path in out.rglob("run.json"):
        record = json.loads(path.read_text())
        assert (record["status"], record["tasks"][TASK]["failed"]) == ("failed", len(videos))
