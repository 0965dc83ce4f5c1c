"""From the one row of a task's `source.jsonl` to its documents: local files, else the hub's copy.

A task's YAML names a data file with one row (`benchmark`, `split`, and options), because the host
loads data sets by file, and `process_docs` puts the documents in its place.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.base import BadData, MissingData
from tempeval.benchmarks.registry import benchmark
from tempeval.benchmarks.roots import benchmark_root, is_chosen

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.benchmarks.base import Benchmark
    from tempeval.benchmarks.document import Doc


def load_docs(row: Mapping[str, Any], given: str | Path | None = None) -> list[Doc]:
    """Return the documents that a source row stands for.

    Args:
        row: `benchmark`, `split`.
        given: data root; None for `$TEMPEVAL_DATA`.

    Returns:
        The documents; each also names its `benchmark` and the folder `root` it was read from
        (empty for the hub's copy).

    Raises:
        MissingData: if the files are neither there nor in the hub's cache.
        BadData: if they are not in the official form, or hold no document.
    """
    chosen, split = benchmark(str(row["benchmark"])), str(row["split"])
    if split not in chosen.splits:
        known = ", ".join(chosen.splits)
        raise BadData(f"{chosen.title} has no split {split!r}; it has {known}")
    try:
        root = benchmark_root(chosen, split, given)
    except MissingData:
        if chosen.hub is None or is_chosen(given):
            raise
        from tempeval.benchmarks.hub import is_cached, read_cached

        if not is_cached(chosen.hub, split):
            raise
        return _checked(chosen, split, read_cached(chosen.hub, split), "")
    return _checked(chosen, split, list(chosen.read(root, split)), str(root))


@lru_cache(maxsize=16)
def label_set(name: str, root: str) -> tuple[str, ...]:
    """Return the labels of a benchmark, in official order of index.

    Args:
        name: the benchmark.
        root: its folder, as its documents name it.

    Raises:
        BadData: if it has no label set.
    """
    chosen = benchmark(name)
    if chosen.labels is None:
        raise BadData(f"{chosen.title} has no label set")
    return tuple(chosen.labels(Path(root)))


def _checked(chosen: Benchmark, split: str, docs: list[Doc], root: str) -> list[Doc]:
    if not docs:
        raise BadData(f"{chosen.title} ({split}) has annotation files, but no item in them")
    ids = [doc["sample_id"] for doc in docs]
    if len(set(ids)) != len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise BadData(f"{chosen.title} ({split}) has sample id {twice!r} more than once")
    return [{**doc, "benchmark": chosen.name, "root": root} for doc in docs]
