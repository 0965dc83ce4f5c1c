"""The benchmark's arithmetic: intervals, limits, goals, sizes, and the page it writes."""

from __future__ import annotations

import json

import pytest

from tempeval.bench import inputs
from tempeval.bench.goals import goals_of
from tempeval.bench.log import BenchLog
from tempeval.bench.options import (
    SECTIONS,
    BenchOptions,
    frame_size,
    pairs_of,
    sections_of,
    settings_of,
    staged_tokens_of,
)
from tempeval.bench.render import BEGIN, END, check_page, render, warnings_of, write_page
from tempeval.bench.results import STAGED_CHAINS, results_of
from tempeval.bench.staged import grid_of
from tempeval.bench.stats import shared_limit, spread
from tempeval.errors import InvalidSetting, TempevalError, UnknownName

MACHINE = {
    "cpu": "a processor",
    "cores": 2,
    "threads": 1,
    "device": "cpu",
    "system": "Linux x86_64",
    "python": "3.11",
    "packages": {"torch": "2.6"},
}


@pytest.mark.parametrize(
    ("count", "low", "high", "coverage"),
    [
        (2, 0, 1, 0.5),
        (5, 0, 4, 0.9375),
        (7, 0, 6, 0.984375),
        (9, 1, 7, 0.9609375),
        (12, 2, 9, 0.961426),
    ],
)
def test_interval_is_the_narrowest_that_covers_95_percent(count, low, high, coverage):
    found = spread([float(n) for n in reversed(range(count))])
    assert (found.low, found.high) == (low, high)
    assert found.coverage == pytest.approx(coverage, abs=1e-5)
    assert found.median == (count - 1) / 2


def test_one_value_has_no_coverage():
    found = spread([3.0])
    assert (found.median, found.low, found.high, found.coverage) == (3.0, 3.0, 3.0, 0.0)


def test_interval_covers_the_median_as_often_as_it_says():
    import numpy as np

    rng = np.random.default_rng(0)
    draws = rng.exponential(size=(4000, 9))
    found = [spread(list(row)) for row in draws]
    inside = np.mean([f.low <= np.log(2) <= f.high for f in found])
    assert inside == pytest.approx(found[0].coverage, abs=0.01)


def test_limit_is_one_for_one_question_and_grows_to_the_ratio_of_costs():
    stages = {"decode": 416.0, "encode": 220.0, "prefill": 600.0, "answer": 60.0}
    assert shared_limit(stages, 1) == pytest.approx(1.0)
    # host.md 4.3, row "n=1 B": TempCompass 10.2, NExT-QA 6.3, ScanQA 16.5
    assert shared_limit(stages, 18) == pytest.approx(10.1, abs=0.1)
    assert shared_limit(stages, 10**6) == pytest.approx(1296 / 60, rel=1e-3)


@pytest.mark.parametrize(("tokens", "made"), [(1300, 1296), (3900, 3840), (36, 36), (500, 480)])
def test_frame_size_comes_near_the_tokens(tokens, made):
    frames = 8 if tokens == 36 else 32
    height, width = frame_size(tokens, frames)
    assert height % 28 == width % 28 == 0
    assert height // 28 * (width // 28) * frames // 2 == made


def test_questions_and_labels_are_all_different_and_the_same_every_time():
    for make, count in ((inputs.questions, 300), (inputs.labels, 400)):
        assert len(set(make(count))) == count
        assert make(7) == make(count)[:7]


def test_options_fill_in_defaults_and_refuse_nonsense():
    assert settings_of(BenchOptions(), 3).threads == 3
    assert settings_of(BenchOptions(), 3).questions == (1, 5, 15)
    assert pairs_of(BenchOptions()) == 7
    assert pairs_of(BenchOptions(pairs=9, quick=True)) == 9
    for wrong in (
        {"pairs": 1},
        {"questions": [0]},
        {"tokens": [5, 5]},
        {"staged": [0]},
        {"dtype": "float8"},
        {"threads": 0},
        {"max_new_tokens": 0},
        {"device": "nonsense"},
        {"device": "meta"},
    ):
        with pytest.raises(InvalidSetting):
            settings_of(BenchOptions(**wrong), 1)


def test_sections_and_staged_sizes():
    assert sections_of(BenchOptions()) == SECTIONS
    assert sections_of(BenchOptions(sections=["staged", "labels"])) == ("labels", "staged")
    with pytest.raises(UnknownName, match="did you mean 'labels'"):
        sections_of(BenchOptions(sections=["label"]))
    assert staged_tokens_of(BenchOptions()) == (2048, 4096, 8192)
    assert staged_tokens_of(BenchOptions(device="cuda:0")) == (8192, 32768)
    assert staged_tokens_of(BenchOptions(device="cuda", staged=[64])) == (64,)


