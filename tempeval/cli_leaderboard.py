"""`tempeval leaderboard`: from run folders to matched-budget tables."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tempeval.cli_matrix import Out
from tempeval.console import say
from tempeval.errors import InvalidSetting, TempevalError

if TYPE_CHECKING:
    from tempeval.leaderboard import Refusal

#: Nothing stands beside a baseline, or --strict and something is not ranked.
NOT_COMPARED = 1


def leaderboard(
    runs: Annotated[
        list[Path],
        typer.Argument(
            help="Run folders; searched for run.json, and for lmms-eval's results without one.",
            metavar="RUN...",
        ),
    ],
    out: Out,
    baseline: Annotated[
        str, typer.Option(help="Method the others are compared with.")
    ] = "baseline",
    match_on: Annotated[
        str,
        typer.Option(
            help="Measured budget to match: visual_tokens, token_layers, kv_bytes, prefill_flops "
            "or frames."
        ),
    ] = "visual_tokens",
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of measured budgets, as a fraction.")
    ] = 0.02,
    max_failures: Annotated[
        str, typer.Option(help="Failed questions a ranked task may have: a share like 5% or 0.05.")
    ] = "5%",
    draws: Annotated[int, typer.Option(help="Bootstrap draws.")] = 10_000,
    update: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Also replace what stands between <!-- tempeval-leaderboard --> and "
            "<!-- /tempeval-leaderboard --> in this file, if the exit code is 0.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit 1 when anything is not ranked.")
    ] = False,
) -> None:
    """Compare runs at a matched budget; write the leaderboard as markdown, page, JSON and CSV.

    The exit code is 1 when no method stands beside a baseline, and with --strict when any run is
    not ranked; the leaderboard is written all the same and says why.
    """
    from tempeval.leaderboard import build

    try:
        summary = build(
            runs,
            out,
            baseline=baseline,
            match_on=match_on,
            tolerance=tolerance,
            max_failure_ratio=_share(max_failures),
            draws=draws,
        )
    except OSError as error:
        why = "it is a file" if out.is_file() else error.strerror or error
        raise TempevalError(f"cannot write to {out}: {why}; choose another -o") from error
    say(summary.text)
    plots = [path for path in summary.files if path.parent != out]
    shown = [path for path in summary.files if path.parent == out]
    tail = f" and {len(plots)} files in {plots[0].parent}" if plots else ""
    say(f"written: {', '.join(map(str, shown))}{tail}")
    problem = ""
    if not summary.tables:
        problem = "no run could be compared"
    elif not summary.compared:
        problem = "nothing was compared: no method stands beside a baseline"
    elif strict and summary.refusals:
        problem = _refused(summary.refusals)
    if problem:
        say(f"error: {problem}; {summary.markdown} says why", error=True)
        raise typer.Exit(NOT_COMPARED)
    if update is not None:
        from tempeval.leaderboard.render import to_block
        from tempeval.leaderboard.update import update_block

        try:
            changed = update_block(update, to_block(summary.document))
        except OSError as error:
            raise TempevalError(
                f"cannot update {update}: {error.strerror or error}; give --update a file that "
                "can be written"
            ) from error
        say(f"{'updated' if changed else 'unchanged'}: {update}")


def _refused(refusals: "tuple[Refusal, ...]") -> str:
    names = list(dict.fromkeys(refusal.run for refusal in refusals))
    listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    kinds = ", ".join(sorted({refusal.kind for refusal in refusals}))
    many = "run is" if len(names) == 1 else "runs are"
    return f"--strict: {len(names)} {many} not ranked, at least in part ({kinds}): {listed}"


def _share(text: str) -> float:
    """Read a share, in percent with a sign, else as a fraction."""
    percent = text.strip().endswith("%")
    try:
        value = float(text.strip().removesuffix("%")) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:  # NaN is in no range
        raise InvalidSetting(
            f"--max-failures has {text!r}; accepted: a share such as 5% or 0.05, at most 100%"
        )
    return value
