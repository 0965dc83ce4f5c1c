"""`tempeval score`: which predictions files and tasks it takes, and how it says no."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tempeval.errors import TempevalError
from tempeval.run.rescore import BadPredictions, read_predictions, rescore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "predictions.json"


def test_a_byte_order_mark_is_put_aside(path: Path) -> None:
    path.write_text('\ufeff{"1": "a cup"}', encoding="utf-8")
    assert read_predictions(path) == {"1": "a cup"}


@pytest.mark.parametrize("value", ["3", "0.5", "1" * 400])
def test_a_number_is_read_as_its_text(path: Path, value: str) -> None:
    path.write_text(f'{{"1": {value}}}')
    assert read_predictions(path) == {"1": value}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_an_answer_that_is_no_finite_number_is_named(path: Path, value: str) -> None:
    path.write_text(f'{{"1": "x", "q7": {value}}}')
    with pytest.raises(BadPredictions, match=r"'q7'.*accepted: a text or a finite number"):
        read_predictions(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "{", ""])
def test_a_file_that_is_no_json_is_named(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(BadPredictions, match=r"predictions\.json cannot be read as JSON"):
        read_predictions(path)


@pytest.mark.parametrize("value", [None, True, ["A"], {"text": "A"}])
def test_an_answer_of_another_kind_is_named(path: Path, value: object) -> None:
    path.write_text(json.dumps({"q7": value}))
    with pytest.raises(BadPredictions, match="'q7'"):
        read_predictions(path)


@pytest.mark.parametrize("name", ["tempeval_mini", "tempeval_mini_order", "tempeval_mini_audio"])
def test_a_task_of_no_benchmark_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(TempevalError, match=rf"{name}\w* is no task of a benchmark"):
        rescore(name, {"1": "A"}, tmp_path)
