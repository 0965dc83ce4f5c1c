"""Settings, checkpoints and folders that cannot work: one named error, the right exit code."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from video_files import write_video
from video_task import TASK, record_of, show_tasks, write_task

from tempeval.cli import main
from tempeval.engine.journal import Journal
from tempeval.errors import InfeasibleBudget, InvalidSetting, UnsupportedModel
from tempeval.model_wrappers.chain import Tempeval

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

USAGE_ERROR, RUN_FAILED = 2, 1


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("task")
    return write_task(root / "tasks", [write_video(root / "clip.mp4", range(30))])


@pytest.fixture(autouse=True)
def shown(tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_tasks(tasks, monkeypatch)


@pytest.fixture
def refused(
    tmp_path: Path, tiny_qwen2_5_vl_folder: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """`tempeval run` with the given options; returns the one line of its error."""

    def run(*options: object, code: int = USAGE_ERROR, **instead: object) -> str:
        values = {"--pretrained": tiny_qwen2_5_vl_folder, "-o": tmp_path / "out"}
        values |= {f"--{name}" if len(name) > 1 else "-o": v for name, v in instead.items()}
        pairs = [part for pair in values.items() for part in pair]
        arguments = ["run", "--methods", "baseline", "--tasks", TASK, *pairs, *options]
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        err = capfd.readouterr().err
        assert caught.value.code == code, err
        (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
        assert "Traceback" not in err
        return line

    return run


@pytest.fixture
def checkpoint(tiny_qwen2_5_vl_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be damaged."""
    return shutil.copytree(tiny_qwen2_5_vl_folder, tmp_path / "checkpoint")


def without(*names: str) -> Callable[[Path], None]:
    """Remove files of a checkpoint."""

    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return damage


def _lose_a_shard(folder: Path) -> None:
    first, second = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))
    (folder / "model.safetensors").rename(folder / first)
    index = {"metadata": {}, "weight_map": {"lm_head.weight": first, "model.norm.weight": second}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _cut_the_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _lose_a_parameter(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    lost = next(name for name in weights if name.endswith("layers.1.mlp.up_proj.weight"))
    del weights[lost]
    save_file(weights, path, {"format": "pt"})


def _change_config(**changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unsupported family": (
        _change_config(model_type="llama"),
        r"has model_type 'llama', which no family loads\. Supported: .*qwen2_5_vl",
    ),
    "no config": (without("config.json"), r"has no config\.json"),
    "config is no JSON": (
        lambda folder: (folder / "config.json").write_text("{"),
        r"config\.json is not valid JSON",
    ),
    "no tokenizer": (without("tokenizer.json", "vocab.json"), r"has no tokenizer \(tokenizer"),
    "no preprocessor configuration": (
        without("preprocessor_config.json", "processor_config.json"),
        r"has no processor configuration \(preprocessor_config\.json",
    ),
    "no chat template": (without("chat_template.jinja"), "has no chat template"),
    "no weights": (without("model.safetensors"), r"lacks model\.safetensors"),
    "no second shard": (_lose_a_shard, r"lacks model-00002-of-00002\.safetensors"),
    "weights cut": (_cut_the_weights, "cannot load "),
    "a parameter missing": (
        _lose_a_parameter,
        r"has no weights.* for 1 parameters, such as .*layers\.1\.mlp\.up_proj\.weight",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_checkpoint_that_cannot_be_loaded_is_refused_by_name(
    refused: Callable[..., str], checkpoint: Path, what: str
) -> None:
    damage, reason = DAMAGED[what]
    damage(checkpoint)
    error = refused(pretrained=checkpoint)
    assert str(checkpoint) in error
    assert re.search(reason, error)
    assert not list(checkpoint.parent.rglob("run.json")), "a run that never began has no record"


def test_the_models_of_lmms_eval_refuse_the_same(checkpoint: Path) -> None:
    _change_config(model_type="llama")(checkpoint)
    with pytest.raises(UnsupportedModel, match="no family loads"):
        Tempeval(pretrained=str(checkpoint))


def test_a_checkpoint_that_does_not_exist(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "is not a folder" in refused(pretrained=tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_no_frames(refused: Callable[..., str], tiny_qwen2_5_vl_folder: Path) -> None:
    error = refused("--num-frames", 0)
    assert "num_frames is 0; accepted: a whole number from 1" in error
    with pytest.raises(InvalidSetting, match="num_frames is 0; accepted: a whole number from 1"):
        Tempeval(pretrained=str(tiny_qwen2_5_vl_folder), num_frames=0)


def test_a_budget_below_one_token_per_frame(
    refused: Callable[..., str], tiny_qwen2_5_vl_folder: Path, tmp_path: Path
) -> None:
    """8 frames make 4 temporal grids, of which each needs a token; the nearest budget is named."""
    options = ("--num-frames", 8, "--budgets", 3)
    error = refused(*options, code=USAGE_ERROR)
    assert "visual_token_budget=3" in error
    assert re.search(r"Nearest feasible: 4\b", error)
    assert not list(tmp_path.rglob("run.json")), "a run that never began has no record"
    error = refused(*options[:2], "--budgets", "2,3", code=USAGE_ERROR)
    assert "visual_token_budget=2" in error
    assert "visual_token_budget=3" in error
    error = refused(*options[:2], "--budgets", "3,4", code=RUN_FAILED)
    record = record_of(tmp_path / "out" / "tokens3" / "baseline")
    assert record["status"] == "failed"
    assert record["error"] in error
    assert record_of(tmp_path / "out" / "tokens4" / "baseline")["status"] == "complete"
    model = {"pretrained": str(tiny_qwen2_5_vl_folder), "num_frames": 8}
    with pytest.raises(InfeasibleBudget, match="Nearest feasible: 4"):
        Tempeval(**model, visual_token_budget=3)


def test_an_unwritable_output_folder(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Below a regular file, and a file itself: root, as whom CI runs, ignores permissions."""
    monkeypatch.setattr("tempeval.run.runner.load_model", pytest.fail)
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        error = refused(o=out)
        assert f"cannot write to {out}: " in error
        assert "choose another -o" in error
    assert (tmp_path / "file").read_text() == "mine"


def test_an_unwritable_journal(refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "journal").write_text("mine")
    assert "cannot open the journal" in refused(code=RUN_FAILED)
    assert (tmp_path / "out" / "journal").read_text() == "mine"


def test_a_folder_in_which_another_run_is_at_work(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    with Journal(tmp_path / "out" / "journal"):
        error = refused(code=RUN_FAILED)
    assert "another process is writing the journal" in error
