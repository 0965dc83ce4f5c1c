"""The `tempeval data` commands: which benchmarks are there, what is missing, unpack archives."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from tempeval.console import clean, say
from tempeval.errors import RunFailed

data_app = typer.Typer(
    no_args_is_help=True,
    help="Benchmark files: list, check, unpack.",
    epilog="Example: tempeval data check jester --data-root /data",
)

Name = Annotated[str, typer.Argument(help="As tempeval data list shows it.")]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that holds the benchmarks' folders; else $TEMPEVAL_DATA."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@data_app.command("list", epilog="Example: tempeval data list --data-root /data")
def list_benchmarks(data_root: DataRoot = None, as_json: AsJson = False) -> None:
    """List all benchmarks: what is there of each, how many items it has, its licence."""
    from rich.console import Console

    from tempeval.benchmarks.listing import items_text, rows
    from tempeval.listing import columns

    with Console(stderr=True).status("") as status:
        found = rows(data_root, lambda name: status.update(name))
    if as_json:
        say(json.dumps({row.name: vars(row) for row in found}))
        return
    heads = ("benchmark", "status", "items", "licence")
    cells = [(r.name, r.status, items_text(r.items), r.licence) for r in found]
    for line in columns([heads, *cells]):
        say(line)


@data_app.command(epilog="Example: tempeval data check jester --data-root /data")
def check(
    benchmark: Name,
    data_root: DataRoot = None,
    split: Annotated[
        list[str] | None, typer.Option(help="Split; those that its tasks test on if not given.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is there, what is missing, and what to do next; exit 0 only when all is there."""
    _check(benchmark, data_root, split, as_json)


@data_app.command(epilog="Example: tempeval data prepare jester --from ~/Downloads")
def prepare(
    benchmark: Name,
    data_root: DataRoot = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Folder that holds the downloaded archives.")
    ] = None,
) -> None:
    """Unpack official archives into the benchmark's folder, fetch metrics' data, then check it.

    Archives stay as they are. What is unpacked already is kept, so a command that was stopped goes
    on. Exits with 1 if an archive is damaged, or anything is missing afterwards.
    """
    from tempeval.benchmarks.prepare import prepare as prepare_files
    from tempeval.benchmarks.report_text import human_bytes

    with _bar(in_bytes=True) as show:
        done = prepare_files(benchmark, data_root, source, show)
    for part in done.unpacked:
        say(
            f"unpacked: {part.label}: {part.written} files, {part.kept} kept, "
            f"{human_bytes(part.bytes)} in all, to {done.root}"
        )
    for line in done.fetched:
        say(f"fetched: {line}")
    for pattern in done.absent:
        say(f"not found: {pattern}")
    for failure in done.failures:
        say(f"error: {failure}", error=True)
    if done.failures:
        raise RunFailed(f"{len(done.failures)} steps of preparing {benchmark} failed")
    _check(benchmark, data_root, None, False)


def _check(name: str, root: Path | None, splits: list[str] | None, as_json: bool) -> None:
    from tempeval.benchmarks.check import check as look
    from tempeval.benchmarks.report_text import report_lines

    with _bar(in_bytes=False) as show:
        report = look(name, root, splits, progress=lambda done, total: show(name, done, total))
    if as_json:
        say(json.dumps(report.as_json()))
    else:
        for line in report_lines(report):
            say(line)
    if not report.complete:
        raise typer.Exit(1)


@contextmanager
def _bar(*, in_bytes: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Show progress on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    amount = (DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)
    console = Console(stderr=True)
    names = TextColumn("{task.description}", markup=False)
    with Progress(
        names,
        BarColumn(),
        *amount,
        TimeRemainingColumn(),
        console=console,
        transient=not in_bytes,
        disable=not console.is_terminal,
    ) as bar:
        tasks = {}
        last = 0.0

        def show(label: str, done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < 0.1 and done < total:
                return
            last = now
            if label not in tasks:
                tasks[label] = bar.add_task(clean(label), total=total)
            bar.update(tasks[label], completed=done)

        yield show
