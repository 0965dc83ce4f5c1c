"""What is listed and not ranked, and the runs behind a leaderboard."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tempeval.leaderboard import stats
from tempeval.leaderboard.costs import costs_of
from tempeval.leaderboard.paths import without_folders

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tempeval.leaderboard.records import Entry, Refusal, Source
    from tempeval.leaderboard.schema import ListedScore, NotComparable, Run, Table


# Seconds beyond this are no seconds, and may be too large for a float.
_MOST = 1e12


def merge_refusals(refusals: Iterable[Refusal]) -> tuple[Refusal, ...]:
    """Join refusals that differ only in the task and its scores, and sort them by run."""
    joined: dict[tuple[str, ...], list[Refusal]] = defaultdict(list)
    for refusal in refusals:
        joined[_reason(refusal)].append(refusal)
    merged = [
        replace(
            parts[0],
            tasks=tuple(sorted({task for part in parts for task in part.tasks})),
            scores=tuple(score for part in parts for score in part.scores),
        )
        for parts in joined.values()
    ]
    return tuple(sorted(merged, key=lambda r: (r.run, r.tasks, r.field, r.reason)))


def _reason(refusal: Refusal) -> tuple[str, ...]:
    return (
        refusal.run,
        refusal.method,
        refusal.kind,
        refusal.field,
        refusal.value,
        refusal.other,
        refusal.reason,
        refusal.action,
    )


def not_comparable(refusals: Iterable[Refusal], entries: Iterable[Entry]) -> list[NotComparable]:
    """Give refusals with the scores of the tasks that could be read."""
    known = {(entry.run.name, entry.task.name): entry for entry in entries}
    return [
        {
            "run": refusal.run,
            "method": without_folders(refusal.method),
            "tasks": list(refusal.tasks),
            "kind": refusal.kind,
            "field": refusal.field,
            "value": without_folders(refusal.value),
            "other": without_folders(refusal.other),
            "reason": without_folders(refusal.reason),
            "action": refusal.action,
            "scores": list(refusal.scores)
            or [
                _listed(entry)
                for task in refusal.tasks
                if (entry := known.get((refusal.run, task))) and len(entry.samples.ids)
            ],
        }
        for refusal in refusals
    ]


def _listed(entry: Entry) -> ListedScore:
    samples = entry.samples
    codes, clusters = stats.cluster_codes(samples.clusters)
    costs = costs_of([entry])
    measured = any(value is not None for value in costs["measures"].values())
    return {
        "task": entry.task.name,
        "version": entry.task.version,
        "metric": entry.task.score_key,
        "higher_is_better": entry.task.higher_is_better,
        "fraction": bool(samples.score.min() >= 0 and samples.score.max() <= 1),
        "score": float(samples.score.mean()),
        "se": stats.clustered_se(samples.score, codes, clusters),
        "n": len(samples.ids),
        "clusters": clusters,
        "costs": costs if measured else None,
    }


def runs_of(
    sources: Sequence[Source], refusals: Iterable[Refusal], tables: Iterable[Table]
) -> list[Run]:
    """Give all runs that could be read, with the tables that they stand in."""
    stands: dict[str, set[str]] = defaultdict(set)
    places: dict[str, int] = {}
    for place, table in enumerate(tables):
        places[table["id"]] = place
        for row in table["rows"]:
            for cell in row["cells"]:
                if cell is not None:
                    stands[cell["run"]].add(table["id"])
    labels = {refusal.run: without_folders(refusal.method) for refusal in refusals}
    return [
        _run(number, source, labels, sorted(stands[source.name], key=places.__getitem__))
        for number, source in enumerate(sources, 1)
    ]


def _run(number: int, source: Source, labels: Mapping[str, str], tables: list[str]) -> Run:
    facts = without_folders(dict(source.facts))
    method = _text(facts, "method")
    packages = facts.get("packages")
    seconds = facts.get("wall_seconds")
    return {
        "id": f"run-{number}",
        "name": source.name,
        "label": _text(facts, "method_label") or method or labels.get(source.name, ""),
        "method": method,
        "fingerprint": _text(facts, "method_fingerprint"),
        "model": _text(facts, "model") or _text(facts, "model_name"),
        "model_revision": _text(facts, "model_revision"),
        "status": source.status,
        "started": _text(facts, "started") or None,
        "finished": _text(facts, "finished") or None,
        "wall_seconds": seconds if type(seconds) in (int, float) and seconds < _MOST else None,
        "tempeval_version": _text(facts, "tempeval_version") or None,
        "packages": _packages(packages),
        "tables": tables,
        "facts": facts,
    }


def _packages(packages: object) -> dict[str, str]:
    known = packages if isinstance(packages, dict) else {}
    return {str(name): str(version) for name, version in sorted(known.items())}


def _text(facts: Mapping[str, Any], key: str) -> str:
    value = facts.get(key)
    return value if isinstance(value, str) else ""
