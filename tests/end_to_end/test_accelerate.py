"""`accelerate launch`: one process on a CPU gives what none gives, two on GPUs what one gives."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from commands import BIN, free_port, started
from video_task import all_samples, without_times

if TYPE_CHECKING:
    from pathlib import Path

METHODS = ("baseline", "pas")
TASKS = ("tempeval_mini_direction", "tempeval_mini_order_choice")
LIMIT = 6


def accelerate(processes: int, *options: str) -> list[object]:
    port = ("--main_process_port", free_port())
    return [BIN / "accelerate", "launch", *options, "--num_processes", processes, *port]


def run_arguments(out: Path, device: str, *methods: str) -> list[object]:
    sizes = ("--limit", LIMIT, "--device", device, "--out", out)
    names = ("--methods", ",".join(methods), "--tasks", ",".join(TASKS))
    return ["-m", "tempeval", "run", *names, *sizes]


def host_arguments(out: Path) -> list[object]:
    line = (
        "-m lmms_eval eval --model tempeval_pas --model_args pretrained=mini,num_frames=4 "
        f"--tasks {','.join(TASKS)} --limit {LIMIT} --device cpu --batch_size 4 --log_samples"
    )
    return [*line.split(), "--output_path", out]


def finished(arguments: list[object], cwd: Path, **variables: str) -> None:
    with started(arguments, cwd, variables) as command:
        command.wait()


@pytest.mark.slow
def test_tempeval_run_under_accelerate_with_one_process(tmp_path: Path) -> None:
    launched, plain = tmp_path / "launched", tmp_path / "plain"
    line = run_arguments(launched / "out", "cpu", *METHODS)
    finished([*accelerate(1, "--cpu"), *line], launched)
    finished([sys.executable, *run_arguments(plain / "out", "cpu", *METHODS)], plain)
    samples = all_samples(launched / "out")
    assert samples == all_samples(plain / "out")
    assert [len(lines) for lines in samples.values()] == [LIMIT] * len(METHODS) * len(TASKS)


@pytest.mark.slow
def test_lmms_eval_under_accelerate_with_one_process(tmp_path: Path) -> None:
    launched, plain = tmp_path / "launched", tmp_path / "plain"
    finished([*accelerate(1, "--cpu"), *host_arguments(launched / "out")], launched)
    finished([sys.executable, *host_arguments(plain / "out")], plain)
    samples = host_samples(launched / "out")
    assert samples == host_samples(plain / "out")
    assert [len(lines) for lines in samples.values()] == [LIMIT] * len(TASKS)


def host_samples(out: Path) -> dict[str, list[Any]]:
    """Return the lines of the host's samples files by task, apart from times."""
    found = {}
    for task in TASKS:
        (path,) = out.glob(f"*/*_samples_{task}.jsonl")
        found[task] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    return found


@pytest.mark.gpu
def test_tempeval_run_under_accelerate_on_two_gpus(tmp_path: Path) -> None:
    """Answers, scores and tokens; log-likelihoods and memory are the GPU's own."""
    import torch

    if torch.cuda.device_count() < 2:
        pytest.skip(f"rank 1 takes cuda:1; there are {torch.cuda.device_count()} CUDA devices")
    one, two = tmp_path / "one", tmp_path / "two"
    on_gpu = {"ACCELERATE_USE_CPU": "false"}
    finished([sys.executable, *run_arguments(one / "out", "cuda", *METHODS)], one, **on_gpu)
    line = run_arguments(two / "out", "cuda", *METHODS)
    finished([*accelerate(2, "--multi_gpu"), *line], two, **on_gpu)
    answers = answered(two / "out")
    assert answers == answered(one / "out")
    assert len(answers) == len(METHODS) * len(TASKS) * LIMIT
    for record in (two / "out").rglob("run.json"):
        assert json.loads(record.read_text())["world_size"] == 2


def answered(out: Path) -> dict[tuple[str, str], Any]:
    """Return what must be equal on any device: parsed answer, score, visual tokens."""
    return {
        (name, line["sample_id"]): (
            line["parsed"],
            line["score"],
            line["token_counts"][0]["visual_tokens"],
        )
        for name, lines in all_samples(out).items()
        for line in lines
    }
