"""Published numbers: the files that ship, against facts copied by hand, and bad files."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tempeval.leaderboard import build
from tempeval.leaderboard.references import (
    SOURCES,
    TASKS,
    BadReference,
    load_references,
    parse_references,
    references_for,
    task_of,
)

made = runpy.run_path(str(Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"))
GOOD = """
paper: {title: A paper, arxiv: "0000.00000", venue: null}
tables:
  - table: Table 1
    source: text
    model: A model
    frames: 8
    note: of the table
    columns:
      - {benchmark: MVBench, metric: accuracy, tasks: [tempeval_mvbench]}
      - {benchmark: Other, metric: score, unit: score, split: val}
    rows:
      - {method: one, values: [50, null]}
      - {method: two, frames: 16, note: of the row, values: [51.5, 0.25]}
"""


def value(file, table, method, benchmark, metric, **more):
    """The one number that fits."""
    wanted = {"file": file, "table": table, "method": method}
    wanted |= {"benchmark": benchmark, "metric": metric, **more}
    (found,) = [
        r for r in load_references() if all(getattr(r, key) == v for key, v in wanted.items())
    ]
    return found


def test_all_numbers_are_there():
    """Counted by hand in the notes on the papers, cell by cell."""
    found = Counter(reference.file for reference in load_references())
    assert found == {"pas": 36, "pave": 175, "intp": 35, "vrope": 143, "causality_matters": 28}


def test_every_number_says_where_it_is_from():
    papers = {
        "pas": {"2511.10979"},
        "pave": {"2503.19794", "2606.00508"},
        "intp": {"2409.12963"},
        "vrope": {"2502.11664"},
        "causality_matters": {"2508.11576"},
    }
    for reference in load_references():
        assert reference.source in SOURCES
        assert reference.arxiv in papers[reference.file]
        assert reference.table
        assert set(reference.tasks) <= set(TASKS)
    sources = Counter((r.file, r.source) for r in load_references())
    assert sources == {
        ("pas", "3P"): 36,
        ("pave", "code"): 43,
        ("pave", "paper2"): 132,
        ("intp", "3P"): 27,
        ("intp", "calc"): 8,
        ("vrope", "text"): 143,
        ("causality_matters", "text"): 26,
        ("causality_matters", "3P"): 2,
    }


@pytest.mark.parametrize(
    ("file", "table", "method", "benchmark", "metric", "more", "expected"),
    [
        ("pas", "Table 1", "PAS", "20BN-Jester", "accuracy", {}, 18.3),
        ("pas", "Table 1", "PAS", "Something-Something V2", "accuracy", {}, 16.3),
        ("pas", "Table 1", "PAS", "Kinetics-700", "accuracy", {}, 48.2),
        ("pas", "Table 1", "PAS", "MMBench-Video", "mean score from 0 to 3", {}, 1.78),
        ("pas", "Table 1", "default backbone", "EgoSchema", "accuracy", {}, 63.5),
        ("pas", "Table 1", "TS-LLaVA", "EgoSchema", "accuracy", {}, 65.8),
        ("pas", "Table 1", "SlowFast-LLaVA + PAS", "TempCompass", "overall", {}, 73.9),
        ("pas", "Table 1", "TS-LLaVA + PAS", "20BN-Jester", "accuracy", {}, 19.3),
        (
            *("pave", "README, 3D-QA", "PAVE", "ScanQA", "CIDEr"),
            {"model": "LLaVA-OneVision-7B", "frames": 32, "split": "val", "source": "code"},
            103.4,
        ),
        (
            *("pave", "README, 3D-QA", "PAVE", "SQA3D", "EM@1 refined"),
            {"model": "LLaVA-OneVision-7B", "split": "test"},
            61.4,
        ),
        (
            *("pave", "V-LynX, 3D-QA", "fine-tuned (LoRA, video only)", "ScanQA", "EM@1 refined"),
            {"model": "LLaVA-OneVision-0.5B", "source": "paper2"},
            36.3,
        ),
        (
            *("pave", "README, audio-visual", "PAVE", "MUSIC-AVQA", "accuracy (audio-visual)"),
            {"model": "LLaVA-OneVision-7B"},
            78.0,
        ),
        ("pave", "V-LynX, audio-visual", "CAT-7B (fine-tuned)", "AVQA", "accuracy", {}, 92.0),
        (
            *("pave", "README, audio-visual", "PAVE", "AVSD", "CIDEr"),
            {"model": "LLaVA-OneVision-0.5B", "source": "code"},
            134.5,
        ),
        (
            *("pave", "README, audio-visual", "PAVE", "AVQA", "accuracy"),
            {"model": "LLaVA-OneVision-7B", "source": "code"},
            93.8,
        ),
        (
            *("pave", "README, 3D-QA", "PAVE", "SQA3D", "EM@1"),
            {"model": "LLaVA-OneVision-0.5B", "source": "code"},
            51.1,
        ),
        (
            *("pave", "README, enhancing video QA", "PAVE", "MLVU", "accuracy"),
            {"model": "LLaVA-OneVision-7B", "source": "code"},
            67.0,
        ),
        ("pave", "V-LynX, 3D-QA", "LEO-7B", "SQA3D", "EM@1", {"frames": None}, 50.0),
        ("pave", "V-LynX, 3D-QA", "VideoChat2", "ScanQA", "METEOR", {"arxiv": "2606.00508"}, 9.5),
        (
            *("pave", "README, enhancing video QA", "PAVE", "Video-MME"),
            *("accuracy without subtitles", {"model": "LLaVA-OneVision-7B"}, 59.9),
        ),
        (
            *("pave", "README, multi-view video understanding", "PAVE", "Ego-Exo4D DPE"),
            *("accuracy", {"model": "LLaVA-OneVision-7B", "source": "code"}),
            44.2,
        ),
        ("intp", "Table 2", "INTP", "MSVD-QA", "accuracy (judged)", {"frames": 32}, 72.0),
        ("intp", "Table 4", "INTP", "ActivityNet-QA", "accuracy (judged)", {"frames": 8}, 55.3),
        ("intp", "Table 4", "INTP", "MSRVTT-QA", "accuracy (judged)", {"frames": 64}, 55.2),
        ("intp", "Table 3", "INTP", "NExT-QA", "gain in temporal accuracy over 8 frames", {}, 4.4),
        ("intp", "Table 1", "INT2", "memory", "total memory", {"unit": "GB"}, 13.5),
        (
            *("vrope", "Table 2", "VRoPE", "TempCompass", "accuracy (multi-choice)"),
            {"model": "Video-Qwen2-7B", "frames": 16, "tasks": ("tempeval_tempcompass",)},
            65.88,
        ),
        ("vrope", "Table 9", "RoPE-3D", "EgoSchema", "accuracy", {"frames": 32}, 56.03),
        ("vrope", "Table 3", "RoPE-Compact", "EgoSchema", "accuracy", {}, 50.77),
        ("vrope", "Table 4", "VRoPE", "V-NIAH", "accuracy at 1024 to 1216 frames", {}, 87.03),
        ("vrope", "Table 5", "VRoPE, symmetric only", "LongVideoBench", "accuracy", {}, 47.27),
        (
            *("vrope", "Table 6", "VRoPE", "EventBench", "accuracy"),
            {"model": "Video-Vicuna-7B"},
            40.38,
        ),
        ("vrope", "Table 8", "RoPE-3D", "Video-MME", "accuracy without subtitles", {}, 37.2),
        (
            "vrope",
            "Table 1",
            "RoPE-3D",
            "attention",
            "attention mass from text to video",
            {},
            5.12e-5,
        ),
        (
            *("causality_matters", "Table 2", "baseline", "NExT-QA", "accuracy"),
            {"split": "test", "frames": 8, "tasks": ("tempeval_nextqa_mc",)},
            75.1,
        ),
        (
            *("causality_matters", "Table 2", "strategy (1)", "TempCompass"),
            *("accuracy (yes/no)", {"model": "Qwen2.5-VL-7B"}, 67.9),
        ),
        (
            *("causality_matters", "Table 2", "strategy (3)", "TempCompass"),
            *("accuracy (caption matching)", {}, 57.2),
        ),
        (
            *("causality_matters", "appendix", "strategy (3)", "ActivityNet-QA"),
            *("accuracy (judged)", {"source": "3P"}, 42.7),
        ),
        (
            *("causality_matters", "probes", "reverse order", "TempCompass"),
            *("change of P_C (multi-choice)", {"tasks": ()}, -15.45),
        ),
    ],
)
def test_numbers_are_the_published_ones(file, table, method, benchmark, metric, more, expected):
    assert value(file, table, method, benchmark, metric, **more).value == expected


def test_what_is_no_score_never_stands_beside_scores():
    """Changes of the right answer's probability are listed for no task."""
    listed = references_for(TASKS)
    assert not [r for r in listed if "change" in r.metric or "P_C" in r.metric]
    probes = [r for r in load_references() if r.table.startswith("probes")]
    assert len(probes) == 6
    assert all("P_C" in r.metric and "probability" in r.unit for r in probes)


