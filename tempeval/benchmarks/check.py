"""What of a benchmark is there, and what to do next: the work of `tempeval data check`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.prepare import waiting
from tempeval.benchmarks.registry import benchmark
from tempeval.benchmarks.roots import VARIABLE, benchmark_root, data_root, is_chosen
from tempeval.benchmarks.sources import load_docs
from tempeval.benchmarks.video_files import Seen, VideoFiles, survey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tempeval.benchmarks.base import Benchmark, Fetch
    from tempeval.benchmarks.document import Doc

#: How many missing or damaged videos are named.
NAMED = 10


@dataclass
class SplitReport:
    """What is there of a split.

    Attributes:
        split: its name.
        source: `local`, `hub cache`, or `missing` when its annotations are nowhere.
        root: folder of the benchmark; empty for the hub's copy.
        annotations: annotation files with their bytes.
        items: questions or labelled clips that they hold.
        published_items: how many the split has as published, if that is known.
        published_videos: likewise.
        videos: what is there of the videos.
        problem: why it could not be read; empty if it was.
    """

    split: str
    source: str = "missing"
    root: str = ""
    annotations: dict[str, int] = field(default_factory=dict)
    items: int = 0
    published_items: int | None = None
    published_videos: int | None = None
    videos: VideoFiles = field(default_factory=VideoFiles)
    problem: str = ""

    @property
    def complete(self) -> bool:
        """Whether annotations and videos are all there."""
        return not self.problem and self.items > 0 and self.videos.complete


@dataclass
class Report:
    """What is there of a benchmark.

    Attributes:
        name: the benchmark.
        title: its name in papers.
        licence: of annotations and videos.
        splits: those that were looked at.
        items: of all splits, one that is in two of them once.
        videos: of all splits, each file once.
        next: what to do, one step each; empty when all is there.
        tree: what is expected where, when something is missing.
        fetch: data of its metrics, if there are any.
        prepare: the command that downloads them.
    """

    name: str
    title: str
    licence: str
    splits: list[SplitReport]
    items: int = 0
    videos: VideoFiles = field(default_factory=VideoFiles)
    next: list[str] = field(default_factory=list)
    tree: str = ""
    fetch: Fetch | None = None
    prepare: str = ""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing in any split; a run does not need the metrics' data."""
        return all(split.complete for split in self.splits)

    @property
    def missing_data(self) -> list[str]:
        """What is missing of the metrics' data."""
        return [] if self.fetch is None else list(self.fetch.missing())

    def as_json(self) -> dict[str, Any]:
        """Return it as one JSON object; lists of videos name the first `NAMED`, beside a count."""
        splits = {}
        for split in self.splits:
            row = {**asdict(split), "complete": split.complete, "videos": _counted(split.videos)}
            splits[row.pop("split")] = row
        return {
            "benchmark": self.name,
            "title": self.title,
            "licence": self.licence,
            "complete": self.complete,
            "items": self.items,
            "videos": _counted(self.videos),
            "splits": splits,
            "missing_metric_data": self.missing_data,
            "next": self.next,
            "expected_tree": self.tree,
        }


def check(
    name: str,
    given: str | Path | None = None,
    splits: Sequence[str] | None = None,
    *,
    sizes: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Look at what is there of a benchmark.

    Args:
        name: the benchmark.
        given: data root; None for `$TEMPEVAL_DATA`.
        splits: which; None for those that its tasks test on.
        sizes: see `survey`.
        progress: called with videos looked at and videos of the split.

    Raises:
        UnknownName: if there is no such benchmark.
        BadData: if it has no such split. Damaged files are in the report instead.
    """
    chosen = benchmark(name)
    for split in splits or ():
        if split not in chosen.splits:
            known = ", ".join(chosen.splits)
            raise BadData(f"{chosen.title} has no split {split!r}; it has {known}")
    wanted = splits or tested_splits(chosen)
    report = Report(chosen.name, chosen.title, chosen.licence, [], fetch=chosen.fetch)
    report.prepare = f"tempeval data prepare {chosen.name}{_option(given)}"
    paths: dict[str, None] = {}
    items: set[tuple[str, str]] = set()
    seen: dict[str, Seen] = {}
    for split in wanted:
        found, docs = _check_split(chosen, split, given)
        asked = [doc["video"] for doc in docs]
        found.videos = survey(asked, sizes=sizes, seen=seen, progress=progress)
        paths |= dict.fromkeys(asked)
        items |= {(doc["video"], doc["sample_id"]) for doc in docs}
        report.splits.append(found)
    report.items = len(items)
    report.videos = survey(paths, sizes=sizes, seen=seen)
    if not report.complete:
        report.next, report.tree = _next_steps(chosen, report, given), chosen.tree
    return report


def tested_splits(chosen: Benchmark) -> list[str]:
    """Return the splits that a benchmark's tasks test on; all of them if no task says so."""
    from tempeval.task_config import task_config
    from tempeval.task_sources import source_rows
    from tempeval.tasklist import expand_tasks, task_entries

    entries = task_entries()
    tasks = expand_tasks([name for name in chosen.tasks if name in entries])
    rows = [row for task in tasks for row in source_rows(task_config(task, functions=False))]
    tested = {row["split"] for row in rows if row.get("benchmark") == chosen.name}
    return [split for split in chosen.splits if split in tested or not tested]


def _counted(videos: VideoFiles) -> dict[str, Any]:
    found = asdict(videos)
    for kind in ("missing", "empty", "gaps"):
        paths = list(found[kind])
        found[kind] = {"count": len(paths), "first": paths[:NAMED]}
    return found


def _check_split(
    chosen: Benchmark, split: str, given: str | Path | None
) -> tuple[SplitReport, list[Doc]]:
    """Return what the annotations of a split say, and its documents."""
    report = SplitReport(split)
    if (counts := chosen.splits[split]) is not None:
        report.published_items, report.published_videos = counts.items, counts.videos
    try:
        root = benchmark_root(chosen, split, given)
    except MissingData as error:
        report.problem = error.reason if data_root(given) else "no data root is given"
    else:
        report.source, report.root = "local", str(root)
        files = chosen.annotations(root, split)
        report.annotations = {str(path): path.stat().st_size for path in files}
    if report.source == "missing" and (chosen.hub is None or is_chosen(given)):
        return report, []
    try:
        docs = load_docs({"benchmark": chosen.name, "split": split}, given)
    except MissingData as error:
        report.problem = report.problem or error.reason
        return report, []
    except BadData as error:
        report.problem = f"damaged: {error}"
        return report, []
    if report.source == "missing":
        report.source, report.problem = "hub cache", ""
    report.items = len(docs)
    return report, docs


def _option(given: str | Path | None) -> str:
    return f" --data-root {given}" if given else ""


def _next_steps(chosen: Benchmark, report: Report, given: str | Path | None) -> list[str]:
    root, option = data_root(given), _option(given)
    steps = []
    if root is None:
        steps.append(f"say where data lie: set {VARIABLE}, or pass --data-root")
    elif here := waiting(chosen, root):
        names = ", ".join(path.name for path in here[:3]) + (" ..." if len(here) > 3 else "")
        steps.append(f"unpack what is there ({names}): {report.prepare}")
    damaged = [split.problem for split in report.splits if split.problem.startswith("damaged")]
    steps += [f"replace by the official file: {problem}" for problem in damaged]
    steps.append(f"get what is missing:\n{chosen.access}")
    steps.append(f"look again: tempeval data check {chosen.name}{option}")
    return steps
