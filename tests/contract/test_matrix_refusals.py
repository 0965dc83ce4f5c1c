"""What a model refuses costs its own row and no other, and frames are chosen chain by chain."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from video_task import TASK, record_of, show_tasks, write_task

from tempeval.accepted import load_accepting
from tempeval.errors import InfeasibleBudget, InvalidSetting, PromptTooLong, TempevalError
from tempeval.methods.registry import METHODS, MethodEntry
from tempeval.model_wrappers.baseline import TempevalBaseline
from tempeval.model_wrappers.chain import Tempeval
from tempeval.run.record import FramePolicy
from tempeval.run.runner import IncompleteRuns, load_model, run_matrix
from tempeval.run.spec import RunSpec
from tempeval.verification.tiny_video_llava import PER_FRAME, save_tiny_original

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def options(tmp_path: Path) -> Callable[..., RunSpec]:
    def make(**changes: Any) -> RunSpec:
        values = {"out": tmp_path / "out", "methods": ["baseline"], "tasks": [TASK]}
        return RunSpec(**{**values, "device": "cpu", **changes})

    return make


@pytest.fixture(scope="module")
def short_original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An original Video-LLaVA whose context takes 8 frames and not 16."""
    folder = tmp_path_factory.mktemp("short")
    return save_tiny_original(folder, max_position_embeddings=16 * PER_FRAME - 1)


