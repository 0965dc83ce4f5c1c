"""Benchmarks for tests: one that is made up, and the official ones rendered in small."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks import registry
from tempeval.benchmarks.annotations import annotation
from tempeval.benchmarks.base import (
    Archive,
    BadData,
    Benchmark,
    Counts,
    MissingData,
)
from tempeval.benchmarks.document import make_doc
from tempeval.benchmarks.registry import benchmark
from tempeval.benchmarks.sources import load_docs
from tempeval.task_config import task_config
from tempeval.task_sources import source_rows
from tempeval.tasklist import task_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from tempeval.benchmarks.document import Doc

RENDER = Path(__file__).parent.parent / "fixtures" / "render.py"


def _annotations(root: Path, split: str) -> list[Path]:
    return [annotation(root, f"{split}.txt")]


def _read(root: Path, split: str) -> Iterator[Doc]:
    path = annotation(root, f"{split}.txt")
    for number, name in enumerate(path.read_text().splitlines()):
        if not name:
            raise BadData(f"{path}, line {number + 1} is empty; expected a name")
        yield make_doc(
            sample_id=f"{split}/{number}",
            video_id=f"toy/{name}",
            video=root / "clips" / name,
            question="What happens?",
            fps=None if "." in name else 12.0,
        )


TOY = Benchmark(
    name="toy",
    title="Toy Clips",
    licence="for tests only",
    access="1. Register at the Toy page (https://toy.example/register).\n2. Download clips.zip.",
    tree="toy/\n  test.txt\n  clips/<name>.mp4",
    splits={"test": Counts(3, 2, "made up"), "train": None},
    annotations=_annotations,
    read=_read,
    archives=(
        Archive("toy-labels.zip"),
        Archive("toy-v1-??", "clips"),
        Archive("more/*.tar*", "clips"),
    ),
    tasks=("tempeval_toy",),
    metrics="accuracy",
)


def register(monkeypatch: pytest.MonkeyPatch, benchmark: Benchmark = TOY) -> None:
    """Make a made-up benchmark the only one, until the test ends."""
    module = ModuleType("made_up_benchmark")
    module.MADE_UP = benchmark  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_benchmark", module)
    entry = registry.BenchmarkEntry(benchmark.name, "made_up_benchmark:MADE_UP")
    monkeypatch.setattr(registry.BENCHMARKS, "own", {entry.name: entry})


def render(folder: Path, *names: str) -> dict[str, Any]:
    """Render benchmarks into a folder (all of them unless some are named); return what was made.

    In a process of its own, because decord, once imported, breaks an encoder of PyAV.
    """
    subprocess.run([sys.executable, RENDER, folder, *names], check=True)
    made: dict[str, Any] = json.loads((folder / "fixtures.json").read_text())
    return made


def add_missing(root: Path, name: str) -> None:
    """Put a copy of another video where a rendered benchmark lacks one."""
    paths = []
    for split in benchmark(name).splits:
        with contextlib.suppress(MissingData):
            docs = load_docs({"benchmark": name, "split": split}, root)
            paths += [Path(doc["video"]) for doc in docs]
    spare = next(path for path in paths if path.exists())
    for path in paths:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if spare.is_dir() else shutil.copy)(spare, path)


def benchmark_tasks() -> list[str]:
    """Return the tasks of all benchmarks; captioning is left out, which needs a judge."""
    return sorted(
        entry.name
        for entry in task_entries().values()
        if entry.kind == "task"
        and "mini" not in entry.name
        and entry.name != "tempeval_tempcompass_captioning"
    )


def task_docs(task: str, root: Path) -> list[Doc]:
    """Return the documents that a task reads."""
    return load_docs(source_rows(task_config(task, functions=False))[0], root)
