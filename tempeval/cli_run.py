"""`tempeval run`: methods x budgets on tasks."""

from typing import Annotated, Any

import typer

from tempeval.cli_matrix import evaluate, report
from tempeval.cli_options import given, takes_options
from tempeval.run.spec import VISUAL_TOKENS, options


@takes_options(*(name for name, _ in options("run")), config=True)
def run(
    context: typer.Context,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what would be run and what it would cost, without answering anything; the "
            "exit code is 0 only if the run would start.",
        ),
    ] = False,
    **values: Any,
) -> None:
    """Evaluate methods x budgets on tasks with one loaded model; one run folder for each.

    A run that is already there, complete and with the same settings, is reused; one that was
    interrupted goes on where it stopped (every answer is in OUT/journal). The exit code is 0 only
    when every sample of every run was answered, or failed within --max-failures. On several
    GPUs: accelerate launch -m tempeval run ...
    """
    spec = given(context, values)
    if dry_run:
        from tempeval.run.dry_run import describe_run

        describe_run(spec, report)
        return
    from tempeval.run.match_on import rerun_baselines

    folders = evaluate(spec)
    rerun_baselines(spec, folders, spec.match_on, report=report, run=evaluate)
    matched = "" if spec.match_on == VISUAL_TOKENS else f" --match-on {spec.match_on}"
    report(f"next: tempeval leaderboard {spec.out} -o {spec.out / 'leaderboard'}{matched}")
