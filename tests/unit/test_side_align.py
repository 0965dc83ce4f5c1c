"""Steps of a side channel and frames meet by time; the equal partition is a special case."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.methods.pave_patch import equal_partition
from tempeval.side_channels.align import (
    backwards,
    clip_span,
    equal_parts,
    frame_spans,
    neighbors,
)
from tempeval.stages import SideFeatures
from tempeval.video.clip import Clip, Order
from tempeval.video.sampling import frame_indices


def clip_of(
    times: list[float], span: tuple[float, float] | None = None, fps: float | None = None
) -> Clip:
    count = len(times)
    return Clip(
        frames=np.zeros((count, 2, 2, 3), np.uint8),
        timestamps=np.array(times, dtype=np.float64),
        indices=np.arange(count),
        source="clip",
        source_frames=count,
        source_size=(2, 2),
        source_fps=fps,
        span=span,
    )


def by_time(frames: torch.Tensor, side: torch.Tensor) -> list[list[int]]:
    """The obvious way: every step looks where its middle lies."""
    found = []
    for start, end in frames.tolist():
        middles = [(a + b) / 2 for a, b in side.tolist()]
        own = [n for n, middle in enumerate(middles) if start <= middle < end]
        if not own:
            mid = (start + end) / 2
            covering = [n for n, (a, b) in enumerate(side.tolist()) if a <= mid < b]
            own = sorted(covering, key=lambda n: abs(middles[n] - mid))[:1]
        found.append(own)
    return found


durations = st.floats(0.5, 50, allow_nan=False)


@given(st.integers(1, 40), st.integers(1, 12), durations, st.floats(-5, 5))
def test_equal_durations_are_the_official_partition(
    steps: int, frames: int, seconds: float, start: float
) -> None:
    spans = equal_parts(start, start + seconds, frames)
    side = equal_parts(start, start + seconds, steps)
    official = steps < frames or steps % frames == 0
    assert (neighbors(spans, side) is None) == official
    assert neighbors(spans, None) is None


def test_steps_that_do_not_divide_go_by_time() -> None:
    """The official partition would give the first three of 8 frames 6 of the 43 steps each."""
    spans, side = equal_parts(0, 4, 8), equal_parts(0, 4, 43)
    found = neighbors(spans, side)
    assert found is not None
    assert [list(own) for own in found] == by_time(spans, side)
    assert found != equal_partition(43, 8)


@given(st.integers(1, 12), st.integers(1, 5), st.floats(0.5, 50))
def test_time_gives_the_official_partition_where_it_divides(
    frames: int, each: int, seconds: float
) -> None:
    """A shift of a thousandth of a step goes the way by time, and changes nothing else."""
    spans, side = equal_parts(0, seconds, frames), equal_parts(0, seconds, frames * each)
    tiny = seconds / frames / each / 1000
    assert neighbors(spans, side, shift=tiny) == equal_partition(frames * each, frames)


@settings(max_examples=60)
@given(st.data(), st.integers(1, 10), st.integers(1, 40), durations, durations)
def test_each_frame_gets_the_steps_of_its_time(
    data: st.DataObject, frames: int, steps: int, seconds: float, sounding: float
) -> None:
    spans = equal_parts(0, seconds, frames)
    shift = data.draw(st.floats(-20, 20).filter(lambda value: abs(value) > 1e-3))
    side = equal_parts(0, sounding, steps)
    found = neighbors(spans, side, shift=shift)
    assert found is not None
    assert [list(own) for own in found] == by_time(spans, side + shift)


@given(st.integers(1, 10), st.integers(2, 40), st.floats(0.5, 9))
def test_steps_belong_to_one_frame_at_most_and_none_is_lost(
    frames: int, steps: int, late: float
) -> None:
    """Of finer steps than frames, all that lie in the frames' time are heard exactly once."""
    spans = equal_parts(0, 10, frames)
    side = equal_parts(0, 10, steps * frames)
    found = neighbors(spans, side, shift=late)
    assert found is not None
    heard = [step for own in found for step in own]
    assert heard == [n for n, mid in enumerate((side + late).mean(1).tolist()) if mid < 10]


def test_late_sound_moves_the_neighbourhood() -> None:
    spans, side = equal_parts(0, 4, 8), equal_parts(0, 4, 40)
    assert neighbors(spans, side) is None
    late = neighbors(spans, side + 1.0)
    assert late == neighbors(spans, side, shift=1.0)
    assert late == [range(0)] * 2 + [range(5 * n, 5 * n + 5) for n in range(6)]
    early = neighbors(spans, side, shift=-1.0)
    assert early == [range(5 * n, 5 * n + 5) for n in range(2, 8)] + [range(0)] * 2


