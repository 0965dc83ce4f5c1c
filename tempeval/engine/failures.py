"""What ends a sample and not the run, and how a record says so."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from tempeval.engine.scores import Scores
from tempeval.errors import BadVideo, CannotStore

if TYPE_CHECKING:
    from tempeval.engine.answer import Answer

#: torch has no exception of its own for host memory: it raises a RuntimeError that starts
#: "[enforce fail at alloc_cpu.cpp:127]". Both its messages ("can't allocate memory", "not enough
#: memory") name the allocator.
_HOST_ALLOCATOR = "DefaultCPUAllocator: "

ENCODING = "out of memory while encoding the video"
PREFILLING = "out of memory in the prefill of the prompt"
ONE_QUESTION = "out of memory, also with one question at a time"
ONE_CHOICE = "out of memory, also with one choice at a time"
ALL_CHOICES = "out of memory with all choices of one question, whose prefix serves one pass only"

NOT_FINITE = (
    "the model's scores are not finite numbers (NaN or infinity), so there is no answer to read "
    "from them; check the checkpoint, or run it with dtype=float32 or bfloat16"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an exception is about memory, of the device or of the host."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and _HOST_ALLOCATOR in str(error)


def describe(error: BaseException, when: str) -> str:
    """Return the reason that a sample's record carries.

    Args:
        error: what was raised.
        when: what did not fit, if it is about memory.
    """
    if isinstance(error, (BadVideo, CannotStore)):
        return str(error)
    first = str(error).split("\n", maxsplit=1)[0]
    return f"{when}: {first}"


def problem_of(answer: Answer | Scores) -> str | None:
    """Say why an answer cannot be used; None if it can."""
    if isinstance(answer, Scores):
        finite = all(map(math.isfinite, answer.log_likelihoods))
    else:
        finite = answer.finite
    return None if finite else NOT_FINITE
