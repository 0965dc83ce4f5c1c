"""Probabilities of choices, and their change against the baseline, on hand-made results."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import recorded
from hypothesis import given
from hypothesis import strategies as st

from tempeval.errors import TempevalError
from tempeval.model_wrappers.results import ChoiceLoss, failed_choice
from tempeval.run import paired
from tempeval.run.matrix import plan_matrix
from tempeval.run.paired import pair_with_baselines
from tempeval.run.spec import RunSpec
from tempeval.tasks.choice_task import answer_index, choose, probabilities

if TYPE_CHECKING:
    from pathlib import Path

TASK = "tempeval_mini_order_choice"


def results(*choices: tuple[float, int]) -> list[tuple[ChoiceLoss, bool]]:
    return [(ChoiceLoss(total, count), False) for total, count in choices]


def test_probabilities_of_the_sums() -> None:
    found = probabilities(results((math.log(0.06), 1), (math.log(0.02), 3)), 1)
    assert found["choice_probabilities"] == pytest.approx([0.75, 0.25])
    assert found["p_c"] == pytest.approx(0.02)
    assert found["answer_index"] == 1


@given(
    st.lists(st.tuples(st.floats(-2000, 0), st.integers(1, 9)), min_size=1, max_size=6), st.data()
)
def test_shares_add_up_and_keep_the_order(choices: Any, data: st.DataObject) -> None:
    answer = data.draw(st.integers(0, len(choices) - 1))
    found = probabilities(results(*choices), answer)
    shares = found["choice_probabilities"]
    assert sum(shares) == pytest.approx(1)
    best = max(range(len(choices)), key=lambda i: choices[i][0])
    assert shares[best] == max(shares)
    assert 0 <= found["p_c"] <= 1
    assert found["p_c"] == pytest.approx(math.exp(choices[answer][0]))


def test_what_is_not_known_is_not_invented() -> None:
    nothing = {"choice_probabilities": None, "answer_index": 0, "p_c": None}
    assert probabilities([failed_choice()] * 2, 0) == nothing
    assert probabilities([(0.3, True), (0.5, False)], 0) == nothing  # a model without sums
    assert probabilities([*results((-1.0, 1)), (0.5, False)], 0) == nothing
    found = probabilities(results((-1.0, 1), (-1.0, 2)), None)
    assert found == {"choice_probabilities": [0.5, 0.5], "answer_index": None, "p_c": None}


@pytest.mark.parametrize("lost", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("place", [0, 1])
def test_a_choice_without_a_number_leaves_nothing_to_choose(lost: float, place: int) -> None:
    """One failed choice is a failed sample: the rest of its choices is no fair comparison."""
    found: list[Any] = list(results((-1.0, 1), (-2.0, 1)))
    assert choose(found, ["yes", "no"]) == ("yes", "yes", False)
    found[place] = results((-lost, 1))[0]
    assert choose(found, ["yes", "no"]) == (None, None, False)
    nothing = {"choice_probabilities": None, "answer_index": 0, "p_c": None}
    assert probabilities(found, 0) == nothing
    found[place] = (lost, True)  # as a failure comes back
    assert choose(found, ["yes", "no"]) == (None, None, False)


@pytest.mark.parametrize(
    ("target", "index"), [("no", 1), (0, 0), (1, 1), ("maybe", None), (2, None), (-1, None)]
)
def test_the_answer_is_one_of_the_choices(target: str | int, index: int | None) -> None:
    assert answer_index(target, ["yes", "no"]) == index


# ---------------------------------------------------------------- against the baseline


def run_folder(folder: Path, p_c: dict[str, float | None], **more: Any) -> Path:
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"sample_id": name, "content_hash": "h", "p_c": p, "text": "…", **more}) + "\n"
        for name, p in p_c.items()
    ]
    (folder / "s.jsonl").write_text("".join(lines), encoding="utf-8")
    tasks = {TASK: recorded.task(expected=3, answered=3)}
    record = recorded.record(tasks)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def changes(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "s.jsonl").read_text("utf-8").splitlines()]
    return {line["sample_id"]: line.get("p_c_change", "absent") for line in lines}


def task_of(folder: Path) -> dict[str, Any]:
    task: dict[str, Any] = json.loads((folder / "run.json").read_text())["tasks"][TASK]
    return task


@pytest.fixture
def plans(tmp_path: Path) -> list[Any]:
    return plan_matrix(
        RunSpec(out=tmp_path, methods=["reverse_pe", "baseline"], tasks=[TASK], budgets=[64, 128])
    )


def test_changes_are_method_minus_baseline_of_the_same_budget(plans: list[Any]) -> None:
    reverse, baseline, other_reverse, other_baseline = (plan.folder for plan in plans)
    run_folder(baseline, {"a": 0.5, "b": 0.25, "c": None, "d": 0.5})
    run_folder(reverse, {"b": 0.125, "a": 1.0, "c": 0.5, "d": None, "e": 0.5})
    run_folder(other_baseline, {"a": 0.0})
    run_folder(other_reverse, {"a": 0.75})
    before = (baseline / "s.jsonl").read_bytes()
    pair_with_baselines(plans)
    assert changes(reverse) == {"b": -0.125, "a": 0.5, "c": None, "d": None, "e": None}
    assert changes(other_reverse) == {"a": 0.75}
    assert task_of(reverse) == {
        **task_of(baseline),
        "samples_file": "s.jsonl",
        "p_c_change": 0.1875,
        "p_c_pairs": 2,
    }
    assert (baseline / "s.jsonl").read_bytes() == before
    assert task_of(baseline)["p_c_change"] is None
    # Nothing else of a line changes, and nothing is written twice.
    assert "…" in (reverse / "s.jsonl").read_text("utf-8")
    stats = [path.stat().st_ino for path in sorted(reverse.iterdir())]
    pair_with_baselines(plans)
    assert [path.stat().st_ino for path in sorted(reverse.iterdir())] == stats
    assert sorted(path.name for path in reverse.iterdir()) == ["run.json", "s.jsonl"]


def test_what_is_out_of_date_is_brought_up_to_date(plans: list[Any]) -> None:
    reverse, baseline = (plan.folder for plan in plans[:2])
    run_folder(baseline, {"a": 0.5})
    run_folder(reverse, {"a": 0.25}, p_c_change=9.0)
    pair_with_baselines(plans)
    assert changes(reverse) == {"a": -0.25}


def test_a_crash_leaves_the_old_file_whole(
    plans: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    reverse, baseline = (plan.folder for plan in plans[:2])
    run_folder(baseline, {"a": 0.5, "b": 0.5})
    run_folder(reverse, {"a": 0.25, "b": 0.25})
    before = (reverse / "s.jsonl").read_bytes()

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(paired.os, "fsync", full)
        with pytest.raises(TempevalError, match="No space left"):
            pair_with_baselines(plans)
    assert (reverse / "s.jsonl").read_bytes() == before
    assert len(list(reverse.iterdir())) == 2
    pair_with_baselines(plans)
    assert changes(reverse) == {"a": -0.25, "b": -0.25}


def test_without_a_baseline_or_choices_nothing_is_written(plans: list[Any]) -> None:
    reverse, baseline = (plan.folder for plan in plans[:2])
    run_folder(reverse, {"a": 0.25})
    pair_with_baselines(plans)  # the baseline has no record yet
    pair_with_baselines(plans[:1])
    assert changes(reverse) == {"a": "absent"}
    run_folder(baseline, {})
    pair_with_baselines(plans)
    assert changes(reverse) == {"a": "absent"}


def test_a_broken_samples_file_is_named(plans: list[Any]) -> None:
    reverse, baseline = (plan.folder for plan in plans[:2])
    run_folder(baseline, {"a": 0.5})
    run_folder(reverse, {"a": 0.5})
    (reverse / "s.jsonl").write_text('{"sample_id": ')
    with pytest.raises(TempevalError, match=r"s\.jsonl cannot be read.*--overwrite"):
        pair_with_baselines(plans)
