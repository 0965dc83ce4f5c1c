"""Quantiser, packing, codecs, settings and calibration files of KV-cache quantisation."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tempeval.engine.cache import ExactPrefix, PlainKV, SharedPrefix, TailCache, make_piece
from tempeval.engine.plan import EnginePlan, LayerPlan
from tempeval.engine.tail import attend_after_prefix
from tempeval.errors import CannotStore, InvalidSetting
from tempeval.methods import kv_calibration
from tempeval.methods.base import Chain
from tempeval.methods.kv_calibration import Bounds, read_calibration, write_calibration
from tempeval.methods.kv_codecs import KiviCodec, StaticCodec, StaticCodes, static_scale
from tempeval.methods.kv_packing import pack, unpack
from tempeval.methods.kv_quantization import KVQuant, dequantize, quantize
from tempeval.methods.pas import PAS
from tempeval.methods.registry import parse_chain
from tempeval.mini.paths import default_suite_dir
from tempeval.mini.rendering import ANNOTATIONS, file_digest
from tempeval.mini.scene import make_scene
from tempeval.mini.suite import SEED, suite_clips
from tempeval.run.calibration_clips import find_clips
from tempeval.stages import Geometry, PrefixTokens, RotaryPlan, RunFacts, Segments, Tail
from tempeval.verification.kivi import after_tokens, few_bits

GOLDEN = load_file(Path(__file__).parents[1] / "reference" / "kivi" / "kivi.safetensors")
GEOMETRY = Geometry(3, 4, 2, 8, 32, 64)
FACTS = RunFacts(GEOMETRY, True, 4096, 2, 2, 8, 64, revision="r1", chain_without_kv_cache="c1")
WIDE = replace(FACTS, geometry=replace(GEOMETRY, head_dim=32))


# ---------------------------------------------------------------- quantize


@pytest.mark.parametrize(("name", "axis"), [("k", 2), ("v", 3)])
@pytest.mark.parametrize("nbits", [2, 4])
def test_equals_kivi_exactly_in_float32(name, axis, nbits):
    codes, scale, zero = quantize(GOLDEN[f"{name}_in_f32"], nbits, axis, 32)
    assert codes.dtype == torch.uint8
    assert torch.equal(codes, GOLDEN[f"{name}_codes_{nbits}bit_f32"])
    assert torch.equal(scale, GOLDEN[f"{name}_scale_{nbits}bit_f32"])
    assert torch.equal(zero, GOLDEN[f"{name}_min_{nbits}bit_f32"])
    back = dequantize(codes, scale, zero, axis, 32)
    assert torch.equal(back, GOLDEN[f"{name}_out_{nbits}bit_f32"])
    # So does the slow cache that the engine is held against.
    own = GOLDEN[f"{name}_in_f32"].movedim(axis, -1).unflatten(-1, (-1, 32))
    slow = few_bits(own, nbits).flatten(-2).movedim(-1, axis)
    assert torch.equal(slow, GOLDEN[f"{name}_out_{nbits}bit_f32"])


@pytest.mark.parametrize(("name", "axis"), [("k", 2), ("v", 3)])
@pytest.mark.parametrize("nbits", [2, 4])
def test_stays_in_float16_as_kivi(name, axis, nbits):
    """Loose: a rounding of the scale in another order moves ties by one code."""
    codes, scale, zero = quantize(GOLDEN[f"{name}_in_f16"], nbits, axis, 32)
    assert scale.dtype == zero.dtype == torch.float16
    wanted = GOLDEN[f"{name}_codes_{nbits}bit_f16"]
    differs = codes != wanted
    assert differs.float().mean() < 0.01
    assert (codes.int() - wanted.int()).abs().max() <= 1
    back = dequantize(codes, scale, zero, axis, 32)
    assert back.dtype == torch.float16
    out = GOLDEN[f"{name}_out_{nbits}bit_f16"]
    assert torch.allclose(back[~differs].float(), out[~differs].float(), rtol=2e-3, atol=2e-3)


def slow_quantize(x, nbits, axis, group_size):
    """One group at a time, from the definition; `axis` is 2 or 3."""
    codes, back = torch.empty(x.shape, dtype=torch.uint8), torch.empty_like(x)
    moved = x.movedim(axis, -1)
    for index in product(*(range(n) for n in moved.shape[:-1])):
        for start in range(0, moved.shape[-1], group_size):
            where = (*index, slice(start, start + group_size))
            group = moved[where]
            low, high = group.min(), group.max()
            step = (high - low) / (2**nbits - 1)
            own = torch.zeros_like(group) if high == low else ((group - low) / step)
            own = own.clamp(0, 2**nbits - 1).round()
            codes.movedim(axis, -1)[where] = own.to(torch.uint8)
            back.movedim(axis, -1)[where] = own * step + low
    return codes, back


@pytest.mark.parametrize("nbits", [2, 4, 8])
@pytest.mark.parametrize(("axis", "group_size"), [(2, 3), (2, 6), (3, 4), (3, 10)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_one_group_at_a_time(nbits, axis, group_size, dtype):
    x = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(nbits)).to(dtype)
    codes, scale, zero = quantize(x, nbits, axis, group_size)
    wanted, back = slow_quantize(x, nbits, axis, group_size)
    assert torch.equal(codes, wanted)
    assert torch.equal(dequantize(codes, scale, zero, axis, group_size), back)
    groups = x.shape[axis] // group_size
    shape = [*x.shape[:axis], groups, 1, *x.shape[axis + 1 :]]
    assert list(scale.shape) == list(zero.shape) == shape
    assert torch.equal(quantize(x, nbits, axis - 4, group_size)[0], codes)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32])
def test_dequantize_leaves_its_input_and_takes_any_strides(axis, dtype):
    x = torch.randn(1, 2, 8, 4, generator=torch.Generator().manual_seed(0))
    codes, scale, zero = quantize(x, 4, axis, 4)
    wanted = dequantize(codes, scale, zero, axis, 4)
    given_codes = codes.to(dtype, copy=True)
    assert torch.equal(dequantize(given_codes, scale, zero, axis, 4), wanted)
    assert torch.equal(given_codes, codes.to(dtype))
    turned = given_codes.mT.contiguous().mT
    assert torch.equal(dequantize(turned, scale, zero, axis, 4), wanted)
    expanded = given_codes[:, :1, :1, :1].expand(codes.shape)
    assert torch.equal(
        dequantize(expanded, scale, zero, axis, 4),
        dequantize(expanded.contiguous(), scale, zero, axis, 4),
    )


numbers = st.floats(-1e4, 1e4, width=32)


@st.composite
def tensors(draw):
    group_size = draw(st.sampled_from([1, 2, 4, 8]))
    groups = draw(st.integers(1, 3))
    axis = draw(st.sampled_from([2, 3]))
    shape = [1, draw(st.integers(1, 2)), 2, 2]
    shape[axis] = groups * group_size
    count = torch.Size(shape).numel()
    values = draw(st.lists(numbers, min_size=count, max_size=count))
    return torch.tensor(values).view(shape), axis, group_size


@settings(deadline=None, max_examples=150)
@given(case=tensors(), nbits=st.sampled_from([2, 4, 8]))
def test_error_is_half_a_step_and_a_second_time_changes_nothing(case, nbits):
    x, axis, group_size = case
    codes, scale, zero = quantize(x, nbits, axis, group_size)
    # A step below the smallest normal number has lost its own digits.
    assume(bool(((scale >= torch.finfo(x.dtype).tiny) | (scale == 0)).all()))
    assert int(codes.max()) < 2**nbits
    back = dequantize(codes, scale, zero, axis, group_size)
    step = scale.expand_as(x.unflatten(axis, (-1, group_size))).reshape(x.shape)
    # Three roundings in float32 of numbers as large as the group's largest.
    slack = 4 * torch.finfo(x.dtype).eps * (x.abs().max() + 1e-30)
    assert ((back - x).abs() <= step / 2 + slack).all()
    # The dequantised numbers carry rounding of their own, which must stay far below a step.
    exact = dequantize(codes, scale.double(), zero.double(), axis, group_size)
    assert torch.equal(quantize(exact, nbits, axis, group_size)[0], codes)


@settings(deadline=None)
@given(
    value=st.floats(allow_nan=False, allow_infinity=False, width=16),
    nbits=st.sampled_from([2, 4, 8]),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)
def test_constant_groups_give_back_the_constant(value, nbits, dtype):
    x = torch.full((1, 1, 8, 4), value, dtype=dtype)
    for axis in (2, 3):
        codes, scale, zero = quantize(x, nbits, axis, 4)
        assert not codes.any()
        assert torch.equal(dequantize(codes, scale, zero, axis, 4), x)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused(bad):
    x = torch.zeros(1, 1, 4, 4)
    x[0, 0, 1, 2] = bad
    with pytest.raises(CannotStore, match="not finite"):
        quantize(x, 2, 2, 4)
    with pytest.raises(CannotStore, match="not finite"):
        StaticCodes.encode(x, 2, torch.zeros(1, 4), torch.ones(1, 4))


def test_a_range_that_overflows_is_refused():
    x = torch.tensor([-6e4, 6e4], dtype=torch.float16).view(1, 1, 1, 2)
    with pytest.raises(CannotStore, match="range overflows float16"):
        quantize(x, 2, 3, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (2, 2, 32),
            r"group_size=32 does not divide the 12 numbers along axis 2 .*\[1, 2, 12, 8\]",
        ),
        ((2, 3, 3), "group_size=3 does not divide the 8"),
        ((2, 2, 0), "group_size=0"),
        ((2, 4, 4), "axis=4 is not a dimension"),
        ((3, 2, 4), "nbits=3 is not one of 2, 4, 8"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InvalidSetting, match=message):
        quantize(torch.zeros(1, 2, 12, 8), *arguments)
    with pytest.raises(InvalidSetting, match="int64"):
        quantize(torch.zeros(1, 2, 12, 8, dtype=torch.long), 2, 2, 4)


# ---------------------------------------------------------------- packing


@given(
    shape=st.lists(st.integers(0, 7), min_size=1, max_size=4),
    nbits=st.sampled_from([2, 4, 8]),
    seed=st.integers(0, 100),
)
def test_packing_round_trip(shape, nbits, seed):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2**nbits, shape, generator=generator, dtype=torch.uint8)
    packed = pack(codes, nbits)
    assert packed.dtype == torch.uint8
    assert packed.untyped_storage().nbytes() == -(-codes.numel() * nbits // 8)
    assert torch.equal(unpack(packed, nbits, codes.shape), codes)


# ---------------------------------------------------------------- codecs


def kv(tokens, dim=32, heads=2, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    offset = 5 * torch.randn(1, heads, 1, dim, generator=generator)
    keys = offset + torch.randn(1, heads, tokens, dim, generator=generator)
    values = torch.randn(1, heads, tokens, dim, generator=generator)
    return keys.to(dtype), values.to(dtype)


def bounds_of(keys, values):
    parts = [f(2)[0] for x in (keys, values) for f in (x.amin, x.amax)]
    return Bounds(*(part.float() for part in parts))


@pytest.mark.parametrize(
    ("prefix", "question", "keys", "values"),
    [
        (255, 59, 1.0, 186 / 255),  # a question of typical length
        (255, 1, 1.0, 128 / 255),
        (254, 1, 128 / 254, 127 / 254),
        (100, 20, 0.0, 0.0),
        (100, 28, 1.0, 0.0),
        (100, 300, 1.0, 1.0),
    ],
)
def test_shares_of_a_prefix_are_those_of_kivis_window(prefix, question, keys, values):
    """The defaults: the window is the newest 128 tokens of the whole sequence."""
    held = KVQuant().kv_cache(0, WIDE.geometry).encode(*kv(prefix))
    counts = held.in_few_bits(question)
    assert counts == (round(keys * prefix), round(values * prefix))
    assert counts == tuple(
        min(count, prefix)
        for count in after_tokens(*(x[0] for x in kv(prefix + question)), 2, 32, 128).counts
    )


def test_the_released_code_asserts_whole_groups_and_here_as_many_as_fit_make_a_block():
    for residual, block in ((128, 128), (64, 64), (40, 32), (20, 32), (0, 32)):
        codec = KiviCodec(2, 32, residual)
        found = [codec.first_in_few_bits(tokens, 0) for tokens in range(300)]
        assert found == [(n // block * block, max(n - residual, 0)) for n in range(300)]


def attended(codec, case, *, exact=False):
    """A batch of tails through the engine, and each row by a cache of its own and one softmax.

    Args:
        codec: of the layer.
        case: (query heads, key/value heads, channels, prefix, questions' lengths, steps).
    """
    heads, kv_heads, dim, length, asked, steps = case
    generator = torch.Generator().manual_seed(length)
    widest, batch = max(asked), len(asked)
    total = widest + steps

    def random(*shape):
        numbers = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return numbers + torch.randn(shape[-1], generator=generator, dtype=torch.float64)

    keys, values = (random(1, kv_heads, length, dim) for _ in range(2))
    tail_keys, tail_values = (random(batch, kv_heads, total, dim) for _ in range(2))
    queries = random(batch, heads, total, dim)
    layout_segment = torch.zeros(length, dtype=torch.long)
    rotary = RotaryPlan(torch.zeros(length, dim // 2), torch.zeros(0), torch.zeros(0), 0.0, None)
    plan = EnginePlan(
        None,
        PrefixTokens.one_each(Segments(0, 1)),
        (LayerPlan(None, layout_segment, None, codec, rotary),),
        exact_prefill=exact,
    )
    piece = make_piece(codec.encode(keys, values), layout_segment)
    before = ExactPrefix([(make_piece(PlainKV(keys, values), layout_segment),)]) if exact else None
    prefix = SharedPrefix(length, ((piece,),), before)
    padding = torch.arange(total) < (widest - torch.tensor(asked))[:, None]
    starts = padding.sum(1).tolist()
    got = []
    for stop in range(widest, total + 1):
        rows = widest if stop == widest else 1
        out, _ = attend_after_prefix(
            queries[:, :, stop - rows : stop].clone(),
            tail_keys[:, :, :stop],
            tail_values[:, :, :stop],
            TailCache(prefix, widest),
            0,
            plan,
            padding=padding[:, :stop],
            starts=starts,
            scale=0.2,
        )
        got.append(out)
    got = torch.cat(got, dim=2)
    wanted = torch.zeros_like(got)
    groups = heads // kv_heads
    for row, start in enumerate(starts):
        k = torch.cat([keys[0], tail_keys[row, :, start:]], dim=1)
        v = torch.cat([values[0], tail_values[row, :, start:]], dim=1)
        asked_end = length + asked[row]
        cache = after_tokens(
            k[:, :asked_end], v[:, :asked_end], codec.nbits, codec.group_size, codec.residual_length
        )
        assert piece.held.nbytes(asked[row]) == cache.nbytes(8)
        prompt = [x[:, :length] for x in ((k, v) if exact else cache.read())]
        for n in range(length, k.shape[1]):
            if n < asked_end:  # the question: the prefix as held after the prompt
                own = [
                    torch.cat([h, x[:, length : n + 1]], 1)
                    for h, x in zip(prompt, (k, v), strict=True)
                ]
            else:  # what was generated: everything as held after what came before
                own = [
                    torch.cat([h, x[:, n : n + 1]], 1)
                    for h, x in zip(cache.read(), (k, v), strict=True)
                ]
                cache.append(k[:, n], v[:, n])
            read_keys, read_values = (x.repeat_interleave(groups, 0) for x in own)
            column = start + n - length
            query = queries[row, :, column]
            weights = (torch.einsum("hd,hnd->hn", query, read_keys) * 0.2).softmax(-1)
            wanted[row, :, column] = torch.einsum("hn,hnd->hd", weights, read_values)
        assert piece.held.nbytes(k.shape[1] - length) == cache.nbytes(8)
    real = ~padding
    return (got - wanted).abs().amax((1, 3))[real].max()


@pytest.mark.parametrize(
    "length",
    [0, 15, 17, 40, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 7, 8, 16, 24, 31, 55))],
)
@pytest.mark.parametrize("residual", [16, 0, 12])
def test_a_batch_of_questions_reads_what_kivis_cache_holds_for_each(length, residual):
    """Prefixes x questions x steps; groups that reach over the prefix's end, and tails longer than
    the window."""
    case = (4, 2, 8, length, (1, 2, 7, 9, 17, 40), 19)
    codec = KiviCodec(2, 8, residual)
    assert attended(codec, case) < 1e-9
    assert attended(codec, (4, 2, 8, length, (6,), 12), exact=True) < 1e-9


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim"),
    [
        (14, 2, 64),
        *(
            pytest.param(*heads, marks=pytest.mark.slow)
            for heads in ((28, 4, 128), (16, 2, 128), (32, 32, 128), (12, 2, 128))
        ),
    ],
)
@pytest.mark.parametrize("length", [255, 300])
def test_heads_of_released_models_under_the_defaults(heads, kv_heads, dim, length):
    """Qwen2.5-VL 7B and 3B, LLaVA-OneVision 0.5B, Video-LLaVA, Qwen2-VL 2B."""
    codec = KVQuant().kv_cache(0, Geometry(1, heads, kv_heads, dim, 64, 64))
    assert attended(codec, (heads, kv_heads, dim, length, (3, 59, 90), 2)) < 1e-9


@pytest.mark.parametrize("length", [3, 16, 21, 40])
def test_a_store_that_is_extended_is_the_store_of_the_longer_sequence(length):
    """What choices of a question read: prefix and question as one."""
    keys, values = kv(length + 30, dtype=torch.float64)
    codec = KiviCodec(2, 8, 16)
    whole = codec.encode(keys, values)
    for cut in {0, 1, length // 2, length}:
        longer = codec.encode(keys[:, :, :cut], values[:, :, :cut])
        longer = longer.extended(keys[:, :, cut:length], values[:, :, cut:length])
        longer = longer.extended(keys[:, :, length:], values[:, :, length:])
        for after in (0, 1, 5, 40):  # nothing has followed where a choice's first token is read
            tail = Tail(*kv(after, dtype=torch.float64, seed=1), [0], [after], whole=True)
            readings = [held.opened().read(tail) for held in (longer, whole)]
            for part in ("shared", "own", "tail"):
                for a, b in zip(*(getattr(r, part) or () for r in readings), strict=True):
                    assert torch.equal(a, b)
            assert longer.nbytes(after) == whole.nbytes(after)


@pytest.mark.parametrize("tokens", [0, 5, 6, 40])
@pytest.mark.parametrize("after", [1, 3, 9])
def test_static_keeps_the_newest_tokens_and_all_after_the_prefix(tokens, after):
    keys, values = kv(tokens)
    bounds = bounds_of(*kv(50, seed=1))
    held = StaticCodec(4, 5, bounds).encode(keys, values)
    split = min(max(tokens + after - 5, 0), tokens)
    assert held.in_few_bits(after) == (split, split)
    tail = Tail(*kv(after, seed=2), [0], [after], whole=True)
    reading = held.opened().read(tail)
    parts = zip(reading.shared, reading.own or reading.shared, (keys, values), strict=True)
    for shared, own, given_ in parts:
        got = torch.cat([shared, own], dim=2)[:, :, :tokens]
        assert torch.equal(got[:, :, split:], given_[:, :, split:])
        if split:
            assert not torch.equal(got[:, :, :split], given_[:, :, :split])
    assert all(a is b for a, b in zip(reading.tail, (tail.keys, tail.values), strict=True))
    longer = held.extended(*kv(after, seed=2))
    assert longer.in_few_bits(0) == (split, split)


def decoded(codes, dtype):
    out = torch.empty(codes.shape, dtype=dtype)
    codes.decode_to(out)
    return out


@pytest.mark.parametrize("nbits", [2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_static_equals_the_papers_formula(nbits, dtype):
    """X_q = clamp(round(X / S) + Z, 0, 2^n - 1), one number at a time, in Python's floats."""
    x = kv(7, dim=3, dtype=dtype)[0]
    # The calibration saw less than the first channel's range, and more than the second's.
    low, high = x[0].amin(1).float(), x[0].amax(1).float()
    low[:, 0] += 0.3
    high[:, 1] += 4
    codes = StaticCodes.encode(x, nbits, low, high)
    scale, zero = static_scale(low, high, nbits, dtype)
    assert (scale.dtype, zero.dtype) == (dtype, torch.int16)
    raw = unpack(codes.packed, nbits, x.shape)
    for head, token, channel in product(range(2), range(7), range(3)):
        s, z = float(scale[0, head, 0, channel]), int(zero[0, head, 0, channel])
        span = float(high[head, channel] - low[head, channel])
        assert s == pytest.approx(span / (2**nbits - 1), rel=float(torch.finfo(dtype).eps) + 1e-7)
        assert abs(-z * s - float(low[head, channel])) <= s / 2 + 1e-6
        wanted = min(max(round(float(x[0, head, token, channel]) / s) + z, 0), 2**nbits - 1)
        assert abs(int(raw[0, head, token, channel]) - wanted) <= (0 if dtype.itemsize > 2 else 1)
    back = decoded(codes, dtype)
    inside = (x[0] >= low[:, None]) & (x[0] <= high[:, None])
    error = (back - x)[0].abs()
    slack = 2 * torch.finfo(dtype).eps * x.abs().max() + 2 ** (nbits - 1) * 1e-6
    assert (error[inside] <= (scale[0].expand_as(error)[inside] * 0.501 + slack)).all()


@pytest.mark.parametrize("value", [0.0, 3.25, -1e4, 1e-3, 3e-7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_static_gives_back_a_channel_that_was_constant(value, dtype):
    x = torch.full((1, 1, 6, 2), value, dtype=dtype)
    bound = torch.full((1, 2), float(x[0, 0, 0, 0]))
    assert torch.equal(decoded(StaticCodes.encode(x, 2, bound, bound), dtype), x)


@pytest.mark.parametrize("scheme", ["kivi", "static"])
@pytest.mark.parametrize("nbits", [2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "residual"), [(40, 0), (71, 7), (333, 128), (1000, 128)])
def test_bytes_are_those_of_the_scheme(scheme, nbits, dtype, tokens, residual):
    keys, values = kv(tokens + 50, dim=48, dtype=dtype)
    keys, values = keys[:, :, 50:], values[:, :, 50:]  # views, as a caller may give
    for after in (1, 30, 200):
        if scheme == "kivi":
            codec = KiviCodec(nbits, 16, residual)
            longer = [x[0] for x in kv(tokens + after, dim=48, dtype=dtype)]
            computed = after_tokens(*longer, nbits, 16, residual).nbytes(2)
        else:
            codec = StaticCodec(nbits, residual, bounds_of(keys, values))
            split = min(max(tokens + after - residual, 0), tokens)
            exact = 2 * (2 * (tokens + after) - 2 * split) * 2 * 48
            computed = 2 * split * 2 * 48 * nbits / 8 + exact + 2 * 2 * 48 * (2 + 2)
        assert codec.encode(keys, values).nbytes(after) == computed


@pytest.mark.parametrize("scheme", ["kivi", "static"])
@pytest.mark.parametrize(("tokens", "residual"), [(40, 0), (333, 128)])
def test_nothing_is_held_beyond_codes_and_the_newest_tokens(scheme, tokens, residual):
    keys, values = kv(tokens + 50, dim=48, dtype=torch.float16)
    keys, values = keys[:, :, 50:], values[:, :, 50:]
    if scheme == "kivi":
        codec, scales = KiviCodec(2, 16, residual), 2 * 2 * 2 * tokens * 48 / 16 * 2
    else:
        codec, scales = StaticCodec(2, residual, bounds_of(keys, values)), 2 * 2 * 48 * 4
    held = codec.encode(keys, values)
    parts = [held.keys.exact, held.values.exact]
    parts += [t for part in (held.keys, held.values) for p in part.packed for t in p.tensors]
    # Keys wait for a whole block: up to `residual` of them, as values.
    newest = 2 * 2 * max(residual, 16) * 48 * 2
    most = 2 * 2 * tokens * 48 / 4 + scales + newest
    assert sum(t.untyped_storage().nbytes() for t in parts) <= most
    storages = {t.untyped_storage().data_ptr() for t in (keys, values)}
    assert not storages & {t.untyped_storage().data_ptr() for t in parts if t.numel()}


def test_a_row_says_how_much_was_in_few_bits():
    usages = [
        {"quantised_keys": 1.0, "quantised_values": 186 / 255, "visual_tokens": 250},
        {"quantised_keys": 1.0, "quantised_values": 190 / 255, "visual_tokens": 250},
        {"quantised_keys": 0.0, "quantised_values": 0.0, "visual_tokens": 0},  # text alone
    ]
    label = "2 bits for 100 % of the video's keys, 73.7 % of its values"
    assert KVQuant().measured(usages) == (label,)
    assert parse_chain("kv_quant+pas").measured(usages) == (f"kv_quant: {label}",)
    almost = [{"quantised_keys": 0.9999, "quantised_values": 0.9999, "visual_tokens": 9}]
    assert KVQuant(nbits=4).measured(almost) == (
        "4 bits for 99.9 % of the video's keys and values",
    )
    assert KVQuant().measured([{"error": "x"}]) == ()


# ---------------------------------------------------------------- settings


@pytest.fixture
def ranges(tmp_path):
    """A calibration file for GEOMETRY."""
    path = tmp_path / "ranges.safetensors"
    generator = torch.Generator().manual_seed(0)
    low, high = (
        -torch.rand(2, 3, 2, 8, generator=generator),
        torch.rand(2, 3, 2, 8, generator=generator),
    )
    facts = {"model_revision": "r1", "chain_fingerprint": "c1", "chain": "baseline"}
    write_calibration(path, Bounds(low[0], high[0], low[1], high[1]), facts)
    return path


def test_spelling_reads_back(ranges):
    for text in (
        "kv_quant",
        "kv_quant[nbits=4;group_size=16;residual_length=0;prefill=exact]",
        f"kv_quant[nbits=8;scheme=static;calibration={ranges}]",
    ):
        chain = parse_chain(text)
        assert parse_chain(chain.spec) == chain
        assert parse_chain(chain.spec).fingerprint == chain.fingerprint


def test_the_window_is_the_schemes_own_unless_it_is_set(ranges):
    kivi = KVQuant()
    static = KVQuant(scheme="static", calibration=str(ranges))
    for method, window in ((kivi, 128), (static, 0)):
        assert method.settings()["residual_length"] == window
        assert method.resolve(FACTS if method is static else WIDE)["residual_length"] == window
        assert method.kv_cache(0, GEOMETRY).residual_length == window
        # Written out it is the same method, under the same name.
        same = replace(method, residual_length=window)
        assert same == method
        assert same.spec() == method.spec()
    assert "residual_length" not in static.spec()
    assert replace(static, residual_length=128).spec().count("residual_length=128") == 1
    assert replace(kivi, residual_length=0).settings()["residual_length"] == 0


def test_fingerprint_follows_the_content_of_the_calibration_file(ranges, tmp_path):
    def fingerprint(path):
        return parse_chain(f"kv_quant[scheme=static;calibration={path}]").fingerprint

    before = fingerprint(ranges)
    digest = KVQuant(scheme="static", calibration=str(ranges)).settings()["calibration_digest"]
    assert digest == read_calibration(str(ranges)).digest
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(ranges.read_bytes())
    assert fingerprint(moved) == before
    bounds = read_calibration(str(ranges)).bounds
    write_calibration(ranges, replace(bounds, keys_low=bounds.keys_low - 1), {})
    assert fingerprint(ranges) != before
    assert KVQuant().settings()["calibration_digest"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nbits=3", "nbits=3 is not one of 2, 4, 8"),
        ("scheme=dynamic", "'dynamic' is not one of 'kivi', 'static'"),
        ("prefill=none", "prefill"),
        ("group_size=1", "group_size=1; accepted: 2 or more"),
        ("residual_length=-1", "residual_length=-1; accepted: 0"),
        ("scheme=static", "needs kv_quant.calibration.*tempeval calibrate"),
        ("calibration=x.safetensors", "no effect with scheme=kivi"),
        ("scheme=static;calibration=x;group_size=16", "group_size=16 has no effect"),
        ("scheme=static;calibration=a,b", "','"),
    ],
)
def test_bad_settings_are_refused(text, message):
    with pytest.raises(InvalidSetting, match=message):
        parse_chain(f"kv_quant[{text}]")


def test_groups_must_divide_the_head():
    with pytest.raises(InvalidSetting, match=r"group_size=32 .* 8 channels .* accepted: 2, 4, 8$"):
        KVQuant().resolve(FACTS)
    assert KVQuant(group_size=4).resolve(FACTS)["groups_per_token"] == 2


def test_calibration_must_fit_model_and_chain(ranges):
    method = KVQuant(scheme="static", calibration=str(ranges))
    assert method.resolve(FACTS)["calibration_chain"] == "baseline"
    for facts, message in (
        (replace(FACTS, revision="r2"), "model revision r1, the model loaded is r2"),
        (replace(FACTS, chain_without_kv_cache="c2"), "under method 'baseline'"),
        (replace(FACTS, geometry=replace(GEOMETRY, num_layers=4)), r"\(3, 2, 8\).*\(4, 2, 8\)"),
    ):
        with pytest.raises(InvalidSetting, match=f"{message}.*tempeval calibrate"):
            method.resolve(facts)
    codec = method.kv_cache(1, GEOMETRY)
    assert torch.equal(codec.bounds.keys_low, read_calibration(str(ranges)).bounds.keys_low[1])


def test_files_that_are_no_calibration_are_refused(tmp_path):
    (tmp_path / "text").write_text("not tensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    (tmp_path / "folder").mkdir()
    for name in ("missing", "text", "other.safetensors", "folder"):
        with pytest.raises(InvalidSetting, match=r"calibration file .*tempeval calibrate"):
            parse_chain(f"kv_quant[scheme=static;calibration={tmp_path / name}]").fingerprint  # noqa: B018


def test_a_calibration_file_is_written_whole_or_not_at_all(ranges, monkeypatch):
    before, bounds = ranges.read_bytes(), read_calibration(str(ranges)).bounds

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kv_calibration.os, "fsync", full_disk)
    with pytest.raises(Exception, match="No space left"):
        write_calibration(ranges, bounds, {"other": 1})
    assert ranges.read_bytes() == before
    assert [path.name for path in ranges.parent.iterdir()] == [ranges.name]


def test_the_rest_of_a_chain_is_what_calibration_runs():
    assert parse_chain("pas+kv_quant").without_kv_cache() == Chain([PAS()])
    assert parse_chain("kv_quant").without_kv_cache() == Chain()
    exact, held = parse_chain("kv_quant[prefill=exact]+pas"), parse_chain("kv_quant+pas")
    assert exact.kv_cache(0, GEOMETRY).exact_prefill
    assert not held.kv_cache(0, GEOMETRY).exact_prefill


# ---------------------------------------------------------------- calibration clips


def test_clips_of_a_folder_and_of_a_list(tmp_path):
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    for name in ("b.mp4", "a.webm", "more/c.MKV", "notes.txt"):
        (folder / name).write_bytes(name.encode())
    found = find_clips(str(folder), 16, 0, tmp_path)
    assert [clip.name for clip in found] == ["a.webm", "b.mp4", "c.MKV"]
    assert [c.name for c in find_clips(str(folder), 2, 0, tmp_path)] == ["a.webm", "c.MKV"]
    listed = tmp_path / "list.txt"
    listed.write_text("clips/b.mp4\n\nclips/more/c.MKV\n")
    assert [clip.name for clip in find_clips(str(listed), 16, 0, tmp_path)] == ["b.mp4", "c.MKV"]
    listed.write_text("clips/none.mp4\n")
    for source, message in (
        (listed, "is not a file"),
        (tmp_path / "none", "do not exist"),
        (folder / "more" / "empty", "do not exist"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            find_clips(str(source), 16, 0, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSetting, match="has no video"):
        find_clips(str(tmp_path / "empty"), 16, 0, tmp_path)


def test_test_data_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("TEMPEVAL_CACHE", str(tmp_path / "cache"))
    copied = tmp_path / "harmless" / "x.mp4"
    copied.parent.mkdir()
    copied.write_bytes(b"a mini test clip")
    assert len(find_clips(str(copied.parent), 1, 0, tmp_path)) == 1
    default_suite_dir().mkdir(parents=True)
    files = {"videos/mini-000.mp4": file_digest(copied)}
    (default_suite_dir() / ANNOTATIONS).write_text(json.dumps({"files": files}))
    with pytest.raises(InvalidSetting, match="test clip of the mini suite"):
        find_clips(str(copied.parent), 1, 0, tmp_path)
    for folder, message in (("hub/tempcompass", "lmms-eval keeps"), ("set/Val/x", "folder called")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.mp4").write_bytes(b"other")
        with pytest.raises(InvalidSetting, match=message):
            find_clips(str(tmp_path / folder), 1, 0, tmp_path)
    training = tmp_path / "test" / "train"
    training.mkdir(parents=True)
    (training / "a.mp4").write_bytes(b"other")
    assert len(find_clips(str(training), 1, 0, tmp_path)) == 1


def test_rendered_clips_are_no_test_clips(tmp_path):
    test_scenes = {clip.scene.noise for clip in suite_clips()}
    for seed in (0, SEED):
        found = find_clips("mini", 3, seed, tmp_path / str(seed))
        again = find_clips("mini", 3, seed, tmp_path / f"{seed}-again")
        assert [clip.digest for clip in found] == [clip.digest for clip in again]
        assert len({clip.digest for clip in found}) == 3
        scenes = [make_scene(np.random.default_rng([seed, 2, n + 1])) for n in range(3)]
        assert not {scene.noise for scene in scenes} & test_scenes
