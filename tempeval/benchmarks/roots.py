"""Where the files of a benchmark are: `--data-root`, or `$TEMPEVAL_DATA`."""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.benchmarks.base import MissingData

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.benchmarks.base import Benchmark

VARIABLE = "TEMPEVAL_DATA"
_chosen: ContextVar[Path | None] = ContextVar("data_root", default=None)


def use_root(root: Path | None) -> None:
    """Look for files in a folder from now on, in this process and those that it starts.

    Args:
        root: None changes nothing.
    """
    if root is not None:
        os.environ[VARIABLE] = str(root.expanduser().absolute())


@contextmanager
def using_root(root: str | Path) -> Iterator[None]:
    """Look for files in a folder, whatever `$TEMPEVAL_DATA` says, while the context lasts."""
    token = _chosen.set(Path(root).expanduser().absolute())
    try:
        yield
    finally:
        _chosen.reset(token)


def data_root(given: str | Path | None = None) -> Path | None:
    """Return the folder that is given, else of `using_root`, else `$TEMPEVAL_DATA`, else None."""
    found = given or _chosen.get() or os.environ.get(VARIABLE)
    return Path(found).expanduser().absolute() if found else None


def is_chosen(given: str | Path | None = None) -> bool:
    """Tell whether the data root was said on purpose, so that nothing else may stand in for it."""
    return given is not None or _chosen.get() is not None


def candidates(benchmark: Benchmark, root: Path) -> list[Path]:
    """Return where a benchmark may lie under a data root: its own folder first, then the root."""
    return [root / benchmark.name, root]


def benchmark_root(benchmark: Benchmark, split: str, given: str | Path | None = None) -> Path:
    """Return the folder of a benchmark: the first candidate that has the split's annotations.

    Args:
        benchmark: which.
        split: whose annotation files must be there.
        given: data root; None for `$TEMPEVAL_DATA`.

    Raises:
        MissingData: if there is no data root, or neither candidate has the files; says how to get
            them.
    """
    root = data_root(given)
    if root is None:
        raise MissingData(
            f"{benchmark.title} needs its files: set {VARIABLE} to the folder that holds "
            f"{benchmark.name}/, or pass --data-root. What is expected there: "
            f"tempeval data check {benchmark.name}"
        )
    reasons = []
    for place in candidates(benchmark, root):
        if not place.is_dir():
            reasons.append(f"no folder {place}")
            continue
        try:
            benchmark.annotations(place, split)
        except MissingData as error:
            reasons.append(str(error))
        else:
            return place
    raise MissingData(
        f"{benchmark.title} ({split}) is not under {root}: {'; '.join(reasons)}",
        f"How to get it: tempeval data check {benchmark.name}",
    )
