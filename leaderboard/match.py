"""Find what may be compared: equal settings, equal samples, and matched measured budgets."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.leaderboard import wording
from tempeval.leaderboard.eligible import split
from tempeval.leaderboard.groups import group_of
from tempeval.leaderboard.keys import Key, key_of, moment, version_order
from tempeval.leaderboard.variants import compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tempeval.leaderboard.groups import Group
    from tempeval.leaderboard.records import Entry, Refusal
    from tempeval.leaderboard.variants import Comparison


@dataclass(frozen=True, slots=True)
class Matched:
    """The comparisons, and why every other entry is in none."""

    comparisons: tuple[Comparison, ...]
    refusals: tuple[Refusal, ...]


def match(
    entries: Iterable[Entry],
    *,
    baseline: str,
    tolerance: float,
    max_failure_ratio: float,
    on: str = "visual_tokens",
) -> Matched:
    """Pair every entry with a baseline of equal settings and matched budget.

    Args:
        entries: all tasks of all complete runs.
        baseline: name of the baseline, without or with its settings.
        tolerance: of the measured budget, as a fraction.
        max_failure_ratio: most failed samples accepted, as a fraction.
        on: the measure that is the budget, one of BUDGETS.

    Returns:
        The comparisons and refusals. Every entry is in exactly one of them, but a baseline that a
        method stands beside with several plans is in a comparison for each, and those of
        `--limit` runs that have a partner are in both, since they are compared and not ranked.
    """
    good, refusals = split(entries, on=on, max_failure_ratio=max_failure_ratio)
    good.sort(key=lambda entry: (moment(entry.run.record.finished), entry.run.name), reverse=True)
    members = _by_key(good, on)
    groups = {key: group_of(part, baseline, tolerance, on) for key, part in members.items()}
    refusals += _take_older(groups)
    known = [(key, pair.baseline) for key, group in groups.items() for pair in group.pairs]
    methods = {entry.run.record.method for entry in good}
    for key, group in groups.items():
        refusals += [*group.repeated, *group.unmatched]
        if not group.pairs:
            refusals += [
                wording.no_baseline(entry, key, known, baseline, methods) for entry in group.others
            ]
    pairs = [(key, pair) for key, group in groups.items() for pair in group.pairs]
    comparisons = compare(pairs, tolerance=tolerance, on=on)
    limited = {
        (entry.run.name, entry.task.name): entry
        for comparison in comparisons
        if comparison.setting.limit is not None
        for entry in (comparison.baseline, *comparison.methods)
    }
    refusals += [wording.limited_run(entry) for entry in limited.values()]
    return Matched(comparisons, tuple(refusals))


def _by_key(entries: Iterable[Entry], on: str) -> dict[Key, list[Entry]]:
    """Gather entries of one key; those that state no right answers go with any that do."""
    keys = [(key_of(entry, on), entry) for entry in entries]
    stated: dict[Key, Key] = {}
    for key, _ in keys:
        if key.targets:
            stated.setdefault(key._replace(targets=""), key)
    members: dict[Key, list[Entry]] = defaultdict(list)
    for key, entry in keys:
        members[stated.get(key, key)].append(entry)
    return members


def _take_older(groups: Mapping[Key, Group]) -> list[Refusal]:
    """Empty the groups of older task versions.

    A newer version replaces an older one of the same settings where it has a baseline, and of any
    settings where a method stands beside that baseline in a full run: two versions of a task are
    never ranked on one leaderboard.
    """
    newest: dict[Key | str, tuple[str, str]] = {}
    for key, group in groups.items():
        for pair in group.pairs:
            places: list[Key | str] = [key.without_version()]
            places += [key.task] if pair.methods and key.limit is None else []
            for place in places:
                held = newest.get(place)
                if held is None or _is_older(held[0], key.task_version):
                    newest[place] = (key.task_version, pair.baseline.run.name)
    refusals = []
    for key, group in groups.items():
        for place in (key.without_version(), key.task):
            held = newest.get(place)
            if held and _is_older(key.task_version, held[0]):
                refusals += [wording.older_version(entry, *held) for entry in group.clear()]
    return refusals


def _is_older(version: str, other: str) -> bool:
    return version_order(version) < version_order(other)
