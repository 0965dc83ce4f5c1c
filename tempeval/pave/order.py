"""In which order training meets its data: a function of seed and step, of nothing else.

A step takes `accumulation * processes` micro-batches, numbered through the whole training. Which
process computes which does not change what they are, so twice the processes with half the
accumulation train alike, and a resumed training goes on as if it had never stopped.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import lru_cache

import torch


@dataclass(frozen=True)
class Order:
    """The order of one training.

    Attributes:
        size: number of units.
        batch_size: units per micro-batch.
        per_step: micro-batches per optimiser step, over all processes.
        seed: of the shuffling, anew in each pass over the data.
    """

    size: int
    batch_size: int
    per_step: int
    seed: int

    def steps(self, epochs: int) -> int:
        """Return the steps of so many passes; the last step is filled up from one more."""
        return math.ceil(epochs * self.size / (self.batch_size * self.per_step))

    def micro_batches(self, step: int, rank: int, processes: int) -> list[int]:
        """Return the numbers of a process's micro-batches in a step."""
        first = step * self.per_step
        return list(range(first + rank, first + self.per_step, processes))

    def units(self, micro_batch: int) -> list[int]:
        """Return the units of a micro-batch."""
        first = micro_batch * self.batch_size
        found = []
        for place in range(first, first + self.batch_size):
            epoch, within = divmod(place, self.size)
            found.append(_shuffled(self.size, self.seed, epoch)[within])
        return found


@lru_cache(maxsize=4)
def _shuffled(size: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    order: list[int] = torch.randperm(size, generator=generator).tolist()
    return order


def derived_seed(seed: int, what: str, number: int = 0) -> int:
    """Return a seed of its own for one use, 0 to 2^63 - 1."""
    name = f"{seed}/{what}/{number}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1
