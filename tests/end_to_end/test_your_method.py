"""The method of docs/your_method.md, in a folder outside the repository, as the page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tempeval.cli import main
from tempeval.methods import registry

PAGE = Path(__file__).resolve().parents[2] / "docs" / "your_method.md"
RUN = ("run", "--tasks", "tempeval_mini_order", "--limit", "2", "--num-frames", "4", "-o", "out")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    place = tmp_path_factory.mktemp("mine")
    (place / "frame_gap.py").write_text(code[1], encoding="utf-8")
    return place


@pytest.fixture
def call(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(registry, "_REFERRED", {})

    def called(*arguments):
        with pytest.raises(SystemExit) as done:
            main(arguments)
        found = capsys.readouterr()
        return int(done.value.code or 0), found.out, found.err

    return called


def test_it_is_listed_with_its_settings(call):
    code, out, _ = call("list", "methods", "frame_gap.py:FrameGap")
    assert code == 0
    lines = [re.sub(r"  +", "|", line) for line in out.splitlines()]
    assert "gap|float|1|positions between one temporal grid and the next." in lines
    assert "stages|positions" in lines
    assert "what it does|Leave a gap of positions between frames" in lines


def test_it_is_proven(call):
    code, out, _ = call("verify", "frame_gap.py:FrameGap", "--family", "qwen2_vl")
    assert code == 0, out
    assert "FAILED" not in out
    assert re.search(r"frame_gap\[gap=0.0\] +identity +0.0e\+00", out)


def test_it_runs_is_reused_and_is_made_again_once_changed(call, folder):
    method = "frame_gap.py:FrameGap[gap=2]"
    code, out, err = call(*RUN, "--methods", method)
    assert code == 0, err
    (path,) = (folder / "out").rglob("run.json")
    text = path.read_text(encoding="utf-8")
    record = json.loads(text)
    assert record["method"] == "frame_gap"
    assert record["request"]["method"] == "frame_gap[gap=2.0]"
    assert "frame_gap.py" not in json.dumps([record["request"], record["method_label"]])
    (folder / "moved").mkdir()
    moved = (folder / "frame_gap.py").rename(folder / "moved" / "other.py")
    code, out, err = call(*RUN, "--methods", "moved/other.py:FrameGap[gap=2]")
    assert (code, "complete already, reused" in out) == (0, True), err
    source = moved.read_text(encoding="utf-8")
    moved.write_text(source.replace("+ self.gap * frame", "+ 2 * self.gap * frame"))
    code, out, err = call(*RUN, "--methods", "moved/other.py:FrameGap[gap=2]")
    assert code == 0, err
    assert "made again from the journal: code (methods) changed" in out
    (path,) = (folder / "out").rglob("run.json")
    assert json.loads(path.read_text(encoding="utf-8"))["code"] != record["code"]


def test_a_broken_one_is_said_before_weights_are_loaded(call, folder, monkeypatch):
    from tempeval.run import runner

    monkeypatch.setattr(runner, "load_model", lambda _options: pytest.fail("weights were loaded"))
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    code, _, err = call(*RUN, "--methods", "baseline,broken.py:Mine")
    assert code == 2
    assert "cannot use method 'broken.py:Mine': it cannot be imported" in err
    assert "nothing_of_this_name" in err
