"""Train a patch and low-rank changes on a frozen base model."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import InvalidSetting, RunFailed
from tempeval.pave.batch import collate
from tempeval.pave.build import build_optimiser, build_student
from tempeval.pave.interrupt import Interrupted, watched
from tempeval.pave.order import Order, derived_seed
from tempeval.pave.prepare import Prepared, prepare
from tempeval.pave.schedule import Schedule
from tempeval.pave.state import Identity, checkpoints, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.pave.batch import Unit
    from tempeval.pave.config import TrainConfig

_LOG = logging.getLogger(__name__)
LOG = "log.jsonl"


@dataclass(frozen=True)
class Progress:
    """What is reported: a stage of the preparation, or a step.

    Attributes:
        stage: `render`, `encode`, `train` or `measure`.
        done, total: of the stage.
        values: of a step or a measurement, such as `loss` and `learning_rate`.
    """

    stage: str
    done: int
    total: int
    values: dict[str, float] = field(default_factory=dict)


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
        RunFailed: if it was interrupted; the message says how to go on.
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
    loop = _Loop(config, out, accelerator, prepared, report)
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


class _Loop:
    """The steps of one training."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        accelerator: Any,
        prepared: Prepared,
        report: Callable[[Progress], None],
    ) -> None:
        self.config, self.out, self.accelerator = config, out, accelerator
        self.prepared, self.report = prepared, report
        settings = config.training
        per_step = settings.gradient_accumulation * accelerator.num_processes
        self.order = Order(
            len(prepared.training), settings.batch_size, per_step, derived_seed(settings.seed, "")
        )
        self.steps = settings.steps or self.order.steps(settings.epochs)
        self.step = 0
        self.measured: dict[str, float] = {}
        self.identity = Identity(
            config.digest(), prepared.family.revision, prepared.examples.digest, per_step
        )
        self.student = build_student(config, prepared)
        self.weights = self.student.trainable()
        self.optimiser = build_optimiser(config, self.weights)
        schedule = Schedule.of_ratio(self.steps, settings.warmup_ratio)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimiser, schedule)
        self.model = accelerator.prepare_model(self.student)

    def restore(self) -> None:
        """Go back to the newest checkpoint."""
        newest = checkpoints(self.out)[-1]
        load_checkpoint(newest, self.weights, self.optimiser, self.scheduler, self.identity)
        self.step = newest.step
        if self.accelerator.is_main_process:
            _cut_log(self.out / LOG, self.step)

    def run(self, stop: Callable[[], bool], stop_after: int | None) -> None:
        """Take all steps that are left.

        Raises:
            RunFailed: if it was asked to stop before.
        """
        while self.step < self.steps:
            values = self._take_step()
            self.step += 1
            stopped = self._agreed(stop() or self.step == stop_after)
            last = self.step == self.steps
            if last or stopped or self.step % self.config.checkpoints.every == 0:
                self._save()
                if self.prepared.held_out and not (stopped and not last):
                    self.measured = self._measure()
                    values |= {f"held_out_{k}": v for k, v in self.measured.items()}
            self._log(values)
            self.report(Progress("train", self.step, self.steps, values))
            if stopped and not last:
                raise Interrupted(self.step, self.steps, self.out)

    def _take_step(self) -> dict[str, float]:
        self.model.train()
        accelerator, numbers = self.accelerator, self._micro_batches()
        losses = []
        for place, number in enumerate(numbers):
            final = place == len(numbers) - 1
            with contextlib.nullcontext() if final else accelerator.no_sync(self.model):
                torch.manual_seed(derived_seed(self.config.training.seed, "dropout", number))
                loss, _, _ = self.model(self._batch(self.order.units(number)))
                accelerator.backward(loss)
            losses.append(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(
            self.weights.values(), self.config.training.max_grad_norm
        )
        rate = float(self.scheduler.get_last_lr()[0])
        self.optimiser.step()
        self.scheduler.step()
        self.optimiser.zero_grad()
        loss = accelerator.reduce(torch.stack(losses).mean(), reduction="mean")
        if not bool(torch.isfinite(loss)):
            raise RunFailed(
                f"the loss is {float(loss)} at step {self.step + 1}; lower training.learning_rate "
                f"and go on from the last checkpoint in {str(self.out)!r}"
            )
        return {"loss": float(loss), "learning_rate": rate, "gradient_norm": float(norm)}

    def _micro_batches(self) -> list[int]:
        accelerator = self.accelerator
        return self.order.micro_batches(
            self.step, accelerator.process_index, accelerator.num_processes
        )

    def _batch(self, numbers: list[int]) -> Any:
        return self._collated([self.prepared.training[n] for n in numbers])

    def _collated(self, units: list[Unit]) -> Any:
        prepared = self.prepared
        return collate(prepared.family, units, [prepared.seen(unit.video) for unit in units])

    @torch.no_grad()
    def _measure(self) -> dict[str, float]:
        """Return accuracy and loss per question on held out videos, over all processes."""
        self.student.eval()
        accelerator, size = self.accelerator, self.config.training.batch_size
        own = self.prepared.held_out[accelerator.process_index :: accelerator.num_processes]
        sums = torch.zeros(3, device=accelerator.device)
        for start in range(0, len(own), size):
            with accelerator.autocast():
                _, right, losses = self.student(self._collated(own[start : start + size]))
            sums += torch.stack([right.float().sum(), losses.sum(), sums.new_tensor(len(right))])
        right, loss, count = accelerator.reduce(sums, reduction="sum").tolist()
        return {"accuracy": right / count, "loss": loss / count}

    def _agreed(self, stop: bool) -> bool:
        """Return whether any process was asked to stop."""
        if self.accelerator.num_processes == 1:
            return stop
        flag = torch.tensor(float(stop), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum") > 0)

    def _save(self) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(
                self.out,
                self.step,
                self.weights,
                self.optimiser,
                self.scheduler,
                self.identity,
                self.config.checkpoints.keep,
            )
        self.accelerator.wait_for_everyone()

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            self.out.mkdir(parents=True, exist_ok=True)
            with (self.out / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.step, **values}) + "\n")

    def write(self) -> None:
        """Write the adapter."""
        from tempeval.pave.adapter import write_adapter

        write_adapter(self.out, self.config, self.prepared, self.student, self.step, self.measured)


def _cut_log(path: Path, step: int) -> None:
    """Drop what was logged after a step: it is done again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
    path.write_text("".join(kept), "utf-8")
