"""Benchmark tasks through lmms-eval with the mini model: a sample each, the rest without videos."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from video_files import write_video

METRICS = Path(__file__).parents[1] / "reference" / "metrics"
FOLDERS = {
    "nextqa_mc": "nextqa_mc",
    "scanqa": "scanqa",
    "sqa3d": "sqa3d",
    "music_avqa": "music_avqa",
    "tempcompass": "tempcompass",
    "mvbench": "mvbench",
    "egoschema": "egoschema",
    "jester": "jester",
    "ssv2": "ssv2",
    "breakfast": "breakfast",
    "kinetics": "kinetics",
}
GENERATION = (
    *("tempeval_nextqa_mc", "tempeval_scanqa", "tempeval_sqa3d", "tempeval_music_avqa"),
    *("tempeval_tempcompass", "tempeval_mvbench", "tempeval_egoschema"),
    *("tempeval_egoschema_subset", "tempeval_jester_list", "tempeval_ssv2_mcq"),
    *("tempeval_kinetics700_list", "tempeval_breakfast_mcq"),
)
CHOICES = ("tempeval_jester_choice", "tempeval_ssv2_choice")
VIDEOS = (*("jester/1000", "scannet/scene0011_00", "nextqa/4100000000", "tempcompass/1051000000"),)
COMMON = ("sample_id", "video_id", "cluster", "content_hash", "category", "parsed", "parse_status")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden annotations in their official layout, and four videos."""
    root = tmp_path_factory.mktemp("data")
    for name, folder in FOLDERS.items():
        source = METRICS / folder / "annotations"
        target = root / ("kinetics700" if name == "kinetics" else name)
        shutil.copytree(source / "kinetics700" if name == "kinetics" else source, target)
    frames(root / "jester" / "20bn-jester-v1" / "1000")
    frames(root / "scanqa" / "posed_images_new" / "scene0011_00")
    for path in ("nextqa_mc/NExTVideo/1000/4100000000.mp4", "tempcompass/videos/1051000000.mp4"):
        (root / path).parent.mkdir(parents=True)
        write_video(root / path, range(12))
    return root


def frames(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(1, 13):
        pixels = np.random.default_rng(number).integers(0, 255, (56, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:05d}.jpg")


def run(command: list[str], data: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "TEMPEVAL_DATA": str(data), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def samples(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for path in sorted(folder.rglob("*_samples_*.jsonl")):
        lines = path.read_text("utf-8").splitlines()
        found[path.stem.partition("_samples_")[2]] = [json.loads(line) for line in lines]
    return found


def check(found: dict[str, list[dict[str, Any]]]) -> None:
    """Every sample says what it is; a missing video is its failure and nobody else's."""
    for task, lines in found.items():
        for line in lines:
            assert all(name in line for name in COMMON), (task, sorted(line))
            error = line["token_counts"][0]["error"]
            there = line["video_id"] in VIDEOS and "sqa3d" not in task
            assert (error is None) == there, (task, line["sample_id"], error)
    answered = {
        task: sum(x["token_counts"][0]["error"] is None for x in found[task]) for task in found
    }
    assert answered["tempeval_jester_choice"] == 1
    assert sum(answered.values()) > 10


@pytest.mark.slow
def test_every_kind_of_task_through_tempeval_run(data: Path, tmp_path: Path) -> None:
    tasks = ",".join((*GENERATION, *CHOICES))
    command = ["tempeval", "run", "--methods", "baseline,pas", "--tasks", tasks]
    run([*command, "--max-failures", "100%", "-o", str(tmp_path)], data)
    folder = tmp_path / "uniform" / "pas"
    check(samples(folder))
    record = json.loads((folder / "run.json").read_text("utf-8"))
    assert record["request"]["annotations"]["scanqa/val"].startswith("sha256:")
    for name, task in record["tasks"].items():
        assert task["version"] == 1, name
        assert task["prompt_hash"].startswith("sha256:"), name
        assert task["answered"] + task["failed"] == task["expected"], name
    assert (folder / "egoschema_submission.json").is_file()
    # Annotations that changed since are another run.
    path = data / "scanqa" / "ScanQA_v1.0_val.json"
    path.write_text(path.read_text("utf-8").replace("brown", "green"), "utf-8")
    again = [sys.executable, "-m", *command, "--max-failures", "100%", "-o", str(tmp_path)]
    done = subprocess.run(
        again,
        env={**os.environ, "TEMPEVAL_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "annotations" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("simple", [False, True])
def test_through_lmms_evals_own_command(data: Path, tmp_path: Path, simple: bool) -> None:
    command = ["lmms_eval", "--model", "tempeval_baseline", "--model_args", "pretrained=mini"]
    tasks = "tempeval_nextqa_mc,tempeval_jester_choice,tempeval_ssv2_list,tempeval_tempcompass"
    command += ["--tasks", tasks, "--log_samples", "--output_path", str(tmp_path)]
    run(command + (["--force_simple"] if simple else []), data)
    check(samples(tmp_path))


def test_data_that_are_not_there_end_a_run_before_it_begins(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tempeval", "run", "--methods", "baseline"]
    command += ["--tasks", "tempeval_ssv2_choice", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--data-root", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "tempeval data check ssv2" in done.stderr
