"""`tempeval score`: a file of answers, scored with a task's own functions."""

import json
from pathlib import Path
from typing import Annotated

import typer

from tempeval.console import say
from tempeval.errors import RunFailed


def score(
    task: Annotated[str, typer.Argument(help="A benchmark task or group.")],
    data_root: Annotated[
        Path, typer.Option(help="Folder that holds the official annotation files.")
    ],
    predictions: Annotated[
        Path,
        typer.Option(help="JSON file {sample_id: answer}, or an official result file of NExT-QA."),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    allow_missing: Annotated[
        bool, typer.Option(help="Count samples without a prediction as wrong under every metric.")
    ] = False,
    submission: Annotated[
        Path | None,
        typer.Option(help="Write the file to hand in here, for a task whose answers are hidden."),
    ] = None,
) -> None:
    """Score answers without a model: the same functions as in a run, on the official files.

    No video is needed. The exit code is 1 when a metric could not be computed (it is named, the
    others are printed), 2 when the files or the predictions are not usable.
    """
    from tempeval.run.rescore import read_predictions, rescore

    found = rescore(
        task,
        read_predictions(predictions),
        data_root,
        allow_missing=allow_missing,
        submission=submission,
    )
    if as_json:
        say(
            json.dumps(
                {
                    "task": task,
                    "metrics": {name: round(value, 6) for name, value in found.metrics.items()},
                    "errors": found.errors,
                    "samples": found.samples,
                    "missing": found.missing,
                    "failed": found.failed,
                    "unused": found.unused,
                    "unread": found.unread,
                }
            )
        )
    else:
        from tabulate import tabulate

        rows = [(name, f"{value:.2f}") for name, value in found.metrics.items()]
        say(tabulate(rows, headers=["metric", "%"], tablefmt="github", disable_numparse=True))
        say(f"{found.samples} samples of {task}, {found.failed} failed")
    if found.missing:
        say(f"{found.missing} samples have no prediction: counted as wrong", error=True)
    if found.unused:
        say(f"{found.unused} predictions belong to no sample of {task}", error=True)
    answered = found.samples - found.missing
    if 2 * found.unread > answered:
        say(
            f"warning: no answer was read in {found.unread} of {answered} predictions; accepted "
            f"for {task}: what a model wrote, as text (for NExT-QA and EgoSchema also numbers, the "
            "options' indices from 0)",
            error=True,
        )
    by_reason: dict[str, list[str]] = {}
    for name, reason in found.errors.items():
        by_reason.setdefault(reason, []).append(name)
    for reason, (first, *others) in by_reason.items():
        more = f" and {len(others)} more" if others else ""
        say(f"error: {first}{more}: {reason}", error=True)
    if found.errors:
        raise RunFailed(f"{len(found.errors)} metrics of {task} could not be computed")
