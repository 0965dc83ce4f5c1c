"""Say why an entry has no partner, in words that name both values and what to do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tempeval.leaderboard.eligible import REMEDY, refusal
from tempeval.leaderboard.keys import moment, version_order

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from tempeval.leaderboard.distance import Distance
    from tempeval.leaderboard.keys import Key
    from tempeval.leaderboard.records import Entry, Refusal
    from tempeval.leaderboard.schema import Kind

_ACTIONS = {
    "task_version": "Rerun the older one with the current task",
    "model": "Run both with the same base model",
    "model_revision": "Run both with the same weights",
    "prompt_hash": "Run both with the same prompt settings",
    "dataset_digest": "Run both on the same dataset revision",
    "targets": "Run both on the same dataset revision",
    "metric": "Rerun the older one with the current task",
    "limit": "Run both with the same --limit, or both without",
    "skipped": "Run both with the same videos in place, or both with --skip-missing over them",
    "sample_set": "Run both over the same samples",
    "frame_policy": "Run a baseline with this frame policy",
    "position_rule": "Run a baseline with this position rule",
    "dtype": "Run a baseline in this dtype",
    "task_digest": "Run the older one again: it is scored anew from its journal",
    "videos": "Run the older one again, over the videos that are there now",
    "code": "Run the older one again with this version of the code",
}
_MOST_NAMES = 6


def no_baseline(
    entry: Entry,
    key: Key,
    known: Sequence[tuple[Key, Entry]],
    baseline: str,
    methods: Collection[str] = (),
) -> Refusal:
    """Refuse an entry whose settings no baseline shares, naming the nearest baseline.

    Args:
        entry: the entry without a partner.
        key: its key.
        known: all baselines that could have been partners, with their keys.
        baseline: the baseline's method name.
        methods: names of all methods there are, one of which may be meant.

    Returns:
        A refusal whose field is the first that differs from the nearest baseline (the one with
        the fewest differing fields); the others are named in its reason.
    """
    rivals = [(other, anchor) for other, anchor in known if other.task == key.task]
    if not rivals:
        reason = f"no comparable {baseline!r} run of this task"
        action = f"Run method={baseline} with the same settings"
        if baseline not in methods:
            names = sorted(methods)
            tail = ", ..." if len(names) > _MOST_NAMES else ""
            action += f", or choose another --baseline: {', '.join(names[:_MOST_NAMES])}{tail}"
        values = ("none", f"one {baseline!r} run")
        return refusal(entry, "no_baseline", "baseline", *values, reason, action)
    other, anchor = min(rivals, key=lambda pair: (len(key.differing(pair[0])), pair[1].run.name))
    fields = key.differing(other)
    field = fields[0]
    tail = f"; {', '.join(fields[1:])} differ too" if len(fields) > 1 else ""
    if len(fields) == 2:
        tail = f"; {fields[1]} differs too"
    if field == "code":
        tail = f" ({', '.join(_parts(key, other))}){tail}"
    if field == "sample_set":
        tail = f" ({_samples(entry, anchor)}){tail}"
    older = version_order(key.task_version) < version_order(other.task_version)
    kind: Kind = "older_version" if field == "task_version" and older else "settings"
    reason = f"no {baseline!r} run has this {field}; the nearest is run {anchor.run.name}{tail}"
    values = (_value(field, key, entry), _value(field, other, anchor))
    if field == "code":
        values = (_code(key, other), _code(other, key))
    return refusal(entry, kind, field, *values, reason, _ACTIONS[field])


def unmatched(
    entry: Entry, anchor: Entry, far: Distance, tolerance: float, share: float, on: str
) -> Refusal:
    """Refuse an entry whose measured budget is not the baseline's, naming the rule that failed.

    Args:
        entry: the entry without a partner.
        anchor: the nearest baseline.
        far: how far it is.
        tolerance: as for `distance.distance`.
        share: of paired samples that must be within it.
        on: the measure that is the budget.
    """
    mine, theirs = f"{far.value:.6g}", f"{far.reference:.6g}"
    if far.paired == 0:
        reason = (
            f"no sample has a measured {on} here and in the nearest baseline, run {anchor.run.name}"
        )
        return refusal(entry, "unmeasured", on, "unknown", "unknown", reason)
    largest = max(abs(far.value), abs(far.reference))
    off = abs(far.value - far.reference) / largest if largest else 0.0
    within, nearest = f"{100 * tolerance:.3g} %", f"the nearest baseline, run {anchor.run.name}"
    unit = on.replace("_", " ")
    if not far.close:
        reason = f"its mean is {100 * off:.3g} % off {nearest}; at most {within} are accepted"
        action = f"Rerun it at {far.reference:.6g} {unit}, or run a baseline at {far.value:.6g}"
    else:
        reason = f"its mean is within {within} of {nearest}, but its samples are not"
        action = f"Rerun both so that every sample has the same {unit}: same frames and sizes"
    if far.outside > (1 - share) * far.paired or far.close:
        reason += (
            f"; {far.outside} of {far.paired} samples are more than {within} off, at most "
            f"{100 * (1 - share):.3g} % may be"
        )
        mine += f" on average, {far.outside} samples off" if far.close else ""
    return refusal(entry, "budget", on, mine, theirs, reason, action)


def nearest_of(number: int, entry: Entry, anchor: Entry, far: Distance, on: str) -> str:
    """Say which of several baselines an entry without one of its own plan stands beside."""
    return (
        f"{entry.run.record.method_label} (run {entry.run.name}) fits {number} baselines and none "
        f"has its plan; it stands beside run {anchor.run.name}, whose measured "
        f"{on.replace('_', ' ')} are nearest ({far.reference:.6g} against {far.value:.6g})."
    )


def chosen_baseline(anchor: Entry, others: Sequence[Entry], baseline: str) -> str:
    """Say which of several settings of one name is the baseline."""
    runs = [anchor.run, *(entry.run for entry in others)]
    fingerprints = [run.record.method_fingerprint.removeprefix("sha256:") for run in runs]
    labels = [run.record.method_label for run in runs]
    names = sorted({f"{x} ({y[:6]})" for x, y in zip(labels, fingerprints, strict=True)})
    return (
        f"--baseline {baseline} names {len(names)} settings: {', '.join(names)}. The baseline is "
        f"{anchor.run.record.method_label} of run {anchor.run.name}, the latest; name it with its "
        "settings to "
        "choose another."
    )


def unanswered(entry: Entry, anchor: Entry, far: Distance, share: float) -> Refusal:
    """Refuse an entry that shares too few answered samples with its baseline."""
    size = len(entry.samples.ids)
    reason = (
        f"{far.paired} of {size} samples were answered here and in the nearest baseline, run "
        f"{anchor.run.name}; that is too few, whatever --max-failures accepts"
    )
    values = (f"{far.paired / size:.1%}", f"at least {share:.0%}")
    action = f"In whichever of the two has failures: {REMEDY[0].lower()}{REMEDY[1:]}"
    return refusal(entry, "failures", "answered by both", *values, reason, action)


def duplicate(entry: Entry, kept: Entry) -> Refusal:
    """Refuse an entry that repeats another; the latest finished one is ranked."""
    reason = f"the same method and settings as run {kept.run.name}, which finished later"
    if moment(entry.run.record.finished) == moment(kept.run.record.finished):
        reason = f"the same method and settings as run {kept.run.name}"
    values = (
        entry.run.record.finished or "not finished",
        kept.run.record.finished or "not finished",
    )
    action = "Leave one of the two out; the latest is ranked"
    return refusal(entry, "duplicate", "duplicate", *values, reason, action)


def older_version(entry: Entry, version: str, run: str) -> Refusal:
    """Refuse an entry of a task version that a newer one with a baseline replaces."""
    reason = f"run {run} has a newer version of this task"
    values = (entry.task.version, version)
    action = _ACTIONS["task_version"]
    return refusal(entry, "older_version", "task_version", *values, reason, action)


def limited_run(entry: Entry) -> Refusal:
    """List an entry that is compared with others of the same limit, but not ranked."""
    limit = entry.run.record.limit
    value = "full run" if limit is None else limited(limit)
    reason = "a trial over some of the samples: its table is marked, and nothing in it is ranked"
    return refusal(entry, "limit", "limit", value, "full run", reason, "Run it without --limit")


def frames(policy: str) -> str:
    """Put a frame policy (canonical JSON) in words, such as '8 frames, uniform'."""
    fields = json.loads(policy)
    number, fps = fields.pop("num_frames", None), fields.pop("fps", None)
    words = [f"{number} frames"] if number is not None else []
    words += [f"{fps:g} frames/s"] if isinstance(fps, (int, float)) else []
    rule = fields.pop("rule", None)
    words += [str(rule)] if rule is not None else []
    words += [f"{name}={value}" for name, value in sorted(fields.items()) if value is not None]
    return ", ".join(words) or "no frame policy"


def limited(limit: float) -> str:
    """Put a --limit in words, such as 'first 20 samples'."""
    return f"first {limit:.3g} of the samples" if limit < 1 else f"first {limit:.0f} samples"


def _value(field: str, key: Key, entry: Entry) -> str:
    """Give a field as its run has it."""
    if field == "frame_policy":
        return frames(key.frame_policy)
    if field == "limit":
        return "full run" if key.limit is None else limited(key.limit)
    if field == "targets":
        return f"right answers {key.targets[:8]}"
    if field == "skipped":
        digest = (entry.task.skipped_digest or "").removeprefix("sha256:")[:8]
        return f"{entry.task.skipped} skipped ({digest})" if entry.task.skipped else "none"
    if field in ("task_digest", "videos"):
        return _digest(getattr(key, field))
    return entry.run.record.dtype if field == "dtype" else str(getattr(key, field))


def _digest(value: str) -> str:
    return value.removeprefix("sha256:")[:8] or "not recorded"


def _parts(key: Key, other: Key) -> list[str]:
    """List the parts of the code that differ."""
    mine, theirs = json.loads(key.code), json.loads(other.code)
    return sorted(name for name in {*mine, *theirs} if mine.get(name) != theirs.get(name))


def _code(key: Key, other: Key) -> str:
    """Give the digests of the parts of the code that differ from another's."""
    mine = json.loads(key.code)
    return ", ".join(f"{name} {_digest(mine.get(name, ''))}" for name in _parts(key, other))


def _samples(entry: Entry, anchor: Entry) -> str:
    """Say how two sample sets differ, with one example."""
    mine = dict(zip(entry.samples.ids, entry.samples.contents, strict=True))
    theirs = dict(zip(anchor.samples.ids, anchor.samples.contents, strict=True))
    shared = mine.keys() & theirs.keys()
    changed = sorted(name for name in shared if mine[name] != theirs[name])
    if changed:
        return f"{len(changed)} shared ids have another content_hash, such as {changed[0]!r}"
    lone = sorted(mine.keys() ^ theirs.keys())
    if lone:
        here, there = len(mine) - len(shared), len(theirs) - len(shared)
        return f"{len(shared)} ids shared, {here} only here, {there} only there: {lone[0]!r}"
    return "the same ids in other clusters"
