"""A dry run says what a run would do, needs no weights, writes nothing, and refuses as it would."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tempeval.errors import TempevalError
from tempeval.mini.paths import located
from tempeval.run.dry_run import describe_run
from tempeval.run.spec import RunSpec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TASK = "tempeval_mini_direction"


@pytest.fixture
def said(tmp_path: Path) -> Callable[..., str]:
    def call(**options: Any) -> str:
        asked = {"tasks": TASK, "limit": 3, "out": tmp_path / "out", "methods": "baseline"}
        lines: list[str] = []
        describe_run(RunSpec.of({**asked, **options}), lines.append)
        assert not (tmp_path / "out").exists()
        return "\n".join(lines)

    return call


@pytest.fixture
def without_weights(tmp_path: Path) -> Callable[[str], str]:
    def make(name: str) -> str:
        folder = tmp_path / name
        shutil.copytree(located(f"mini:{name}"), folder)
        for path in folder.glob("*.safetensors"):
            path.unlink()
        return str(folder)

    return make


@pytest.mark.parametrize("name", ["qwen2_5_vl", "llava_onevision", "video_llava"])
def test_it_needs_no_weights(said: Any, without_weights: Any, name: str) -> None:
    text = said(pretrained=without_weights(name), methods="baseline,temporal_exit[layer=2]")
    assert f"{TASK}: 3 documents, 3 of 3 videos there" in text
    assert "8 frames (uniform)" in text
    assert "3 prefills for 3 questions" in text
    assert "first_layer=2" in text
    tokens, exits = (line for line in text.splitlines() if line.startswith("uniform/"))
    whole, left = (float(line.split("about ")[1].split()[0]) for line in (tokens, exits))
    assert 0 < left < whole


def test_a_budget_is_planned_and_one_that_no_run_can_meet_is_refused(said: Any) -> None:
    text = said(methods="baseline,slowfast", budgets="48")
    assert text.count("at most 48 visual tokens") == 2
    with pytest.raises(TempevalError, match="budget"):
        said(budgets="3", num_frames=8)


def test_a_method_that_is_refused_is_named_and_ends_all_if_it_is_all(said: Any) -> None:
    with pytest.raises(TempevalError, match="layer"):
        said(methods="temporal_exit[layer=99]")
    text = said(methods="baseline,temporal_exit[layer=99]")
    assert "would fail, " in text


def test_generation_arguments_that_nothing_reads_are_refused(said: Any) -> None:
    with pytest.raises(TempevalError, match="no task generates"):
        said(tasks=f"{TASK}_choice", gen_kwargs="max_new_tokens=9")


def test_a_place_that_cannot_be_written_is_refused(said: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TempevalError, match="choose another -o"):
        said(out=tmp_path / "file" / "out")
