"""Train a patch and low-rank changes on a frozen base model."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import InvalidSetting
from tempeval.pave.interrupt import watched
from tempeval.pave.loop import Loop, Progress
from tempeval.pave.prepare import prepare
from tempeval.pave.state import checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.pave.config import TrainConfig

__all__ = ["Progress", "Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
        folder: the adapter.
        steps: optimiser steps.
        seconds: wall time of the steps of this call.
        held_out: last measurement on held out videos: `accuracy`, `loss`; empty if none are.
    """

    folder: Path
    steps: int
    seconds: float
    held_out: dict[str, float]


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    stop_after: int | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train, write checkpoints on the way, and the adapter at the end.

    Dropout is drawn from the seed and the number of the micro-batch, so neither the number of
    processes nor a stop changes it. Ctrl-C finishes the step and writes a checkpoint.

    Args:
        config: what is trained on what, and how.
        resume: go on from the newest checkpoint in `config.out`; start where there is none.
        stop_after: stop as if interrupted after so many steps in all.
        report: gets progress; on every process.

    Raises:
        TempevalError: for settings or data that cannot be used.
        RunFailed: if it was interrupted, or a loss is not finite; the message says how to go on.
    """
    out = Path(config.out).expanduser()
    found = checkpoints(out)
    if found and not resume:
        raise InvalidSetting(
            f"out={str(out)!r} holds a training that began; add --resume to go on with it, or "
            "give another folder"
        )
    accelerator = _accelerator(config)
    prepared = prepare(config, accelerator, _staged(report))
    loop = Loop(config, out, accelerator, prepared, report)
    if found:
        loop.restore()
    began = time.perf_counter()
    with watched() as stop:
        loop.run(stop, stop_after)
    seconds = time.perf_counter() - began
    if accelerator.is_main_process:
        loop.write()
    accelerator.wait_for_everyone()
    return Trained(out, loop.step, seconds, loop.measured)


def _staged(
    report: Callable[[Progress], None],
) -> Callable[[str, int, int], None]:
    return lambda stage, done, total: report(Progress(stage, done, total))


def _accelerator(config: TrainConfig) -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.utils import parse_flag_from_env

    device, on_gpu = config.base.device, torch.cuda.is_available()
    if device == "cuda" and not on_gpu:
        raise InvalidSetting("base.device='cuda', but no GPU is available here; use auto or cpu")
    on_cpu = device == "cpu" or not on_gpu or parse_flag_from_env("ACCELERATE_USE_CPU")
    precision = config.training.precision
    half = precision == "bfloat16" or (
        precision == "auto" and not on_cpu and torch.cuda.is_bf16_supported()
    )
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="bf16" if half else "no",
        gradient_accumulation_steps=config.training.gradient_accumulation,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