def test_printed_means_are_the_means_of_their_rows():
    """VRoPE prints the mean of each row: a slip of the pen in any cell would show."""
    rows = {}
    for r in load_references():
        if r.file == "vrope" and r.table in {"Table 2", "Table 3", "Table 9"}:
            rows.setdefault((r.table, r.model, r.method), []).append(r)
    assert len(rows) == 9 + 6 + 3
    for (table, _, _), numbers in rows.items():
        *scores, mean = [number.value for number in numbers]
        assert len(scores) == (3 if table == "Table 3" else 6)
        assert sum(scores) / len(scores) == pytest.approx(mean, abs=0.0051)


def test_numbers_of_a_task():
    found = references_for(["tempeval_nextqa_mc"])
    assert {(r.file, r.benchmark) for r in found} == {
        ("causality_matters", "NExT-QA"),
        ("intp", "NExT-QA"),
    }
    # A part of a task stands for it, and a task whose name starts alike does not.
    assert references_for(["tempeval_mvbench_state_change"]) == references_for(["tempeval_mvbench"])
    subset = references_for(["tempeval_egoschema_subset"])
    assert {r.file for r in subset} == {"pas", "intp"}
    assert {r.file for r in references_for(["tempeval_egoschema"])} == {"pas", "intp", "vrope"}
    assert references_for(["tempeval_mini", "mvbench"]) == ()
    assert references_for() == ()


