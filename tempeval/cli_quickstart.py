"""`tempeval quickstart`: every method on the mini suites, and the leaderboard of it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from tempeval.cli_matrix import Out, Overwrite, evaluate

#: Every method once, with settings that fit clips of 4 temporal grids and about 60 prefix tokens,
#: and two chains. `slowfast` has other visual tokens than the rest: the leaderboard says so.
QUICKSTART_METHODS = (
    "baseline",
    "pas",
    "vrope",
    "rope_scale[scale=2]",
    "rearrange[frames_per_group=4]",
    "intp[kv_bits=16;scale=2;frames_per_group=4]",
    "kv_quant[group_size=8;residual_length=0]",
    "temporal_exit",
    "staged_sparse[strategies=1/3]",
    "slowfast",
    "reverse_order",
    "reverse_pe",
    "pas+temporal_exit",
    "pas+staged_sparse[strategies=1/3]+kv_quant[group_size=8;residual_length=0]",
)


@dataclass(frozen=True)
class Part:
    """One matrix of the quickstart: methods on a suite, in a folder of their own."""

    folder: str
    task: str
    methods: tuple[str, ...]


#: PAVE has suites of its own, with what it listens to. Choices are scored, because the base model
#: answers their questions with words that no choice has. `shuffle` gives each clip the side channel
#: of another: what is left then is not heard but guessed.
PARTS = (
    Part("runs", "tempeval_mini", QUICKSTART_METHODS),
    *(
        Part(
            f"runs-{channel}",
            f"tempeval_mini_{channel}_choice",
            (
                "baseline",
                f"pave[adapter=mini:{channel}]",
                f"pave[adapter=mini:{channel};shuffle=0]",
            ),
        )
        for channel in ("audio", "highfps")
    ),
)


def quickstart(
    out: Out = Path("results/quickstart"),
    limit: Annotated[int | None, typer.Option(help="First N documents per task.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare all methods on the mini suites with a tiny trained model: offline, on a CPU."""
    # A tiny model's operations are too small for threads: on a busy machine they wait for one
    # another. Read by torch when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tempeval.leaderboard import build
    from tempeval.matrix import RunOptions

    folders = [
        folder
        for part in PARTS
        for folder in evaluate(
            RunOptions(
                out=out / part.folder,
                methods=part.methods,
                tasks=[part.task],
                limit=limit,
                overwrite=overwrite,
                overwrite_different=True,
            )
        )
    ]
    summary = build(folders, out / "leaderboard")
    typer.echo(f"\n{summary.text}")
    typer.echo(f"written: {summary.markdown} and {summary.json}; runs in {out}/runs*")
