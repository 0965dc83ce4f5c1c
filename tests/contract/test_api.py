"""`import tempeval`: light, its names are never submodules, and its results become tables."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import tempeval
from tempeval.errors import InvalidSetting, RunFailed, TempevalError, UnknownName

ROOT = Path(__file__).resolve().parents[2]
LIGHT = """
import sys, tempeval
from tempeval import Method, load_method, evaluate, rank, verify
assert load_method("pas").name == "pas" if {torch} else True
heavy = [m for m in ("torch", "lmms_eval", "transformers", "pandas") if m in sys.modules]
assert not heavy, heavy
"""


def test_importing_it_and_naming_its_functions_is_light():
    subprocess.run([sys.executable, "-c", LIGHT.format(torch=False)], check=True)


def submodules() -> list[str]:
    """Dotted names of all modules, as they are imported; the checkout has four folders of them."""
    names = []
    for folder in ("tempeval", "tasks", "model_wrappers", "leaderboard"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "tempeval" else ("tempeval", *parts)
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if parts[-1] != "__main__":
                names.append(".".join(parts))
    return sorted(names)


def test_every_submodule_may_be_imported_and_the_functions_stay_functions():
    names = submodules()
    assert len(names) > 300
    for name in names:
        importlib.import_module(name)
    for name in tempeval.__all__:
        assert f"tempeval.{name}" not in sys.modules
        for _ in range(2):
            assert inspect.isfunction(getattr(tempeval, name)) or name == "Method"
    for _ in range(2):
        assert tempeval.load_method("pas[unit=position]").spec() == "pas[unit=position]"
        with pytest.raises(UnknownName):
            tempeval.verify("vrop")
        with pytest.raises(TempevalError):
            tempeval.rank("/nowhere/at/all")
        with pytest.raises(UnknownName, match="did you mean 'num_frames'"):
            tempeval.evaluate("baseline", "tempeval_mini", "out", num_frame=3)
    assert set(tempeval.__all__) <= set(dir(tempeval))
    with pytest.raises(AttributeError):
        tempeval.nothing  # noqa: B018


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    lines = []
    made = tempeval.evaluate(
        ["baseline", "temporal_exit"],
        "tempeval_mini_order",
        tmp_path_factory.mktemp("api") / "out",
        report=lines.append,
        limit=4,
        num_frames=4,
    )
    assert any("2 of 2 runs complete" in line for line in lines)
    return made


def test_an_evaluation_becomes_a_table_of_runs_and_one_of_samples(evaluation):
    table = evaluation.to_pandas()
    assert list(table["method"]) == ["baseline", "temporal_exit"]
    assert set(table["task"]) == {"tempeval_mini_order"}
    assert set(table["status"]) == {"complete"}
    samples = evaluation.samples()
    assert len(samples) == 8
    assert set(samples["method"]) == {"baseline", "temporal_exit"}
    assert len(evaluation.records) == 2


def test_a_ranking_becomes_a_table(evaluation, tmp_path):
    ranking = tempeval.rank(evaluation, tmp_path / "board", draws=100)
    table = ranking.to_pandas()
    assert set(table["method"]) == {"baseline", "temporal_exit"}
    assert set(table["n"]) == {4}
    assert (tmp_path / "board" / "leaderboard.csv") in ranking.files
    again = tempeval.rank([*evaluation.folders], draws=100)
    assert again.files == ()
    assert again.to_pandas().equals(table)
    assert list(again.refused().columns) == ["run", "kind", "reason"]
    with pytest.raises(InvalidSetting, match="drows"):
        tempeval.rank(evaluation, drows=3)


def test_a_run_that_lacks_answers_raises(tmp_path):
    with pytest.raises((RunFailed, TempevalError)):
        tempeval.evaluate("baseline", "tempeval_mini_nothing", tmp_path)


def test_a_verification_becomes_a_table():
    done = tempeval.verify("vrope", family="qwen2_vl")
    assert done.ok
    assert set(done.to_pandas()["check"]) >= {"prompt", "decode", "batch"}
