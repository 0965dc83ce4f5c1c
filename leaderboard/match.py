"""Find what may be compared: equal settings, equal samples, and matched measured budgets."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tempeval.leaderboard import wording
from tempeval.leaderboard.eligible import refusal, split

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tempeval.leaderboard.records import Entry, Floats, Refusal

# The share of paired samples that must lie within the tolerance.
PAIRED_SHARE = 0.99
# Relative slack for decimal tolerances that have no exact binary value.
_SLACK = 1e-9


class Key(NamedTuple):
    """What two entries must share to be compared; the field names are used in messages.

    A message names the first field that differs, so causes stand before what follows from them:
    a limit changes the sample set, which changes the digests of data and prompts.
    """

    task: str
    task_version: str
    model_revision: str
    metric: str
    limit: float | None
    sample_set: str
    dataset_digest: str
    prompt_hash: str
    frame_policy: str
    position_rule: str
    dtype: str


class Setting(NamedTuple):
    """What the tasks of one table share; sizes are the baseline's.

    `baseline` is its fingerprint. `variant` is above 0 where one task has several comparable
    groups (two prompts, say), which cannot stand in one column.
    """

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
        matches: True when both rules hold.
    """

    paired: int
    outside: int
    value: float
    reference: float
    matches: bool


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


def key_of(entry: Entry) -> Key:
    """Give what an entry must share with its baseline."""
    run, task, samples = entry.run, entry.task, entry.samples
    direction = "higher" if task.higher_is_better else "lower"
    return Key(
        task=task.name,
        task_version=task.version,
        model_revision=run.model_revision,
        prompt_hash=task.prompt_hash,
        dataset_digest=task.dataset_digest,
        metric=f"{task.score_key}, {direction} is better, clusters {task.cluster_key}",
        limit=run.limit,
        sample_set=f"{len(samples.ids)} samples ({samples.digest[:8]})",
        frame_policy=run.frame_policy,
        position_rule=run.position_rule,
        dtype=run.dtype,
    )


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
    both = ~(np.isnan(value) | np.isnan(reference))
    value, reference = value[both], reference[both]
    paired = len(value)
    if paired == 0:
        return Distance(0, 0, float("nan"), float("nan"), matches=False)
    allowed = tolerance * np.maximum(np.abs(value), np.abs(reference))
    outside = int((np.abs(value - reference) > allowed * (1 + _SLACK)).sum())
    mean, base = float(value.mean()), float(reference.mean())
    enough = outside <= (1 - PAIRED_SHARE) * paired * (1 + _SLACK)
    close = abs(mean - base) <= tolerance * max(abs(mean), abs(base)) * (1 + _SLACK)
    return Distance(paired, outside, mean, base, matches=enough and close)


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
        baseline: method name of the baseline.
        tolerance: of the measured budget, as a fraction.
        max_failure_ratio: most failed samples accepted, as a fraction.
        on: the measure that is the budget (see MEASURES).

    Returns:
        The comparisons and refusals; every entry is in exactly one of them.
    """
    good, refusals = split(entries, on=on, max_failure_ratio=max_failure_ratio)
    good.sort(key=lambda entry: (entry.run.finished or "", entry.run.name), reverse=True)
    groups: dict[Key, list[Entry]] = defaultdict(list)
    for entry in good:
        groups[key_of(entry)].append(entry)
    anchors = {key: _anchors(group, baseline, tolerance, on) for key, group in groups.items()}
    pairs: list[tuple[Key, Entry, list[Entry]]] = []
    known = [(key, entry) for key, (kept, _) in anchors.items() for entry in kept]
    for key, group in groups.items():
        kept, duplicates = anchors[key]
        refusals += duplicates
        rows: dict[int, list[Entry]] = {i: [] for i in range(len(kept))}
        for entry in group:
            if entry.run.method == baseline:
                continue
            if not kept:
                refusals.append(wording.no_baseline(entry, key, known, baseline))
                continue
            place, far = _nearest(entry, kept, tolerance, on)
            if not far.matches:
                refusals.append(wording.unmatched(entry, kept[place], far, tolerance, on))
            elif twin := _twin(entry, rows[place]):
                refusals.append(wording.duplicate(entry, twin))
            else:
                rows[place].append(entry)
        pairs += [(key, anchor, rows[i]) for i, anchor in enumerate(kept)]
    return Matched(_compare(pairs), tuple(refusals))


def _anchors(
    group: list[Entry], baseline: str, tolerance: float, on: str
) -> tuple[list[Entry], list[Refusal]]:
    """Choose the baselines of a group, one per budget: the latest finished of equal ones."""
    kept: list[Entry] = []
    refusals = []
    for entry in group:
        if entry.run.method != baseline:
            continue
        same = [other for other in kept if _distance(entry, other, tolerance, on).matches]
        if not same:
            kept.append(entry)
        elif same[0].run.fingerprint == entry.run.fingerprint:
            refusals.append(wording.duplicate(entry, same[0]))
        else:
            settings = (entry.run.fingerprint[:19], same[0].run.fingerprint[:19])
            reason = f"a second {baseline!r} with other settings than run {same[0].run.name}"
            action = "Give one baseline per budget, or choose another method as the baseline"
            refusals.append(refusal(entry, "method_fingerprint", *settings, reason, action))
    return kept, refusals


def _distance(entry: Entry, anchor: Entry, tolerance: float, on: str) -> Distance:
    value = np.where(entry.samples.failed, np.nan, entry.samples.measures[on])
    reference = np.where(anchor.samples.failed, np.nan, anchor.samples.measures[on])
    return distance(value, reference, tolerance)


def _nearest(entry: Entry, kept: list[Entry], tolerance: float, on: str) -> tuple[int, Distance]:
    """Give the baseline whose budget is nearest, a matching one before any other."""
    far = [_distance(entry, anchor, tolerance, on) for anchor in kept]
    place = min(
        range(len(far)),
        key=lambda i: (not far[i].matches, abs(far[i].value - far[i].reference), i),
    )
    return place, far[place]


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
            model_revision=key.model_revision,
            frame_policy=key.frame_policy,
            position_rule=key.position_rule,
            dtype=key.dtype,
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
