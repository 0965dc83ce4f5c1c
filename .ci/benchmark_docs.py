"""Write docs/benchmarks/*.md from what the code says: facts, tasks, protocols, metrics."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from tempeval.benchmarks.listing import page_of
from tempeval.benchmarks.registry import BENCHMARKS, benchmark
from tempeval.task_config import task_config
from tempeval.tasklist import task_entries

if TYPE_CHECKING:
    from tempeval.benchmarks.base import Benchmark

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"


def pages() -> dict[str, str]:
    """Return every page's text by file name."""
    by_page: dict[str, list[Benchmark]] = {}
    for name in BENCHMARKS.own:
        by_page.setdefault(page_of(name), []).append(benchmark(name))
    return {f"{page}.md": text(page, chosen) for page, chosen in by_page.items()}


def text(page: str, chosen: list[Benchmark]) -> str:
    """Return the page of one module's benchmarks."""
    module = import_module(f"tempeval.benchmarks.{page}")
    about = (module.__doc__ or "").strip()
    parts = ["<!-- written by .ci/benchmark_docs.py -->", f"# {chosen[0].title}", about]
    for one in chosen:
        if len(chosen) > 1:
            parts.append(f"## {one.title}")
        parts += [_files(one), _splits(one), *_tasks(one)]
        parts += (
            ["### Fine print", "\n".join(f"- {note}" for note in one.notes)] if one.notes else []
        )
    return "\n\n".join(parts) + "\n"


def _files(one: Benchmark) -> str:
    return (
        f"Licence: {one.licence}.\n\n### How to get it\n\n{one.access}\n\n"
        f"Expected under `$TEMPEVAL_DATA/{one.name}/` (or `--data-root`), untouched:\n\n"
        f"```\n{one.tree}\n```\n\n`tempeval data check {one.name}` says what is missing."
    )


def _splits(one: Benchmark) -> str:
    rows = ["| split | items | videos | source |", "| --- | ---: | ---: | --- |"]
    for split, counts in one.splits.items():
        cells = "- | - | not looked up"
        if counts is not None:
            videos = "-" if counts.videos is None else f"{counts.videos:,}"
            unsure = "" if counts.checked else " (not checked)"
            cells = f"{counts.items:,} | {videos} | {counts.source}{unsure}"
        rows.append(f"| {split} | {cells} |")
    return "### Splits\n\n" + "\n".join(rows)


def _tasks(one: Benchmark) -> list[str]:
    found = []
    for name in one.tasks:
        config, entry = task_config(name), task_entries()[name]
        about = config.get("metadata") or {}
        lines = [f"### `{name}`", str(about.get("summary", ""))]
        if entry.kind == "group":
            lines.append("Group of: " + ", ".join(f"`{member}`" for member in entry.members) + ".")
        if about.get("protocol"):
            lines.append(f"Protocol: {' '.join(str(about['protocol']).split())}")
        metrics = [metric["metric"] for metric in config.get("metric_list", ())]
        if metrics:
            lines.append("Metrics: " + ", ".join(f"`{metric}`" for metric in metrics) + ".")
        if config.get("cluster_key"):
            lines.append(f"Version {about.get('version')}; clusters by `{config['cluster_key']}`.")
        found.append("\n\n".join(line for line in lines if line))
    return found


def main() -> None:
    """Write the pages, or with --check say whether they are up to date."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    old = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.md")}
    new = pages()
    if "--check" in sys.argv:
        stale = sorted(name for name in new if old.get(name) != new[name])
        sys.exit(f"out of date: {', '.join(stale)}; run: make readme" if stale else 0)
    for name, content in new.items():
        (FOLDER / name).write_text(content, "utf-8")


if __name__ == "__main__":
    main()
