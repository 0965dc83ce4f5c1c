from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempeval.errors import InvalidSetting
from tempeval.mini.paint import paint_frames
from tempeval.mini.scene import (
    BALL_COLOURS,
    DIRECTIONS,
    LAMP_COLOURS,
    PHASES,
    SIZES,
    SPEEDS,
    Scene,
    make_scene,
    phase_at,
)

seeds = st.integers(0, 2**32 - 1)


def scene_of(seed: int) -> Scene:
    return make_scene(np.random.default_rng(seed))


def uniform(scene: Scene, num_frames: int) -> list[int]:
    return np.linspace(0, scene.num_frames - 1, num_frames, dtype=np.int64).tolist()


@given(seeds)
def test_both_frames_of_a_grid_show_the_same_phase(seed: int) -> None:
    scene = scene_of(seed)
    for num_frames in (8, 16):
        phases = [scene.phase_of_frame(index) for index in uniform(scene, num_frames)]
        assert phases[::2] == phases[1::2]
        assert sorted(set(phases)) == list(range(PHASES))


@given(seeds)
def test_every_second_frame_of_sixteen_is_like_eight(seed: int) -> None:
    scene = scene_of(seed)
    phases = [scene.phase_of_frame(index) for index in uniform(scene, 16)]
    assert phases[::2] == phases[1::2] == [0, 0, 1, 1, 2, 2, 3, 3]


@given(seeds)
def test_phases_show_the_facts(seed: int) -> None:
    scene = scene_of(seed)
    facts = scene.facts
    steps = np.diff([phase.ball for phase in scene.phases], axis=0)
    heading = np.array(DIRECTIONS[facts.direction])
    lengths = steps @ heading
    assert (lengths > 0).all()
    assert np.allclose(steps, lengths[:, None] * heading)
    side = scene.size[0] if heading[0] else scene.size[1]
    speed = lengths.sum() * (84 / side) / ((scene.num_frames - 1) / scene.fps)
    low, high = SPEEDS[facts.speed]
    assert low - 1e-6 <= speed <= high + 1e-6
    colours = [phase.ball_colour for phase in scene.phases]
    assert (colours[0], colours[-1]) == facts.colours
    assert len(set(colours)) == 2
    assert tuple(phase.lamp for phase in scene.phases if phase.lamp) == facts.lamp
    sides = np.diff([phase.box_half for phase in scene.phases])
    shape = {"grow": sides.min() > 0, "shrink": sides.max() < 0, "rest": not sides.any()}
    shape["blink"] = sides.min() < 0 < sides.max()
    assert shape[facts.action]
    assert sum(shape.values()) == 1


@given(seeds)
def test_everything_lies_inside_the_picture(seed: int) -> None:
    scene = scene_of(seed)
    for phase in scene.phases:
        for centre, reach in ((phase.ball, scene.radius), (scene.box, phase.box_half)):
            assert all(
                reach <= c <= side - reach for c, side in zip(centre, scene.size, strict=True)
            )


@given(seeds)
def test_a_scene_repeats_from_its_seed(seed: int) -> None:
    assert scene_of(seed) == scene_of(seed)


def test_frames_repeat_and_differ_in_grain_only_within_a_phase() -> None:
    scene = replace(scene_of(3), opacity=(1.0, 1.0, 1.0))
    frames = paint_frames(scene)
    assert frames.dtype == np.uint8
    assert frames.shape == (scene.num_frames, scene.size[1], scene.size[0], 3)
    assert np.array_equal(frames, paint_frames(scene))
    for before, after in zip(range(scene.num_frames), range(1, scene.num_frames), strict=False):
        gap = np.abs(frames[before].astype(int) - frames[after]).max()
        same = scene.phase_of_frame(before) == scene.phase_of_frame(after)
        assert gap < 25 if same else gap > 60


def test_sizes_are_whole_merged_patches() -> None:
    assert all(84 <= side <= 112 and side % 28 == 0 for size in SIZES for side in size)


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="not one of"):
        make_scene(np.random.default_rng(0), size=(100, 100))


def test_colour_words_are_distinct() -> None:
    assert not set(BALL_COLOURS) & set(LAMP_COLOURS)


@pytest.mark.parametrize(("fraction", "phase"), [(0, 0), (0.3, 1), (0.6, 2), (1, 3)])
def test_phase_at(fraction: float, phase: int) -> None:
    assert phase_at(fraction) == phase
