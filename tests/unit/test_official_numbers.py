"""`tempeval score` gives the numbers of the official evaluators on their own file forms."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tempeval.run.rescore import read_predictions, rescore

METRICS = Path(__file__).parents[1] / "reference" / "metrics"
REQUIRED: dict[str, Any] = json.loads((METRICS / "required.json").read_text("utf-8"))
#: The shared set is in the form of Kinetics-700.
RENAMED = {"tempeval_kinetics400_list": "tempeval_kinetics700_list"}
CAPTIONS = ("bleu", "meteor", "rouge", "cider")
TOLERANCE = {"meteor": 0.02, "cider": 0.02}


def expected(task: str) -> dict[str, float]:
    spec = REQUIRED[task]
    known = json.loads((METRICS / spec["dir"] / "expected.json").read_text("utf-8"))["metrics"]
    found = {}
    for name, where in spec["metrics"].items():
        value = known
        for part in where["path"].split("/"):
            value = value[part]
        found[name] = value * where["to_percent"]
    return found


@pytest.mark.parametrize("task", sorted(REQUIRED))
def test_the_numbers_are_the_official_ones(task: str) -> None:
    folder = METRICS / REQUIRED[task]["dir"]
    if task == "tempeval_scanqa" and shutil.which("java") is None and not os.environ.get("CI"):
        pytest.skip("needs Java")
    answers = read_predictions(folder / REQUIRED[task]["predictions"])
    scores = rescore(RENAMED.get(task, task), answers, folder / "annotations")
    assert scores.errors == {}
    for name, value in expected(task).items():
        assert scores.metrics[name] == pytest.approx(value, abs=TOLERANCE.get(name, 2e-4)), name


def run_score(task: str, folder: str, *more: str, **environment: str) -> Any:
    command = [sys.executable, "-m", "tempeval", "score", task]
    command += ["--data-root", str(METRICS / folder / "annotations")]
    command += ["--predictions", str(METRICS / folder / "predictions.json"), *more]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


def test_the_command_prints_one_json_object() -> None:
    done = run_score("tempeval_sqa3d", "sqa3d", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name, value in expected("tempeval_sqa3d").items():
        assert found["metrics"][name] == pytest.approx(value, abs=2e-4)
    assert (found["samples"], found["missing"], found["errors"]) == (26, 0, {})


def test_without_java_only_its_metrics_are_missing_and_named(tmp_path: Path) -> None:
    done = run_score("tempeval_scanqa", "scanqa", "--json", PATH=str(tmp_path))
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["metrics"]["em"] == pytest.approx(expected("tempeval_scanqa")["em"], abs=2e-4)
    assert all(name.startswith(CAPTIONS) for name in found["errors"])
    assert len(found["errors"]) == 7
    assert "java" in found["errors"]["cider"]
    assert "error: cider" in done.stderr


def test_without_wordnet_only_wups_is_missing_and_named(tmp_path: Path) -> None:
    places = {"TEMPEVAL_CACHE": str(tmp_path), "NLTK_DATA": str(tmp_path), "HOME": str(tmp_path)}
    code = "from tempeval.metrics.wups_data import missing; raise SystemExit(len(missing()))"
    asked = subprocess.run([sys.executable, "-c", code], env={**os.environ, **places}, check=False)
    if asked.returncode == 0:
        pytest.skip("NLTK's data are installed for all users of this machine")
    done = run_score("tempeval_nextqa_oe", "nextqa_oe", "--json", **places)
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert list(found["metrics"]) == ["parse_failure"]
    assert len(found["errors"]) == 28
    assert "tempeval data prepare nextqa_oe" in found["errors"]["wups0"]
    # The one reason of all is said once.
    assert done.stderr.count("tempeval data prepare nextqa_oe") == 1
    assert "error: wups0 and 27 more: " in done.stderr


def test_a_table_is_printed_for_people() -> None:
    done = run_score("tempeval_mvbench", "mvbench")
    assert done.returncode == 0, done.stderr
    assert "acc_official" in done.stdout
    assert "50.00" in done.stdout
