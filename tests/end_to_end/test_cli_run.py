"""The commands a user types, in fresh processes and away from the checkout."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tempeval.cli_quickstart import PARTS

if TYPE_CHECKING:
    from collections.abc import Sequence

BIN = Path(sys.executable).parent


def command(
    arguments: Sequence[object], cwd: Path, code: int = 0, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in `cwd`, with no variable that would help it."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LMMS", "PYTHON"))}
    done = subprocess.run(
        [str(argument) for argument in arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_run_then_leaderboard_then_run_again(tiny_qwen2_5_vl_folder: Path, tmp_path: Path) -> None:
    options = "--methods baseline,pas+temporal_exit --tasks tempeval_mini --limit 2 -o runs"
    arguments = [BIN / "tempeval", "run", "--pretrained", tiny_qwen2_5_vl_folder]
    arguments += options.split()
    done = command(arguments, tmp_path)
    assert "uniform/baseline: complete, 10 of 10 answered" in done.stdout
    assert "WARNING" not in done.stdout
    done = command([BIN / "tempeval", "leaderboard", "runs", "-o", "board"], tmp_path)
    table = (tmp_path / "board" / "leaderboard.md").read_text()
    assert "| baseline " in done.stdout
    assert "| pas+temporal_exit " in table
    begun = time.perf_counter()
    done = command(arguments, tmp_path)
    assert done.stdout.count("complete already, reused") == 2
    assert time.perf_counter() - begun < 30, "no model is loaded"
    refused = command([*arguments, "--seed", "1"], tmp_path, code=2)
    assert "seed: 0 -> 1" in refused.stderr


@pytest.mark.parametrize(
    ("start", "simple"),
    [([BIN / "lmms-eval"], False), ([sys.executable, "-m", "lmms_eval"], True)],
    ids=["console script", "module, force_simple"],
)
def test_lmms_eval_runs_our_model_on_our_tasks(
    tiny_qwen2_5_vl_folder: Path, tmp_path: Path, start: list[object], simple: bool
) -> None:
    options = (
        f"--model tempeval_pas --model_args pretrained={tiny_qwen2_5_vl_folder},num_frames=4 "
        "--tasks tempeval_mini_action --limit 2 --device cpu --batch_size 2 "
        "--output_path out --log_samples"
    )
    arguments = [*start, *options.split(), *(["--force_simple"] if simple else [])]
    done = command(arguments, tmp_path)
    assert "tempeval_mini_action" in done.stdout
    (samples,) = tmp_path.glob("out/*/*_samples_tempeval_mini_action.jsonl")
    lines = [json.loads(line) for line in samples.read_text().splitlines()]
    assert len(lines) == 2
    for line in lines:
        (counts,) = line["token_counts"]
        assert counts["frames"] == 4
        assert counts["visual_tokens"] > 0
        assert counts["error"] is None
        assert {"sample_id", "video_id", "content_hash", "score"} <= set(line)


def test_quickstart_on_a_few_questions(tmp_path: Path) -> None:
    done = command([BIN / "tempeval", "quickstart", "--limit", "2", "-o", "quick"], tmp_path)
    for chain in (method for part in PARTS for method in part.methods):
        assert chain.split("[")[0] in done.stdout
    # The second process did its parts, which are this command's own and not called reused.
    for part in PARTS[1:]:
        assert (tmp_path / "quick" / part.folder / "journal").is_dir()
    assert "reused" not in done.stdout
    assert done.stdout.count(": complete, ") == sum(len(part.methods) for part in PARTS)
    assert "quick/leaderboard/leaderboard.md" in done.stdout
    assert (tmp_path / "quick" / "leaderboard" / "leaderboard.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_whole_quickstart_takes_less_than_four_minutes_of_two_cores(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command([BIN / "tempeval", "quickstart", "-o", "quick"], tmp_path, timeout=900)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, because other tests run beside this one; both of its processes count.
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 2 * 240
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    runs = sum(len(part.methods) for part in PARTS)
    assert [record["status"] for record in records] == ["complete"] * runs
    for record in records:
        assert sum(task["answered"] for task in record["tasks"].values()) in (840, 288)


def test_doctor_finds_nothing_broken(tmp_path: Path) -> None:
    done = command([BIN / "tempeval", "doctor"], tmp_path)
    assert "fail" not in {line.split()[0] for line in done.stdout.splitlines()}
