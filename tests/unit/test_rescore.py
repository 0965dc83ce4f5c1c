"""`tempeval score`: which predictions files and tasks it takes, and how it says no."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tempeval.errors import TempevalError
from tempeval.rescore import rescore

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", ["tempeval_mini", "tempeval_mini_order", "tempeval_mini_audio"])
def test_a_task_of_no_benchmark_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(TempevalError, match=rf"{name}\w* is no task of a benchmark"):
        rescore(name, {"1": "A"}, tmp_path)
