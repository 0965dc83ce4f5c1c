"""P_C in the samples of a real run, and its change against the baseline, also after a kill."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from video_task import CHOICE_TASK, record_of, samples_of, show_tasks, write_task

from tempeval.host_files import file_facts
from tempeval.run import runner
from tempeval.run.runner import run_matrix
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def options(
    tiny_qwen2_5_vl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    folders = []
    for number in range(2):
        folder = tmp_path / f"v{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(8):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame:02d}.png")
        folders.append(folder)
    questions = ("Is it faster?", "What happens first?")
    show_tasks(write_task(tmp_path / "tasks", folders, questions, fps=4.0), monkeypatch)
    return {
        "out": tmp_path / "out",
        "tasks": [CHOICE_TASK],
        "pretrained": str(tiny_qwen2_5_vl_folder),
        "device": "cpu",
        "min_pixels": 784,
        "max_pixels": 9408,
    }


def test_p_c_and_its_change_are_in_the_samples(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ["reverse_pe", "baseline", "reverse_order"]
    reverse_pe, baseline, reverse_order = run_matrix(RunSpec(methods=methods, **options))
    found = {folder: samples_of(folder, CHOICE_TASK) for folder in (reverse_pe, baseline)}
    tokenizer = _tokenizer(options["pretrained"])
    lengths = [len(tokenizer(choice)["input_ids"]) for choice in ("yes", "no")]
    for samples in found.values():
        assert len(samples) == 4
        for sample in samples.values():
            losses = [float(pair[0]) for pair in sample["filtered_resps"]]
            raw = [math.exp(-loss * n) for loss, n in zip(losses, lengths, strict=True)]
            assert sample["answer_index"] == 0  # the answer is yes
            assert sample["p_c"] == pytest.approx(raw[0])
            assert 0 < sample["p_c"] < 1
            expected = [p / sum(raw) for p in raw]
            assert sample["choice_probabilities"] == pytest.approx(expected)
    for folder in (reverse_pe, reverse_order):
        own = samples_of(folder, CHOICE_TASK)
        wanted = {k: own[k]["p_c"] - found[baseline][k]["p_c"] for k in own}
        assert {k: s["p_c_change"] for k, s in own.items()} == wanted
        assert all(change != 0 for change in wanted.values())
        task = record_of(folder)["tasks"][CHOICE_TASK]
        assert task["p_c_change"] == pytest.approx(sum(wanted.values()) / 4)
        assert task["p_c_pairs"] == 4
    assert not any("p_c_change" in sample for sample in found[baseline].values())

    # A run that ended before the last step is completed without a model.
    kept = {folder: _files(folder) for folder in (reverse_pe, reverse_order)}
    for folder in kept:
        _forget_changes(folder)
        assert _files(folder) != kept[folder]
    monkeypatch.setattr(runner, "load_model", pytest.fail)
    run_matrix(RunSpec(methods=methods, **options))
    assert {folder: _files(folder) for folder in kept} == kept


def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.json*")}


def _forget_changes(folder: Path) -> None:
    record = record_of(folder)
    for task in record["tasks"].values():
        path = folder / task["samples_file"]
        samples = [json.loads(line) for line in path.read_text().splitlines()]
        for sample in samples:
            del sample["p_c_change"]
        path.write_text("".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples))
        del task["p_c_change"], task["p_c_pairs"]
        record["files"][task["samples_file"]] = file_facts(path)
    (folder / "run.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
