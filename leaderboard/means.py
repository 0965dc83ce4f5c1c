"""Means over tasks: macro (every task weighs the same) and pooled (every question does)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tempeval.leaderboard import stats
from tempeval.leaderboard.cells import around, ends, kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.records import Floats
    from tempeval.leaderboard.schema import Means, Task
    from tempeval.leaderboard.variants import Comparison


def no_means() -> Means:
    """Give the means of a row that lacks a task."""
    return {
        "macro": None,
        "macro_score_interval": None,
        "macro_difference": None,
        "macro_interval": None,
        "macro_interval_kind": None,
        "pooled": None,
        "pooled_score_interval": None,
        "pooled_difference": None,
        "pooled_interval": None,
        "pooled_interval_kind": None,
    }


def means_of(
    group: Sequence[Comparison], tasks: Sequence[Task], full: Sequence[str], draws: int, seed: int
) -> dict[str, Means]:
    """Compute the means of the rows that have every task.

    There is none over tasks of unlike scales or directions: their mean has no meaning.

    Args:
        group: the comparisons of a table, in the order of its tasks.
        tasks: its tasks.
        full: fingerprints of the rows without a missing task.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Returns:
        Fingerprint -> means.
    """
    unlike = len({task["higher_is_better"] for task in tasks}) > 1
    if len(tasks) > 1 and (unlike or not all(task["fraction"] for task in tasks)):
        return {}
    columns = [
        {
            entry.run.record.method_fingerprint: entry.samples.score
            for entry in (c.baseline, *c.methods)
        }
        for c in group
    ]
    clusters = [comparison.baseline.samples.clusters for comparison in group]
    base = group[0].baseline.run.record.method_fingerprint
    found = {name: _scores([column[name] for column in columns], clusters) for name in full}
    others = [name for name in full if name != base]
    if base not in found or not others:
        return found
    parts = [
        (np.stack([column[name] for name in others], axis=1), column[base], names)
        for column, names in zip(columns, clusters, strict=True)
    ]
    whole = (
        np.concatenate([scores for scores, _, _ in parts]),
        np.concatenate([scores for _, scores, _ in parts]),
        [name for names in clusters for name in names],
    )
    macros = stats.paired_macro(parts, draws=draws, seed=seed)
    pools = macros if len(parts) == 1 else stats.paired(*whole, draws=draws, seed=seed)
    for name, macro, pooled in zip(others, macros, pools, strict=True):
        found[name] |= {
            "macro_difference": macro.difference,
            "macro_interval": ends(macro.interval),
            "macro_interval_kind": kind(macro.interval),
            "pooled_difference": pooled.difference,
            "pooled_interval": ends(pooled.interval),
            "pooled_interval_kind": kind(pooled.interval),
        }
    return found


def _scores(columns: Sequence[Floats], clusters: Sequence[Sequence[str]]) -> Means:
    """Give both means of one method, with intervals as of a cell's score."""
    macro = float(np.mean([scores.mean() for scores in columns]))
    pooled = float(np.concatenate(columns).mean())
    sizes = np.array([len(scores) for scores in columns], dtype=np.float64)
    codes, number = stats.cluster_codes([name for names in clusters for name in names])
    # What a question adds to the mean, for all tasks alike or for all questions alike.
    equal = np.repeat(1 / (len(columns) * sizes), sizes.astype(np.intp))
    gaps = [scores - scores.mean() for scores in columns]
    macro_se = _se(np.concatenate(gaps) * equal, codes, number)
    pooled_se = _se((np.concatenate(columns) - pooled) / sizes.sum(), codes, number)
    return {
        **no_means(),
        "macro": macro,
        "macro_score_interval": around(macro, macro_se, number),
        "pooled": pooled,
        "pooled_score_interval": around(pooled, pooled_se, number),
    }


def _se(shares: Floats, codes: stats.Codes, clusters: int) -> float | None:
    """Compute the standard error of a sum of shares that add up to 0, by cluster (CR1)."""
    if clusters < 2:
        return None
    sums = stats.cluster_sums(shares, codes, clusters)
    return float(np.sqrt(np.sum(sums**2) * clusters / (clusters - 1)))
