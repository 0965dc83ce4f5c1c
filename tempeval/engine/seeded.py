"""Random numbers of sampled answers: the same for the same questions, whoever computes them."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.engine.work import Item


def batch_seed(seed: int, items: Sequence[Item]) -> int:
    """Return the seed of a batch: of the run's seed and of what is asked, in order.

    Batches are fixed by the plan and whole videos go to one rank, so a resumed run and any number
    of ranks draw the same numbers. A batch that is halved because it does not fit in memory is
    another batch and draws others. The methods of a run draw the same numbers, so that their
    answers differ by the method alone as far as they can.

    Args:
        seed: of the run.
        items: the questions that are answered together.
    """
    names = [[item.question.identity(), item.repeat] for item in items]
    digest = hashlib.sha256(json.dumps([seed, names]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # torch takes 64 bits with a sign


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Draw from a seed inside, on the CPU and on a GPU; both go on outside as if unused."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices, device_type="cuda"):
        # Not torch.manual_seed, which would also seed the GPUs that are not forked here.
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
