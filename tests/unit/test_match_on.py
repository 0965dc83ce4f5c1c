"""The baseline again, at the cost that a method has."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import recorded

from tempeval.errors import InvalidSetting, RunFailed, TempevalError, UnknownName
from tempeval.run.match_on import rerun_baselines
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from pathlib import Path


def write_run(
    folder: Path, method: str, budget: int | None, costs: dict[str, float], failed: int = 0
) -> Path:
    """Write a run of four questions with one cost, and failed ones that cost nothing."""
    folder.mkdir(parents=True)
    costs = {"frames": 8, **costs}
    record = recorded.record({"t": recorded.task()}, method, visual_token_budget=budget)
    (folder / "run.json").write_text(json.dumps(record))
    lines = [{"token_counts": [{**costs, "error": None}]}] * 4
    lines += [{"token_counts": [dict.fromkeys(costs, 0) | {"error": "BadVideo: x"}]}] * failed
    (folder / "s.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


class FakeRuns:
    """Runs a baseline whose cost is a known function of its budget."""

    def __init__(self, cost, measure: str) -> None:
        self.cost, self.measure, self.asked = cost, measure, []

    def __call__(self, options: RunSpec) -> list[Path]:
        assert options.methods == ["baseline"]
        self.asked.append(options)
        tokens = options.num_frames if self.measure == "frames" else options.budgets[0]
        folder = options.out / f"again{len(self.asked)}"
        costs = {"visual_tokens": tokens, self.measure: self.cost(tokens)}
        return [write_run(folder, "baseline", tokens, costs)]


@pytest.fixture
def options(tmp_path: Path) -> RunSpec:
    return RunSpec(out=tmp_path, methods=["baseline", "temporal_exit"], tasks=["t"], budgets=[100])


def first_runs(out: Path, measure: str, base: float, method: float) -> list[Path]:
    return [
        write_run(out / "b", "baseline", 100, {"visual_tokens": 100, measure: base}, failed=2),
        write_run(out / "m", "temporal_exit", 100, {"visual_tokens": 100, measure: method}),
    ]


def test_proportional_costs_need_one_run(options: RunSpec) -> None:
    runs = FakeRuns(float, "token_layers")
    folders = first_runs(options.out, "token_layers", 100.0, 71.4)
    new = rerun_baselines(options, folders, "token_layers", run=runs)
    assert [(asked.budgets, asked.num_frames) for asked in runs.asked] == [([71], 8)]
    assert new == [options.out / "again1"]


def test_a_cost_with_a_fixed_part_is_found_in_a_second_run(options: RunSpec) -> None:
    runs = FakeRuns(lambda tokens: 500 + 10 * tokens, "kv_bytes")
    folders = first_runs(options.out, "kv_bytes", 1500.0, 900.0)
    rerun_baselines(options, folders, "kv_bytes", run=runs)
    assert [asked.budgets for asked in runs.asked] == [[60], [40]]


def test_a_curved_cost_is_approached_and_said_when_not_reached(options: RunSpec) -> None:
    said: list[str] = []
    runs = FakeRuns(lambda tokens: 900.0 if tokens < 90 else float(tokens**2), "prefill_flops")
    folders = first_runs(options.out, "prefill_flops", 10_000.0, 5000.0)
    rerun_baselines(options, folders, "prefill_flops", run=runs, report=said.append)
    assert 1 <= len(runs.asked) <= 3
    assert "no baseline within 2%" in said[-1] or len(runs.asked) < 3


def test_a_cost_that_no_baseline_can_have_is_said_after_the_others(options: RunSpec) -> None:
    def refused(lower: RunSpec) -> list[Path]:
        raise RunFailed(f"the nearest feasible budget to {lower.budgets[0]} is 64")

    folders = first_runs(options.out, "token_layers", 100.0, 70.0)
    with pytest.raises(RunFailed, match=r"temporal_exit: .* 64"):
        rerun_baselines(options, folders, "token_layers", run=refused)


def test_the_same_cost_needs_no_run(options: RunSpec) -> None:
    runs = FakeRuns(float, "token_layers")
    folders = first_runs(options.out, "token_layers", 100.0, 101.0)
    assert rerun_baselines(options, folders, "token_layers", run=runs) == []
    assert runs.asked == []


def test_visual_tokens_need_no_run(options: RunSpec) -> None:
    runs = FakeRuns(float, "token_layers")
    folders = first_runs(options.out, "token_layers", 100.0, 50.0)
    assert rerun_baselines(options, folders, "visual_tokens", run=runs) == []


def test_frames_are_rerun_as_frames(options: RunSpec) -> None:
    runs = FakeRuns(float, "frames")
    options = replace(options, num_frames=8, settings={"temporal_exit": {"layer": "1"}})
    folders = first_runs(options.out, "frames", 8, 4)
    rerun_baselines(options, folders, "frames", run=runs)
    assert [(asked.num_frames, asked.budgets) for asked in runs.asked] == [(4, [100])]
    assert runs.asked[0].settings == {}


def test_two_methods_of_one_cost_share_a_run(options: RunSpec) -> None:
    runs = FakeRuns(float, "token_layers")
    folders = first_runs(options.out, "token_layers", 100.0, 70.0)
    costs = {"visual_tokens": 100, "token_layers": 70.5}
    folders.append(write_run(options.out / "m2", "staged_sparse", 100, costs))
    rerun_baselines(options, folders, "token_layers", run=runs)
    assert len(runs.asked) == 1


def test_an_unknown_measure_is_refused(options: RunSpec) -> None:
    with pytest.raises(UnknownName, match="token_layers"):
        rerun_baselines(options, [], "token_layer")


def test_a_run_without_answers_is_named(options: RunSpec) -> None:
    folder = write_run(options.out / "x", "baseline", None, {"visual_tokens": 1})
    (folder / "s.jsonl").write_text("")
    with pytest.raises(TempevalError, match="no question"):
        rerun_baselines(options, [folder], "kv_bytes")


@pytest.mark.parametrize("measure", ["token_layers", "kv_bytes", "prefill_flops"])
def test_without_a_budget_questions_would_differ_one_by_one(options: RunSpec, measure: str) -> None:
    with pytest.raises(InvalidSetting, match="--budgets"):
        rerun_baselines(replace(options, budgets=()), [], measure)
    assert rerun_baselines(replace(options, budgets=()), [], "frames") == []
