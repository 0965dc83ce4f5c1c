"""The recipes of CONTRIBUTING.md, file by file and command by command, outside the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from commands import BIN
from safetensors.torch import save_file
from transformers import Qwen2_5_VLForConditionalGeneration
from video_files import write_video

from tempeval.mini.paths import checkpoint as mini_checkpoint

if TYPE_CHECKING:
    from collections.abc import Sequence

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"
BLOCK = re.compile(r"<!-- (file: (?P<file>\S+)|run) -->\n```\w+\n(?P<text>.*?)```\n", re.S)


def recipe(title: str, folder: Path) -> list[str]:
    """Write the files of a section into a folder; return its commands, in order."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    lines: list[str] = []
    for block in BLOCK.finditer(section):
        if block["file"]:
            path = folder / block["file"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"])
        else:
            lines += block["text"].splitlines()
    return lines


def follow(lines: Sequence[str], folder: Path) -> str:
    """Run commands in a folder, and return what they print; `pip install .` stays in the folder."""
    site = folder / "site"
    environment = {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
    }
    pip = f"{sys.executable} -m pip install --quiet --no-deps --no-build-isolation --target {site} "
    said = ""
    for line in lines:
        command = line.replace("pip install ", pip)
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    return said


def save_as_another_kind(source: Path, folder: Path) -> None:
    """Save a checkpoint as of a model_type that transformers does not know, with its own names."""
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "my_vl"}))
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(source)
    # As the modules are called: on disk, Qwen2.5-VL's weights bear older names.
    weights = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.slow
def test_your_method(tmp_path: Path) -> None:
    lines = recipe("Your method in 20 lines", tmp_path)
    assert len((tmp_path / "late_half.py").read_text().splitlines()) <= 24
    said = follow(lines, tmp_path)
    assert "late_half[share=0.25]" in said.replace("\\", "")
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert sorted(record["method"] for record in records) == ["baseline", "late_half", "late_half"]
    assert {record["status"] for record in records} == {"complete"}


@pytest.mark.slow
def test_a_model_family(tmp_path: Path) -> None:
    lines = recipe("A model family", tmp_path)
    save_as_another_kind(mini_checkpoint("qwen2_5_vl"), tmp_path / "my_checkpoint")
    said = follow(lines, tmp_path)
    assert "MyVL: Qwen2.5-VL that sees every frame in a mirror" in said
    records = [json.loads(path.read_text()) for path in tmp_path.rglob("run.json")]
    assert [record["family"] for record in records] == ["my_vl", "my_vl"]
    assert {record["status"] for record in records} == {"complete"}


@pytest.mark.slow
def test_a_benchmark(tmp_path: Path) -> None:
    lines = recipe("A benchmark", tmp_path)
    for number in range(2):
        write_video(tmp_path / "my_clips" / f"{number}.mp4", range(30))
    said = follow(lines, tmp_path)
    assert "my_clips" in said
    assert "pas" in said
