"""Which benchmark files the tasks of a run read, and their digests."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from tempeval.archives import file_digest
from tempeval.tasklist import expand_tasks, task_entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tempeval.benchmarks.base import Benchmark

Row = dict[str, Any]


def source_rows(config: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the data file that a task tests on.

    Args:
        config: as `tempeval.task_config.task_config` gives it.

    Returns:
        Its rows; for a task of a benchmark one, that names `benchmark` and `split`. None for other
        kinds of files, and for patterns, which only `datasets` resolves.
    """
    named = (config.get("dataset_kwargs") or {}).get("data_files", {})
    # As `datasets` reads it: a file, or a list of files, without a split is that of `train`.
    files = named if isinstance(named, dict) else {"train": named}
    found = files.get(config.get("test_split") or config.get("validation_split"), ())
    names = [found] if isinstance(found, str) else list(found)
    folder = task_entries()[config["task"]].path.parent
    lines = [
        line
        for name in names
        if name.endswith(".jsonl") and (folder / name).is_file()
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
    ]
    return [json.loads(line) for line in lines if line]


def read_documents(name: str) -> None:
    """Read the annotation files of a task or group once, to see that they can be read.

    Args:
        name: task or group; those of the host, and those whose data ship with the package, have
            no such files.

    Raises:
        MissingData, BadData: with the reason.
    """
    from tempeval.task_config import task_config

    for task in expand_tasks([name] if name in task_entries() else []):
        rows = source_rows(task_config(task, functions=False))
        if any("benchmark" in row for row in rows[:1]):
            task_config(task)["process_docs"](rows)


def source_digests(names: Iterable[str], *, skip_missing: bool = False) -> dict[str, str]:
    """Return the digest of the annotation files that tasks read, by `benchmark/split`.

    Args:
        names: tasks and groups; those of the host, and those whose data ship with the package,
            have none.
        skip_missing: leave out a benchmark whose files are not there.

    Raises:
        MissingData: if a benchmark's files are not there, so that a run ends before it begins.
    """
    from tempeval.benchmarks.base import MissingData
    from tempeval.task_config import task_config

    found: dict[str, str] = {}
    for name in expand_tasks([name for name in names if name in task_entries()]):
        for row in source_rows(task_config(name, functions=False))[:1]:
            if "benchmark" in row:
                key = f"{row['benchmark']}/{row['split']}"
                if key not in found:
                    try:
                        found[key] = _digest(row)
                    except MissingData:
                        if not skip_missing:
                            raise
    return found


def _digest(row: Row) -> str:
    from tempeval.benchmarks.base import MissingData
    from tempeval.benchmarks.registry import benchmark
    from tempeval.benchmarks.roots import benchmark_root

    chosen = benchmark(row["benchmark"])
    try:
        root = benchmark_root(chosen, row["split"])
    except MissingData:
        if chosen.hub is None:
            raise
        return _digest_of_documents(row)
    return _digest_of_files(chosen, row["split"], root)


def _digest_of_files(chosen: Benchmark, split: str, root: Any) -> str:
    whole = hashlib.sha256()
    for path in chosen.annotations(root, split):
        whole.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _digest_of_documents(row: Row) -> str:
    """Return the digest of what the hub's copy says, whose files have no names of ours."""
    from tempeval.benchmarks.sources import load_docs

    whole = hashlib.sha256()
    for doc in load_docs(row):
        whole.update(f"{doc['sample_id']}\0{doc['content_hash']}\n".encode())
    return f"documents:sha256:{whole.hexdigest()}"
