import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_utils.vision_process import smart_resize as utils_smart_resize
from transformers.models.qwen2_vl.image_processing_qwen2_vl import (
    smart_resize as stock_smart_resize,
)

from tempeval.errors import InfeasibleBudget, InvalidSetting, UnsupportedModel
from tempeval.families.pixel_budget import (
    MAX_DISTORTION,
    BudgetResize,
    SmartResize,
    smart_resize,
)
from tempeval.video.clip import Sampling

SIDES = st.integers(16, 4000)


def suggested(error: InfeasibleBudget) -> int:
    text = str(error).split("Nearest feasible")[1]
    return int("".join(c for c in text.split(":")[1] if c.isdigit() or c == ";").split(";")[0])


@given(SIDES, SIDES, st.integers(1, 2000), st.integers(1, 3000))
def test_smart_resize_equals_both_upstream_versions(height, width, low, extra):
    limits = {"min_pixels": low * 784, "max_pixels": (low + extra) * 784}
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(UnsupportedModel, match="aspect ratio above 200"):
            smart_resize(height, width, factor=28, **limits)
        return
    ours = smart_resize(height, width, factor=28, **limits)
    assert ours == stock_smart_resize(height, width, factor=28, **limits)
    if min(utils_smart_resize(height, width, factor=28, **limits)) > 0:
        assert ours == utils_smart_resize(height, width, factor=28, **limits)


def test_smart_resize_caps_frames_as_qwen_vl_utils():
    rule = SmartResize(factor=28, min_pixels=784, max_pixels=1 << 30)
    height, width = rule(2160, 3840, 8)
    assert height * width <= 768 * 784
    many = rule(2160, 3840, 768)
    assert many[0] * many[1] <= 128_000 * 784 * 0.9 / 768 * 2


def test_smart_resize_refuses_an_empty_range():
    with pytest.raises(InvalidSetting, match="min_pixels=5000"):
        SmartResize(factor=28, min_pixels=5000, max_pixels=784)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 20_000),
    st.integers(1, 80),
    SIDES,
    SIDES,
    st.sampled_from([1, 2]),
    st.integers(1, 3),
)
def test_budget_is_met_or_refused_with_a_feasible_suggestion(
    budget, frames, height, width, per_grid, num_visuals
):
    if max(height, width) > 200 * min(height, width):
        return
    rule = BudgetResize(budget, 28, per_grid, num_visuals)
    try:
        size = rule(height, width, frames)
    except InfeasibleBudget as error:
        nearest = suggested(error)
        BudgetResize(nearest, 28, per_grid, num_visuals)(height, width, frames)
        gap = abs(nearest - budget)  # nothing nearer is feasible
        nearer = range(max(1, budget - gap + 1), budget + gap)
        for other in nearer[:: 1 + len(nearer) // 10]:
            with pytest.raises(InfeasibleBudget):
                BudgetResize(other, 28, per_grid, num_visuals)(height, width, frames)
        return
    rows, columns = size[0] / 28, size[1] / 28
    tokens = num_visuals * rule.grids(frames) * rows * columns
    assert 0.98 * budget <= tokens <= budget
    change = (columns / rows) / (width / height)
    assert 1 / MAX_DISTORTION - 1e-6 <= change <= MAX_DISTORTION + 1e-6


def test_budget_prefers_the_source_aspect_then_more_tokens():
    assert BudgetResize(2048, 28)(720, 1280, 32) == (8 * 28, 16 * 28)
    assert BudgetResize(36, 28)(84, 84, 8) == (84, 84)
    # 49 and 50 tokens fit 50; 7 x 7 is square
    assert BudgetResize(50, 28)(300, 300, 2) == (196, 196)


@pytest.mark.parametrize(
    ("budget", "frames", "nearest"), [(10, 64, 32), (33, 64, 32), (60, 64, 64), (100, 64, 97)]
)
def test_check_sampling_before_decoding(budget, frames, nearest):
    with pytest.raises(InfeasibleBudget) as caught:
        BudgetResize(budget, 28).check(Sampling(num_frames=frames))
    assert suggested(caught.value) == nearest
    BudgetResize(nearest, 28).check(Sampling(num_frames=frames))


def test_check_sampling_at_a_rate_leaves_the_frame_count_open():
    BudgetResize(10, 28).check(Sampling("fps", num_frames=64, fps=2.0))


def test_budget_values():
    with pytest.raises(InvalidSetting, match="visual_token_budget=0"):
        BudgetResize(0, 28)


def test_rules_unpickle_without_torch(tmp_path):
    rules = (SmartResize(28, 784, 78400), BudgetResize(36, 28))
    path = tmp_path / "rules.pickle"
    path.write_bytes(pickle.dumps(rules))
    code = (
        "import pickle, sys, pathlib\n"
        f"rules = pickle.loads(pathlib.Path({str(path)!r}).read_bytes())\n"
        "assert rules[1](84, 84, 8) == (84, 84)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("budget", "frames"), [(36, 8), (64, 8), (2048, 8), (50, 4), (2, 4)])
def test_frames_are_chosen_near_the_wanted_number(budget, frames):
    rule = BudgetResize(budget, factor=28)
    assert rule.frames_near(8) == frames
    for height, width in ((84, 84), (84, 112), (720, 1280), (1280, 720)):
        rows, columns = rule(height, width, frames)
        tokens = rule.grids(frames) * rows * columns // 28**2
        assert 0.98 * budget <= tokens <= budget
