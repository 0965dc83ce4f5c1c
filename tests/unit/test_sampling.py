from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempeval.video.clip import Sampling
from tempeval.video.sampling import (
    SamplingError,
    duration,
    frame_indices,
    is_posed,
    is_scene,
    part_of_folder,
    scene_views,
    trim,
)

counts = st.integers(1, 400)
wanted = st.integers(1, 64)


def steady(count: int, fps: float = 30.0) -> np.ndarray:
    return np.arange(count) / fps


@given(counts, wanted)
def test_uniform_is_numpys_linspace_over_all_frames(count: int, k: int) -> None:
    got = frame_indices(Sampling("uniform", k), steady(count))
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, np.linspace(0, count - 1, k, dtype=int))


def official_mvbench_index(
    num_segments: int, bound: tuple[float, float] | None, fps: float, max_frame: int
) -> np.ndarray:
    """`get_index` as published in OpenGVLab/Ask-Anything, video_chat2/mvbench.ipynb."""
    first_idx = 0
    start, end = bound if bound else (-100000, 100000)
    start_idx = max(first_idx, round(start * fps))
    end_idx = min(round(end * fps), max_frame)
    seg_size = float(end_idx - start_idx) / num_segments
    return np.array(
        [int(start_idx + (seg_size / 2) + np.round(seg_size * idx)) for idx in range(num_segments)]
    )


@given(counts, wanted)
def test_segment_equals_the_official_code(count: int, k: int) -> None:
    got = frame_indices(Sampling("segment", k), steady(count))
    np.testing.assert_array_equal(got, official_mvbench_index(k, None, 30.0, count - 1))


@given(st.integers(60, 400), wanted, st.data())
def test_segment_of_a_part_equals_the_official_code(
    count: int, k: int, data: st.DataObject
) -> None:
    # Whole hundredths away from half frames, where nearest and round() may break ties differently.
    start = data.draw(st.integers(0, count - 2)) / 30 + 0.01
    end = data.draw(st.integers(int(start * 30) + 1, count + 60)) / 30 + 0.01
    got = frame_indices(Sampling("segment", k), steady(count), start, end)
    np.testing.assert_array_equal(got, official_mvbench_index(k, (start, end), 30.0, count - 1))


def official_tvqa_numbers(
    num_segments: int, start: float, end: float, max_frame: int
) -> np.ndarray:
    """Image numbers of `read_frame` in the same notebook: `first_idx` is 1, `fps` is 3."""
    start_idx = max(1, round(start * 3))
    end_idx = min(round(end * 3), max_frame)
    seg_size = float(end_idx - start_idx) / num_segments
    return np.array(
        [int(start_idx + (seg_size / 2) + np.round(seg_size * idx)) for idx in range(num_segments)]
    )


@given(st.integers(10, 400), wanted, st.data())
def test_a_part_of_a_tvqa_folder_equals_the_official_code(
    count: int, k: int, data: st.DataObject
) -> None:
    # Sixths of a second are ties of the rounding, which the official code gives to even numbers.
    start = data.draw(st.integers(0, 2 * count - 4)) / 6
    shortest = max(start + 0.01, 0.34)  # before, the official code asks for an image 0
    end = data.draw(st.floats(shortest, count / 3 + 5) | st.just(start + 1 / 6 + 1 / 3))
    part = part_of_folder("video/tvqa/frames_fps3_hq/clip_18_0", 3.0, start, end)
    got = frame_indices(Sampling("segment", k), np.arange(count) / 3, *part)
    np.testing.assert_array_equal(got + 1, official_tvqa_numbers(k, start, end, count))


def test_parts_of_other_folders_begin_at_their_first_image() -> None:
    assert part_of_folder("jester/00001", 12.0, 1.0, None) == (1.0, None)
    assert part_of_folder("frames_fps3_hq/clip", 3.0, None, None) == (None, None)


@given(counts, wanted, st.sampled_from(["uniform", "segment", "fps"]), st.data())
def test_every_rule_is_sorted_and_in_range(
    count: int, k: int, rule: str, data: st.DataObject
) -> None:
    times = np.cumsum(data.draw(st.lists(st.floats(0.01, 1), min_size=count, max_size=count)))
    times -= times[0]
    start = data.draw(st.none() | st.floats(0, duration(times) * 0.9))
    end = data.draw(st.none() | st.floats((start or 0) + 0.01, (start or 0) + 50))
    sampling = Sampling(rule, k, fps=2.0 if rule == "fps" else None)  # type: ignore[arg-type]
    got = frame_indices(sampling, times, start, end)
    first, last = trim(times, start, end)
    assert 1 <= len(got) <= k
    assert rule == "fps" or len(got) == k
    assert (np.diff(got) >= 0).all()
    assert first <= got[0]
    assert got[-1] <= last


