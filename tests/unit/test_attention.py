"""Attention pieces and prefixes against one masked softmax, for every kernel of this machine."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.engine import rows as rows_module
from tempeval.engine.attention import (
    attend_apart,
    attend_lse,
    attend_shared,
    kernels_for,
    merge,
    repeat_heads,
)
from tempeval.engine.cache import segment_ranges
from tempeval.engine.plan import LayerPlan
from tempeval.engine.rows import Columns, attend_prefix, attend_tail
from tempeval.engine.stacks import Stack, columns, joined, stacks_of
from tempeval.methods.staged_sparse import StagedSparse
from tempeval.stages import Segments

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make(device, dtype, rows=13, keys=29, heads=4, batch=2, dim=16, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator).to(device, dtype)

    return (
        draw(batch, heads, rows, dim),
        draw(batch, heads, keys, dim),
        draw(batch, heads, keys, dim),
    )


def reference(q, k, v, scale, mask=None):
    scores = q.double() @ k.double().transpose(-1, -2) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(-1) @ v.double(), scores.logsumexp(-1)


TOLERANCE = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.bfloat16: 2e-2,
    torch.float16: 3e-3,
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("case", ["free", "causal", "masked"])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_every_kernel_equals_one_softmax(device, dtype, case, groups):
    rows = 29 if case == "causal" else 13
    q, _, _ = make(device, dtype, rows=rows)
    _, k, v = make(device, dtype, heads=4 // groups)
    wide_k, wide_v = repeat_heads(k, groups), repeat_heads(v, groups)
    mask = None
    if case == "masked":
        generator = torch.Generator().manual_seed(1)
        mask = torch.rand(2, 1, rows, 29, generator=generator).to(device) > 0.5
        mask[..., 0] = True
    dense = torch.ones(rows, 29, dtype=torch.bool, device=device)
    dense = dense.tril() if case == "causal" else dense
    expected, lse = reference(q, wide_k, wide_v, 0.3, dense if mask is None else mask)
    kernels = kernels_for(q, masked=mask is not None)
    assert kernels[-1] == "math"
    assert len(kernels) > 1 or dtype == torch.float64
    for kernel in kernels:
        got = attend_lse(q, k, v, scale=0.3, causal=case == "causal", mask=mask, kernel=kernel)
        assert got.kernel == kernel
        assert (got.out.double() - expected).abs().max() < TOLERANCE[dtype] * 4
        assert got.lse.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        assert (got.lse.double() - lse).abs().max() < TOLERANCE[dtype] * 20


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_pieces_over_disjoint_keys_merge_to_the_whole(dtype):
    q, k, v = make("cpu", dtype)
    expected, _ = reference(q, k, v, 0.3)
    cuts = [0, 7, 8, 29]
    pieces = [
        attend_lse(q, k[:, :, a:b], v[:, :, a:b], scale=0.3) for a, b in itertools.pairwise(cuts)
    ]
    got = merge(pieces)
    assert got.dtype == dtype
    assert (got.double() - expected).abs().max() < TOLERANCE[dtype] * 4


def test_merge_in_float32_is_closer_than_in_bfloat16():
    q, k, v = make("cpu", torch.bfloat16, keys=512)
    expected, _ = reference(q, k, v, 0.3)
    pieces = [
        attend_lse(q, k[:, :, a : a + 8], v[:, :, a : a + 8], scale=0.3) for a in range(0, 512, 8)
    ]
    total = torch.stack([p.lse for p in pieces]).logsumexp(0)
    low = torch.zeros_like(q)
    for p in pieces:
        low = low + p.out * torch.exp(p.lse - total).unsqueeze(-1).to(torch.bfloat16)
    error = (merge(pieces).double() - expected).abs().mean()
    assert error < (low.double() - expected).abs().mean()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_shared_keys_equal_repeated_and_expanded_ones(groups):
    q, _, _ = make("cpu", torch.float32, heads=4, batch=3)
    _, k, v = make("cpu", torch.float32, heads=4 // groups, batch=1)
    got = attend_shared(q, k, v, scale=0.3)
    wide_k = repeat_heads(k, groups).expand(3, -1, -1, -1)
    wide_v = repeat_heads(v, groups).expand(3, -1, -1, -1)
    expected, lse = reference(q, wide_k, wide_v, 0.3)
    assert (got.out.double() - expected).abs().max() < 1e-5
    assert (got.lse.double() - lse).abs().max() < 1e-5


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("count", [1, 3])
def test_runs_apart_equal_a_block_diagonal_mask(groups, count):
    q, _, _ = make("cpu", torch.float32, rows=7 * count, batch=1)
    _, k, v = make("cpu", torch.float32, keys=7 * count, heads=4 // groups, batch=1)
    got = attend_apart(q, k, v, count=count, scale=0.3)
    run = torch.arange(7 * count) // 7
    mask = (run[:, None] == run[None, :]).tril()
    expected, lse = reference(q, repeat_heads(k, groups), repeat_heads(v, groups), 0.3, mask)
    assert (got.out.double() - expected).abs().max() < 1e-5
    assert (got.lse.double() - lse).abs().max() < 1e-5


def prefix_plan(segment, visible):
    return LayerPlan(None, segment, visible, None, None)


def attended(segment, visible, groups, dtype=torch.float64, kernel=None):
    """`attend_prefix` and one softmax under the token-by-token mask."""
    length = len(segment)
    q, _, _ = make("cpu", dtype, rows=length, batch=1)
    _, k, v = make("cpu", dtype, keys=length, heads=4 // groups, batch=1)
    got, name = attend_prefix(q, k, v, prefix_plan(segment, visible), scale=0.3)
    assert got.shape == q.shape
    if kernel is not None:
        assert name == kernel
    mask = visible[segment][:, segment].tril()
    expected, _ = reference(q, repeat_heads(k, groups), repeat_heads(v, groups), 0.3, mask)
    return got, expected


@st.composite
def prefixes(draw):
    """Segments of a prefix, some of equal length, some coming back; and who sees whom."""
    size = draw(st.integers(1, 6))
    runs = draw(st.lists(st.tuples(st.integers(0, size - 1), st.sampled_from([1, 3, 3, 5]))))
    runs = runs or [(0, 2)]
    segment = torch.cat([torch.full((length,), name) for name, length in runs])
    bits = draw(st.lists(st.booleans(), min_size=size * size, max_size=size * size))
    visible = torch.tensor(bits).view(size, size) | torch.eye(size, dtype=torch.bool)
    return segment, visible


@settings(max_examples=150, deadline=None)
@given(prefix=prefixes(), groups=st.sampled_from([1, 2, 4]))
def test_a_prefix_equals_one_masked_softmax(prefix, groups):
    got, expected = attended(*prefix, groups)
    assert (got - expected).abs().max() < 1e-12


def frames_apart(strategies, num_frames, layer=2):
    """Visibility of a 4-layer model in the middle of the ranges of (1) and (2)."""
    segments = Segments(num_frames, 4)
    ones = torch.ones(segments.size, segments.size, dtype=torch.bool)
    where = {1: {"question_layers": (1, 4)}, 2: {"frame_layer": 1}}
    method = StagedSparse(strategies, **{k: v for s in strategies for k, v in where[s].items()})
    return method.attention(ones, layer, segments)


def video(num_frames, per_frame=3, instruction=5, newline=0):
    """Segments of an instruction and a video, whose last frame may be longer by newlines."""
    frames = [torch.full((per_frame,), 1 + n) for n in range(num_frames)]
    last = torch.full((newline,), num_frames)
    return torch.cat([torch.zeros(instruction, dtype=torch.long), *frames, last])


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("newline", [0, 1])
@pytest.mark.parametrize("strategies", [(2,), (1, 2)])
def test_frames_of_equal_size_are_one_batch(groups, newline, strategies):
    segment, visible = video(6, newline=newline), frames_apart(strategies, 6)
    stacks = stacks_of(visible, segment_ranges(segment))
    batched = 5 if newline else 6
    expected = [Stack(0, 1, 5, ()), Stack(5, batched, 3, ((0, 5),))]
    if newline:
        expected.append(Stack(20, 1, 4, ((0, 5),)))
    assert stacks == expected
    for dtype, tolerance in (
        (torch.float64, 1e-12),
        (torch.float32, 1e-5),
        (torch.bfloat16, 5e-2),
    ):
        got, dense = attended(segment, visible, groups, dtype, kernel="cpu_flash")
        assert (got.double() - dense).abs().max() < tolerance


def test_the_batch_equals_the_loop_over_single_runs(monkeypatch):
    segment, visible = video(6), frames_apart((2,), 6)
    fast, _ = attended(segment, visible, 2, torch.float32)

    def one_by_one(visible, ranges):
        stacks = stacks_of(visible, ranges)
        return [
            Stack(stack.start + n * stack.length, 1, stack.length, stack.earlier)
            for stack in stacks
            for n in range(stack.count)
        ]

    monkeypatch.setattr(rows_module, "stacks_of", one_by_one)
    slow, _ = attended(segment, visible, 2, torch.float32)
    assert (fast - slow).abs().max() < 1e-6


def test_strategy_1_leaves_the_prefix_on_the_dense_path():
    visible = frames_apart((1,), 6)
    assert not bool(visible.all())
    for segment in (video(6), video(1), video(6)[:0]):
        assert stacks_of(visible, segment_ranges(segment)) is None
    attended(video(6), visible, 2, kernel="sdpa")
    assert stacks_of(frames_apart((2,), 6), segment_ranges(video(6))) is not None


@st.composite
def tails(draw):
    """A prefix, who sees whom, and the newest rows of a batch of left-padded tails."""
    segment, _ = draw(prefixes())
    segments = Segments(int(segment.max()), 4)
    size = segments.size
    bits = draw(st.lists(st.booleans(), min_size=size * size, max_size=size * size))
    visible = torch.tensor(bits).view(size, size) | torch.eye(size, dtype=torch.bool)
    length = draw(st.integers(1, 6))
    rows = draw(st.sampled_from([1, length]) | st.integers(1, length))
    prompt = draw(st.integers(1, length))
    pads = draw(st.lists(st.integers(0, prompt - 1), min_size=1, max_size=3))
    return segment, segments, visible, length, rows, prompt, torch.tensor(pads)


@settings(max_examples=150, deadline=None)
@given(case=tails(), groups=st.sampled_from([1, 2]), cut=st.booleans(), shared=st.integers(0, 6))
def test_a_tail_equals_one_masked_softmax(case, groups, cut, shared):
    """Columns before the tail are the same for all rows of the batch up to `shared`."""
    segment, segments, visible, length, rows, prompt, pads = case
    batch, start = len(pads), len(segment)
    q, _, _ = make("cpu", torch.float64, rows=rows, batch=batch)
    _, k, v = make("cpu", torch.float64, keys=start + length, heads=4 // groups, batch=batch)
    same = min(shared, start)
    k[:, :, :same], v[:, :, :same] = k[:1, :, :same], v[:1, :, :same]
    edges = sorted({0, same, start // 2 if cut else start, start})
    pieces = [
        Columns(
            k[: 1 if b <= same else batch, :, a:b],
            v[: 1 if b <= same else batch, :, a:b],
            tuple(segment_ranges(segment[a:b])),
        )
        for a, b in itertools.pairwise(edges)
    ]
    padding = torch.arange(length) < pads[:, None]
    got, _ = attend_tail(
        q,
        k[:, :, start:],
        v[:, :, start:],
        pieces=pieces,
        plan=prefix_plan(segment, visible),
        segments=segments,
        prompt_length=prompt,
        padding=padding if bool(padding.any()) else None,
        scale=0.3,
    )
    asked = torch.arange(length) < prompt - 1
    names = torch.cat([segment, torch.where(asked, segments.question, segments.last)])
    mask = visible[names[start + length - rows :]][:, names]
    mask &= torch.ones(start + length, start + length, dtype=torch.bool).tril()[-rows:]
    mask = mask.repeat(batch, 1, 1)
    mask[:, :, start:] &= ~padding[:, None]
    real = ~padding[:, -rows:]
    mask[~real] = True  # rows of padding: nobody reads them
    expected, _ = reference(q, repeat_heads(k, groups), repeat_heads(v, groups), 0.3, mask[:, None])
    apart = (got - expected).abs().amax((1, 3))
    assert apart[real].max() < 1e-12


def test_columns_join_ranges_that_touch():
    assert joined([(0, 2), (2, 5), (7, 8)]) == [(0, 5), (7, 8)]
    states = torch.arange(9).view(1, 1, 9, 1)
    assert columns(states, [(0, 2), (2, 3), (7, 8)]).flatten().tolist() == [0, 1, 2, 7]
    assert columns(states, [(1, 2), (2, 4)]).data_ptr() == states[:, :, 1:].data_ptr()
