"""What the tests of the label sets share: the golden checks, and a small Jester."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tempeval.benchmarks.roots import using_root
from tempeval.benchmarks.sources import load_docs
from tempeval.metrics.label_match import match_label
from tempeval.run.rescore import read_predictions, rescore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def check_reading(golden: Path, labels: Sequence[str]) -> None:
    """Every golden answer is read as the class that its policy says, or as none."""
    answers = json.loads((golden / "predictions.json").read_text())
    for name, item in json.loads((golden / "expected.json").read_text())["per_item"].items():
        index = match_label(answers[name], labels).index
        assert (-1 if index is None else index) == item["parsed"], item["style"]


def check_scores(golden: Path, task: str, root: Path, metrics: str) -> dict[str, float]:
    """The `_list` task gives the golden numbers, in percent; returned for what else there is."""
    known = json.loads((golden / "expected.json").read_text())
    expected = known["metrics"][metrics]
    answers = read_predictions(golden / "predictions.json")
    found = rescore(task, answers, root).metrics
    assert found["top1"] == pytest.approx(expected["top1"], abs=2e-4)
    assert found["macro_f1"] == pytest.approx(expected["macro_f1_all_classes"], abs=2e-4)
    present = expected["macro_f1_classes_in_gold"]
    assert found["macro_f1_present"] == pytest.approx(present, abs=2e-4)
    assert found["parse_failure"] == pytest.approx(100 * expected["unparsed"] / len(answers))
    return found


def write_jester(root: Path, clips: int = 5, labels: int = 6) -> Path:
    """Write a Jester of `Gesture <n>` classes under a data root, and return the data root."""
    folder = root / "jester"
    folder.mkdir(parents=True)
    names = [f"Gesture {number}" for number in range(labels)]
    (folder / "jester-v1-labels.csv").write_text("\n".join(names))
    rows = [f"{number};{names[number % labels]}" for number in range(1, clips + 1)]
    (folder / "jester-v1-validation.csv").write_text("\n".join(rows))
    return root


def jester_docs(root: Path) -> list[dict[str, Any]]:
    """Return the documents of `write_jester`."""
    with using_root(root):
        return load_docs({"benchmark": "jester", "split": "validation"})
