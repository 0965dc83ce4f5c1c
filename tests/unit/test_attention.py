"""`attend_lse` and `merge` against one softmax over all keys, for every kernel of this machine."""

from __future__ import annotations

import itertools

import pytest
import torch

from tempeval.engine.attention import attend_lse, attend_shared, kernels_for, merge, repeat_heads

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
def test_every_kernel_equals_one_softmax(device, dtype, case):
    rows = 29 if case == "causal" else 13
    q, k, v = make(device, dtype, rows=rows)
    mask = None
    if case == "masked":
        generator = torch.Generator().manual_seed(1)
        mask = torch.rand(2, 1, rows, 29, generator=generator).to(device) > 0.5
        mask[..., 0] = True
    dense = torch.ones(rows, 29, dtype=torch.bool, device=device)
    dense = dense.tril() if case == "causal" else dense
    expected, lse = reference(q, k, v, 0.3, dense if mask is None else mask)
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
