"""The `tempeval mini` commands: render the clips, locate and train the tiny checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from tempeval.console import say

mini_app = typer.Typer(
    no_args_is_help=True,
    help="The mini suite: rendered clips and tiny checkpoints.",
    epilog="Example: tempeval mini render",
)


@mini_app.command(epilog="Example: tempeval mini render -o clips")
def render(
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Folder; the user's cache if not given.")
    ] = None,
) -> None:
    """Render the test clips, unless they are there already; print their folder."""
    from tempeval.mini.render import render_suite

    typer.echo(render_suite(out))


@mini_app.command(epilog='Example: lmms-eval --model_args pretrained="$(tempeval mini path)" ...')
def path(
    family: Annotated[str, typer.Argument(help="Checkpoint to locate.")] = "qwen2_5_vl",
) -> None:
    """Print the folder of a tiny checkpoint, and nothing else."""
    from tempeval.mini.paths import checkpoint

    typer.echo(checkpoint(family))


@mini_app.command(epilog="Example: tempeval mini train -o my-checkpoint --steps 200")
def train(
    out: Annotated[Path, typer.Option("-o", "--out", help="New folder for the checkpoint.")],
    family: Annotated[str, typer.Option(help="Kind of model to train.")] = "qwen2_5_vl",
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps; the recipe's number if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the weights and the training clips.")] = 0,
    threads: Annotated[
        int, typer.Option(help="CPU threads; the shipped checkpoint was made with 1.")
    ] = 1,
) -> None:
    """Train a tiny checkpoint on rendered clips, measure it, and write it with its card."""
    from tempeval.mini.train import Progress
    from tempeval.mini.train import train as train_checkpoint

    def show(progress: Progress) -> None:
        if progress.step % 50 == 0 or progress.step == progress.steps:
            say(f"step {progress.step}/{progress.steps}, loss {progress.loss:.3f}")

    made = train_checkpoint(family, out, steps=steps, seed=seed, threads=threads, progress=show)
    for order, accuracy in made.results.items():
        say(f"accuracy, {order} frames: {100 * accuracy.overall:.1f} %")
    say(f"written: {made.folder} ({made.seconds:.0f} s)")
