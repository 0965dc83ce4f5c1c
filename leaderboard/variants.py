"""Give comparisons the setting of their table, and join tasks only where that is sure."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tempeval.leaderboard.distance import mean_budget
from tempeval.leaderboard.keys import Plan, plan_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tempeval.leaderboard.groups import Paired
    from tempeval.leaderboard.keys import Key
    from tempeval.leaderboard.records import Entry

_BUDGET, _PLAN, _RUN = "measured budget", "plan of the methods", "run"
_WORDS = {
    "task_version": "version",
    "dataset_digest": "data",
    "prompt_hash": "prompt",
    "targets": "right answers",
    "task_digest": "task code",
}


class Setting(NamedTuple):
    """What the tasks of one table share; dtype, frames and sizes are the baseline's.

    `baseline` is its fingerprint. `variant` counts the tables of one setting: one task has
    several comparable groups (two prompts, say), which cannot stand in one column. `methods_plan`
    is the plan of the methods where one method stands beside this baseline with several.
    """

    model: str
    model_revision: str
    frame_policy: str
    position_rule: str
    dtype: str
    limit: float | None
    visual_token_budget: int | None
    min_pixels: int | None
    max_pixels: int | None
    baseline: str
    methods_plan: Plan | None
    variant: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task: a baseline and the methods at its budget, over the same samples.

    Attributes:
        setting: of its table.
        baseline: the baseline's entry.
        methods: the others'.
        notes: what a reader must know, a sentence each.
        apart: in what the same task in other tables of the setting is another.
    """

    setting: Setting
    baseline: Entry
    methods: tuple[Entry, ...]
    notes: tuple[str, ...] = ()
    apart: tuple[str, ...] = ()


class _Part(NamedTuple):
    key: Key
    comparison: Comparison

    @property
    def task(self) -> str:
        return self.key.task

    @property
    def runs(self) -> set[str]:
        found = self.comparison
        return {entry.run.name for entry in (found.baseline, *found.methods)}


def compare(
    pairs: Iterable[tuple[Key, Paired]], *, tolerance: float, on: str
) -> tuple[Comparison, ...]:
    """Give each pair its setting.

    Where a task is there more than once in a setting, tables join it with other tasks only where
    they share a run or, if nothing but the budget differs, the measured budget; every other one
    is a table of its own.

    Args:
        pairs: key, baseline and methods, the latest first.
        tolerance: of the measured budget, as a fraction.
        on: the measure that is the budget.
    """
    settings: dict[Setting, list[tuple[Key, Paired]]] = defaultdict(list)
    for key, pair in pairs:
        settings[_setting(key, pair.baseline)].append((key, pair))
    found = []
    for setting, group in settings.items():
        parts = _by_plan(setting, group)
        plans: dict[Plan | None, list[_Part]] = defaultdict(list)
        for part in parts:
            plans[part.comparison.setting.methods_plan].append(part)
        tables = [t for same in plans.values() for t in enumerate(_joined(same, tolerance, on))]
        for variant, table in tables:
            for part in table:
                others = [other for other in parts if other.task == part.task and other != part]
                apart = {word for other in others for word in _apart(part, other, tolerance, on)}
                own = part.comparison.setting._replace(variant=variant)
                found.append(replace(part.comparison, setting=own, apart=tuple(sorted(apart))))
    return tuple(found)


def _setting(key: Key, anchor: Entry) -> Setting:
    run = anchor.run
    return Setting(
        model=key.model,
        model_revision=key.model_revision,
        frame_policy=run.frame_policy,
        position_rule=key.position_rule,
        dtype=run.record.dtype,
        limit=key.limit,
        visual_token_budget=run.record.visual_token_budget,
        min_pixels=run.record.min_pixels,
        max_pixels=run.record.max_pixels,
        baseline=run.record.method_fingerprint,
        methods_plan=None,
        variant=0,
    )


def _by_plan(setting: Setting, group: Sequence[tuple[Key, Paired]]) -> list[_Part]:
    """Divide the methods that stand beside one baseline with several plans, by plan."""
    several = {
        name
        for _, pair in group
        for name, times in Counter(
            entry.run.record.method_fingerprint for entry in pair.methods
        ).items()
        if times > 1
    }
    parts = []
    for key, pair in group:
        plans: dict[Plan | None, list[Entry]] = defaultdict(list)
        for entry in pair.methods:
            plan = plan_of(entry.run)
            own = entry.run.record.method_fingerprint in several and plan != plan_of(
                pair.baseline.run
            )
            plans[plan if own else None].append(entry)
        if not plans:
            plans[None] = []
        for own_plan, methods in plans.items():
            planned = setting._replace(methods_plan=own_plan)
            compared = Comparison(planned, pair.baseline, tuple(methods), tuple(pair.notes))
            parts.append(_Part(key, compared))
    return parts


def _joined(parts: list[_Part], tolerance: float, on: str) -> list[list[_Part]]:
    """Join the parts that surely belong together, with each task at most once in a table."""
    times = Counter(part.task for part in parts)
    if max(times.values()) == 1:
        return [parts]
    tables = {place: {place} for place in range(len(parts))}
    for one, two in _links(parts, tolerance, on):
        mine, other = tables[one], tables[two]
        if {parts[i].task for i in mine}.isdisjoint(parts[i].task for i in other):
            mine |= other
            tables |= dict.fromkeys(other, mine)
    # Tasks that are there once and have nothing to do with those that are not.
    single = {i for i in tables if all(times[parts[j].task] == 1 for j in tables[i])}
    tables |= dict.fromkeys(single, single)
    unique = {min(places): sorted(places) for places in tables.values()}
    return [[parts[i] for i in unique[first]] for first in sorted(unique)]


def _links(parts: list[_Part], tolerance: float, on: str) -> list[tuple[int, int]]:
    """Give the pairs of parts that may stand in one table, the surest first."""
    keys: dict[str, set[Key]] = defaultdict(set)
    for part in parts:
        keys[part.task].add(part.key)
    budgets = [mean_budget(part.comparison.baseline, on) for part in parts]
    runs = [part.runs for part in parts]
    found = []
    for one, two in itertools.combinations(range(len(parts)), 2):
        first, second = parts[one], parts[two]
        if first.task == second.task:
            continue
        anchors = first.comparison.baseline.run, second.comparison.baseline.run
        shared = len(runs[one] & runs[two])
        if shared:
            found.append(((0, float(anchors[0] != anchors[1]), -shared), one, two))
        elif len(keys[first.task]) == len(keys[second.task]) == 1:
            gap = abs(budgets[one] - budgets[two])
            if gap <= tolerance * max(budgets[one], budgets[two]):
                found.append(((1, gap, 0), one, two))
    return [(one, two) for _, one, two in sorted(found)]


def _apart(part: _Part, other: _Part, tolerance: float, on: str) -> list[str]:
    """Name in what two comparisons of one task differ."""
    names = [_WORDS.get(name, name.replace("_", " ")) for name in part.key.differing(other.key)]
    mine, theirs = part.comparison, other.comparison
    if mine.setting.methods_plan != theirs.setting.methods_plan:
        names.append(_PLAN)
    budgets = [mean_budget(found.baseline, on) for found in (mine, theirs)]
    if abs(budgets[0] - budgets[1]) > tolerance * max(budgets):
        names.append(_BUDGET)
    return names or [_RUN]
