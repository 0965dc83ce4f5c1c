"""The command line. Every command imports what it needs when it runs, so that `--help` is quick."""

import errno
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from tempeval import __version__
from tempeval.cli_bench import bench
from tempeval.cli_calibrate import calibrate
from tempeval.cli_data import data_app
from tempeval.cli_features import features
from tempeval.cli_leaderboard import leaderboard
from tempeval.cli_mini import mini_app
from tempeval.cli_pave import pave_app
from tempeval.cli_quickstart import quickstart
from tempeval.cli_run import run
from tempeval.cli_score import score
from tempeval.cli_verify import verify
from tempeval.console import say
from tempeval.errors import InvalidSetting, RunFailed, TempevalError, UnknownName

app = typer.Typer(
    name="tempeval",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare inference-time methods of video LLMs at a matched visual-token budget.",
)
app.command(
    epilog="Example: tempeval run --methods baseline,pas+temporal_exit --tasks tempeval_mini "
    "-o results/first"
)(run)
app.command(epilog="Example: tempeval quickstart -o results/quickstart")(quickstart)
app.command(epilog="Example: tempeval leaderboard results/first -o results/first/leaderboard")(
    leaderboard
)
app.command(epilog="Example: tempeval calibrate -o ranges.safetensors --clips train/")(calibrate)
app.command(
    epilog="Example: tempeval features --side-channel audio --data videos -o features/audio"
)(features)
app.command(
    epilog="Example: tempeval score tempeval_scanqa --data-root data/scanqa "
    "--predictions answers.json"
)(score)
app.command(epilog="Example: tempeval verify path/file.py:Class")(verify)
app.command(epilog="Example: tempeval bench --quick -o results/bench")(bench)
app.add_typer(data_app, name="data")
app.add_typer(mini_app, name="mini")
app.add_typer(pave_app, name="pave")

USAGE_ERROR, RUN_FAILED = 2, 1
#: Errors that say something of a disk, wherever they come from, and nothing of the program.
_OF_DISKS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.ENOLCK,
    errno.ESTALE,
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a named error is one line on stderr, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A character that the terminal's encoding lacks must not lose the rest.
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=arguments, prog_name="tempeval")
    except TempevalError as error:
        say(f"error: {error}", error=True)
        sys.exit(RUN_FAILED if isinstance(error, RunFailed) else USAGE_ERROR)
    except OSError as error:
        if error.errno not in _OF_DISKS:
            raise
        where = f" {error.filename}" if error.filename else ""
        say(
            f"error: cannot read or write{where}: {error.strerror}; free some space or mend the "
            "disk, and run the same command again",
            error=True,
        )
        sys.exit(RUN_FAILED)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        say(f"tempeval {__version__}")
        raise typer.Exit


@app.command("list", epilog="Example: tempeval list methods pas")
def list_names(
    what: Annotated[
        str,
        typer.Argument(help="methods, tasks, families, benchmarks, models or side-channels."),
    ],
    name: Annotated[
        str | None,
        typer.Argument(help="One method, also as path/file.py:Class: its settings and sources."),
    ] = None,
) -> None:
    """List what can be named: methods, tasks, families, benchmarks, lmms-eval model ids ..."""
    from tempeval.listing import LISTINGS, describe_method

    if what not in LISTINGS:
        raise UnknownName("list", what, LISTINGS)
    if name is not None and what != "methods":
        raise InvalidSetting(f"{what} have no page of their own; leave {name!r} out")
    for line in LISTINGS[what]() if name is None else describe_method(name):
        say(line)


@app.command(epilog="Example: tempeval doctor")
def doctor(
    pretrained: Annotated[str, typer.Option(help="Checkpoint to load.")] = "mini",
) -> None:
    """Check the installation; exit 1 when something that a run needs does not work."""
    from tempeval.doctor import checks

    failed = 0
    marks = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}
    for check in checks(pretrained):
        mark = typer.style(f"{check.mark:<4}", fg=marks[check.mark])
        say(f"  {check.name:<18} {check.detail}", mark=mark)
        failed += check.mark == "fail"
    if failed:
        say(f"{failed} failed", error=True)
        raise typer.Exit(RUN_FAILED)


@app.command(
    "tasks-path",
    epilog='Example: lmms-eval --include_path "$(tempeval tasks-path)" --tasks list',
)
def print_tasks_path() -> None:
    """Print the folder of the task YAMLs, and nothing else."""
    from tempeval.tasklist import tasks_path

    # A path that a shell reads is printed as it is, or it would be another.
    typer.echo(tasks_path())


if __name__ == "__main__":
    main()
