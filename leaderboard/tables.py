"""Turn matched comparisons into tables of numbers; nothing here is text to print."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tempeval.leaderboard import stats
from tempeval.leaderboard.board import Cell, Costs, Row, Table, Task
from tempeval.leaderboard.records import MEASURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tempeval.leaderboard.match import Comparison, Setting
    from tempeval.leaderboard.records import Entry, Floats, Refusal, Run
    from tempeval.leaderboard.stats import Interval

# Facts that do not decide what is comparable, but that a reader of the costs must know.
_WATCHED = ("device", "gpu", "attention_kernel", "world_size", "seed", "tempeval_version")
_PACKAGES = ("lmms_eval", "lmms-eval", "torch", "transformers")


def make_tables(comparisons: Iterable[Comparison], *, draws: int, seed: int) -> tuple[Table, ...]:
    """Compute all tables, full runs before limited ones, then by model and budget.

    Args:
        comparisons: from `match`.
        draws: bootstrap draws.
        seed: of every bootstrap, so that a table does not depend on which others there are.

    Returns:
        One table for each setting, and for tasks that have no method in common one each.
    """
    grouped: dict[Setting, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        grouped[comparison.setting].append(comparison)
    tables = [
        _table(setting, part, draws, seed)
        for setting, group in grouped.items()
        for part in _with_shared_methods(group)
    ]
    return tuple(sorted(tables, key=_table_order))


def _with_shared_methods(group: list[Comparison]) -> list[list[Comparison]]:
    """Split tasks so that those of two parts share no method but the baseline.

    Side by side they would make a table of empty cells, with no mean anywhere. Tasks that have a
    baseline alone go with the first part.
    """
    parts: list[tuple[set[str], list[Comparison]]] = []
    alone: list[Comparison] = []
    for comparison in sorted(group, key=lambda c: c.baseline.task.name):
        names = {entry.run.fingerprint for entry in comparison.methods}
        if not names:
            alone.append(comparison)
            continue
        tasks = [comparison]
        for part in [part for part in parts if part[0] & names]:
            parts.remove(part)
            names |= part[0]
            tasks = [*part[1], *tasks]
        parts.append((names, tasks))
    if not parts:
        return [alone]
    first, *others = [tasks for _, tasks in parts]
    return [[*first, *alone], *others]


def merge_refusals(refusals: Iterable[Refusal]) -> tuple[Refusal, ...]:
    """Join refusals that differ only in the task, and sort them by run."""
    tasks: dict[Refusal, set[str]] = defaultdict(set)
    for refusal in refusals:
        tasks[replace(refusal, tasks=())] |= set(refusal.tasks)
    merged = [replace(refusal, tasks=tuple(sorted(names))) for refusal, names in tasks.items()]
    return tuple(sorted(merged, key=lambda r: (r.run, r.tasks, r.field, r.reason)))


def _table(setting: Setting, group: list[Comparison], draws: int, seed: int) -> Table:
    group = sorted(group, key=lambda comparison: comparison.baseline.task.name)
    entries = [entry for c in group for entry in (c.baseline, *c.methods)]
    tasks = tuple(_task(comparison) for comparison in group)
    cells = [_cells(comparison, draws, seed) for comparison in group]
    anchor = group[0].baseline.run
    owners = {entry.run.fingerprint: entry.run for entry in reversed(entries)}
    full = [name for name in owners if all(name in column for column in cells)]
    macros = _macros(group, tasks, full, draws, seed)
    names = _labels(owners)
    rows = []
    for fingerprint, run in owners.items():
        found = [column.get(fingerprint) for column in cells]
        macro, difference, interval = macros.get(fingerprint, (None, None, None))
        rows.append(
            Row(
                label=names[fingerprint],
                method=run.method,
                fingerprint=fingerprint,
                settings=run.settings,
                is_baseline=fingerprint == anchor.fingerprint,
                cells=tuple(cell for cell, _ in (pair or (None, None) for pair in found)),
                macro=macro,
                macro_difference=difference,
                macro_interval=interval,
                costs=_costs([pair[1] for pair in found if pair]) if all(found) else None,
            )
        )
    descending = tasks[0].higher_is_better
    rows.sort(key=lambda row: _row_order(row, descending))
    runs = {entry.run.name: entry.run for entry in entries}
    costs = rows[0].costs
    return Table(
        model=anchor.model,
        setting=setting,
        budget=costs.measures["visual_tokens"] if costs else None,
        devices=tuple(sorted({run.gpu or run.device for run in runs.values()})),
        n=sum(task.n for task in tasks),
        clusters=len({name for c in group for name in c.baseline.samples.clusters}),
        tasks=tasks,
        rows=tuple(rows),
        differs=_differs(runs.values()),
    )


def _task(comparison: Comparison) -> Task:
    record, samples = comparison.baseline.task, comparison.baseline.samples
    scores = [entry.samples.score for entry in (comparison.baseline, *comparison.methods)]
    return Task(
        name=record.name,
        version=record.version,
        prompt_hash=record.prompt_hash,
        dataset_digest=record.dataset_digest,
        group=record.group,
        higher_is_better=record.higher_is_better,
        fraction=all(values.min() >= 0 and values.max() <= 1 for values in scores),
        n=len(samples.ids),
        clusters=len(set(samples.clusters)),
    )


def _cells(comparison: Comparison, draws: int, seed: int) -> dict[str, tuple[Cell, Entry]]:
    """Compute one task's cells by fingerprint. Rows of equal sample sets are aligned."""
    base = comparison.baseline
    codes, clusters = stats.cluster_codes(base.samples.clusters)
    counts = stats.cluster_sums(np.ones(len(codes)), codes, clusters)
    intervals: tuple[Interval | None, ...] = ()
    if comparison.methods:
        differences = [entry.samples.score - base.samples.score for entry in comparison.methods]
        sums = np.stack([stats.cluster_sums(d, codes, clusters) for d in differences], axis=1)
        intervals = stats.ratio_intervals(sums, counts, draws=draws, seed=seed)
    cells = {}
    for entry, interval in zip((base, *comparison.methods), (None, *intervals), strict=True):
        score = entry.samples.score
        cell = Cell(
            run=entry.run.name,
            score=float(score.mean()),
            score_by_sum=_known_mean(entry.samples.by_sum),
            se=stats.clustered_se(score, codes, clusters),
            difference=None if entry is base else float((score - base.samples.score).mean()),
            interval=interval,
            n=len(score),
            clusters=clusters,
            costs=_costs([entry]),
        )
        cells[entry.run.fingerprint] = (cell, entry)
    return cells


