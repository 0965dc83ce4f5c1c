"""Turn matched comparisons into the tables of the document; nothing here is text to print."""

from __future__ import annotations

import itertools
import json
from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from tempeval.leaderboard.cells import cells_of, correct
from tempeval.leaderboard.costs import costs_of
from tempeval.leaderboard.means import means_of, no_means
from tempeval.leaderboard.paths import without_folders

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from tempeval.leaderboard import schema
    from tempeval.leaderboard.keys import Plan
    from tempeval.leaderboard.records import Run
    from tempeval.leaderboard.schema import Cell, Row, Table, Task
    from tempeval.leaderboard.variants import Comparison, Setting

# Facts that do not decide what is comparable, but that a reader of the costs must know.
_WATCHED = (
    "dtype",
    "device",
    "gpu",
    "attention_kernel",
    "world_size",
    "seed",
    "tempeval_version",
)
#: Budgets of tasks that differ by at most this, as a fraction, are one budget of their table.
ONE_BUDGET = 0.02
_PACKAGES = ("lmms_eval", "lmms-eval", "torch", "transformers")


def make_tables(
    comparisons: Iterable[Comparison], *, on: str, draws: int, seed: int
) -> list[Table]:
    """Compute all tables: full runs before limited ones, then by model and budget.

    Args:
        comparisons: from `match`.
        on: the measure that is the budget.
        draws: bootstrap draws.
        seed: of every draw, so that a table does not depend on which others there are.

    Returns:
        One table for each setting; several where that gives more rows all tasks of their table.
    """
    grouped: dict[Setting, list[Comparison]] = defaultdict(list)
    for comparison in comparisons:
        grouped[comparison.setting].append(comparison)
    tables = [
        table
        for setting, group in grouped.items()
        for table in _tables(setting, _parts(group), on, draws, seed)
    ]
    tables.sort(key=_table_order)
    for number, table in enumerate(tables, 1):
        table["id"] = f"table-{number}"
    return tables


def is_mini(model: str) -> bool:
    """Tell whether a model is a checkpoint of the mini suite."""
    parts = PurePosixPath(model.replace("\\", "/")).parts
    named = len(parts) == 1 and parts[0].partition(":")[0] == "mini"
    return named or ("mini", "checkpoints") in itertools.pairwise(parts)


def _parts(group: list[Comparison]) -> list[list[Comparison]]:
    """Divide the tasks of a setting so that a method that has few of them costs others nothing.

    A row has means, costs and a rank over all tasks of its table or none. The first table is of the
    tasks for which (tasks) x (methods that have all of them) is largest, of equal ones that with
    more tasks; what is left is divided likewise. Tasks that only the baseline has stand apart.
    """
    left = sorted(group, key=lambda comparison: comparison.baseline.task.name)
    alone = [comparison for comparison in left if not comparison.methods]
    left = [comparison for comparison in left if comparison.methods]
    parts: list[list[Comparison]] = []
    while left:
        held: dict[str, set[int]] = defaultdict(set)
        for place, comparison in enumerate(left):
            for entry in comparison.methods:
                held[entry.run.record.method_fingerprint].add(place)
        sets = {frozenset(places) for places in held.values()}
        sets |= {one & two for one, two in itertools.combinations(sets, 2) if one & two}
        chosen = max(sets, key=lambda tasks: _worth(tasks, held.values()))
        parts.append([left[place] for place in sorted(chosen)])
        left = [comparison for place, comparison in enumerate(left) if place not in chosen]
    return [*parts, alone] if alone else parts


def _worth(
    tasks: frozenset[int], held: Collection[Collection[int]]
) -> tuple[int, int, tuple[int, ...]]:
    """Sort sets of tasks by the cells of rows that have all of them, then by tasks and names."""
    complete = sum(tasks.issubset(places) for places in held)
    return len(tasks) * complete, len(tasks), tuple(-place for place in sorted(tasks))


def _tables(
    setting: Setting, parts: list[list[Comparison]], on: str, draws: int, seed: int
) -> list[Table]:
    """Compute the tables of a setting; their p values are corrected as those of one family."""
    cells = [[cells_of(found, draws=draws, seed=seed) for found in part] for part in parts]
    ranked = setting.limit is None
    every = [cell for columns in cells for column in columns for cell in column.values()]
    tests = correct(every) if ranked else 0
    return [
        _table(setting, part, columns, tests, on, draws, seed)
        for part, columns in zip(parts, cells, strict=True)
    ]