def frame_folder(folder: Path) -> Path:
    folder.mkdir()
    for frame in range(16):
        picture = np.random.default_rng(frame).integers(0, 256, (56, 56, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{frame:02d}.png")
    return folder


def test_methods_run_where_the_baseline_does_not_fit(
    options: Any, short_original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = write_task(tmp_path / "tasks", [frame_folder(tmp_path / "v")], fps=4.0)
    show_tasks(tasks, monkeypatch)
    methods = ["baseline", "intp[kv_bits=16]", "rope_scale"]
    chosen = options(pretrained=str(short_original), num_frames=16, methods=methods)
    with pytest.raises(IncompleteRuns, match="16 frames make 272 visual tokens") as error:
        run_matrix(chosen, load=load_accepting)
    assert str(error.value).count("is failed") == 1
    records = [record_of(folder) for folder in (chosen.out / "uniform-16").iterdir()]
    by_method = {record["request"]["method"]: record for record in records}
    assert {name: r["status"] for name, r in by_method.items()} == {
        "baseline": "failed",
        "intp": "complete",
        "rope_scale": "complete",
    }
    assert "more than the context" in by_method["baseline"]["error"]


def test_a_method_that_misses_its_budget_is_no_complete_run(
    options: Any, tiny_qwen2_5_vl_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stops after the first clip and names both numbers; the baseline beside it goes on."""
    entry = MethodEntry("pool_tokens", "probes:PoolTokens", "pools", "none", ("tokens",), "none")
    monkeypatch.setitem(METHODS.own, entry.name, entry)
    folders = [frame_folder(tmp_path / name) for name in ("v", "w")]
    show_tasks(write_task(tmp_path / "tasks", folders, fps=4.0), monkeypatch)
    methods = ["baseline", "pool_tokens"]
    chosen = options(pretrained=str(tiny_qwen2_5_vl_folder), methods=methods, budgets=[48])
    with pytest.raises(IncompleteRuns, match="12 of the 48 visual tokens") as error:
        run_matrix(chosen, load=load_accepting)
    assert str(error.value).count("is failed") == 1
    baseline, pooled = (record_of(chosen.out / "tokens48" / name) for name in methods)
    assert baseline["status"] == "complete"
    assert (pooled["status"], pooled["tasks"]) == ("failed", {})
    assert "accepted: 48" in pooled["error"]
    lines = (chosen.out / "journal" / "rank0.jsonl").read_text().splitlines()
    batches = [json.loads(line[9:])["batch"] for line in lines]
    tokens = [one["usage"]["visual_tokens"] for batch in batches for one in batch.values()]
    assert tokens.count(12) == 1, "it stopped after the first clip"


def test_a_model_of_one_method_refuses_at_once(options: Any, short_original: Path) -> None:
    folder = str(short_original)
    with pytest.raises(PromptTooLong):
        TempevalBaseline(folder, num_frames=16, device="cpu")
    with pytest.raises(PromptTooLong):
        load_accepting(options(pretrained=folder, num_frames=16))


def test_a_budget_is_not_judged_by_the_chain_before(
    options: Any, tiny_qwen2_5_vl_folder: Path
) -> None:
    model = load_model(options(pretrained=str(tiny_qwen2_5_vl_folder)))
    model.set_budget(64)
    model.set_method("rearrange[frames_per_group=64]")
    model.set_budget(40)
    with pytest.raises(InfeasibleBudget, match="no multiple of 64 frames"):
        model.set_method("rearrange[frames_per_group=64]")
    model.set_method("baseline")
    assert model.chain.name == "baseline"


def test_a_budget_that_only_pooling_meets(options: Any, tiny_video_llava_folder: Path) -> None:
    folder = str(tiny_video_llava_folder)
    budget = 2 * PER_FRAME + 6  # two slow frames, and three fast ones of CLS and one cell
    model = load_accepting(options(pretrained=folder, methods=["slowfast"], budgets=[budget]))
    model.set_method("slowfast")
    with pytest.raises(InfeasibleBudget):
        model.set_method("baseline")
    one = Tempeval(folder, method="slowfast", visual_token_budget=budget, device="cpu")
    assert one.inference.resolve(one.chain).frames.sampling.num_frames == 3
    with pytest.raises(InfeasibleBudget):
        Tempeval(folder, method="baseline", visual_token_budget=budget, device="cpu")


@pytest.mark.parametrize(
    ("spec", "budget", "size"),
    [("rearrange", 40, 8), ("slowfast+rearrange[frames_per_group=4]", 64, 4)],
)
def test_free_frames_are_chosen_in_whole_groups(
    tiny_qwen2_5_vl_folder: Path, spec: str, budget: int, size: int
) -> None:
    folder = str(tiny_qwen2_5_vl_folder)
    model = Tempeval(folder, method=spec, visual_token_budget=budget, device="cpu")
    plan = model.inference.resolve(model.chain).frames
    assert plan.sampling.num_frames % size == 0
    assert plan.num_groups == plan.sampling.num_frames // size
    policy = model.run_facts().frame_policy
    assert policy.num_frames == plan.sampling.num_frames
    # Frames that are given stay as they are.
    with pytest.raises(TempevalError, match="num_frames=10"):
        Tempeval(folder, method=spec, num_frames=10, visual_token_budget=budget, device="cpu")


def test_frames_in_whole_groups_and_blocks(tiny_video_llava_original_folder: Path) -> None:
    folder, spec = str(tiny_video_llava_original_folder), "rearrange[frames_per_group=16]"
    model = Tempeval(folder, method=spec, visual_token_budget=32 * PER_FRAME, device="cpu")
    assert model.inference.resolve(model.chain).frames.num_groups == 2
    with pytest.raises(InfeasibleBudget, match=r"blocks of 16 .*Nearest feasible: 272"):
        Tempeval(folder, method=spec, visual_token_budget=8 * PER_FRAME, device="cpu")


def test_the_record_says_how_many_frames_the_chain_saw(
    options: Any, tiny_video_llava_folder: Path
) -> None:
    model = load_model(options(pretrained=str(tiny_video_llava_folder)))
    model.set_budget(8 * PER_FRAME)
    policies = {}
    for spec in ("baseline", "slowfast"):
        model.set_method(spec)
        policies[spec] = model.run_facts().frame_policy
    assert policies["baseline"] == FramePolicy(rule="uniform", num_frames=8, fps=None)
    frames = policies["slowfast"].num_frames
    assert frames > 8
    assert policies["slowfast"] == FramePolicy(
        rule="uniform", num_frames=frames, base_num_frames=8, fps=None
    )


def test_newline_tokens_are_an_option_of_a_run(
    options: Any, tiny_llava_onevision_folder: Path, tiny_qwen2_5_vl_folder: Path
) -> None:
    chosen = options(pretrained=str(tiny_llava_onevision_folder), mm_newline_position="grid")
    assert load_model(chosen).run_facts().family_settings["mm_newline_position"] == "grid"
    with pytest.raises(InvalidSetting, match="no newline tokens"):
        load_model(options(pretrained=str(tiny_qwen2_5_vl_folder), mm_newline_position="grid"))