def test_short_sound_leaves_late_frames_without() -> None:
    found = neighbors(equal_parts(0, 4, 4), equal_parts(0, 2, 20))
    assert found == [range(10), range(10, 20), range(0), range(0)]


def test_steps_longer_than_frames_are_heard_by_all_frames_in_them() -> None:
    found = neighbors(equal_parts(0, 4, 8), equal_parts(0, 8, 4))
    assert found == [range(1)] * 4 + [range(1, 2)] * 4


def test_windows_that_overlap_are_still_equal_steps() -> None:
    """ImageBind: 59 windows of 2 s, one per second, in 60 s."""
    starts = torch.arange(59, dtype=torch.float64)
    windows = torch.stack([starts, starts + 2], dim=1)
    assert neighbors(equal_parts(0, 60.4, 59), windows) is None
    moved = neighbors(equal_parts(0, 60.4, 32), windows, shift=10.0)
    assert moved is not None
    assert moved[0] == range(0)
    assert moved[31] == range(48, 50)


def test_neighborhood_counts_steps_around_the_middle() -> None:
    spans, side = equal_parts(0, 4, 4), equal_parts(0, 4, 40)
    # Middles of frames are 0.5, 1.5, ...; those of steps 0.05, 0.15, ...
    assert neighbors(spans, side, neighborhood=0, shift=0.01) == [
        range(n, n + 1) for n in (4, 14, 24, 34)
    ]
    assert neighbors(spans, side, neighborhood=6, shift=0.01) == [
        range(11), range(8, 21), range(18, 31), range(28, 40)
    ]  # fmt: skip


@given(st.integers(0, 8), st.integers(1, 30), st.floats(-9, 9))
def test_a_neighborhood_has_its_size_or_meets_an_end(size: int, steps: int, shift: float) -> None:
    found = neighbors(equal_parts(0, 4, 4), None, neighborhood=size, shift=shift, steps=steps)
    assert found is not None
    for own in found:
        assert len(own) <= 2 * size + 1
        assert len(own) in (0, 2 * size + 1) or own[0] == 0 or own[-1] == steps - 1


def test_a_neighborhood_far_from_the_sound_is_empty() -> None:
    spans, side = equal_parts(0, 4, 4), equal_parts(0, 2, 20)
    found = neighbors(spans, side, neighborhood=6, shift=0.01)
    # The last two middles are 2.5 and 3.5 s: 5 and 15 steps past the last step's.
    assert found == [range(11), range(8, 20), range(18, 20), range(0)]
    wider = neighbors(spans, side, neighborhood=16, shift=0.01)
    assert wider is not None
    assert wider[3] == range(18, 20)


def test_bad_values_are_named() -> None:
    spans, side = equal_parts(0, 4, 4), equal_parts(0, 4, 8)
    with pytest.raises(InvalidSetting, match="neighborhood=-1 must be 0"):
        neighbors(spans, side, neighborhood=-1)
    with pytest.raises(InvalidSetting, match="shift=nan must be finite"):
        neighbors(spans, side, shift=float("nan"))
    with pytest.raises(InvalidSetting, match="steps=None"):
        neighbors(spans, None, shift=1.0)
    with pytest.raises(InvalidSetting, match="not in order of time"):
        neighbors(spans, side.flip(0))
    with pytest.raises(InvalidSetting, match=r"shape \(4,\)"):
        neighbors(spans[:, 0], side)
    with pytest.raises(BadSideChannel, match="frames without timestamps"):
        neighbors(spans * torch.nan, side)


@pytest.mark.parametrize("rule", ["uniform", "segment"])
@pytest.mark.parametrize("start", [0, 30])
def test_sampled_frames_are_equal_parts_of_the_clip(rule: str, start: int) -> None:
    from tempeval.video.clip import Sampling

    times = np.arange(121) / 10
    ends = None if not start else times[start]
    indices = frame_indices(Sampling(rule, 8), times, ends)  # type: ignore[arg-type]
    span = float(times[start]), 12.1
    clip = clip_of(times[indices].tolist(), span, 10.0)
    torch.testing.assert_close(frame_spans(clip, 8), equal_parts(*span, 8))
    merged = equal_parts(*span, 4)
    torch.testing.assert_close(frame_spans(clip, 4), merged)


def test_frames_at_a_rate_start_their_parts() -> None:
    clip = clip_of([0.0, 0.5, 1.0, 1.5], (0.0, 2.0), 30.0)
    torch.testing.assert_close(frame_spans(clip, 4), equal_parts(0, 2, 4))


