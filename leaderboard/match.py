"""Find what may be compared: equal settings, equal samples, and matched measured budgets."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tempeval.leaderboard import wording
from tempeval.leaderboard.eligible import split
from tempeval.leaderboard.keys import Key, key_of, moment, version_order

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tempeval.leaderboard.records import Entry, Floats, Refusal, Run

# The share of paired samples that must lie within the tolerance.
PAIRED_SHARE = 0.99
# The share of all samples that both sides must have answered, whatever --max-failures accepts: two
# runs that each fail 5 % may have that many in common.
ANSWERED_SHARE = 0.9
# Relative slack for decimal tolerances that have no exact binary value.
_SLACK = 1e-9


class Setting(NamedTuple):
    """What the tasks of one table share; dtype, frames and sizes are the baseline's.

    `baseline` is its fingerprint. `variant` is above 0 where one task has several comparable
    groups (two prompts, say), which cannot stand in one column.
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
    variant: int


class Distance(NamedTuple):
    """How far a method's measured budget is from a baseline's, over the paired samples.

    Attributes:
        paired: samples measured on both sides.
        outside: paired samples that differ by more than the tolerance.
        value: the method's mean.
        reference: the baseline's mean.
        close: the means differ by at most the tolerance.
        matches: they do, and so do enough samples.
        answered: enough samples are paired.
    """

    paired: int
    outside: int
    value: float
    reference: float
    close: bool
    matches: bool
    answered: bool

    @property
    def fits(self) -> bool:
        """Whether the two may be compared."""
        return self.matches and self.answered


@dataclass(frozen=True, slots=True)
class Comparison:
    """One task: a baseline and the methods at its budget, over the same samples."""

    setting: Setting
    baseline: Entry
    methods: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Matched:
    """The comparisons, and why every other entry is in none."""

    comparisons: tuple[Comparison, ...]
    refusals: tuple[Refusal, ...]


@dataclass(slots=True)
class _Group:
    """Entries of one key: the baselines, one per budget, and all others."""

    baselines: list[Entry]
    others: list[Entry]
    refusals: list[Refusal]