@pytest.mark.parametrize(
    ("tokens", "grid"),
    [
        (2048, (16, 8, 16)),
        (4096, (16, 16, 16)),
        (8192, (16, 16, 32)),
        (32768, (64, 16, 32)),
    ],
)
def test_grids_have_the_tokens_exactly(tokens, grid):
    assert grid_of(tokens, 16) == grid


def measured(seconds, **other):
    """A round in which every side waited for a processor half of its time."""
    return {
        "seconds": seconds,
        "cpu_seconds": {side: value / 2 for side, value in seconds.items()},
        **other,
    }


def filled_log(path, rounds=3, slow=1.0):
    """A log of made-up rounds: 15 questions 12 times, 1 question 1.1 times as fast as stock."""
    log = BenchLog(path, settings_of(BenchOptions(), 1), MACHINE)
    log.data["model"] = "a model"
    log.data["sessions"].append({"start": "then", "load_start": 1.9, "end": "now", "load_end": 2.0})
    facts = {
        "frames": 32,
        "visual_tokens": 3840,
        "question_tokens": 36.0,
        "videos": 1,
        "label_tokens": 5.0,
        "forwards_measured": 3,
        "layers": 28,
    }
    stages = {"decode": 50.0, "encode": 900.0, "prefill": 2000.0, "answer": 40.0}
    other = {"other_cores": 0.3, "load": 1.0, "stages_ms": stages, "same_answers": 1.0}
    for _ in range(rounds):
        for tokens in (1300, 3900):
            for count, ratio in ((1, 1.1), (5, 4.0), (15, 12.0)):
                seconds = {"stock": 10.0 * ratio, "ours": 10.0 * slow}
                log.add_round(
                    f"questions/{count}@{tokens}",
                    {**facts, "questions": count},
                    measured(seconds, **other),
                )
            for count, ours in ((27, 2.0), (174, 1.5 * slow), (700, 5.0 * slow)):
                log.add_round(
                    f"labels/{count}@{tokens}",
                    facts,
                    measured({"forward": 1.0, "shared": ours}, **other),
                )
        log.add_round(
            "prefill@3900",
            facts,
            measured({"baseline": 10.0, "temporal_exit": 7.5 * slow, "pas": 10.1}, **other),
        )
        for tokens in (8192, 2048):
            staged = dict(zip(STAGED_CHAINS, (10.0, 9.9, 9.0, 7.0, 9.2, 7.1), strict=True))
            staged |= {name: slow * staged[name] for name in STAGED_CHAINS[1:]}
            asked = dict.fromkeys(STAGED_CHAINS, 0.25)
            log.add_round(
                f"staged@{tokens}",
                {**facts, "visual_tokens": tokens, "grids": 16, "question_tokens": 36},
                measured(staged, question_seconds=asked, **other),
            )
    return log


def test_results_and_goals_from_a_log(tmp_path):
    results = results_of(filled_log(tmp_path / "b.json"))
    assert [row.ratio.median for row in results.questions[:3]] == pytest.approx([1.1, 4.0, 12.0])
    assert results.questions[0].others == "0.3-0.3"
    assert results.questions[0].cpu_ratio == results.questions[0].ratio
    assert [row.ratio.median for row in results.labels[:2]] == pytest.approx([13.5, 116])
    assert [row.forwards for row in results.labels[:3]] == pytest.approx([2, 1.5, 5])
    assert [row.ratio.median for row in results.methods] == pytest.approx([1.0, 0.75, 1.01])
    assert [(row.tokens, row.chain) for row in results.staged[:: len(STAGED_CHAINS)]] == [
        (2048, "baseline"),
        (8192, "baseline"),
    ]
    assert [row.ratio.median for row in results.staged[:3]] == pytest.approx([1.0, 0.99, 0.9])
    assert results.staged[0].question_s == 0.25
    goals = goals_of(results)
    assert len(goals) == 2 * 3 + (1 + 1 + 2 + 1) + 2 + 2  # (2) and (3) at 8192 tokens
    assert all(goal.met for goal in goals)


def test_a_missed_goal_is_missed(tmp_path):
    goals = goals_of(results_of(filled_log(tmp_path / "b.json", slow=1.5)))
    missed = [goal.text for goal in goals if not goal.met]
    assert len(missed) == 2 * 3 + 2 + 1 + 2  # all but 27 labels, 174 forwards and PAS
    assert sum("not slower than dense" in text for text in missed) == 2
    assert any("174 labels" in text for text in missed)
    assert any("temporal exit" in text for text in missed)


def test_a_median_below_stock_is_slower_even_if_the_interval_reaches_1(tmp_path):
    log = filled_log(tmp_path / "b.json")
    for number, measured_round in enumerate(log.rounds("questions/1@3900")):
        measured_round["seconds"]["stock"] = 10.0 * (0.9, 0.99, 1.2)[number]
    goal = goals_of(results_of(log))[3]
    assert goal.text.startswith("1 question per video at 3900 tokens")
    assert (goal.measured, goal.met) == ("0.99 [0.90, 1.20]", False)


