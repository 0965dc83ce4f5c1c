"""A benchmark made up for tests of the data commands, in `ids.txt` and `clips/`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

from tempeval.benchmarks import registry
from tempeval.benchmarks.base import Archive, BadData, Benchmark, Counts, first_file
from tempeval.benchmarks.document import make_doc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

    from tempeval.benchmarks.document import Doc


def _annotations(root: Path, split: str) -> list[Path]:
    return [first_file(root, f"{split}.txt")]


def _read(root: Path, split: str) -> Iterator[Doc]:
    path = first_file(root, f"{split}.txt")
    for number, name in enumerate(path.read_text().splitlines()):
        if not name:
            raise BadData(f"{path}, line {number + 1} is empty; expected a name")
        yield make_doc(
            sample_id=str(number),
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
    for name in list(registry.MODULES):
        monkeypatch.delitem(registry.MODULES, name)
    monkeypatch.setitem(registry.MODULES, benchmark.name, ("made_up_benchmark", "MADE_UP"))
