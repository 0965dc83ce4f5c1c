"""Folders of the machine that ran do not reach a leaderboard."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tempeval.leaderboard import build
from tempeval.leaderboard.paths import without_folders

MAKER = Path(__file__).parents[1] / "reference" / "leaderboard" / "make_runs.py"
made = runpy.run_path(str(MAKER))
TASK = "tempeval_mini_action"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/alice/llava-ov", "llava-ov"),
        ("/home/alice smith/my model/", "my model"),
        ("~/models/x", "x"),
        ("~alice/x", "x"),
        ("../secret/x.jsonl", "x.jsonl"),
        (r"C:\Users\alice\x", "x"),
        (r"\\server\share\x", "x"),
        ("file:///home/alice/x", "x"),
        ("/", "/"),
        ("pretrained=/home/alice/x,dtype=auto", "pretrained=x,dtype=auto"),
        (
            "OSError: '/home/alice/a.mp4' and (/data/b.mp4): none.",
            "OSError: 'a.mp4' and (b.mp4): none.",
        ),
        ("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-7B-Instruct"),
        ("https://host/a/b and a/b, 1/2", "https://host/a/b and a/b, 1/2"),
        ("mini:vrope", "mini:vrope"),
        ("<b>on</b> 3 /s and /h", "<b>on</b> 3 /s and /h"),
    ],
)
def test_a_path_keeps_its_last_part(text, short):
    assert without_folders(text) == short
    assert without_folders({"a": [text, 3, None]}) == {"a": [short, 3, None]}


def test_a_command_keeps_its_options():
    line = (
        "/home/alice/.venv/bin/tempeval run --pretrained '/home/alice smith/m' --tasks a,b "
        "--features audio=/data/alice/f,video=/data/g -o ~/out --model Qwen/Qwen2-VL"
    )
    assert without_folders({"command": line}) == {
        "command": "tempeval run --pretrained m --tasks a,b --features audio=f,video=g -o out "
        "--model Qwen/Qwen2-VL"
    }
    assert without_folders({"command": "it's /home/alice/x"}) == {"command": "it's x"}


def test_no_file_of_a_leaderboard_names_a_home_folder(tmp_path):
    home = "/home/alice/secret"
    tasks = {TASK: made["sample_lines"](TASK, videos=4)}
    changes = {
        "model": f"{home}/llava-ov",
        "command": f"{home}/bin/tempeval run --pretrained {home}/llava-ov",
        "request": {"pretrained": f"{home}/llava-ov", f"{home}/data": 1},
    }
    for name in ("baseline", "pas"):
        settings = {
            "method_settings": {"adapter": f"{home}/x.zip"},
            "method_label": f"{name}[adapter={home}/x.zip;a=1]",
        }
        made["write_run"](tmp_path / "runs" / name, name, tasks=tasks, **changes, **settings)
    error = f"RuntimeError: cannot open {home}/clip.mp4"
    failed = changes | {"status": "failed", "error": error}
    made["write_run"](tmp_path / "runs" / "bad", "vrope", tasks=tasks, **failed)
    summary = build([tmp_path / "runs"], tmp_path / "out", draws=200)
    for path in summary.files:
        assert b"alice" not in path.read_bytes(), path.name
    assert "alice" not in summary.text
    document = json.loads(summary.json.read_text(encoding="utf-8"))
    (table,) = document["tables"]
    assert table["model"] == table["setting"]["model"] == "llava-ov"
    assert table["rows"][1]["label"] == "pas[adapter=x.zip;a=1]"
    assert {run["model"] for run in document["runs"]} == {"llava-ov"}
    assert document["runs"][0]["facts"]["command"] == "tempeval run --pretrained llava-ov"
    assert "cannot open clip.mp4" in document["not_comparable"][0]["reason"]


def test_a_mini_checkpoint_is_known_by_its_folder_all_the_same(tmp_path):
    tasks = {TASK: made["sample_lines"](TASK, videos=4)}
    made["write_run"](tmp_path / "runs", tasks=tasks, model="/x/mini/checkpoints/qwen")
    (table,) = build([tmp_path / "runs"], tmp_path / "out", draws=200).document["tables"]
    assert (table["model"], table["is_mini"]) == ("qwen", True)
