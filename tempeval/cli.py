"""The command line. Every command imports what it needs when it runs, so that `--help` is quick."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tempeval import __version__
from tempeval.cli_bench import bench
from tempeval.cli_calibrate import calibrate
from tempeval.cli_mini import mini_app
from tempeval.errors import InvalidSetting, RunFailed, TempevalError, UnknownName

if TYPE_CHECKING:
    from tempeval.matrix import RunOptions

app = typer.Typer(
    name="tempeval",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Compare inference-time methods of video LLMs at a matched visual-token budget.",
)
app.add_typer(mini_app, name="mini")
app.command(epilog="Example: tempeval bench --quick -o results/bench")(bench)
app.command(epilog="Example: tempeval calibrate -o ranges.safetensors --clips train/")(calibrate)

QUICKSTART_METHODS = ("baseline", "pas", "temporal_exit", "pas+temporal_exit")
USAGE_ERROR, RUN_FAILED, INTERRUPTED = 2, 1, 130
#: How long after a Ctrl-C another one is ignored.
CLEAN_UP_SECONDS = 3.0

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder to write to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier runs in the folder.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a named error is one line on stderr, never a traceback."""
    try:
        app(args=arguments, prog_name="tempeval")
    except TempevalError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(RUN_FAILED if isinstance(error, RunFailed) else USAGE_ERROR)


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"tempeval {__version__}")
        raise typer.Exit


@app.command(
    epilog="Example: tempeval run --methods baseline,pas+temporal_exit --tasks tempeval_mini "
    "-o results/first"
)
def run(
    methods: Annotated[str, typer.Option(help="Chains such as a,b+c; a comma between chains.")],
    tasks: Annotated[str, typer.Option(help="Tasks and groups, separated by commas.")],
    out: Out,
    pretrained: Annotated[str, typer.Option(help="Hub id, checkpoint folder, or mini.")] = "mini",
    num_frames: Annotated[
        int | None, typer.Option(help="Frames per video, 8 if not given; with --fps the most, 32.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Frames per second, instead of a fixed number.")
    ] = None,
    sampling: Annotated[str, typer.Option(help="uniform, segment or fps.")] = "uniform",
    budgets: Annotated[
        str, typer.Option(help="Visual tokens per sample, separated by commas; one table each.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option(help="First N documents per task, for a trial; never ranked.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Questions in one batch.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ...")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    position_rule: Annotated[
        str, typer.Option(help="Where text goes after a video: original or native.")
    ] = "original",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="METHOD.FIELD=VALUE", help="A method's setting; repeatable."),
    ] = None,
    min_pixels: Annotated[int | None, typer.Option(help="Fewest pixels per frame.")] = None,
    max_pixels: Annotated[int | None, typer.Option(help="Most pixels per frame.")] = None,
    decoder: Annotated[str, typer.Option(help="auto (PyAV), pyav or decord.")] = "auto",
    decode_timeout: Annotated[float, typer.Option(help="Seconds per clip.")] = 30.0,
    max_failures: Annotated[
        str, typer.Option(help="Failed samples a complete run may have: 0, N, or a share like 5%.")
    ] = "0",
    seed: Annotated[int, typer.Option(help="Seed of Python, NumPy and torch.")] = 0,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate methods x budgets on tasks with one loaded model; one run folder for each.

    A run that is already there, complete and with the same settings, is reused; one that was
    interrupted goes on where it stopped (every answer is in OUT/journal). The exit code is 0 only
    when every sample of every run was answered, or failed within --max-failures. On several
    GPUs: accelerate launch -m tempeval run ...
    """
    from tempeval.matrix import RunOptions

    _run_matrix(
        RunOptions(
            out=out,
            methods=_split(methods),
            tasks=_split(tasks),
            pretrained=pretrained,
            num_frames=num_frames,
            fps=fps,
            sampling=sampling,
            budgets=_budgets(budgets),
            limit=limit,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            position_rule=position_rule,
            settings=_settings(settings or ()),
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            decoder=decoder,
            decode_timeout=decode_timeout,
            max_failures=max_failures,
            seed=seed,
            overwrite=overwrite,
        )
    )
    _report(f"next: tempeval leaderboard {out} -o {out / 'leaderboard'}")


@app.command(epilog="Example: tempeval leaderboard results/first -o results/first/leaderboard")
def leaderboard(
    runs: Annotated[
        list[Path], typer.Argument(help="Run folders; searched for run.json.", metavar="RUN...")
    ],
    out: Out,
    baseline: Annotated[
        str, typer.Option(help="Method the others are compared with.")
    ] = "baseline",
    tolerance: Annotated[
        float, typer.Option(help="Largest difference of measured visual tokens, as a fraction.")
    ] = 0.02,
) -> None:
    """Compare runs at a matched budget; write leaderboard.md and leaderboard.json."""
    from tempeval.leaderboard import build

    summary = build(runs, out, baseline=baseline, tolerance=tolerance)
    typer.echo(summary.text)
    typer.echo(f"written: {summary.markdown} and {summary.json}")


@app.command(epilog="Example: tempeval quickstart -o results/quickstart")
def quickstart(
    out: Out = Path("results/quickstart"),
    limit: Annotated[int | None, typer.Option(help="First N documents per task.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Compare four methods on the mini suite with a tiny trained model: offline, on a CPU."""
    from tempeval.leaderboard import build
    from tempeval.matrix import RunOptions

    folders = _run_matrix(
        RunOptions(
            out=out / "runs",
            methods=QUICKSTART_METHODS,
            tasks=["tempeval_mini"],
            limit=limit,
            overwrite=overwrite,
            overwrite_different=True,
        )
    )
    summary = build(folders, out / "leaderboard")
    typer.echo(f"\n{summary.text}")
    typer.echo(f"written: {summary.markdown} and {summary.json}; runs in {out / 'runs'}")