def test_uneven_frames_own_what_is_nearest() -> None:
    clip = clip_of([0.0, 0.1, 0.2, 3.0], (0.0, 4.0), 10.0)
    expected = torch.tensor([[0.0, 0.05], [0.05, 0.15], [0.15, 1.6], [1.6, 4.0]])
    torch.testing.assert_close(frame_spans(clip, 4), expected.double())
    torch.testing.assert_close(
        frame_spans(clip, 2), torch.tensor([[0.0, 0.15], [0.15, 4.0]]).double()
    )


def test_spans_follow_frames_that_are_reordered() -> None:
    clip = clip_of([0.0, 1.0, 2.0, 3.0], (0.0, 4.0), 1.0)
    slots = Order("reversed").permutation(4)
    turned = clip.reordered(slots)
    torch.testing.assert_close(frame_spans(turned, 4), frame_spans(clip, 4).flip(0))
    assert neighbors(frame_spans(turned, 4), equal_parts(0, 4, 8)) == [
        range(6, 8), range(4, 6), range(2, 4), range(2)
    ]  # fmt: skip


def test_strided_groups_merge_frames_that_lie_apart() -> None:
    """2 groups, 2 frames per grid: grids are frames (0, 2), (1, 3), (4, 6), (5, 7)."""
    from tempeval.families.qwen_vision import strided_order

    clip = clip_of([float(n) for n in range(8)], (0.0, 8.0), 1.0)
    expected = []
    for pair in strided_order(8, 2, 2).reshape(4, 2).tolist():
        expected.append([pair[0], pair[1] + 1])
    assert frame_spans(clip, 4, num_groups=2).tolist() == expected
    torch.testing.assert_close(frame_spans(clip, 8, num_groups=2), equal_parts(0, 8, 8))


def test_odd_frames_leave_a_grid_with_one() -> None:
    clip = clip_of([0.0, 1.0, 2.0], (0.0, 3.0), 1.0)
    assert frame_spans(clip, 2).tolist() == [[0, 2], [2, 3]]


def test_frames_without_times_have_no_spans() -> None:
    clip = clip_of([float("nan")] * 4)
    assert clip_span(clip) is None
    assert frame_spans(clip, 2).isnan().all()


def test_the_end_is_estimated_where_a_clip_does_not_know_it() -> None:
    assert clip_span(clip_of([0.0, 1.0, 2.0])) == (0.0, 3.0)
    assert clip_span(replace(clip_of([0.0, 1.0, 2.0]), span=(0.0, 2.5))) == (0.0, 2.5)


@pytest.mark.parametrize(("grids", "groups"), [(3, 1), (0, 1), (5, 1), (4, 3)])
def test_grids_that_frames_cannot_make_are_refused(grids: int, groups: int) -> None:
    with pytest.raises(InvalidSetting):
        frame_spans(clip_of([0.0, 1.0, 2.0, 3.0]), grids, num_groups=groups)


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize(("frames", "steps"), [(4, 8), (4, 4), (3, 7), (8, 3)])
def test_backwards_a_frame_hears_what_its_mirror_image_heard(
    frames: int, steps: int, timed: bool
) -> None:
    shown = equal_parts(2.0, 10.0, frames)
    side = SideFeatures(
        torch.arange(float(steps))[:, None, None, None], equal_parts(2, 10, steps), "sound"
    )
    if not timed:
        side = replace(side, spans=None)
    mirrored = backwards(side, shown)
    assert mirrored.source == "sound"

    def heard(one: SideFeatures) -> list[list[float]]:
        # By time also where the official partition would do: a shift of nothing much asks for it.
        found = neighbors(shown, one.spans, shift=1e-9, steps=steps)
        assert found is not None
        return [sorted(one.features[list(own)].flatten().tolist()) for own in found]

    assert heard(mirrored) == heard(side)[::-1]
    again = backwards(mirrored, shown)
    assert torch.equal(again.features, side.features)
    if timed:
        torch.testing.assert_close(again.spans, side.spans)


def test_backwards_a_sound_that_starts_late_ends_early() -> None:
    side = SideFeatures(torch.zeros(2, 1, 1, 1), torch.tensor([[6.0, 7.0], [7.0, 9.5]]).double())
    spans = backwards(side, equal_parts(0, 10, 4)).spans
    assert spans is not None
    assert spans.tolist() == [[0.5, 3.0], [3.0, 4.0]]
    with pytest.raises(BadSideChannel, match="no timestamps"):
        backwards(side, torch.full((4, 2), torch.nan))