def _costs(entries: Sequence[Entry]) -> Costs:
    answered = [~entry.samples.failed for entry in entries]
    pairs = list(zip(entries, answered, strict=True))

    return Costs(
        measures={
            name: _known_mean(*[e.samples.measures[name][ok] for e, ok in pairs])
            for name in MEASURES
        },
        parse_failure_rate=_known_mean(*[entry.samples.unparsed[ok] for entry, ok in pairs]),
        failed=sum(int(entry.samples.failed.sum()) for entry in entries),
    )


def _known_mean(*columns: Floats) -> float | None:
    """Return the mean of all values; None when there is none, or one is not known."""
    values = np.concatenate(columns)
    known = bool(len(values)) and not np.isnan(values).any()
    return float(values.mean()) if known else None


def _macros(
    group: list[Comparison], tasks: tuple[Task, ...], full: list[str], draws: int, seed: int
) -> dict[str, tuple[float, float | None, Interval | None]]:
    """Compute macro scores and differences of the rows that have every task.

    There is none over tasks of unlike scales or directions: their mean has no meaning.
    """
    unlike = len({task.higher_is_better for task in tasks}) > 1
    if len(tasks) > 1 and (unlike or not all(task.fraction for task in tasks)):
        return {}
    scores = [{e.run.fingerprint: e.samples.score for e in (c.baseline, *c.methods)} for c in group]
    base = group[0].baseline.run.fingerprint
    means = {name: float(np.mean([column[name].mean() for column in scores])) for name in full}
    others = [name for name in full if name != base]
    if base not in means or not others:
        return {name: (means[name], None, None) for name in means}
    names = [name for comparison in group for name in comparison.baseline.samples.clusters]
    codes, clusters = stats.cluster_codes(names)
    split = np.split(codes, np.cumsum([task.n for task in tasks])[:-1])
    sums = np.zeros((clusters, len(others), len(tasks)))
    counts = np.zeros((clusters, len(tasks)))
    for t, (part, column) in enumerate(zip(split, scores, strict=True)):
        counts[:, t] = stats.cluster_sums(np.ones(len(part)), part, clusters)
        for m, name in enumerate(others):
            sums[:, m, t] = stats.cluster_sums(column[name] - column[base], part, clusters)
    intervals = stats.mean_ratio_intervals(sums, counts, draws, seed)
    result: dict[str, tuple[float, float | None, Interval | None]] = {}
    for name, interval in zip(others, intervals, strict=True):
        gaps = [(column[name] - column[base]).mean() for column in scores]
        result[name] = (means[name], float(np.mean(gaps)), interval)
    result[base] = (means[base], None, None)
    return result


def _labels(owners: Mapping[str, Run]) -> dict[str, str]:
    """Tell methods of one printed name apart by the start of their fingerprints."""
    times = Counter(run.label for run in owners.values())
    short = {key: key.removeprefix("sha256:")[:6] for key in owners}
    return {
        key: run.label if times[run.label] == 1 else f"{run.label} ({short[key]})"
        for key, run in owners.items()
    }


def _differs(runs: Iterable[Run]) -> dict[str, tuple[str, ...]]:
    seen: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name in _WATCHED:
            seen[name].add(str(getattr(run, name)))
        for name in _PACKAGES:
            seen[name].add(run.packages.get(name, "unknown"))
    return {name: tuple(sorted(values)) for name, values in seen.items() if len(values) > 1}


def _row_order(row: Row, descending: bool) -> tuple[bool, bool, float, str, str]:
    macro = 0.0 if row.macro is None else row.macro
    ranked = -macro if descending else macro
    return (not row.is_baseline, row.macro is None, ranked, row.label, row.fingerprint)


def _table_order(table: Table) -> tuple[bool, str, str, float, str]:
    setting, budget = table.setting, table.budget or 0.0
    return (setting.limit is not None, table.model, setting.model_revision, budget, str(setting))