def test_the_query_shift_alone_explains_a_missed_goal_of_pas(tmp_path):
    log = filled_log(tmp_path / "b.json")
    results = results_of(log)
    assert results.methods[0].operator is None, "as in logs from before it was measured"
    before = render(log, results, goals_of(results))
    assert "Baseline: 10.00 to 10.00 s per round" in before
    assert "query shift" not in before
    operator = {"chain": "pas", "seconds": 0.065, "layers": 27, "repetitions": 9}
    log.data["cells"]["prefill@3900"]["facts"]["operator"] = operator
    log.rounds("prefill@3900")[0]["seconds"] |= {"baseline": 9.0, "pas": 11.2}
    results = results_of(log)
    goals = goals_of(results)
    text = render(log, results, goals)
    assert "Baseline: 9.00 to 10.00 s per round" in text
    assert "The query shift of pas alone: 65.0 ms of 10.00 s = 0.65 %" in text
    assert [goal.measured for goal in goals if not goal.met] == [
        "1.244 (median 1.010; the query shift alone costs 0.65 %, see under the table)"
    ]


def test_a_cell_measured_once_is_left_out(tmp_path):
    results = results_of(filled_log(tmp_path / "b.json", rounds=1))
    assert results.questions == results.labels == results.methods == results.staged == []


def test_page_keeps_what_is_around_the_marks(tmp_path):
    log = filled_log(tmp_path / "b.json")
    results = results_of(log)
    page = tmp_path / "benchmarks.md"
    page.write_text(f"# Title\n\nbefore\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    write_page(page, render(log, results, goals_of(results)))
    text = page.read_text()
    assert text.startswith("# Title\n\nbefore\n")
    assert text.endswith("after\n")
    assert "old" not in text
    for part in (
        "| 16 | 28 | staged_sparse[strategies=1/2] | 9.20 | 250 | **0.920** |",
        "**12.00**",
        "a processor",
        "met",
        "scaled",
        "**Warning**",
        "1.90 at the start",
    ):
        assert part in text
    page.write_text("# Title without marks")
    with pytest.raises(TempevalError, match="bench:begin"):
        check_page(page)


def test_quick_results_are_held_against_no_goal(tmp_path):
    log = filled_log(tmp_path / "b.json")
    log.data["settings"]["quick"] = True
    results = results_of(log)
    text = render(log, results, goals_of(results))
    assert "Goals" not in text
    assert "mean nothing" in text


def test_log_is_continued_only_under_the_same_settings(tmp_path):
    path = tmp_path / "b.json"
    filled_log(path, rounds=2)
    same = BenchLog(path, settings_of(BenchOptions(pairs=9), 1), MACHINE)
    assert len(same.rounds("labels/27@1300")) == 2
    with pytest.raises(InvalidSetting, match="settings"):
        BenchLog(path, settings_of(BenchOptions(max_new_tokens=9), 1), MACHINE)
    with pytest.raises(InvalidSetting, match="machine cores: 2 there, 64 here"):
        BenchLog(path, settings_of(BenchOptions(), 1), {**MACHINE, "cores": 64})
    fresh = BenchLog(path, settings_of(BenchOptions(max_new_tokens=9), 1), MACHINE, overwrite=True)
    assert fresh.rounds("labels/27@1300") == []


def test_rounds_of_other_code_are_dropped_and_never_mixed(tmp_path, monkeypatch):
    path = tmp_path / "b.json"
    filled_log(path, rounds=2)
    monkeypatch.setattr("tempeval.bench.log.code_digest", lambda: "sha256:other")
    log = BenchLog(path, settings_of(BenchOptions(), 1), MACHINE)
    assert log.drop_other_code("labels/27@1300") == 2
    assert log.drop_other_code("labels/27@1300") == 0
    log.add_round("labels/27@1300", {}, {})
    assert len(log.codes()) == 2
    assert any("2 versions" in warning for warning in warnings_of(log))


def test_rounds_of_other_packages_stay_until_they_are_measured_again(tmp_path):
    path = tmp_path / "b.json"
    filled_log(path, rounds=2)
    newer = {**MACHINE, "packages": {"torch": "99.0"}}
    log = BenchLog(path, settings_of(BenchOptions(), 1), newer)
    names = log.cells("")
    assert len(log.rounds("labels/27@1300")) == 2
    assert log.drop_other_code("labels/27@1300") == 2
    log.add_round("labels/27@1300", {}, {})
    old, new = log.versions().items()
    assert new == ("torch 99.0", ["labels/27@1300"])
    assert sorted([*old[1], *new[1]]) == sorted(names)
    page = render(log, results_of(log), [])
    assert "- Versions of labels/27@1300: torch 99.0." in page


def test_a_broken_log_is_a_named_error(tmp_path):
    path = tmp_path / "b.json"
    for broken in ("{", json.dumps([1])):
        path.write_text(broken)
        with pytest.raises(TempevalError, match=r"b\.json"):
            BenchLog(path, settings_of(BenchOptions(), 1), MACHINE)
