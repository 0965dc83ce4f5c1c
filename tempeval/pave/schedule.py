"""The learning rate over the steps: a linear rise, then a cosine to 0."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up and cosine, as `get_cosine_schedule_with_warmup` of transformers.

    Attributes:
        steps: optimiser steps of the whole training.
        warmup: steps of the rise.
    """

    steps: int
    warmup: int

    @classmethod
    def of_ratio(cls, steps: int, ratio: float) -> Schedule:
        """Build with a share of the steps, rounded up, for the rise."""
        return cls(steps, math.ceil(steps * ratio))

    def __call__(self, step: int) -> float:
        """Return the rate of a step (from 0) as a fraction of the peak."""
        if step < self.warmup:
            return step / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return max(0.0, 0.5 * (1 + math.cos(math.pi * progress)))
