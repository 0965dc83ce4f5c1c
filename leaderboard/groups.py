"""Inside a group of equal settings: choose the baselines, and a baseline for every other entry."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tempeval.leaderboard import wording
from tempeval.leaderboard.distance import ANSWERED_SHARE, PAIRED_SHARE, between
from tempeval.leaderboard.keys import plan_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tempeval.leaderboard.distance import Distance
    from tempeval.leaderboard.records import Entry, Refusal, Run


@dataclass(frozen=True, slots=True)
class Paired:
    """A baseline, the entries that are compared with it, and what a reader must know of that."""

    baseline: Entry
    methods: list[Entry]
    notes: list[str]


@dataclass(slots=True)
class Group:
    """Entries of one key.

    Attributes:
        pairs: the baselines, one for each budget and plan, with their methods.
        others: all other entries, compared or not.
        repeated: refusals of baselines that are there twice.
        unmatched: refusals of other entries, where there is a baseline.
    """

    pairs: list[Paired] = field(default_factory=list)
    others: list[Entry] = field(default_factory=list)
    repeated: list[Refusal] = field(default_factory=list)
    unmatched: list[Refusal] = field(default_factory=list)

    def clear(self) -> list[Entry]:
        """Take all entries out that are no repeated baseline."""
        entries = [*(pair.baseline for pair in self.pairs), *self.others]
        self.pairs, self.others, self.unmatched = [], [], []
        return entries


def group_of(entries: Iterable[Entry], baseline: str, tolerance: float, on: str) -> Group:
    """Choose baselines and pair the others with them.

    A baseline is the latest of its budget and plan; the same method with other settings is a row
    like any other. An entry goes to a baseline whose measured budget it matches, of these to one
    of its own plan, of these to the nearest.

    Args:
        entries: of one key, the latest first.
        baseline: name of the baseline, without or with its settings.
        tolerance: of the measured budget, as a fraction.
        on: the measure that is the budget.
    """
    group = Group()
    for entry in entries:
        if not _is_named(entry.run, baseline):
            group.others.append(entry)
            continue
        anchors = [pair.baseline for pair in group.pairs]
        same = [anchor for anchor in anchors if between(entry, anchor, tolerance, on).matches]
        if twin := _twin(entry, same):
            group.repeated.append(wording.duplicate(entry, twin))
        elif not same or any(_is_one_method(entry, anchor) for anchor in same):
            group.pairs.append(Paired(entry, [], []))
        else:
            group.others.append(entry)
    if group.pairs:
        for entry in group.others:
            _pair(entry, group, tolerance, on)
    for pair in group.pairs:
        named = [entry for entry in pair.methods if _is_named(entry.run, baseline)]
        if named:
            pair.notes.append(wording.chosen_baseline(pair.baseline, named, baseline))
    return group


def _pair(entry: Entry, group: Group, tolerance: float, on: str) -> None:
    pairs = [pair for pair in group.pairs if not _is_one_method(entry, pair.baseline)]
    far = [between(entry, pair.baseline, tolerance, on) for pair in pairs]
    places = range(len(pairs))
    place = min(places, key=lambda i: (*_order(entry, pairs[i].baseline, far[i]), i))
    pair, found = pairs[place], far[place]
    if not found.fits:
        group.unmatched.append(_refused(entry, pair.baseline, found, tolerance, on))
    elif twin := _twin(entry, pair.methods):
        group.unmatched.append(wording.duplicate(entry, twin))
    else:
        fitting = sum(other.fits for other in far)
        if fitting > 1 and plan_of(entry.run) != plan_of(pair.baseline.run):
            pair.notes.append(wording.nearest_of(fitting, entry, pair.baseline, found, on))
        pair.methods.append(entry)


def _order(entry: Entry, anchor: Entry, far: Distance) -> tuple[bool, bool, bool, float]:
    """Sort baselines: those that fit by plan, then by planned budget, and all by distance."""
    gap = abs(far.value - far.reference)
    if not far.fits:
        return True, True, True, gap
    mine, other = plan_of(entry.run), plan_of(anchor.run)
    return False, mine != other, mine.visual_token_budget != other.visual_token_budget, gap


def _refused(entry: Entry, anchor: Entry, far: Distance, tolerance: float, on: str) -> Refusal:
    if far.paired and not far.answered:
        return wording.unanswered(entry, anchor, far, ANSWERED_SHARE)
    return wording.unmatched(entry, anchor, far, tolerance, PAIRED_SHARE, on)


def _is_named(run: Run, name: str) -> bool:
    return name in (run.record.method, run.record.method_label)


def _is_one_method(entry: Entry, other: Entry) -> bool:
    return entry.run.record.method_fingerprint == other.run.record.method_fingerprint


def _twin(entry: Entry, rows: list[Entry]) -> Entry | None:
    """Give the row of the same method, settings and plan, if there is one."""
    plan = plan_of(entry.run)
    return next((r for r in rows if _is_one_method(entry, r) and plan_of(r.run) == plan), None)