@app.command("list", epilog="Example: tempeval list methods")
def list_names(
    what: Annotated[str, typer.Argument(help="methods, tasks, families or models.")],
) -> None:
    """List what can be named: methods, tasks, families, or lmms-eval model ids."""
    from tempeval.listing import LISTINGS

    if what not in LISTINGS:
        raise UnknownName("list", what, LISTINGS)
    for line in LISTINGS[what]():
        typer.echo(line)


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
        typer.echo(f"{mark}  {check.name:<18} {check.detail}")
        failed += check.mark == "fail"
    if failed:
        typer.echo(f"{failed} failed", err=True)
        raise typer.Exit(RUN_FAILED)


@app.command(
    "tasks-path",
    epilog='Example: lmms-eval --include_path "$(tempeval tasks-path)" --tasks list',
)
def print_tasks_path() -> None:
    """Print the folder of the task YAMLs, and nothing else."""
    from tempeval.tasklist import tasks_path

    typer.echo(tasks_path())


def _run_matrix(options: "RunOptions") -> list[Path]:
    try:
        with _patient_interrupts():
            from tempeval.accepted import load_accepting
            from tempeval.run import run_matrix

            return run_matrix(options, report=_report, load=load_accepting)
    except KeyboardInterrupt:
        # All is cleaned up; another Ctrl-C would only break the end of the interpreter.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        typer.echo("\ninterrupted; run the same command to go on where it stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _patient_interrupts() -> Iterator[None]:
    """Ignore a Ctrl-C that comes soon after another: it would interrupt the cleaning up."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield  # somebody decided otherwise, such as `nohup` or an embedding program
        return
    last = -CLEAN_UP_SECONDS

    def handle(*_: object) -> None:
        nonlocal last
        if time.monotonic() - last > CLEAN_UP_SECONDS:
            last = time.monotonic()
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _report(line: str) -> None:
    """Print a line of progress; of several processes, only the first does."""
    if os.environ.get("RANK", "0") == "0":
        typer.echo(line)


def _split(text: str) -> list[str]:
    """Split at commas; settings in brackets use `;` and `/`, so none is inside a name."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _budgets(text: str) -> list[int]:
    found = [_whole("--budgets", part) for part in _split(text)]
    if text and not found:
        raise InvalidSetting(f"--budgets has {text!r}; accepted: whole numbers such as 256,512")
    return found


def _whole(label: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidSetting(f"{label} has {text!r}; accepted: whole numbers") from None


def _settings(pairs: Sequence[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for pair in pairs:
        target, equals, value = pair.partition("=")
        method, dot, name = target.partition(".")
        if not (equals and dot and method and name):
            raise InvalidSetting(f"--set {pair!r} is not of the form method.field=value")
        if name in found.setdefault(method, {}):
            raise InvalidSetting(f"--set {method}.{name} is given twice")
        found[method][name] = value
    return found


if __name__ == "__main__":
    main()
