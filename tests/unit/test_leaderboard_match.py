"""What is comparable: budgets within the tolerance, equal settings, one partner each."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.leaderboard.distance import distance
from tempeval.leaderboard.load import load
from tempeval.leaderboard.match import match

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK, OTHER = "tempeval_mini_action", "tempeval_mini_order"


def lines(**options):
    return {TASK: made["sample_lines"](TASK, videos=20, **options)}


def matched(root, **options):
    loaded = load([root])
    assert not loaded.refusals
    chosen = {"baseline": "baseline", "tolerance": 0.02, "max_failure_ratio": 0.05} | options
    return match(loaded.entries, **chosen)


def only_refusal(found):
    assert len(found.refusals) == 1
    return found.refusals[0]


def partners(found):
    return {
        (comparison.baseline.run.name, method.run.name)
        for comparison in found.comparisons
        for method in comparison.methods
    }


budgets = st.lists(st.integers(1, 10_000), min_size=1, max_size=300)


@given(budgets, st.data())
@settings(max_examples=200, deadline=None)
def test_matching_is_symmetric_and_ignores_order(values, data):
    size = len(values)
    factors = data.draw(
        st.lists(st.sampled_from([0.97, 0.98, 1, 1.02, 1.03]), min_size=size, max_size=size)
    )
    one = np.array(values, dtype=float)
    two = one * factors
    forth, back = distance(one, two, 0.02), distance(two, one, 0.02)
    assert (forth.matches, forth.outside) == (back.matches, back.outside)
    order = data.draw(st.permutations(range(size)))
    assert distance(one[order], two[order], 0.02).outside == forth.outside


@given(budgets)
@settings(max_examples=100, deadline=None)
def test_equal_budgets_match_at_tolerance_zero(values):
    one = np.array(values, dtype=float)
    assert distance(one, one.copy(), 0).matches


@pytest.mark.parametrize("budget", [50, 100, 1000, 4950, 8192])
def test_any_two_runs_within_98_to_100_percent_of_a_budget_match(budget):
    low, high = np.full(10, 0.98 * budget), np.full(10, float(budget))
    assert distance(low, high, 0.02).matches
    assert distance(high, low, 0.02).matches


@pytest.mark.parametrize("size", [100, 200, 700, 1000])
def test_exactly_one_percent_outside_matches_and_one_more_does_not(size):
    base = np.full(size, 100.0)
    value = base.copy()
    value[: size // 100] = 130
    assert distance(value, base, 0.02).outside == size // 100
    assert distance(value, base, 0.02).matches
    value[size // 100] = 130
    assert not distance(value, base, 0.02).matches


def test_one_outside_of_99_does_not_match():
    base = np.full(99, 100.0)
    value = base.copy()
    value[0] = 130
    assert not distance(value, base, 0.02).matches


def test_mean_at_the_tolerance_matches_and_above_does_not():
    base = np.full(100, 98.0)
    assert distance(np.full(100, 100.0), base, 0.02).matches
    above = np.full(100, 100.0)
    above[0] = 101  # one sample may be outside, but now the mean is too
    far = distance(above, base, 0.02)
    assert far.outside == 1
    assert not far.matches


def test_one_huge_sample_shows_in_the_mean():
    base = np.full(100, 100.0)
    value = base.copy()
    value[0] = 1000
    assert distance(value, base, 0.02).outside == 1
    assert not distance(value, base, 0.02).matches


def test_unmeasured_samples_are_not_paired():
    nan = np.nan
    assert distance(np.array([1, nan, 3]), np.array([1, 2, nan]), 0).paired == 1
    assert not distance(np.array([nan]), np.array([1.0]), 1).matches


def test_methods_go_to_the_baseline_of_their_budget(tmp_path):
    write = made["write_run"]
    for tokens, size in ((36, 50), (72, 100)):
        write(tmp_path / f"base{tokens}", tasks=lines(tokens=tokens), visual_token_budget=size)
        write(tmp_path / f"pas{tokens}", "pas", tasks=lines(tokens=tokens - 0.5))
    found = matched(tmp_path)
    assert partners(found) == {("base36", "pas36"), ("base72", "pas72")}
    assert not found.refusals


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("model", {"model": "Qwen/Qwen2.5-VL-7B-Instruct"}),
        ("model_revision", {"model_revision": "sha256:cd"}),
        ("position_rule", {"position_rule": "native"}),
        ("dtype", {"dtype": "bfloat16"}),
        ("limit", {"limit": 60}),
        ("frame_policy", {"frame_policy": {"rule": "uniform", "num_frames": 4, "fps": None}}),
        ("frame_policy", {"shown": {"mm_newline_position": "grid"}}),
        ("task_version", {"task_changes": {"version": 2}}),
        ("task_version", {"task_changes": {"version": 0}}),
        ("prompt_hash", {"task_changes": {"prompt_hash": "sha256:ef"}}),
        ("dataset_digest", {"task_changes": {"dataset_digest": "sha256:ef"}}),
        ("metric", {"task_changes": {"higher_is_better": False}}),
        ("task_digest", {"task_changes": {"task_digest": "sha256:ef"}}),
        ("videos", {"task_changes": {"videos_digest": "sha256:ef"}}),
        ("code", {"code": {"engine": "sha256:ef", "video": "sha256:01"}}),
        ("code", {"code": {"engine": "sha256:01"}}),
    ],
)
def test_settings_that_differ_are_named_with_both_values(tmp_path, field, changes):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "other", "pas", tasks=lines(), **changes)
    refusal = only_refusal(matched(tmp_path))
    assert (refusal.run, refusal.field, refusal.tasks) == ("other", field, (TASK,))
    assert refusal.value != refusal.other
    assert "run base" in refusal.reason
    assert refusal.action


def test_a_part_of_the_code_that_differs_is_named(tmp_path):
    for name, engine in (("base", "sha256:01"), ("pas", "sha256:ef")):
        code = {"engine": engine, "video": "sha256:01"}
        made["write_run"](tmp_path / name, name, tasks=lines(), code=code)
    refusal = only_refusal(matched(tmp_path, baseline="base"))
    assert "no 'base' run has this code; the nearest is run base (engine)" in refusal.reason
    assert (refusal.value, refusal.other) == ("engine ef", "engine 01")


def test_the_code_of_its_own_methods_makes_no_run_incomparable(tmp_path):
    code = {"engine": "sha256:01"}
    made["write_run"](tmp_path / "base", tasks=lines(), code=code)
    own = code | {"methods": "sha256:02"}
    made["write_run"](tmp_path / "pas", "pas", tasks=lines(), code=own)
    assert partners(matched(tmp_path)) == {("base", "pas")}


def test_facts_that_do_not_decide_do_not_separate(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "pas", "pas", tasks=lines(), gpu="H100", device="cuda", seed=1)
    assert partners(matched(tmp_path)) == {("base", "pas")}


def test_a_budget_off_on_average_is_answered_with_the_budget_to_rerun_at(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines(tokens=36))
    made["write_run"](tmp_path / "pool", "pool", tasks=lines(tokens=18))
    refusal = only_refusal(matched(tmp_path))
    assert (refusal.value, refusal.other) == ("18", "36")
    assert refusal.reason == (
        "its mean is 50 % off the nearest baseline, run base; at most 2 % are accepted; 60 of 60 "
        "samples are more than 2 % off, at most 1 % may be"
    )
    assert refusal.action == "Rerun it at 36 visual tokens, or run a baseline at 18"


def test_samples_within_the_rule_are_not_named_where_the_mean_is_off(tmp_path):
    base, other = (
        {TASK: made["sample_lines"](TASK, videos=40, tokens=36)} for _ in ("base", "pas")
    )
    other[TASK][0]["token_counts"][0]["visual_tokens"] = 3600
    made["write_run"](tmp_path / "base", tasks=base)
    made["write_run"](tmp_path / "pas", "pas", tasks=other)
    reason = only_refusal(matched(tmp_path)).reason
    assert reason.endswith("45.2 % off the nearest baseline, run base; at most 2 % are accepted")


def test_a_budget_off_in_samples_only_is_said_to_be_that(tmp_path):
    group = lines(tokens=36)
    for number, line in enumerate(group[TASK]):
        line["token_counts"][0]["visual_tokens"] += 4 if number % 2 else -4
    made["write_run"](tmp_path / "base", tasks=lines(tokens=36))
    made["write_run"](tmp_path / "pas", "pas", tasks=group)
    refusal = only_refusal(matched(tmp_path))
    assert (refusal.value, refusal.other) == ("36 on average, 60 samples off", "36")
    assert refusal.reason == (
        "its mean is within 2 % of the nearest baseline, run base, but its samples are not; 60 of "
        "60 samples are more than 2 % off, at most 1 % may be"
    )
    assert "every sample has the same visual tokens" in refusal.action


def test_frames_that_a_budget_chose_for_a_method_do_not_separate(tmp_path):
    policy = {"rule": "uniform", "num_frames": 25, "base_num_frames": 8, "fps": None}
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "slowfast", "slowfast", tasks=lines(), frame_policy=policy)
    other = {**policy, "base_num_frames": 4}
    made["write_run"](tmp_path / "other", "pas", tasks=lines(), frame_policy=other)
    found = matched(tmp_path)
    assert partners(found) == {("base", "slowfast")}
    refusal = only_refusal(found)
    assert (refusal.field, refusal.value) == ("frame_policy", "4 frames, uniform")


@pytest.mark.parametrize("key", ["content_hash", "sample_id"])
def test_another_sample_set_is_refused_with_an_example(tmp_path, key):
    changed = lines()
    changed[TASK][4][key] = "other"
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "pas", "pas", tasks=changed)
    refusal = only_refusal(matched(tmp_path))
    assert refusal.field == "sample_set"
    example = {"content_hash": f"1 shared ids have another content_hash, such as '{TASK}/0004'"}
    assert example.get(key, "59 ids shared, 1 only here, 1 only there: 'other'") in refusal.reason


def test_line_order_does_not_matter(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "pas", "pas", tasks={TASK: lines()[TASK][::-1]})
    found = matched(tmp_path)
    base, method = found.comparisons[0].baseline, found.comparisons[0].methods[0]
    assert base.samples.ids == method.samples.ids
    assert base.samples.score.tolist() == method.samples.score.tolist()


def test_no_baseline_at_all(tmp_path):
    made["write_run"](tmp_path / "pas", "pas", tasks=lines())
    assert only_refusal(matched(tmp_path)).field == "baseline"


def test_any_method_can_be_the_baseline(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "pas", "pas", tasks=lines())
    assert partners(matched(tmp_path, baseline="pas")) == {("pas", "base")}


@pytest.mark.parametrize("method", ["baseline", "pas"])
def test_the_latest_of_duplicates_is_kept(tmp_path, method):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "pas", "pas", tasks=lines())
    early = {"finished": "2025-01-01T00:00:00+00:00"}
    made["write_run"](tmp_path / "a_early", method, tasks=lines(), **early)
    found = matched(tmp_path)
    assert partners(found) == {("base", "pas")}
    refusal = only_refusal(found)
    assert (refusal.run, refusal.field) == ("a_early", "duplicate")


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("2026-01-01T13:00:00+05:00", "2026-01-01T12:00:00+00:00"),
        ("2026-01-01T13:00:00+05:00", "2026-01-01T12:00:00Z"),
        ("2026-01-01T23:00:00", "2026-01-01T22:30:00-01:00"),
        ("tomorrow", "2026-01-01T12:00:00"),
        (None, "2026-01-01T12:00:00"),
    ],
)
def test_the_latest_is_the_later_moment_whatever_the_time_zone(tmp_path, early, late):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "early", "pas", tasks=lines(), finished=early)
    made["write_run"](tmp_path / "late", "pas", tasks=lines(), finished=late)
    found = matched(tmp_path)
    assert partners(found) == {("base", "late")}
    assert only_refusal(found).run == "early"
    assert "run late, which finished later" in only_refusal(found).reason


def test_two_settings_of_one_method_are_two_rows(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines())
    for name in ("a", "b"):
        fingerprint = f"sha256:{name}"
        made["write_run"](tmp_path / name, "pas", tasks=lines(), method_fingerprint=fingerprint)
    assert partners(matched(tmp_path)) == {("base", "a"), ("base", "b")}


def test_failed_samples_up_to_the_threshold(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "three", "three", tasks=lines(failed=3))
    made["write_run"](tmp_path / "four", "four", tasks=lines(failed=4))
    found = matched(tmp_path)
    assert partners(found) == {("base", "three")}
    assert (only_refusal(found).run, only_refusal(found).field) == ("four", "failed")


def test_too_few_samples_that_both_answered_are_refused_whatever_is_accepted(tmp_path):
    """Each side may fail, but 90 % of the samples must be answered on both."""
    last = lines()
    for line in last[TASK][-3:]:
        line["token_counts"][0] = {"error": "BadVideo"}
    made["write_run"](tmp_path / "base", tasks=lines(failed=3))
    made["write_run"](tmp_path / "six", "six", tasks=last)
    for line in last[TASK][-4:]:
        line["token_counts"][0] = {"error": "BadVideo"}
    made["write_run"](tmp_path / "seven", "seven", tasks=last)
    found = matched(tmp_path, max_failure_ratio=1)
    assert partners(found) == {("base", "six")}
    refusal = only_refusal(found)
    assert (refusal.run, refusal.kind, refusal.field) == ("seven", "failures", "answered by both")
    assert (refusal.value, refusal.other) == ("88.3%", "at least 90%")
    assert "53 of 60 samples were answered here and in the nearest baseline" in refusal.reason


def test_failures_are_refused_where_zero_would_be_the_best_score(tmp_path):
    lower = {"task_changes": {"higher_is_better": False}}
    made["write_run"](tmp_path / "base", tasks=lines(), **lower)
    made["write_run"](tmp_path / "pas", "pas", tasks=lines(failed=1), **lower)
    assert "best score" in only_refusal(matched(tmp_path)).reason


@pytest.mark.parametrize("negative", ["base", "pas"])
def test_failures_are_refused_where_any_run_scores_below_zero(tmp_path, negative):
    groups = {"base": lines(), "pas": lines(failed=1)}
    groups[negative][TASK][-1]["score"] = -0.25
    made["write_run"](tmp_path / "base", tasks=groups["base"])
    made["write_run"](tmp_path / "pas", "pas", tasks=groups["pas"])
    refusal = only_refusal(matched(tmp_path))
    assert (refusal.run, refusal.kind, refusal.value) == ("pas", "failures", "1")
    assert "better than other scores of this task (down to -0.25)" in refusal.reason


@pytest.mark.parametrize(
    "counts", [{"expected": 61}, {"expected": 61, "answered": 61}, {"answered": 59, "failed": 1}]
)
def test_counts_that_contradict_the_samples(tmp_path, counts):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "pas", "pas", tasks=lines(), task_changes=counts)
    assert only_refusal(matched(tmp_path)).field in {"samples", "failed"}


def test_unknown_budget(tmp_path):
    stock = lines()
    stock[TASK][0]["token_counts"] = [None]
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "stock", "stock", tasks=stock)
    refusal = only_refusal(matched(tmp_path))
    assert (refusal.field, refusal.value) == ("visual_tokens", "unknown")


@pytest.mark.parametrize("tokens", [0, -5])
def test_a_budget_of_nothing_is_damage(tmp_path, tokens):
    for method in ("baseline", "pas"):
        made["write_run"](tmp_path / method, method, tasks=lines(tokens=tokens, failed=1))
    for refusal in matched(tmp_path).refusals:
        assert (refusal.kind, refusal.field) == ("inconsistent", "visual_tokens")
        assert (refusal.value, refusal.other) == (str(tokens), "above 0")
        assert "59 of 59 answered samples" in refusal.reason
    assert not matched(tmp_path).comparisons


def test_whole_numbers_are_equal_however_they_are_written(tmp_path):
    for method, fps, limit in (("baseline", 2, 60), ("pas", 2.0, 60.0)):
        policy = {"rule": "fps", "num_frames": None, "fps": fps}
        made["write_run"](
            tmp_path / method, method, tasks=lines(), frame_policy=policy, limit=limit
        )
    assert partners(matched(tmp_path)) == {("baseline", "pas")}


def with_targets(value):
    group = lines()
    for line in group[TASK]:
        line["target"] = value
    return group


def test_other_right_answers_are_refused(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "pas", "pas", tasks=with_targets("B"))
    refusal = only_refusal(matched(tmp_path))
    assert (refusal.run, refusal.kind, refusal.field) == ("pas", "settings", "targets")
    assert refusal.value != refusal.other
    assert "dataset revision" in refusal.action


def test_right_answers_that_are_not_stated_do_not_separate(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines())
    made["write_run"](tmp_path / "pas", "pas", tasks=with_targets(None))
    assert partners(matched(tmp_path)) == {("base", "pas")}


def test_a_checkpoint_is_the_same_wherever_it_lies(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines(), model="/data/a/qwen-7b/")
    made["write_run"](tmp_path / "pas", "pas", tasks=lines(), model=r"D:\models\qwen-7b")
    made["write_run"](tmp_path / "hub", "ntk", tasks=lines(), model="other/qwen-7b")
    found = matched(tmp_path)
    assert partners(found) == {("base", "pas")}
    refusal = only_refusal(found)
    assert (refusal.value, refusal.other) == ("other/qwen-7b", "qwen-7b")


def test_types_of_16_bits_are_one_family(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines(), dtype="bfloat16")
    made["write_run"](tmp_path / "pas", "pas", tasks=lines(), dtype="float16")
    made["write_run"](tmp_path / "ntk", "ntk", tasks=lines(), dtype="float32")
    found = matched(tmp_path)
    assert partners(found) == {("base", "pas")}
    refusal = only_refusal(found)
    assert (refusal.field, refusal.value, refusal.other) == ("dtype", "float32", "bfloat16")


def test_older_task_versions_are_listed_where_a_newer_one_has_a_baseline(tmp_path):
    """Version 10 is newer than 9, as a number."""
    for version in (9, 10):
        for method in ("baseline", "pas"):
            changes = {"version": version}
            folder = tmp_path / f"{method}{version}"
            made["write_run"](folder, method, tasks=lines(), task_changes=changes)
    found = matched(tmp_path)
    assert partners(found) == {("baseline10", "pas10")}
    listed = {(r.run, r.kind, r.field, r.value, r.other) for r in found.refusals}
    assert listed == {
        (run, "older_version", "task_version", "9", "10") for run in ("baseline9", "pas9")
    }


@pytest.mark.parametrize("version", [1.0, "1.0", "1"])
def test_versions_that_are_one_number_are_one(tmp_path, version):
    made["write_run"](tmp_path / "base", tasks=lines(), task_changes={"version": version})
    made["write_run"](tmp_path / "pas", "pas", tasks=lines())
    assert partners(matched(tmp_path)) == {("base", "pas")}


def test_a_newer_version_without_a_baseline_replaces_nothing(tmp_path):
    for method in ("baseline", "pas"):
        made["write_run"](tmp_path / method, method, tasks=lines())
    made["write_run"](tmp_path / "ntk", "ntk", tasks=lines(), task_changes={"version": 2})
    found = matched(tmp_path)
    assert partners(found) == {("baseline", "pas")}
    refusal = only_refusal(found)
    assert (refusal.kind, refusal.value, refusal.other) == ("settings", "2", "1")


def test_versions_of_runs_with_other_settings_do_not_meet(tmp_path):
    """A newer baseline alone, under another position rule, ranks nothing that is older."""
    for method in ("baseline", "pas"):
        made["write_run"](tmp_path / method, method, tasks=lines())
    newer = {"task_changes": {"version": 2}, "position_rule": "native"}
    made["write_run"](tmp_path / "native", tasks=lines(), **newer)
    assert partners(matched(tmp_path)) == {("baseline", "pas")}


@pytest.mark.parametrize(
    "changes",
    [
        {"frame_policy": {"rule": "uniform", "num_frames": 16, "fps": None}},
        {"model": "Qwen/Qwen2.5-VL-3B-Instruct"},
        {"dtype": "bfloat16"},
        {"limit": 60},
    ],
)
def test_older_versions_are_not_ranked_beside_newer_ones_of_other_settings(tmp_path, changes):
    for version, other in ((1, changes), (2, {})):
        for method in ("baseline", "pas"):
            made["write_run"](
                tmp_path / f"{method}{version}",
                method,
                tasks=lines(),
                task_changes={"version": version},
                **other,
            )
    made["write_run"](tmp_path / "far1", "far", tasks=lines(tokens=99), **changes)
    found = matched(tmp_path)
    assert partners(found) == {("baseline2", "pas2")}
    assert {(r.run, r.kind, r.value, r.other) for r in found.refusals} == {
        (run, "older_version", "1", "2") for run in ("baseline1", "pas1", "far1")
    }


def test_a_newer_trial_run_replaces_no_full_run(tmp_path):
    for method in ("baseline", "pas"):
        made["write_run"](tmp_path / method, method, tasks=lines())
        newer = {"task_changes": {"version": 2}, "limit": 60}
        made["write_run"](tmp_path / f"{method}_trial", method, tasks=lines(), **newer)
    assert ("baseline", "pas") in partners(matched(tmp_path))


@pytest.mark.parametrize(
    ("on", "field"),
    [
        ("token_layers", "token_layers"),
        ("kv_bytes", "kv_bytes"),
        ("prefill_flops", "prefill_flops"),
        ("frames", "frames"),
    ],
)
def test_the_budget_may_be_another_measure(tmp_path, on, field):
    def spending(value):
        group = lines()
        for line in group[TASK]:
            line["token_counts"][0][field] = value
        return group

    for name, value in (("8", 800.0), ("32", 3200.0)):
        policy = {"rule": "uniform", "num_frames": int(name), "fps": None}
        tasks = spending(value)
        made["write_run"](tmp_path / f"base{name}", tasks=tasks, frame_policy=policy)
    policy = {"rule": "uniform", "num_frames": 32, "fps": None}
    made["write_run"](tmp_path / "near", "near", tasks=spending(790.0), frame_policy=policy)
    made["write_run"](tmp_path / "far", "far", tasks=spending(1600.0), frame_policy=policy)
    found = matched(tmp_path, on=on)
    assert partners(found) == {("base8", "near")}
    refusal = only_refusal(found)
    assert (refusal.kind, refusal.field) == ("budget", on)
    assert (refusal.value, refusal.other) == ("1600", "800")


def planned(tokens, **options):
    return {"tasks": lines(tokens=tokens, **options), "visual_token_budget": tokens}


def test_equal_plans_are_paired_whatever_is_matched_and_are_no_duplicates(tmp_path):
    """A matrix of two token budgets, matched on frames: the order of finishing says nothing."""
    for name, method, tokens, minute in (
        ("b36", "baseline", 36, 9),
        ("b72", "baseline", 72, 5),
        ("p36", "pas", 36, 6),
        ("p72", "pas", 72, 10),
    ):
        finished = f"2026-01-01T12:{minute:02d}:00+00:00"
        made["write_run"](tmp_path / name, method, **planned(tokens), finished=finished)
    found = matched(tmp_path, on="frames")
    assert partners(found) == {("b36", "p36"), ("b72", "p72")}
    assert not found.refusals
    budgets = {c.setting.visual_token_budget: c.notes for c in found.comparisons}
    assert budgets == {36: (), 72: ()}


@pytest.mark.parametrize("field", ["visual_token_budget", "min_pixels", "max_pixels"])
def test_two_plans_of_one_method_are_two_tables(tmp_path, field):
    """Beside the one baseline that there is."""
    made["write_run"](tmp_path / "base", tasks=lines(), **{field: 3000})
    for value in (3000, 4000, 5000):
        made["write_run"](tmp_path / f"pas{value}", "pas", tasks=lines(), **{field: value})
    found = matched(tmp_path)
    assert partners(found) == {("base", f"pas{value}") for value in (3000, 4000, 5000)}
    assert not found.refusals
    plans = [comparison.setting.methods_plan for comparison in found.comparisons]
    assert {None if plan is None else plan._asdict()[field] for plan in plans} == {
        None,
        4000,
        5000,
    }
    assert [c.apart for c in found.comparisons] == [("plan of the methods",)] * 3


def spending(frames, tokens, kv_bytes):
    group = lines(tokens=tokens)
    for line in group[TASK]:
        line["token_counts"][0] |= {"frames": frames, "kv_bytes": kv_bytes}
    policy = {"rule": "uniform", "num_frames": frames, "fps": None}
    return {"tasks": group, "frame_policy": policy}


@pytest.mark.parametrize("late", ["b8", "b16"])
def test_of_two_baselines_that_fit_the_nearest_is_taken_and_named(tmp_path, late):
    for name, method, run in (
        ("b8", "baseline", spending(8, 36, 1000)),
        ("b16", "baseline", spending(16, 72, 1010)),
        ("i32", "intp", spending(32, 144, 1002)),
        ("p16", "pas", spending(16, 72, 1000)),
    ):
        day = 2 if name == late else 1
        made["write_run"](tmp_path / name, method, **run, finished=f"2026-01-0{day}T12:00:00+00:00")
    found = matched(tmp_path, on="kv_bytes")
    assert partners(found) == {("b8", "i32"), ("b16", "p16")}, "p16 goes by its plan"
    assert not found.refusals
    assert {c.baseline.run.name: c.notes for c in found.comparisons} == {
        "b8": (
            "intp (run i32) fits 2 baselines and none has its plan; it stands beside run b8, whose "
            "measured kv bytes are nearest (1000 against 1002).",
        ),
        "b16": (),
    }


def test_the_rule_of_sampling_still_decides_when_frames_do_not(tmp_path):
    made["write_run"](tmp_path / "base", tasks=lines())
    policy = {"rule": "segment", "num_frames": 8, "fps": None}
    made["write_run"](tmp_path / "pas", "pas", tasks=lines(), frame_policy=policy)
    assert only_refusal(matched(tmp_path, on="kv_bytes")).field == "frame_policy"


def test_limited_runs_are_compared_and_listed(tmp_path):
    for method in ("baseline", "pas"):
        made["write_run"](tmp_path / method, method, tasks=lines(), limit=60)
    found = matched(tmp_path)
    assert partners(found) == {("baseline", "pas")}
    assert [(r.kind, r.value, r.other) for r in found.refusals] == [
        ("limit", "first 60 samples", "full run")
    ] * 2


def test_a_baseline_may_be_named_with_its_settings(tmp_path):
    for name in ("pas[K=2]", "pas[K=4]"):
        made["write_run"](
            tmp_path / name, "pas", tasks=lines(), method_fingerprint=name, method_label=name
        )
    assert partners(matched(tmp_path, baseline="pas[K=2]")) == {("pas[K=2]", "pas[K=4]")}
    # Named without, the other setting is a row like any other, and the table says so.
    found = matched(tmp_path, baseline="pas")
    assert partners(found) == {("pas[K=4]", "pas[K=2]")}
    assert found.comparisons[0].notes == (
        "--baseline pas names 2 settings: pas[K=2] (pas[K=), pas[K=4] (pas[K=). The baseline is "
        "pas[K=4] of run pas[K=4], the latest; name it with its settings to choose another.",
    )


def test_a_baseline_that_no_run_has_is_answered_with_those_there_are(tmp_path):
    for name in ("pas", "vrope"):
        made["write_run"](tmp_path / name, name, tasks=lines())
    found = matched(tmp_path, baseline="bassline")
    assert [r.kind for r in found.refusals] == ["no_baseline"] * 2
    assert found.refusals[0].action.endswith("or choose another --baseline: pas, vrope")


def write_as_the_runner(folder, method, group, **changes):
    """Write a run whose counts and digests are those of the code that writes run.json."""
    from tempeval.run.counting import TaskFacts, digest, task_record

    facts = TaskFacts(TASK, 1, len(group), "score", "video_id", True, None)
    digests = {"prompt_hash": digest(group), "task_digest": "", "videos_digest": ""}
    digests["video_stamps"] = ""
    file = f"20260101_120000_samples_{TASK}.jsonl"
    task = task_record(facts, file, group, digests=digests).model_dump()
    return made["write_run"](folder, method, tasks={TASK: group}, task_changes=task, **changes)


def test_the_runners_records_are_read(tmp_path):
    write_as_the_runner(tmp_path / "base", "baseline", lines()[TASK])
    write_as_the_runner(tmp_path / "pas", "pas", lines()[TASK])
    found = matched(tmp_path)
    assert partners(found) == {("base", "pas")}
    assert not found.refusals


def test_a_limit_is_named_before_the_digests_that_follow_from_it(tmp_path):
    write_as_the_runner(tmp_path / "base", "baseline", lines()[TASK])
    write_as_the_runner(tmp_path / "pas", "pas", lines()[TASK][:30], limit=30)
    refusal = only_refusal(matched(tmp_path))
    assert (refusal.field, refusal.value, refusal.other) == (
        "limit",
        "first 30 samples",
        "full run",
    )
    assert "sample_set, dataset_digest, prompt_hash differ too" in refusal.reason


def partial_run(root, name, *, changes, status="partial", **options):
    """Write a run of two tasks, with the counts of the second changed in its record."""
    tasks = {task: made["sample_lines"](task, videos=10, **options) for task in (TASK, OTHER)}
    folder = made["write_run"](root / name, name, tasks=tasks, status=status, error="2 failed")
    raw = json.loads((folder / "run.json").read_text())
    raw["tasks"][OTHER] |= changes
    (folder / "run.json").write_text(json.dumps(raw))
    return folder


@pytest.mark.parametrize("status", ["partial", "interrupted"])
@pytest.mark.parametrize(
    ("changes", "kind", "reason", "action"),
    [
        (
            {"failed": 30, "answered": 0},
            "failures",
            "30 of 30 samples failed; the run says: 2 failed",
            "--skip-missing",
        ),
        (
            {"answered": 20},
            "unfinished",
            "10 of 30 samples have no answer yet; the run says: 2 failed",
            "Run the same command, which goes on where it stopped",
        ),
        (
            {"videos": {"total": 5, "damaged": 3, "flags": {"corrupt_packets": 1, "truncated": 2}}},
            "damaged",
            "3 of 5 videos damaged: truncated 2, corrupt_packets 1; the run says: 2 failed",
            "--max-damaged",
        ),
    ],
)
def test_a_run_ranks_on_its_complete_tasks(tmp_path, status, changes, kind, reason, action):
    """What is left out is listed, with a remedy that can work."""
    tasks = {task: made["sample_lines"](task, videos=10) for task in (TASK, OTHER)}
    made["write_run"](tmp_path / "baseline", tasks=tasks)
    partial_run(tmp_path, "pas", status=status, changes=changes)
    loaded = load([tmp_path])
    assert [(e.run.name, e.task.name) for e in loaded.entries] == [
        ("baseline", TASK),
        ("baseline", OTHER),
        ("pas", TASK),
    ]
    (refusal,) = loaded.refusals
    assert (refusal.run, refusal.tasks, refusal.kind) == ("pas", (OTHER,), kind)
    assert refusal.reason == reason
    assert action in refusal.action


def test_a_partial_run_whose_counts_do_not_say_why_is_not_trusted(tmp_path):
    partial_run(tmp_path, "pas", changes={})
    loaded = load([tmp_path])
    assert loaded.entries == ()
    assert [(r.tasks, r.kind) for r in loaded.refusals] == [((), "unfinished")]


def test_runs_that_skipped_other_samples_are_not_paired(tmp_path):
    for name, digest in (("baseline", "sha256:aa"), ("pas", "sha256:bb"), ("vrope", "sha256:aa")):
        changes = {"skipped": 5, "skipped_digest": digest}
        made["write_run"](tmp_path / name, name, tasks=lines(), task_changes=changes)
    found = matched(tmp_path)
    assert partners(found) == {("baseline", "vrope")}
    refusal = only_refusal(found)
    assert (refusal.field, refusal.value, refusal.other) == (
        "skipped",
        "5 skipped (bb)",
        "5 skipped (aa)",
    )
