"""The shift of queries, against a rotation written number by number."""

from __future__ import annotations

import cmath

import pytest
import torch

from tempeval.engine.query_shift import shift_queries
from tempeval.stages import RotaryPlan

HEADS = {"none": [], "one": [2], "spaced": [1, 3], "uneven": [0, 1, 4], "all": [0, 1, 2, 3, 4]}
ROWS = {"run": [2, 3, 4], "uneven": [0, 3, 4], "spaced": [1, 3, 5], "all": [0, 1, 2, 3, 4, 5]}
CHANNELS = {"run": [0, 1], "uneven": [0, 1, 3]}


def plan_with(shift: torch.Tensor, scale: torch.Tensor) -> RotaryPlan:
    half = shift.shape[1]
    return RotaryPlan(
        positions=torch.zeros(len(scale), half, dtype=torch.float64),
        axis=torch.zeros(half, dtype=torch.long),
        inv_freq=torch.linspace(1.0, 0.2, half),
        next_position=0.0,
        step=torch.zeros(len(scale), dtype=torch.float64),
        query_shift=shift,
        shift_scale=scale,
    )


@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("channels", CHANNELS.values(), ids=CHANNELS)
def test_every_number_is_rotated_by_its_own_shift(heads, rows, channels) -> None:
    batch, width, length, half = 2, 5, 6, 4
    generator = torch.Generator().manual_seed(0)
    shift = torch.zeros(width, half, dtype=torch.float64)
    for head in heads:
        for channel in channels:
            shift[head, channel] = torch.randn(1, generator=generator).item()
    scale = torch.zeros(length, dtype=torch.float64)
    for n, row in enumerate(rows):
        scale[row] = 1.0 + n % 2  # two different bins
    plan = plan_with(shift, scale)
    query = torch.randn(batch, width, length, 2 * half, generator=generator, dtype=torch.float64)
    expected = query.clone()
    for b in range(batch):
        for head in range(width):
            for row in range(length):
                for c in range(half):
                    angle = float(shift[head, c] * scale[row] * plan.inv_freq[c].double())
                    pair = complex(query[b, head, row, c], query[b, head, row, c + half])
                    turned = pair * cmath.exp(1j * angle)
                    expected[b, head, row, c] = turned.real
                    expected[b, head, row, c + half] = turned.imag
    # As attention has it: heads inside rows in memory.
    laid = query.transpose(1, 2).contiguous().transpose(1, 2)
    got = shift_queries(laid, plan, scale)
    assert got is laid
    assert torch.allclose(got, expected, atol=1e-12, rtol=0)
    untouched = [head for head in range(width) if head not in heads]
    assert torch.equal(got[:, untouched], query[:, untouched])


def test_one_scale_for_all_rows() -> None:
    shift = torch.tensor([[0.0, 0.0], [0.5, 0.0]], dtype=torch.float64)
    plan = plan_with(shift, torch.zeros(3, dtype=torch.float64))
    query = torch.randn(1, 2, 3, 4)
    expected = shift_queries(query.clone(), plan, torch.full((3,), 2.0, dtype=torch.float64))
    assert torch.equal(shift_queries(query.clone(), plan, 2.0), expected)
    assert not torch.equal(expected, query)
    assert torch.equal(shift_queries(query.clone(), plan, 0.0), query)
