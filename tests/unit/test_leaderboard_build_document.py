"""The document: complete by its schema, and its numbers against the statistics they are made of."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from leaderboard_document import problems

from tempeval.errors import UnknownName
from tempeval.leaderboard import build, stats

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK, OTHER = "tempeval_mini_action", "tempeval_mini_order"


def lines(*tasks, **options):
    return {task: made["sample_lines"](task, **({"videos": 20} | options)) for task in tasks}


def document(root, out, **options):
    summary = build([root / "runs"], out, **({"draws": 500} | options))
    found = json.loads(summary.json.read_text(encoding="utf-8"))
    assert not problems(found)
    return found


def scored(values, per_video, **options):
    group = made["sample_lines"](TASK, videos=len(values) // per_video, per_video=per_video)
    for line, value in zip(group, values, strict=True):
        line["score"] = float(value)
    return {TASK: group}


def nine(value):
    """Give a figure as the document has it: 9 significant digits."""
    return float(f"{value:.9g}")


def test_every_kind_of_run_gives_a_complete_document(tmp_path):
    made["write_scene"](tmp_path / "runs")
    found = document(tmp_path, tmp_path / "out")
    kinds = {item["kind"] for item in found["not_comparable"]}
    assert kinds == {
        "unreadable",
        "unfinished",
        "failures",
        "duplicate",
        "unmeasured",
        "settings",
        "budget",
        "limit",
    }
    ids = [table["id"] for table in found["tables"]] + [run["id"] for run in found["runs"]]
    assert len(set(ids)) == len(ids)


def test_a_cell_is_what_the_statistics_say(tmp_path):
    rng = np.random.default_rng(3)
    base, method = rng.integers(0, 2, (2, 120))
    made["write_run"](tmp_path / "runs" / "a", tasks=scored(base, 3))
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=scored(method, 3))
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    first, second = (row["cells"][0] for row in table["rows"])
    names = [f"video_id=clip_{i // 3:03d}" for i in range(120)]
    scores = method.astype(float)[:, np.newaxis]
    (expected,) = stats.paired(scores, base.astype(float), names, draws=500, seed=0)
    assert second["difference"] == nine(expected.difference)
    ends = {"low": nine(expected.interval.low), "high": nine(expected.interval.high)}
    assert second["interval"] == ends
    assert (second["p"], second["p_exact"]) == (nine(expected.test.p), expected.test.exact)
    assert second["p_holm"] == second["p"], "there is one test"
    assert second["mde"] == nine(expected.detectable)
    counts = (second["wins"], second["ties"], second["losses"])
    assert counts == (
        int(np.sum(method > base)),
        int(np.sum(method == base)),
        int(np.sum(method < base)),
    )
    assert second["better"] is (expected.difference > 0)
    assert second["mcnemar_p"] is None, "several questions in a cluster"
    assert (second["n"], second["clusters"], table["tests"]) == (120, 40, 1)
    assert [first[key] for key in ("difference", "p", "p_holm", "mde", "wins")] == [None] * 5
    # t interval of the score: 2.0227 is the quantile for 39 degrees of freedom.
    low, high = second["score_interval"].values()
    assert (low + high) / 2 == pytest.approx(second["score"])
    assert high - low == pytest.approx(2 * 2.0226909 * second["se"], rel=1e-6)


@pytest.mark.parametrize(
    ("changed", "videos", "kind"),
    [(1, 40, "percentile_fallback"), (20, 40, "studentised"), (20, 120, "percentile")],
)
def test_an_interval_says_how_it_was_made(tmp_path, changed, videos, kind):
    """One question of 40 changed: a third of the draws has none of it, and no spread."""
    base = [0] * changed + [1] * (videos - changed)
    made["write_run"](tmp_path / "runs" / "a", tasks=scored(base, 1))
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=scored([1] * videos, 1))
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    row = table["rows"][1]
    (cell,) = row["cells"]
    assert [cell["interval_kind"], row["macro_interval_kind"]] == [kind] * 2
    assert row["pooled_interval_kind"] == kind
    assert table["rows"][0]["cells"][0]["interval_kind"] is None
    rough = kind == "percentile_fallback"
    if rough:
        assert cell["interval"]["low"] == 0, "not -1e-17"
    for name in ("leaderboard.md", "index.html"):
        text = (tmp_path / "out" / name).read_text(encoding="utf-8")
        assert ("]†" in text) is rough
        assert ("† The clusters that differ are too few" in text) is rough
    assert kind in (tmp_path / "out" / "leaderboard.csv").read_text(encoding="utf-8")


def test_a_missing_interval_of_the_mean_is_explained(tmp_path):
    """A task of one video of 41: a third of the draws is without it."""
    for name in ("baseline", "pas"):
        tasks = lines(TASK, videos=40, flip=0.5 * (name == "pas"))
        tasks |= lines(OTHER, videos=1)
        made["write_run"](tmp_path / "runs" / name, name, tasks=tasks)
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    row = table["rows"][1]
    assert (row["macro_interval"], row["macro_interval_kind"]) == (None, None)
    note = "No interval of the macro difference ([-]) for pas: more than 1 % of the draws left"
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert note in page
    assert note in (tmp_path / "out" / "leaderboard.md").read_text("utf-8").replace("\\", "")


def test_mcnemar_where_every_cluster_has_one_question(tmp_path):
    """Nine questions won and one lost: twice the chance of at most 1 head in 10, 22/1024."""
    base = [0] * 9 + [1] + [1] * 20
    method = [1] * 9 + [0] + [1] * 20
    made["write_run"](tmp_path / "runs" / "a", tasks=scored(base, 1))
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=scored(method, 1))
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    cell = table["rows"][1]["cells"][0]
    assert cell["mcnemar_p"] == pytest.approx(22 / 1024)
    assert cell["p"] == pytest.approx(22 / 1024)
    assert cell["significant"] is True


def test_holm_is_over_all_cells_of_a_table_and_decides_significance(tmp_path):
    """p of 22/1024 is significant alone, not among three."""
    base = [0] * 9 + [1] + [1] * 20
    method = [1] * 9 + [0] + [1] * 20
    made["write_run"](tmp_path / "runs" / "a", tasks=scored(base, 1))
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=scored(method, 1))
    for name in ("vrope", "ntk"):
        made["write_run"](tmp_path / "runs" / name, name, tasks=scored(base, 1))
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    cells = {row["label"]: row["cells"][0] for row in table["rows"]}
    assert table["tests"] == 3
    assert cells["pas"]["p_holm"] == pytest.approx(3 * 22 / 1024)
    assert not cells["pas"]["significant"]
    assert cells["ntk"]["p_holm"] == 1


def test_macro_and_pooled_are_named_and_differ_where_tasks_differ_in_size(tmp_path):
    for name, flip in (("baseline", 0.0), ("pas", 0.4)):
        tasks = lines(TASK, videos=10, flip=flip) | lines(OTHER, videos=30, flip=flip)
        made["write_run"](tmp_path / "runs" / name, name, tasks=tasks)
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    base, row = table["rows"]
    scores = [cell["score"] for cell in row["cells"]]
    assert row["macro"] == pytest.approx(np.mean(scores))
    assert row["pooled"] == pytest.approx((30 * scores[0] + 90 * scores[1]) / 120)
    assert row["pooled"] != pytest.approx(row["macro"])
    for kind in ("macro", "pooled"):
        assert row[f"{kind}_difference"] == pytest.approx(row[kind] - base[kind])
        assert row[f"{kind}_interval"]["low"] <= row[f"{kind}_difference"]
        assert base[f"{kind}_difference"] is None
        ends = row[f"{kind}_score_interval"].values()
        assert sum(ends) / 2 == pytest.approx(row[kind])


def test_one_task_has_equal_means_with_the_interval_of_its_cell(tmp_path):
    for name, flip in (("baseline", 0.0), ("pas", 0.4)):
        made["write_run"](tmp_path / "runs" / name, name, tasks=lines(TASK, flip=flip))
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    row = table["rows"][1]
    (cell,) = row["cells"]
    assert row["macro"] == row["pooled"] == cell["score"]
    assert row["macro_interval"] == row["pooled_interval"] == cell["interval"]


def test_means_are_missing_when_a_task_is(tmp_path):
    """Of the row that lacks it, where most methods have it."""
    for name in ("baseline", "ntk", "vrope"):
        made["write_run"](tmp_path / "runs" / name, name, tasks=lines(TASK, OTHER))
    made["write_run"](tmp_path / "runs" / "b", "pas", tasks=lines(TASK))
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    row = table["rows"][3]
    assert row["label"] == "pas"
    assert {key: row[key] for key in row if key.startswith(("macro", "pooled"))} == dict.fromkeys(
        [f"{kind}{part}" for kind in ("macro", "pooled") for part in PARTS]
    )


PARTS = ("", "_score_interval", "_difference", "_interval", "_interval_kind")


def test_costs_are_means_but_memory_is_the_largest(tmp_path):
    group = lines(TASK)
    for i, line in enumerate(group[TASK]):
        line["token_counts"][0].update(peak_memory_bytes=1000 + i, amortised_ms=30.0)
    made["write_run"](tmp_path / "runs" / "a", tasks=group)
    (table,) = document(tmp_path, tmp_path / "out")["tables"]
    measures = table["rows"][0]["costs"]["measures"]
    assert measures["peak_memory_bytes"] == 1059
    assert measures["amortised_seconds"] == pytest.approx(0.03)
    assert measures["seconds"] == pytest.approx(0.042)
    assert table["rows"][0]["costs"]["parse_failure_rate"] == pytest.approx(2 / 60)


def test_limited_runs_are_compared_but_not_ranked(tmp_path):
    for name, accuracy in (("baseline", 0.5), ("zz", 0.99), ("aa", 0.01)):
        tasks = lines(TASK, accuracy=accuracy)
        made["write_run"](tmp_path / "runs" / name, name, tasks=tasks, limit=60)
    found = document(tmp_path, tmp_path / "out")
    (table,) = found["tables"]
    assert (table["ranked"], table["tests"]) == (False, 0)
    assert [row["label"] for row in table["rows"]] == ["baseline", "aa", "zz"], "not by score"
    cells = [row["cells"][0] for row in table["rows"][1:]]
    assert [(cell["p_holm"], cell["significant"]) for cell in cells] == [(None, False)] * 2
    assert max(cell["p"] for cell in cells) < 0.05
    assert {item["run"]: item["kind"] for item in found["not_comparable"]} == {
        "baseline": "limit",
        "zz": "limit",
        "aa": "limit",
    }


def test_several_budgets_give_several_tables_smallest_first_and_one_plot(tmp_path):
    for tokens in (100, 25, 50):
        size = {"visual_token_budget": tokens}
        for name in ("baseline", "pas"):
            tasks = lines(TASK, OTHER, tokens=tokens)
            folder = tmp_path / "runs" / f"{name}{tokens}"
            made["write_run"](folder, name, tasks=tasks, **size)
    found = document(tmp_path, tmp_path / "out")
    assert [table["budget"] for table in found["tables"]] == [25, 50, 100]
    assert [plot["task"] for plot in found["plots"]] == [None, TASK, OTHER]
    points = found["plots"][0]["points"]
    assert [point["budget"] for point in points] == [25, 25, 50, 50, 100, 100]
    assert len({point["fingerprint"] for point in points}) == 2
    assert [point["table"] for point in points[::2]] == ["table-1", "table-2", "table-3"]
    assert points[0]["score"] == found["tables"][0]["rows"][0]["macro"]


def test_a_plot_does_not_join_tables_that_differ_in_more_than_the_budget(tmp_path):
    for rule in ("original", "native"):
        made["write_run"](tmp_path / "runs" / rule, tasks=lines(TASK), position_rule=rule)
    found = document(tmp_path, tmp_path / "out")
    assert [len(plot["points"]) for plot in found["plots"]] == [1, 1]


def test_what_is_not_ranked_keeps_its_score(tmp_path):
    made["write_run"](tmp_path / "runs" / "base", tasks=lines(TASK, OTHER))
    tasks = lines(TASK, OTHER, tokens=72)
    made["write_run"](tmp_path / "runs" / "wide", "wide", tasks=tasks)
    (item,) = document(tmp_path, tmp_path / "out")["not_comparable"]
    assert item["tasks"] == [TASK, OTHER]
    assert [score["task"] for score in item["scores"]] == [TASK, OTHER]
    expected = np.mean([line["score"] for line in tasks[TASK]])
    assert item["scores"][0]["score"] == pytest.approx(expected)
    assert item["scores"][0]["costs"]["measures"]["visual_tokens"] == 72
    assert (item["field"], item["value"], item["other"]) == ("visual_tokens", "72", "36")


def test_runs_have_all_their_facts_and_the_tables_they_stand_in(tmp_path):
    made["write_run"](tmp_path / "runs" / "a", tasks=lines(TASK))
    made["write_run"](tmp_path / "runs" / "b", "b", tasks=lines(TASK), status="partial")
    first, second = document(tmp_path, tmp_path / "out")["runs"]
    assert first["facts"] == json.loads((tmp_path / "runs" / "a" / "run.json").read_text())
    assert (first["tables"], second["tables"]) == (["table-1"], [])
    assert (first["status"], second["status"]) == ("complete", "partial")


def test_another_measure_can_be_the_budget(tmp_path):
    """Half the layers on twice the tokens: equal token-layers, another number of frames."""
    made["write_run"](tmp_path / "runs" / "base", tasks=lines(TASK))
    wide = {"frame_policy": {"rule": "uniform", "num_frames": 16, "fps": None}}
    tasks = lines(TASK, tokens=72, layers=0.5)
    made["write_run"](tmp_path / "runs" / "exit", "temporal_exit", tasks=tasks, **wide)
    found = document(tmp_path, tmp_path / "out", match_on="token_layers")
    (table,) = found["tables"]
    assert [row["method"] for row in table["rows"]] == ["baseline", "temporal_exit"]
    assert (table["match_on"], table["budget"]) == ("token_layers", 36)
    assert found["methodology"]["match_on"] == "token_layers"
    assert [point["budget"] for point in found["plots"][0]["points"]] == [36, 36]
    (item,) = document(tmp_path, tmp_path / "other")["not_comparable"]
    assert item["field"] == "frame_policy"


def test_an_unknown_measure_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'kv_bytes'"):
        build([tmp_path / "nothing"], tmp_path / "out", match_on="kv_byte")