def test_numbers_of_a_benchmark():
    found = references_for(benchmarks=["mlvu"])
    assert {r.file for r in found} == {"pave", "vrope"}
    # Both ways to ask: no number twice, in the order of the files.
    both = references_for(["tempeval_mvbench"], ["MVBench"])
    assert both == references_for(["tempeval_mvbench"])
    assert [r for r in load_references() if r in both] == list(both)


def test_task_of():
    assert task_of("tempeval_egoschema_subset") == "tempeval_egoschema_subset"
    assert task_of("tempeval_tempcompass_yes_no") == "tempeval_tempcompass"
    assert task_of("tempeval_jester_list") == "tempeval_jester_list"
    assert task_of("tempeval_avqax") is None


def test_a_file_is_read_as_printed():
    one, two, score = parse_references("paper.yaml", GOOD)
    assert (one.file, one.method, one.value, one.unit) == ("paper", "one", 50.0, "percent")
    assert (one.model, one.frames, one.note) == ("A model", 8, "of the table")
    assert (two.frames, two.note) == (16, "of the table; of the row")
    assert (score.benchmark, score.split, score.unit) == ("Other", "val", "score")
    assert score.tasks == ()
    assert two.tasks == ("tempeval_mvbench",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[50, null]", "[50]", r"table 1 \(Table 1\), row 1: 1 values for 2 columns"),
        ("[50, null]", "[null, null]", "row 1: no value"),
        ("[50, null]", "['50', null]", "row 1: value '50' is not a finite number"),
        ("[50, null]", "[.nan, null]", "row 1: value nan is not a finite number"),
        ("[50, null]", "[true, null]", "row 1: value True is not a finite number"),
        ("source: text", "source: rumour", "source 'rumour' is none of code, text"),
        ("source: text", "origin: text", "table 1: key 'source' is missing"),
        ("frames: 8", "frames: many", r"frames is 'many' \(str\), not int or null"),
        ("frames: 8", "frame: 8", "key 'frame' is none of"),
        ("tempeval_mvbench", "tempeval_mvbnch", "column 1: task 'tempeval_mvbnch' is none of"),
        ('arxiv: "0000.00000"', "arxiv: 0000.1", r"paper: arxiv is 0.1 \(float\), not str or null"),
        ("method: two, frames: 16", "method: one", "two values for 'one', MVBench, accuracy"),
        ("tables:", "tables: 3\nrest:", "tables is 3"),
        ("[50, null]", "[50, null", "line .*: not YAML that may be loaded"),
        ("[50, null]", "!!python/name:os.system", "not YAML that may be loaded"),
    ],
)
def test_a_bad_file_is_named_with_the_place(old, new, message):
    assert old in GOOD
    with pytest.raises(BadReference, match=message) as caught:
        parse_references("paper.yaml", GOOD.replace(old, new, 1))
    assert str(caught.value).startswith("paper.yaml: ")


def test_an_empty_file_is_named():
    with pytest.raises(BadReference, match=r"empty.yaml: NoneType, not a mapping"):
        parse_references("empty.yaml", "")


def test_reading_needs_neither_torch_nor_lmms_eval():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['lmms_eval'] = None\n"
        "from tempeval.leaderboard import references, stats\n"
        "assert len(references.load_references()) > 400"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_leaderboard_shows_those_of_its_tasks_and_ranks_none(tmp_path):
    task = "tempeval_nextqa_mc"
    for name, method in (("a", "baseline"), ("b", "pas")):
        made["write_run"](
            tmp_path / "runs" / name, method, tasks={task: made["sample_lines"](task, videos=40)}
        )
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=200)
    document = json.loads(summary.json.read_text("utf-8"))
    expected = references_for([task])
    assert [row["value"] for row in document["references"]] == [r.value for r in expected]
    assert all(row["source"] and row["table"] for row in document["references"])
    assert {row["method"] for row in document["tables"][0]["rows"]} == {"baseline", "pas"}
    text = summary.markdown.read_text("utf-8")
    assert "Causality Matters" in text
    assert "75.1" in text
    assert "https://arxiv.org/abs/2508.11576" in (tmp_path / "out" / "index.html").read_text(
        "utf-8"
    )