def distance(value: Floats, reference: Floats, tolerance: float) -> Distance:
    """Compare two measured budgets sample by sample.

    They match when at least 99 % of the paired samples differ by at most the tolerance, and so
    do the means. The tolerance is a fraction of the larger of the two, so that the answer does
    not depend on which is called the baseline, and any two runs planned within 98 to 100 % of
    one budget match at 2 %.

    Args:
        value: [n], the method's measure, NaN where not measured.
        reference: [n], the baseline's.
        tolerance: >= 0, as a fraction (0.02 is 2 %).

    Returns:
        The distance; it never matches without a paired sample.
    """
    size = len(value)
    both = ~(np.isnan(value) | np.isnan(reference))
    value, reference = value[both], reference[both]
    paired = len(value)
    if paired == 0:
        return Distance(
            0, 0, float("nan"), float("nan"), close=False, matches=False, answered=False
        )
    allowed = tolerance * np.maximum(np.abs(value), np.abs(reference))
    outside = int((np.abs(value - reference) > allowed * (1 + _SLACK)).sum())
    mean, base = float(value.mean()), float(reference.mean())
    enough = outside <= (1 - PAIRED_SHARE) * paired * (1 + _SLACK)
    close = abs(mean - base) <= tolerance * max(abs(mean), abs(base)) * (1 + _SLACK)
    answered = paired >= ANSWERED_SHARE * size * (1 - _SLACK)
    return Distance(paired, outside, mean, base, close, enough and close, answered)


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
        The comparisons and refusals. Every entry is in exactly one of them; those of `--limit`
        runs that have a partner are in both, since they are compared and not ranked.
    """
    good, refusals = split(entries, on=on, max_failure_ratio=max_failure_ratio)
    good.sort(key=lambda entry: (moment(entry.run.finished), entry.run.name), reverse=True)
    members = _by_key(good, on)
    groups = {key: _group(part, baseline, tolerance, on) for key, part in members.items()}
    refusals += _take_older(groups)
    known = [(key, entry) for key, group in groups.items() for entry in group.baselines]
    methods = {run.method for run in (entry.run for entry in good)}
    pairs: list[tuple[Key, Entry, list[Entry]]] = []
    for key, group in groups.items():
        refusals += group.refusals
        rows: list[list[Entry]] = [[] for _ in group.baselines]
        for entry in group.others:
            if not group.baselines:
                refusals.append(wording.no_baseline(entry, key, known, baseline, methods))
                continue
            place, far = _nearest(entry, group.baselines, tolerance, on)
            if not far.fits:
                anchor = group.baselines[place]
                refusals.append(_unmatched(entry, anchor, far, tolerance, on))
            elif twin := _twin(entry, rows[place]):
                refusals.append(wording.duplicate(entry, twin))
            else:
                rows[place].append(entry)
        pairs += [(key, anchor, rows[i]) for i, anchor in enumerate(group.baselines)]
    comparisons = _compare(pairs)
    refusals += [
        wording.limited_run(entry)
        for comparison in comparisons
        if comparison.setting.limit is not None
        for entry in (comparison.baseline, *comparison.methods)
    ]
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


def _group(entries: list[Entry], baseline: str, tolerance: float, on: str) -> _Group:
    """Choose the baselines, one per budget: the latest finished of equal ones."""
    group = _Group([], [], [])
    for entry in entries:
        if not _is_named(entry.run, baseline):
            group.others.append(entry)
            continue
        same = [b for b in group.baselines if _distance(entry, b, tolerance, on).matches]
        twin = _twin(entry, same)
        if not same:
            group.baselines.append(entry)
        elif twin:
            group.refusals.append(wording.duplicate(entry, twin))
        else:  # the same method with other settings is a row like any other
            group.others.append(entry)
    return group


def _is_named(run: Run, name: str) -> bool:
    return name in (run.method, run.label)


def _take_older(groups: Mapping[Key, _Group]) -> list[Refusal]:
    """Empty the groups of task versions that a newer one with a baseline replaces."""
    newest: dict[Key, tuple[str, str]] = {}
    for key, group in groups.items():
        if group.baselines:
            place, version = key.without_version(), key.task_version
            held = newest.get(place)
            if held is None or version_order(version) > version_order(held[0]):
                newest[place] = (version, group.baselines[0].run.name)
    refusals = []
    for key, group in groups.items():
        held = newest.get(key.without_version())
        if held and version_order(key.task_version) < version_order(held[0]):
            old = [*group.baselines, *group.others]
            refusals += [wording.older_version(entry, *held) for entry in old]
            group.baselines, group.others = [], []
    return refusals


def _distance(entry: Entry, anchor: Entry, tolerance: float, on: str) -> Distance:
    value = np.where(entry.samples.failed, np.nan, entry.samples.measures[on])
    reference = np.where(anchor.samples.failed, np.nan, anchor.samples.measures[on])
    return distance(value, reference, tolerance)


def _nearest(entry: Entry, kept: list[Entry], tolerance: float, on: str) -> tuple[int, Distance]:
    """Give the baseline whose budget is nearest, a matching one before any other."""
    far = [_distance(entry, anchor, tolerance, on) for anchor in kept]
    place = min(
        range(len(far)),
        key=lambda i: (not far[i].fits, abs(far[i].value - far[i].reference), i),
    )
    return place, far[place]


def _unmatched(entry: Entry, anchor: Entry, far: Distance, tolerance: float, on: str) -> Refusal:
    if far.paired and not far.answered:
        return wording.unanswered(entry, anchor, far, ANSWERED_SHARE)
    return wording.unmatched(entry, anchor, far, tolerance, PAIRED_SHARE, on)


def _twin(entry: Entry, rows: list[Entry]) -> Entry | None:
    """Give the row of the same method and settings, if there is one."""
    return next((row for row in rows if row.run.fingerprint == entry.run.fingerprint), None)


def _compare(pairs: list[tuple[Key, Entry, list[Entry]]]) -> tuple[Comparison, ...]:
    """Give each group its setting; groups of one task in one setting become variants.

    Groups arrive newest first, so that variant 0 of every task is the latest.
    """
    settings: dict[tuple[Setting, str], list[tuple[Key, Entry, list[Entry]]]] = defaultdict(list)
    for key, anchor, rows in pairs:
        run = anchor.run
        setting = Setting(
            model=key.model,
            model_revision=key.model_revision,
            frame_policy=run.frame_policy,
            position_rule=key.position_rule,
            dtype=run.dtype,
            limit=key.limit,
            visual_token_budget=run.visual_token_budget,
            min_pixels=run.min_pixels,
            max_pixels=run.max_pixels,
            baseline=run.fingerprint,
            variant=0,
        )
        settings[setting, key.task].append((key, anchor, rows))
    comparisons = []
    for (setting, _), groups in settings.items():
        for variant, (_, anchor, rows) in enumerate(groups):
            comparisons.append(Comparison(setting._replace(variant=variant), anchor, tuple(rows)))
    return tuple(comparisons)
