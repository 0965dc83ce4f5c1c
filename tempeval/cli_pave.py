"""The `tempeval pave` commands: train a patch on a frozen base model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tempeval.console import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.pave.train import Progress

pave_app = typer.Typer(
    no_args_is_help=True,
    help="PAVE: a small patch adds what a side channel says to visual tokens.",
    epilog="Example: tempeval pave train --config pave.yaml",
)


@pave_app.callback()
def _group() -> None:
    """Keep `train` a command of its own, though it is the only one."""


@pave_app.command(epilog="Example: tempeval pave train --config pave.yaml --resume")
def train(
    config: Annotated[Path, typer.Option(help="Configuration, a YAML file.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder; replaces `out` of the file.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint.")
    ] = False,
) -> None:
    """Train a patch and low-rank changes; write checkpoints, and the adapter at the end.

    Under `torchrun` or `accelerate launch` all processes train together. Ctrl-C finishes the step
    and writes a checkpoint; --resume then goes on as if nothing had happened.
    """
    from dataclasses import replace

    from tempeval.pave.config import read_config
    from tempeval.pave.train import train as run

    settings = read_config(config)
    if out is not None:
        settings = replace(settings, out=str(out))
    bars = _Bars()
    try:
        made = run(settings, resume=resume, report=bars.show)
    finally:
        bars.close()
    if not bars.is_first:
        return
    if made.held_out:
        say(f"held out videos: accuracy {100 * made.held_out['accuracy']:.1f} %")
    say(f"written: {made.folder} ({made.steps} steps, {made.seconds:.0f} s)")
    say(f"next: --methods 'pave[adapter={made.folder}]'")


class _Bars:
    """One progress bar per stage, on the first process alone."""

    def __init__(self) -> None:
        import os

        self.is_first = os.environ.get("RANK", "0") == "0"
        self._stage = ""
        self._bar: Any = None

    @property
    def show(self) -> "Callable[[Progress], None]":
        return self._show if self.is_first else lambda progress: None

    def _show(self, progress: "Progress") -> None:
        from tqdm import tqdm

        if progress.stage != self._stage:
            self.close()
            self._stage = progress.stage
            self._bar = tqdm(total=progress.total, desc=progress.stage, initial=progress.done - 1)
        self._bar.update(progress.done - self._bar.n)
        if "loss" in progress.values:
            loss, rate = progress.values["loss"], progress.values["learning_rate"]
            self._bar.set_postfix_str(f"loss {loss:.3f}, learning rate {rate:.2e}")
        if "held_out_accuracy" in progress.values:
            accuracy = 100 * progress.values["held_out_accuracy"]
            self._bar.write(f"step {progress.done}: held out accuracy {accuracy:.1f} %")

    def close(self) -> None:
        """End the current bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
