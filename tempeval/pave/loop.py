"""The steps of one training, from a micro-batch to checkpoints, measurements and the adapter."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import RunFailed
from tempeval.pave.batch import collate
from tempeval.pave.build import build_optimiser, build_student
from tempeval.pave.interrupt import Interrupted
from tempeval.pave.order import Order, derived_seed
from tempeval.pave.schedule import Schedule
from tempeval.pave.state import Identity, checkpoints, load_checkpoint, save_checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tempeval.pave.batch import Unit
    from tempeval.pave.config import TrainConfig
    from tempeval.pave.prepare import Prepared
    from tempeval.video.clip import VideoRef

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


class Loop:
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
            config.digest(),
            prepared.family.revision,
            prepared.examples.digest,
            prepared.content,
            per_step,
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
        every = self.config.checkpoints.every
        while self.step < self.steps:
            end = min(self.steps, (self.step // every + 1) * every)
            with self.prepared.eyes.ahead(self._videos_until(end)):
                while self.step < end:
                    self._advance(stop, stop_after)
        if self.prepared.held_out and not self.measured:  # it was done before
            self.measured = self._measure()

    def _advance(self, stop: Callable[[], bool], stop_after: int | None) -> None:
        """Take one step, and what follows it."""
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
        accelerator, numbers = self.accelerator, self._micro_batches(self.step)
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
        loss = accelerator.reduce(torch.stack(losses).mean(), reduction="mean")
        self._check_finite(float(loss), float(norm))
        rate = float(self.scheduler.get_last_lr()[0])
        self.optimiser.step()
        self.scheduler.step()
        self.optimiser.zero_grad()
        return {"loss": float(loss), "learning_rate": rate, "gradient_norm": float(norm)}

    def _check_finite(self, loss: float, norm: float) -> None:
        """Stop before weights become no numbers: all that is in checkpoints stays finite.

        Raises:
            RunFailed: for a loss or a gradient that is not finite.
        """
        if math.isfinite(loss) and math.isfinite(norm):
            return
        raise RunFailed(
            f"the loss is {loss} and the gradient's norm {norm} at step {self.step + 1}. Lower "
            "training.learning_rate and train anew, with another `out`: the checkpoints in "
            f"{str(self.out)!r} go on only with the settings that they were made with"
        )

    def _micro_batches(self, step: int) -> list[int]:
        accelerator = self.accelerator
        return self.order.micro_batches(step, accelerator.process_index, accelerator.num_processes)

    def _videos_until(self, end: int) -> list[tuple[VideoRef, str]]:
        """Return the videos of this process's steps from now to `end`, in order of use."""
        numbers = [n for step in range(self.step, end) for n in self._micro_batches(step)]
        units = [self.prepared.training[unit] for n in numbers for unit in self.order.units(n)]
        return [self.prepared.videos.items[unit.video] for unit in units]

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
            batch = self._collated(own[start : start + size])
            with accelerator.autocast():
                _, right, losses = self.student(batch)
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
