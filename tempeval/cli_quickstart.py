"""`tempeval quickstart`: every method on the mini suites, and the leaderboard of it."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tempeval.cli_matrix import Out, Overwrite, evaluate
from tempeval.console import say

if TYPE_CHECKING:
    from tempeval.run.spec import RunSpec

#: Methods that keep the number of visual tokens, with settings that fit clips of 4 temporal grids
#: and about 60 prefix tokens, and a chain.
QUICKSTART_METHODS = (
    "baseline",
    "pas",
    "vrope",
    "rope_scale[scale=2]",
    "rearrange[frames_per_group=4]",
    "intp[scale=2;frames_per_group=4]",
    "kv_quant[group_size=8;residual_length=0]",
    "temporal_exit",
    "staged_sparse[strategies=1/3]",
    "reverse_order",
    "reverse_pe",
    "pas+staged_sparse[strategies=1/3]+kv_quant[group_size=8;residual_length=0]",
)


@dataclass(frozen=True)
class Part:
    """One matrix of the quickstart: methods on a suite, in a folder of their own."""

    folder: str
    task: str
    methods: tuple[str, ...]
    budget: int | None = None


#: What `slowfast` leaves of a video is far fewer tokens, so frames are sized for an equal number.
BUDGET = 48
#: PAVE has suites of its own, with what it listens to. Choices are scored, because the base model
#: answers their questions with words that no choice has. `shuffle` gives each clip the side channel
#: of another: what is left then is not heard but guessed.
PARTS = (
    Part("runs", "tempeval_mini", QUICKSTART_METHODS),
    Part("runs-budget", "tempeval_mini", ("baseline", "slowfast", "slowfast+pas"), BUDGET),
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
    only: Annotated[list[str] | None, typer.Option("--only", hidden=True)] = None,
) -> None:
    """Compare all methods on the mini suites with a tiny trained model: offline, on a CPU."""
    # A tiny model's operations are too small for threads: on a busy machine they wait for one
    # another. Read by torch when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from tempeval.leaderboard import build

    began = time.time()

    def run(part: Part, overwrite: bool) -> list[Path]:
        return evaluate(_options(part, out, limit, overwrite), since=began)

    if only:
        for part in PARTS:
            if part.folder in only:
                run(part, overwrite)
        return
    first, *others = PARTS
    with _beside(out, limit, overwrite, others) as finished:
        folders = run(first, overwrite)
        finished()
    # What is there is reused; what the other process could not do fails here, and says why.
    folders += [folder for part in others for folder in run(part, overwrite=False)]
    summary = build(folders, out / "leaderboard")
    say(f"\n{summary.text}")
    say(f"written: {summary.markdown} and {summary.json}; runs in {out}/runs*")
    say(f"look at: {summary.markdown.with_name('index.html')}")


def _options(part: Part, out: Path, limit: int | None, overwrite: bool) -> "RunSpec":
    from tempeval.run.spec import RunSpec

    return RunSpec(
        out=out / part.folder,
        methods=part.methods,
        tasks=[part.task],
        budgets=() if part.budget is None else (part.budget,),
        limit=limit,
        overwrite=overwrite,
        overwrite_different=True,
    )


@contextlib.contextmanager
def _beside(
    out: Path, limit: int | None, overwrite: bool, parts: Sequence[Part]
) -> Iterator[Callable[[], object]]:
    """Run parts in a second process, silently, for machines with two cores; yield its wait."""
    command = [sys.executable, "-m", "tempeval", "quickstart", "-o", str(out)]
    command += [] if limit is None else ["--limit", str(limit)]
    command += ["--overwrite"] if overwrite else []
    command += [word for part in parts for word in ("--only", part.folder)]
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            yield child.wait
        finally:
            # On the way out of an interrupt or an error; a finished process is left as it is.
            child.terminate()
