"""`tempeval pave train` in processes of its own: Ctrl-C, going on, several processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import yaml
from commands import started, torchrun
from pave_training import small_config
from safetensors.torch import load_file

from tempeval.methods.pave_checkpoint import read_pave
from tempeval.pave.state import checkpoints
from tempeval.pave.train import train

if TYPE_CHECKING:
    from tempeval.pave.config import TrainConfig


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of its own for rendered clips; `TEMPEVAL_CACHE` of this process too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPEVAL_CACHE", str(folder))
        yield folder


def written(config: TrainConfig, path: Path) -> Path:
    path.write_text(yaml.safe_dump(config.record()))
    return path


def lines_of(out: Path) -> int:
    log = out / "log.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def test_ctrl_c_loses_nothing(cache: Path, tmp_path: Path) -> None:
    steps = 40
    changed = {
        "training": {"steps": steps, "gradient_accumulation": 1},
        "checkpoints": {"every": steps},
        "data": {"held_out": 0},
    }
    straight = small_config(tmp_path / "straight", **changed)
    train(straight)
    out = tmp_path / "out"
    config = written(small_config(out, **changed), tmp_path / "config.yaml")
    command = [sys.executable, "-m", "tempeval", "pave", "train", "--config", config]
    variables = {"TEMPEVAL_CACHE": str(cache)}
    with started(command, tmp_path / "first", variables) as first:
        first.until(lambda: lines_of(out) >= 3)
        first.interrupt()
        first.wait(1)
        assert "--resume" in first.stderr
        assert "Traceback" not in first.stderr
    (kept,) = checkpoints(out)
    assert 3 <= kept.step == lines_of(out) < steps
    with started(command, tmp_path / "second", variables) as second:
        second.wait(2)  # it asks for --resume
    with started([*command, "--resume"], tmp_path / "third", variables) as third:
        third.wait(0)
        assert f"{steps} steps" in third.stdout
        assert "loss" in third.stderr
        assert "learning rate" in third.stderr
    assert read_pave(out).digest == read_pave(straight.out).digest


@pytest.mark.slow
def test_two_processes_train_like_one_with_twice_the_accumulation(
    cache: Path, tmp_path: Path
) -> None:
    alone = small_config(tmp_path / "alone", training={"gradient_accumulation": 4})
    train(alone)
    out = tmp_path / "together"
    config = written(
        small_config(out, training={"gradient_accumulation": 2}), tmp_path / "config.yaml"
    )
    arguments = ["-m", "tempeval", "pave", "train", "--config", config]
    variables = {"TEMPEVAL_CACHE": str(cache)}
    with started(torchrun(2, *arguments), tmp_path / "run", variables) as command:
        command.wait(0)
        assert command.stdout.count("written:") == 1
    logs = [
        [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
        for folder in (alone.out, out)
    ]
    for one, two in zip(*logs, strict=True):
        assert one["step"] == two["step"]
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
        assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=1e-3)
    first, second = (
        load_file(checkpoints(Path(folder))[-1].path / "weights.safetensors")
        for folder in (alone.out, out)
    )
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], rtol=1e-2, atol=1e-4)