def _table(
    setting: Setting,
    group: list[Comparison],
    cells: list[dict[str, Cell]],
    tests: int,
    on: str,
    draws: int,
    seed: int,
) -> Table:
    tasks = [_task(comparison) for comparison in group]
    ranked = setting.limit is None
    rows = _rows(group, tasks, cells, draws, seed)
    rows.sort(key=lambda row: _row_order(row, ranked, tasks[0]["higher_is_better"]))
    anchor = group[0].baseline.run
    entries = [entry for c in group for entry in (c.baseline, *c.methods)]
    runs = {entry.run.name: entry.run for entry in entries}
    budgets = [cell["costs"]["measures"][on] if cell else None for cell in rows[0]["cells"]]
    mean = rows[0]["costs"]["measures"][on] if rows[0]["costs"] else None
    return {
        "id": "",
        "model": setting.model,
        "is_mini": is_mini(anchor.record.model),
        "ranked": ranked,
        "setting": {
            "model": setting.model,
            "model_revision": setting.model_revision,
            "frame_policy": json.loads(setting.frame_policy),
            "position_rule": setting.position_rule,
            "dtype": setting.dtype,
            "limit": setting.limit,
            "visual_token_budget": setting.visual_token_budget,
            "min_pixels": setting.min_pixels,
            "max_pixels": setting.max_pixels,
            "baseline": setting.baseline,
            "methods_plan": _plan(setting.methods_plan),
            "variant": setting.variant,
        },
        "match_on": on,
        "budget": mean if _alike(budgets) else None,
        "budgets": budgets,
        "devices": sorted({run.record.gpu or run.record.device for run in runs.values()}),
        "n": sum(task["n"] for task in tasks),
        "clusters": len({name for c in group for name in c.baseline.samples.clusters}),
        "tasks": tasks,
        "rows": rows,
        "tests": tests,
        "notes": _notes(group),
        "differs": _differs(runs.values()),
    }


def _alike(budgets: Sequence[float | None]) -> bool:
    """Return True if the budgets of a table's tasks are one budget, whose mean says something."""
    known = [budget for budget in budgets if budget is not None]
    return bool(known) and max(known) - min(known) <= ONE_BUDGET * max(known)


def _plan(plan: Plan | None) -> schema.Plan | None:
    if plan is None:
        return None
    return {
        "visual_token_budget": plan.visual_token_budget,
        "min_pixels": plan.min_pixels,
        "max_pixels": plan.max_pixels,
        "frame_policy": json.loads(plan.frame_policy),
    }


def _notes(group: Iterable[Comparison]) -> list[str]:
    """Say what matching chose, and which tasks stand in other tables of the same setting too."""
    notes: dict[str, None] = {}
    apart: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for comparison in group:
        notes |= dict.fromkeys(comparison.notes)
        if comparison.apart:
            apart[comparison.apart].append(comparison.baseline.task.name)
    for fields, tasks in apart.items():
        stand = "stands" if len(tasks) == 1 else "stand"
        what = " and ".join(fields)
        notes[f"{', '.join(tasks)} also {stand} in another table, with another {what}."] = None
    return list(notes)


def _rows(
    group: list[Comparison],
    tasks: list[Task],
    cells: list[dict[str, Cell]],
    draws: int,
    seed: int,
) -> list[Row]:
    base = group[0].baseline.run.record.method_fingerprint
    found = [{e.run.record.method_fingerprint: e for e in (c.baseline, *c.methods)} for c in group]
    owners = {name: entry.run for column in reversed(found) for name, entry in column.items()}
    full = [name for name in owners if all(name in column for column in cells)]
    means = means_of(group, tasks, full, draws, seed)
    labels = _labels(owners)
    return [
        {
            "label": labels[name],
            "method": run.record.method,
            "fingerprint": name,
            "settings": without_folders(dict(run.record.method_settings)),
            "is_baseline": name == base,
            "cells": [column.get(name) for column in cells],
            **means.get(name, no_means()),
            "costs": costs_of([column[name] for column in found]) if name in full else None,
        }
        for name, run in owners.items()
    ]


def _task(comparison: Comparison) -> Task:
    record, samples = comparison.baseline.task, comparison.baseline.samples
    scores = [entry.samples.score for entry in (comparison.baseline, *comparison.methods)]
    return {
        "name": record.name,
        "version": record.version,
        "metric": record.score_key,
        "cluster_key": record.cluster_key,
        "prompt_hash": record.prompt_hash,
        "dataset_digest": record.dataset_digest,
        "group": record.group,
        "higher_is_better": record.higher_is_better,
        "fraction": all(bool(s.min() >= 0 and s.max() <= 1) for s in scores),
        "n": len(samples.ids),
        "clusters": len(set(samples.clusters)),
    }


def _labels(owners: Mapping[str, Run]) -> dict[str, str]:
    """Tell methods of one printed name apart by the start of their fingerprints."""
    labels = {key: without_folders(run.record.method_label) for key, run in owners.items()}
    times = Counter(labels.values())
    short = {key: key.removeprefix("sha256:")[:6] for key in owners}
    return {
        key: label if times[label] == 1 else f"{label} ({short[key]})"
        for key, label in labels.items()
    }


def _differs(runs: Iterable[Run]) -> dict[str, list[str]]:
    seen: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name in _WATCHED:
            seen[name].add(str(getattr(run.record, name)))
        for name in _PACKAGES:
            seen[name].add(run.record.packages.get(name, "unknown"))
    return {name: sorted(values) for name, values in seen.items() if len(values) > 1}


def _row_order(row: Row, ranked: bool, descending: bool) -> tuple[bool, bool, float, str, str]:
    macro = row["macro"] if ranked else None
    by = 0.0 if macro is None else -macro if descending else macro
    return (not row["is_baseline"], macro is None, by, row["label"], row["fingerprint"])


def _table_order(table: Table) -> tuple[bool, str, str, float, str]:
    setting = table["setting"]
    known = [budget for budget in table["budgets"] if budget is not None]
    budget = table["budget"] or sum(known) / (len(known) or 1)
    rest = json.dumps([setting, table["tasks"]], sort_keys=True)
    return (not table["ranked"], table["model"], setting["model_revision"], budget, rest)
