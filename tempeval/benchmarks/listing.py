"""All benchmarks at a glance: `tempeval data list`, and the table of the README."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.benchmarks.check import check, tested_splits
from tempeval.benchmarks.registry import MODULES, benchmark

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tempeval.benchmarks.base import Benchmark
    from tempeval.benchmarks.check import SplitReport

#: More splits than these are added up.
_FEW = ("val", "test", "train", "other")
_ADDRESS = re.compile(r"https?://[^\s,;)>]+")


@dataclass(frozen=True)
class Row:
    """A benchmark's status in a list.

    Attributes:
        name: the benchmark.
        status: `there`, `N of M videos`, `annotations only`, `hub cache`, `damaged` or `missing`,
            with the split before it where splits differ.
        items: of the splits that its tasks test on, those there, else as published; None if
            neither is known.
        licence: of annotations and videos.
    """

    name: str
    status: str
    items: int | None
    licence: str


def rows(
    given: str | Path | None = None, progress: Callable[[str], None] = lambda name: None
) -> list[Row]:
    """Look at every benchmark: whether annotations and videos exist, not how large they are.

    Args:
        given: data root; None for `$TEMPEVAL_DATA`.
        progress: called with the name of each benchmark before it is looked at.
    """
    found = []
    for name in MODULES:
        progress(name)
        report = check(name, given, sizes=False)
        states = {split.split: _status(split) for split in report.splits}
        if len(set(states.values())) == 1:
            status = next(iter(states.values()))
        else:
            status = ", ".join(f"{split}: {state}" for split, state in states.items())
        counts = [split.items or split.published_items for split in report.splits]
        items = None if None in counts else sum(count or 0 for count in counts)
        found.append(Row(name, status, items, report.licence))
    return found


def _status(split: SplitReport) -> str:
    if split.problem:
        return "damaged" if split.problem.startswith("damaged") else "missing"
    videos = split.videos
    if not videos.there:
        state = "annotations only"
    elif videos.missing:
        state = f"{videos.there} of {videos.wanted} videos"
    else:
        state = "there"
    return state if split.source == "local" else f"{split.source}: {state}"


def benchmark_table() -> str:
    """Return the benchmarks as the markdown table of the README."""
    heads = ("benchmark", "items", "videos", "questions per video", "licence", "how to get it")
    lines = [f"| {' | '.join(heads)} | tasks | metrics |", "| --- " * (len(heads) + 2) + "|"]
    for name in MODULES:
        chosen = benchmark(name)
        cells = (
            f"[{chosen.title}](docs/benchmarks/{page_of(name)}.md)",
            *_counts(chosen),
            chosen.licence,
            _source(chosen),
            _tasks(chosen),
            chosen.metrics or "-",
        )
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines)


def page_of(name: str) -> str:
    """Return the stem of a benchmark's page under docs/benchmarks: that of its module."""
    return MODULES[name][0].rpartition(".")[2]


def _counts(chosen: Benchmark) -> tuple[str, str, str]:
    """Return published items, videos, and items per video, of each split that is tested on."""
    splits = {split: chosen.splits[split] for split in tested_splits(chosen)}

    if len(splits) > len(_FEW) and all(splits.values()):  # MVBench has twenty
        every = [counts for counts in splits.values() if counts is not None]
        items, videos = (sum(getattr(c, name) for c in every) for name in ("items", "videos"))
        return f"{items:,}", f"{videos:,}", f"{items / videos:.1f}"

    def cell(texts: dict[str, str]) -> str:
        if len(texts) == 1:
            return next(iter(texts.values()))
        return ", ".join(f"{split} {text}" for split, text in texts.items())

    known = {split: counts for split, counts in splits.items() if counts is not None}
    blank = dict.fromkeys(splits, "-")
    texts = blank | {split: f"{counts.items:,}" for split, counts in known.items()}
    files = blank | {split: f"{counts.videos:,}" for split, counts in known.items()}
    each = blank | {split: f"{c.items / c.videos:.1f}" for split, c in known.items()}
    return cell(texts), cell(files), cell(each)


def _source(chosen: Benchmark) -> str:
    """Return the first address of the access steps, and the hub's copy if there is one."""
    found = _ADDRESS.search(chosen.access)
    parts = [f"<{found[0].rstrip('.')}>"] if found else ["see its page"]
    if chosen.hub is not None:
        parts.append(f"or from the hub: `{chosen.hub.path}`")
    return ", ".join(parts)


def _tasks(chosen: Benchmark) -> str:
    return ", ".join(f"`{task}`" for task in chosen.tasks) or "-"
