"""`run_bench` at tiny sizes on the real wrappers; its checks catch what must not be compared."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from tempeval.bench import cells, checkpoint, command, inputs, turns
from tempeval.bench.check import Seen, check_same_input
from tempeval.bench.command import run_bench
from tempeval.bench.machine import OtherWork
from tempeval.bench.options import BenchOptions, frame_size, settings_of
from tempeval.bench.results import STAGED_CHAINS
from tempeval.bench.sides import MAX_PIXELS, MIN_PIXELS, BenchMismatch, Sides
from tempeval.errors import UnknownName, UnsupportedModel

QUICK = {"quick": True, "tokens": (36,), "questions": (1, 3), "labels": (5, 9), "threads": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def tiny(folder):
    return str(checkpoint.save_random(folder, checkpoint.TINY))


@pytest.fixture(scope="module")
def sides(tiny):
    return Sides(tiny, settings_of(BenchOptions(**QUICK), 1))


@pytest.fixture(scope="module")
def video(folder):
    return str(inputs.write_clip(folder / "clip.mp4", 8, frame_size(36, 8), seed=0))


def test_quick_bench_writes_page_and_numbers_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "VIDEOS_OF_ONE_QUESTION", 1)
    lines = []
    options = BenchOptions(out=tmp_path, pairs=2, **QUICK)
    threads = torch.get_num_threads()
    report = run_bench(options, lines.append)
    assert torch.get_num_threads() == threads
    assert report.complete
    data = json.loads(report.json.read_text())
    counts = {name: len(cell["rounds"]) for name, cell in data["cells"].items()}
    assert counts == {
        "questions/1@36": 2,
        "questions/3@36": 2,
        "labels/5@36": 2,
        "labels/9@36": 2,
        "prefill@36": 16,
        "staged@64": 2,
    }
    assert data["cells"]["staged@64"]["facts"]["layers"] == 28
    operator = data["cells"]["prefill@36"]["facts"]["operator"]
    assert (operator["chain"], operator["layers"]) == ("pas", 27), "the last layer is not attended"
    prefills = [r["seconds"]["pas"] for r in data["cells"]["prefill@36"]["rounds"]]
    assert 0 < operator["seconds"] < min(prefills)
    facts = data["cells"]["questions/3@36"]["facts"]
    assert (facts["visual_tokens"], facts["frames"], facts["questions"]) == (36, 8, 3)
    measured = data["cells"]["questions/3@36"]["rounds"][0]
    assert set(measured["stages_ms"]) == {"decode", "encode", "prefill", "answer"}
    assert all(value > 0 for value in measured["stages_ms"].values())
    assert measured["same_answers"] == 1.0
    page = report.markdown.read_text()
    assert report.text in page
    shown = ("Questions", "Choices", "Prefill", "temporal_exit", "Staged", "Quick run")
    for part in (*shown, "The query shift of pas alone"):
        assert part in page

    lines.clear()
    again = run_bench(options, lines.append)
    assert lines[-1] == "every round is there already"
    assert json.loads(again.json.read_text())["cells"] == data["cells"]


def test_the_operator_that_is_timed_is_the_one_that_prefill_calls(tmp_path, video, monkeypatch):
    """Same calls, shapes, strides and scales, layer by layer."""
    deep = str(checkpoint.save_random(tmp_path, checkpoint.TINY_DEEP))
    family = command._load(deep, settings_of(BenchOptions(**QUICK), 1))
    cell = cells.MethodsCell(family, video, ("baseline", "pas"), 36, 8)
    cell.prepare()
    real = cells.shift_queries
    calls = {"prefill": [], "alone": []}

    def recorded(where):
        def shift(query, rotary, scale):
            calls[where].append((query.shape, query.stride(), query.dtype, scale.tolist()))
            return real(query, rotary, scale)

        return shift

    monkeypatch.setattr("tempeval.engine.attach.shift_queries", recorded("prefill"))
    cell._prefill("pas")
    monkeypatch.setattr(cells, "shift_queries", recorded("alone"))
    cell._operator()
    assert len(calls["prefill"]) == 27
    assert len(calls["alone"]) == 27 * (cells.REPETITIONS + 1)  # one to warm up
    assert calls["alone"][:27] == calls["prefill"]


def test_sections_are_measured_apart_and_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "VIDEOS_OF_ONE_QUESTION", 1)
    options = BenchOptions(out=tmp_path, pairs=2, sections=("staged",), staged=(64, 128), **QUICK)
    report = run_bench(options, lambda _line: None)
    data = json.loads(report.json.read_text())
    assert {name: len(cell["rounds"]) for name, cell in data["cells"].items()} == {
        "staged@64": 2,
        "staged@128": 2,
    }
    measured = data["cells"]["staged@128"]["rounds"][0]
    assert set(measured["seconds"]) == set(measured["question_seconds"]) == set(STAGED_CHAINS)
    assert all(
        0 < measured["question_seconds"][chain] < measured["seconds"][chain]
        for chain in STAGED_CHAINS
    )
    assert "strategies=1/3" in report.text
    assert "Prefill of the methods" not in report.text
    more = replace(options, sections=("methods",), staged=())
    report = run_bench(more, lambda _line: None)
    assert set(json.loads(report.json.read_text())["cells"]) == {
        "staged@64",
        "staged@128",
        "prefill@36",
    }
    assert "Prefill of the methods" in report.text
    assert "strategies=1/3" in report.text
    with pytest.raises(UnknownName, match="did you mean 'staged'"):
        run_bench(replace(options, sections=("stagd",)), lambda _line: None)


def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch):
    done = []
    measure = cells.MethodsCell.measure

    def interrupted(self, number):
        if done:
            raise KeyboardInterrupt
        done.append(number)
        return measure(self, number)

    monkeypatch.setattr(cells.MethodsCell, "measure", interrupted)
    monkeypatch.setattr(command, "VIDEOS_OF_ONE_QUESTION", 1)
    lines = []
    sections = ("labels", "methods")
    report = run_bench(
        BenchOptions(out=tmp_path, pairs=2, sections=sections, **QUICK), lines.append
    )
    assert not report.complete
    assert "interrupted; what was measured is kept" in lines
    data = json.loads(report.json.read_text())
    assert len(data["cells"]["labels/5@36"]["rounds"]) == 2
    assert len(data["cells"]["prefill@36"]["rounds"]) == 1
    assert "Choices" in report.text
    assert "Prefill" not in report.text


def test_stock_uses_the_very_model_and_both_get_the_same(sides, video):
    assert sides.stock.model is sides.family.model
    facts = check_same_input(sides, video, "Is the red square moving? Please answer yes or no:")
    assert facts["visual_tokens"] == 36
    assert facts["same_first_answer"]
    assert not sides.family.model.model.visual._forward_pre_hooks
    assert "generate" not in vars(sides.family.model)
    assert sides.family.model.generation_config.min_new_tokens is None


def test_other_frames_are_not_compared(sides, video, monkeypatch):
    monkeypatch.setattr(sides.stock, "max_num_frames", 6)
    with pytest.raises(BenchMismatch, match="grids"):
        check_same_input(sides, video, "up?")


def test_other_pixels_are_not_compared(sides, video, folder, monkeypatch):
    other = str(inputs.write_clip(folder / "other.mp4", 8, frame_size(36, 8), seed=1))
    ask = sides.ask_ours
    monkeypatch.setattr(sides, "ask_ours", lambda _videos, texts: ask([other], texts))
    with pytest.raises(BenchMismatch, match="pixels"):
        check_same_input(sides, video, "up?")


def test_other_prompts_are_not_compared(sides, video, monkeypatch):
    ask = sides.ask_ours
    monkeypatch.setattr(sides, "ask_ours", lambda videos, _texts: ask(videos, ["down?"]))
    with pytest.raises(BenchMismatch, match="prompt"):
        check_same_input(sides, video, "up?")


def test_recording_ends_also_after_an_error(sides):
    with pytest.raises(ZeroDivisionError), Seen(sides.family.model):
        _ = 1 / 0
    assert not sides.family.model.model.visual._forward_pre_hooks
    assert "generate" not in vars(sides.family.model)


def test_labels_that_score_otherwise_are_not_compared(sides, video, monkeypatch):
    cell = cells.LabelsCell(sides.family, video, "up?", inputs.labels(5), 36, 8, "float32")
    assert cell.prepare()["visual_tokens"] == 36
    forward = cell._forward
    monkeypatch.setattr(cell, "_forward", lambda n: (1.0, forward(n)[1] + 0.1))
    with pytest.raises(BenchMismatch, match="label 0"):
        cell.prepare()


def test_sides_run_in_every_order(monkeypatch):
    monkeypatch.setattr(turns.gc, "collect", lambda: 0)
    order = []
    sides = {name: lambda name=name: (1.0, order.append(name)) for name in "abc"}
    for number in range(6):
        turns.by_turns(number, sides)
    assert "".join(order) == "abc" + "cba" + "bca" + "acb" + "cab" + "bac"
    pairs = [turns.order_of(number, ["stock", "ours"])[0] for number in range(4)]
    assert pairs == ["stock", "ours", "ours", "stock"]


def test_another_model_is_refused(tiny_qwen2_vl_folder):
    with pytest.raises(UnsupportedModel, match=r"no Qwen2\.5-VL"):
        Sides(str(tiny_qwen2_vl_folder), settings_of(BenchOptions(**QUICK), 1))


def test_other_work_does_not_count_this_process():
    others = OtherWork()
    sum(range(3_000_000))
    used = others.cores()
    assert used is None or used >= 0


def test_default_shapes_have_50_to_100_million_parameters():
    import transformers

    for shape in (checkpoint.HALF_DEPTH, checkpoint.FULL_DEPTH):
        config = checkpoint._config(shape, checkpoint._tokenizer(shape.vocabulary))
        with torch.device("meta"):
            model = transformers.Qwen2_5_VLForConditionalGeneration(config)
        model.tie_weights()
        assert 50e6 < model.num_parameters() < 100e6
    assert MIN_PIXELS < MAX_PIXELS
