"""Clips with events between the sampled frames: these tell nothing, all frames everything."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempeval.errors import InvalidSetting
from tempeval.mini.encode import write_video
from tempeval.mini.highfps_scene import (
    KEYFRAMES,
    SIDES,
    STARTS,
    BlinkFacts,
    BlinkScene,
    draw_blink_picture,
    draw_blink_scene,
    draw_blinks,
    random_blink_facts,
)
from tempeval.mini.highfps_suite import SUITE
from tempeval.mini.scene import LAMP_COLOURS
from tempeval.mini.side_render import render_here
from tempeval.video.clip import Sampling, VideoRef
from tempeval.video.decode import read_clip

CLIPS = SUITE.test.clips[::2]
seeds = st.integers(0, 2**32 - 1)


def scene_of(seed: int) -> BlinkScene:
    return draw_blink_scene(np.random.default_rng(seed))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("highfps")
    render_here(replace(SUITE.test, clips=CLIPS), folder)
    return folder


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def blurred(frames: np.ndarray, size: int = 7) -> np.ndarray:
    """Return the means over squares of pixels, float `[T, H - size, W - size, 3]`."""
    total = np.pad(frames.astype(float), ((0, 0), (1, 0), (1, 0), (0, 0))).cumsum(1).cumsum(2)
    rows = total[:, size:, :] - total[:, :-size, :]
    return (rows[:, :, size:] - rows[:, :, :-size]) / size**2


def observe(frames: np.ndarray) -> list[str]:
    """Answer from all frames: something that lasts two frames and is gone again."""
    soft = blurred(frames)[:, ::2, ::2]
    mostly = np.median(soft, axis=0)
    blinks = []
    for first in range(1, len(soft) - 2):
        others = (soft[first - 1], soft[first + 2], mostly)
        changes = [soft[first + i] - other for i in (0, 1) for other in others]
        least = np.min([np.linalg.norm(change, axis=2) for change in changes], axis=0)
        place = np.unravel_index(least.argmax(), least.shape)
        blinks.append((least.max(), place, changes[0], first))
    strong = max(blink[0] for blink in blinks)
    found = [blink for blink in blinks if blink[0] > 0.75 * strong]
    _, (row, column), came, first = max(found, key=lambda blink: float(blink[0]))
    below = soft[first - 1, row, column]
    alike = {
        name: came[row, column] @ (colour - below) / np.linalg.norm(colour - below)
        for name, colour in ((name, np.array(rgb)) for name, rgb in LAMP_COLOURS.items())
    }
    place = np.array([2 * column + 3.5, 2 * row + 3.5]) / (frames.shape[2], frames.shape[1])
    side = min(SIDES, key=lambda name: float(np.abs(place - SIDES[name]).max()))
    return [str(len(found)), max(alike, key=lambda name: float(alike[name])), side]


def test_an_observer_of_all_frames_answers_test_questions(folder: Path) -> None:
    for clip in CLIPS:
        assert observe(decode(folder / clip.path)) == SUITE.answers(clip.scene), clip.name


def test_four_times_as_many_uniform_frames_are_all_frames(folder: Path) -> None:
    for clip in CLIPS[::8]:
        read = read_clip(VideoRef(str(folder / clip.path)), Sampling("uniform", 32))
        assert read.indices.tolist() == list(range(32))
        assert observe(read.frames) == SUITE.answers(clip.scene)


def test_sampled_frames_show_no_blink_whichever_way_indices_are_rounded(folder: Path) -> None:
    places = np.linspace(0, 31, 8)
    sampled = {*places.astype(np.int64).tolist(), *np.rint(places).astype(np.int64).tolist()}
    assert sampled == set(KEYFRAMES)
    for clip in CLIPS:
        scene = clip.scene
        assert isinstance(scene, BlinkScene)
        read = read_clip(VideoRef(str(folder / clip.path)), Sampling("uniform", 8))
        assert set(read.indices.tolist()) <= sampled
        lit = [index for index in range(32) if scene.shows(index)]
        assert len(lit) == 2 * scene.facts.blinks
        assert not sampled & set(lit)


def write(path: Path, scene: BlinkScene, keyframes: tuple[int, ...]) -> np.ndarray:
    write_video(path, scene.paint(), scene.fps, "mp4", None, keyframes)
    return decode(path)


def test_decoded_sampled_frames_are_the_same_to_the_bit_whatever_the_answers(
    tmp_path: Path,
) -> None:
    for seed in range(6):
        scene = scene_of(seed)
        dark = write(tmp_path / "dark", replace(scene, starts=()), scene.keyframes)
        for other in range(4):
            rng = np.random.default_rng([seed, other])
            changed = draw_blinks(rng, scene.picture, random_blink_facts(rng))
            frames = write(tmp_path / "lit", changed, changed.keyframes)
            assert np.array_equal(frames[list(KEYFRAMES)], dark[list(KEYFRAMES)])
            for index in range(32):
                if changed.shows(index):
                    assert np.abs(frames[index].astype(int) - dark[index]).max() > 30


def test_without_keyframes_sampled_frames_would_keep_a_trace(tmp_path: Path) -> None:
    scene = scene_of(1)
    dark = write(tmp_path / "dark", replace(scene, starts=()), ())
    lit = write(tmp_path / "lit", scene, ())
    assert not np.array_equal(lit[list(KEYFRAMES)], dark[list(KEYFRAMES)])


def test_chosen_frames_are_keyframes_that_cut_off_what_came_before(tmp_path: Path) -> None:
    scene = scene_of(3)
    write(tmp_path / "x", scene, scene.keyframes)
    with av.open(str(tmp_path / "x")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        order = [round(packet.pts * packet.time_base * scene.fps) for packet in packets]
        keys = {index for index, packet in zip(order, packets, strict=True) if packet.is_keyframe}
    assert order == list(range(32)), "no frame is predicted from a later one"
    assert set(KEYFRAMES) <= keys


@given(seeds)
def test_a_picture_is_drawn_without_knowing_the_answers(seed: int) -> None:
    one, other = (
        draw_blink_scene(np.random.default_rng(seed), facts).picture
        for facts in (BlinkFacts(1, "white", "left"), BlinkFacts(4, "orange", "down"))
    )
    assert one == other == draw_blink_picture(np.random.default_rng(seed))


@given(seeds)
def test_blinks_are_what_the_facts_say(seed: int) -> None:
    scene = scene_of(seed)
    assert len(scene.starts) == scene.facts.blinks
    assert scene.lamp.colour == scene.facts.colour
    assert all(phase.lamp is None for phase in scene.picture.phases)
    for before, after in pairwise(scene.starts):
        assert any(before + 1 < key < after for key in np.linspace(0, 31, 8).astype(int))
    for start in scene.starts:
        assert start // 4 == (start + 1) // 4, "a blink belongs to one frame's share"
    shares = [start // 4 for start in scene.starts]
    assert len(set(shares)) == len(shares)
    fractions = [c / side for c, side in zip(scene.centre, scene.size, strict=True)]
    (near,) = [
        name
        for name, place in SIDES.items()
        if max(abs(f - p) for f, p in zip(fractions, place, strict=True)) < 0.06
    ]
    assert near == scene.facts.side
    for c, side in zip(scene.centre, scene.size, strict=True):
        assert scene.lamp.half <= c <= side - scene.lamp.half


def test_every_gap_between_sampled_frames_may_hold_a_blink() -> None:
    assert len(STARTS) == 7
    assert all(STARTS)


def test_keyframes_go_into_a_container_that_can_be_told(tmp_path: Path) -> None:
    frames = np.zeros((2, 28, 28, 3), np.uint8)
    with pytest.raises(InvalidSetting, match=r"'webm' with chosen keyframes is not one of mp4"):
        write_video(tmp_path / "x", frames, 8, "webm", None, (0,))
