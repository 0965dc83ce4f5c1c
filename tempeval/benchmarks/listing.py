"""All benchmarks at a glance: `tempeval data list`, and the table of the README."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.benchmarks.check import check, tested_splits
from tempeval.benchmarks.registry import BENCHMARKS, benchmark
from tempeval.tasklist import task_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tempeval.benchmarks.base import Benchmark
    from tempeval.benchmarks.check import Report

#: More splits than these are added up.
_FEW = ("val", "test", "train", "other")
_ADDRESS = re.compile(r"https?://[^\s,;)>]+")


@dataclass(frozen=True)
class Row:
    """A benchmark's status in a list.

    Attributes:
        name: the benchmark.
        status: `there`, `N of M videos`, `annotations only`, `damaged` or `missing`; with `hub
            cache:` before it for lmms-eval's copy, and the splits that are not there after it.
        items: of the splits that its tasks test on: of those that are there, else as published.
        licence: of annotations and videos.
    """

    name: str
    status: str
    items: Mapping[str, int]
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
    for name in BENCHMARKS:
        progress(name)
        report = check(name, given, sizes=False)
        there = {split.split: split.items for split in report.splits if split.items}
        published = {s.split: s.published_items for s in report.splits if s.published_items}
        found.append(Row(name, _status(report), there or published, report.licence))
    return found


def items_text(items: Mapping[str, int]) -> str:
    """Return the number of items of each split; of many splits their sum.

    Those of few splits are not added up: a split may be a part of another one, or its correction.
    """
    if len(items) <= 1:
        return str(next(iter(items.values()), "-"))
    if len(items) > len(_FEW):
        return f"{sum(items.values())} ({len(items)} splits)"
    return ", ".join(f"{split} {count}" for split, count in items.items())


def _status(report: Report) -> str:
    damaged = [s.split for s in report.splits if s.problem.startswith("damaged")]
    missing = [s.split for s in report.splits if s.problem and s.split not in damaged]
    if damaged:
        return f"damaged: {', '.join(damaged)}"
    if len(missing) == len(report.splits):
        return "missing"
    videos = report.videos
    if not videos.there:
        state = "annotations only"
    elif videos.missing:
        state = f"{videos.there} of {videos.wanted} videos"
    else:
        state = "there"
    if any(split.source == "hub cache" for split in report.splits):
        state = f"hub cache: {state}"
    return f"{state}, without {', '.join(missing)}" if missing else state


def benchmark_table(pages: str = "docs/benchmarks/") -> str:
    """Return the benchmarks as a markdown table.

    Args:
        pages: where the benchmarks' pages are, seen from where the table stands.
    """
    heads = ("benchmark", "items", "videos", "questions per video", "licence", "how to get it")
    lines = [f"| {' | '.join(heads)} | tasks | metrics |", "| --- " * (len(heads) + 2) + "|"]
    for name in BENCHMARKS.own:
        chosen = benchmark(name)
        cells = (
            f"[{chosen.title}]({pages}{page_of(name)}.md)",
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
    return BENCHMARKS[name].path.partition(":")[0].rpartition(".")[2]


def _counts(chosen: Benchmark) -> tuple[str, str, str]:
    """Return published items, videos, and items per video, of each split that is tested on."""
    splits = {split: chosen.splits[split] for split in tested_splits(chosen)}

    if len(splits) > len(_FEW) and all(splits.values()):  # MVBench has twenty
        every = [counts for counts in splits.values() if counts is not None]
        items = sum(counts.items for counts in every)
        if any(counts.videos is None for counts in every):
            return f"{items:,}", "-", "-"
        videos = sum(counts.videos or 0 for counts in every)
        return f"{items:,}", f"{videos:,}", f"{items / videos:.1f}"

    def cell(texts: dict[str, str]) -> str:
        if len(set(texts.values())) == 1:
            return next(iter(texts.values()))
        return ", ".join(f"{split} {text}" for split, text in texts.items())

    known = {split: counts for split, counts in splits.items() if counts is not None}
    blank = dict.fromkeys(splits, "-")
    marks = {True: "", False: " (not checked)"}
    texts = blank | {split: f"{c.items:,}{marks[c.checked]}" for split, c in known.items()}
    files = blank | {split: f"{c.videos:,}" for split, c in known.items() if c.videos}
    each = blank | {split: f"{c.items / c.videos:.1f}" for split, c in known.items() if c.videos}
    return cell(texts), cell(files), cell(each)


def _source(chosen: Benchmark) -> str:
    """Return the first address of the access steps, and the hub's copy if there is one."""
    found = _ADDRESS.search(chosen.access)
    parts = [f"<{found[0].rstrip('.:')}>"] if found else ["see its page"]
    if chosen.hub is not None:
        parts.append(f"or from the hub: `{chosen.hub.path}`")
    return ", ".join(parts)


def _tasks(chosen: Benchmark) -> str:
    """Return the tasks; a group stands for its members."""
    entries = task_entries()
    members = {m for task in chosen.tasks if task in entries for m in entries[task].members}
    named = []
    for task in chosen.tasks:
        if task not in members:
            count = len(entries[task].members) if task in entries else 0
            named.append(f"`{task}` ({count} tasks)" if count else f"`{task}`")
    return ", ".join(named) or "-"