def test_fps_takes_the_frame_on_screen_on_a_variable_rate() -> None:
    times = np.array([0.0, 0.1, 0.9, 1.1, 2.0, 3.9])
    got = frame_indices(Sampling("fps", 16, fps=1.0), times)
    np.testing.assert_array_equal(got, [0, 2, 4, 4])


@given(counts, st.sampled_from([1.0, 2.0, 3.0, 5.0, 6.0, 7.5, 10.0]), st.integers(0, 9))
def test_fps_of_a_steady_clock_survives_the_rounding_to_milliseconds(
    count: int, fps: float, start: int
) -> None:
    """Matroska rounds times: the 20th frame of 30 a second is due at 666.67 ms and says 667."""
    first = min(start, count - 1)
    exact = steady(count)
    got = frame_indices(Sampling("fps", 400, fps=fps), exact.round(3), exact.round(3)[first])
    ticks = np.floor(np.arange(len(got)) * 30 / fps + 1e-9).astype(int)
    np.testing.assert_array_equal(got, first + ticks)


def test_fps_is_refused_where_all_frames_have_one_time() -> None:
    with pytest.raises(SamplingError, match="its 3 frames all have the same time, and fps=2"):
        frame_indices(Sampling("fps", 4, fps=2.0), np.zeros(3))


def test_fps_counts_both_ends_in_spite_of_rounding() -> None:
    got = frame_indices(Sampling("fps", 100, fps=10.0), steady(31))
    np.testing.assert_array_equal(got, np.arange(0, 31, 3))


def test_fps_above_the_cap_is_uniform_over_the_range() -> None:
    got = frame_indices(Sampling("fps", 8, fps=10.0), steady(300), start=1.0, end=9.0)
    np.testing.assert_array_equal(got, np.linspace(30, 270, 8, dtype=int))


def test_fps_starts_at_the_range_and_repeats_when_the_source_is_slower() -> None:
    got = frame_indices(Sampling("fps", 100, fps=4.0), steady(5, fps=1.0), start=1.0, end=2.0)
    np.testing.assert_array_equal(got, [1, 1, 1, 1, 2])


def test_a_range_takes_the_frames_nearest_to_its_ends() -> None:
    assert trim(steady(300), 1.01, 1.99) == (30, 60)
    assert trim(steady(300), None, 1.99) == (0, 60)
    assert trim(steady(300), 9.99, 20.0) == (299, 299)
    assert trim(steady(300), 1.0, 1.001) == (30, 30)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (10.0, None, "start=10 s lies outside the video, which lasts 10.00 s"),
        (-1.0, None, "start=-1 s lies outside"),
        (2.0, 2.0, "end=2 s is not after start=2 s"),
        (3.0, 2.0, "end=2 s is not after start=3 s"),
        (None, 0.0, "end=0 s is not after start=0 s"),
        (float("nan"), None, "start=nan s lies outside"),
        (None, float("nan"), "end=nan s is not after"),
    ],
)
def test_impossible_ranges_are_refused(
    start: float | None, end: float | None, message: str
) -> None:
    with pytest.raises(SamplingError, match=message):
        trim(steady(300), start, end)


def test_no_frames_are_refused() -> None:
    with pytest.raises(SamplingError, match="no frames"):
        frame_indices(Sampling(), np.zeros(0))


def test_missing_timestamps_matter_only_where_time_is_used() -> None:
    times = np.array([np.nan, 0.1, 0.2, 0.3])
    np.testing.assert_array_equal(frame_indices(Sampling("uniform", 4), times), [0, 1, 2, 3])
    with pytest.raises(SamplingError, match=r"1 of 4 frames have no timestamp, which fps=2"):
        frame_indices(Sampling("fps", 4, fps=2.0), times)
    with pytest.raises(SamplingError, match=r"which start=0\.1, end=None needs"):
        frame_indices(Sampling("uniform", 4), times, start=0.1)


def test_the_last_frame_lasts_as_long_as_the_others() -> None:
    assert duration(steady(300)) == pytest.approx(10.0)
    assert duration(np.array([0.0])) == 1.0


@given(counts)
def test_a_scene_has_32_views_cut_or_filled_up_with_the_last(count: int) -> None:
    views = scene_views(count).tolist()
    official = list(range(count))[:32]
    official += [official[-1]] * (32 - len(official))
    assert views == official
    # All of them are shown, each in its place, when 32 frames are wanted.
    shown = frame_indices(Sampling("uniform", 32), steady(len(views), 1.0))
    assert shown.tolist() == list(range(32))


def test_a_scene_is_known_by_its_folder() -> None:
    for path in (
        "/data/posed_images_new/scene0011_00",
        "posed_images_new/scene0011_00/",
    ):
        assert is_scene(path)
        assert is_posed(path)
    assert is_posed("/data/posed_images/scene0011_00")
    assert not is_scene("/data/posed_images/scene0011_00"), "a whole scan, not 32 views"
    for path in ("/data/posed_images_new", "/posed_images_new/a/b", "/data/scene0011_00"):
        assert not is_scene(path)
        assert not is_posed(path)
