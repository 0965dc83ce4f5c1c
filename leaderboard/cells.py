"""The numbers of one task: every method's score, and its difference to the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from tempeval.leaderboard import stats
from tempeval.leaderboard.costs import costs_of, known_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.records import Entry, Floats, RunTask
    from tempeval.leaderboard.schema import BothAnswered, Cell, Interval, Videos
    from tempeval.leaderboard.variants import Comparison


def cells_of(comparison: Comparison, *, draws: int, seed: int) -> dict[str, Cell]:
    """Compute one task's cells by fingerprint; p values are not corrected yet.

    Samples of entries that are compared are aligned: their digests are equal.

    Args:
        comparison: from `match`.
        draws: of the bootstrap, and sign patterns where a test is not exact.
        seed: of both.
    """
    base, higher = comparison.baseline, comparison.baseline.task.higher_is_better
    names = base.samples.clusters
    codes, clusters = stats.cluster_codes(names)
    cells = {
        base.run.record.method_fingerprint: _cell(
            base, stats.clustered_se(_scores(base), codes, clusters)
        )
    }
    if not comparison.methods:
        return cells
    scores = np.stack([_scores(entry) for entry in comparison.methods], axis=1)
    found = stats.paired(
        scores, _scores(base), names, draws=draws, seed=seed, higher_is_better=higher
    )
    for entry, paired in zip(comparison.methods, found, strict=True):
        cell = _cell(entry, stats.clustered_se(_scores(entry), codes, clusters))
        cell["clusters"] = clusters
        cell |= {
            "difference": paired.difference,
            "interval": ends(paired.interval),
            "interval_kind": kind(paired.interval),
            "difference_se": paired.se,
            "p": paired.test.p if paired.test else None,
            "p_exact": paired.test.exact if paired.test else None,
            "better": None if paired.difference == 0 else (paired.difference > 0) == higher,
            "mde": paired.detectable,
            "wins": paired.counts.wins,
            "ties": paired.counts.ties,
            "losses": paired.counts.losses,
            "mcnemar_p": paired.mcnemar,
        }
        cells[entry.run.record.method_fingerprint] = cell
    for entry, both in zip(
        comparison.methods, _both_answered(comparison, codes, clusters, draws, seed), strict=True
    ):
        cells[entry.run.record.method_fingerprint]["both_answered"] = both
    return cells


def correct(cells: Sequence[Cell]) -> int:
    """Write the corrected p values of a table into its cells; return the number of tests.

    A difference is significant if the test finds it with failed questions counted as wrong and,
    in the same direction, without the questions that failed on either side: else it may be the
    failures that differ.

    Args:
        cells: all cells of a table; those of the baseline have no p value and are no test.
    """
    found = stats.holm([cell["p"] for cell in cells])
    for cell, p in zip(cells, found.p, strict=True):
        cell["p_holm"] = p
        cell["significant"] = p is not None and p <= stats.ALPHA
    if any(cell["both_answered"] for cell in cells):
        _correct_answered(cells)
    return found.tests


def _correct_answered(cells: Sequence[Cell]) -> None:
    """Do the same without the failed questions, and keep what is significant in both."""
    found = stats.holm([both["p"] if (both := c["both_answered"]) else c["p"] for c in cells])
    for cell, p in zip(cells, found.p, strict=True):
        if both := cell["both_answered"]:
            both["p_holm"] = p
            alike = (cell["difference"] or 0.0) * both["difference"] > 0
            cell["significant"] &= alike and p is not None and p <= stats.ALPHA


def _both_answered(
    comparison: Comparison, codes: stats.Codes, clusters: int, draws: int, seed: int
) -> list[BothAnswered | None]:
    """Compare each method over what it and the baseline answered, where they failed differently.

    A sign-flip test of sums does not change when all are divided by one number, so a question
    that is left out adds 0 to its cluster's sum.
    """
    base = comparison.baseline
    found: list[BothAnswered | None] = []
    for entry in comparison.methods:
        if np.array_equal(entry.samples.failed, base.samples.failed):
            found.append(None)
            continue
        kept = ~(entry.samples.failed | base.samples.failed)
        gaps = np.where(kept, _scores(entry) - _scores(base), 0.0)
        sums = stats.cluster_sums(gaps, codes, clusters)
        (test,) = stats.sign_flip_tests(sums[:, np.newaxis], draws=draws, seed=seed)
        n = int(kept.sum())
        p = test.p if test else None
        found.append({"n": n, "difference": float(gaps.sum() / n), "p": p, "p_holm": None})
    return found


def ends(interval: stats.Interval | None) -> Interval | None:
    """Give an interval as it stands in the document."""
    return None if interval is None else {"low": interval.low, "high": interval.high}


def kind(interval: stats.Interval | None) -> stats.IntervalKind | None:
    """Say how an interval was made."""
    return None if interval is None else interval.kind


def around(score: float, se: float | None, clusters: int) -> Interval | None:
    """Give the t interval of a score, with one degree of freedom less than clusters."""
    if se is None or clusters < 2:
        return None
    reach = float(stdtrit(clusters - 1, 0.5 + stats.LEVEL / 2)) * se
    return {"low": score - reach, "high": score + reach}


def _scores(entry: Entry) -> Floats:
    return entry.samples.score


def _cell(entry: Entry, se: float | None) -> Cell:
    """Give a cell as the baseline's is."""
    samples = entry.samples
    score, clusters = float(samples.score.mean()), len(set(samples.clusters))
    return {
        "run": entry.run.name,
        "score": score,
        "score_by_sum": known_mean([samples.by_sum]),
        "se": se,
        "score_interval": around(score, se, clusters),
        "difference": None,
        "interval": None,
        "interval_kind": None,
        "difference_se": None,
        "p": None,
        "p_exact": None,
        "p_holm": None,
        "significant": False,
        "better": None,
        "mde": None,
        "wins": None,
        "ties": None,
        "losses": None,
        "mcnemar_p": None,
        "n": len(samples.score),
        "clusters": clusters,
        "both_answered": None,
        "costs": costs_of([entry]),
        "videos": _videos(entry.task),
    }


def _videos(task: RunTask) -> Videos | None:
    found = task.videos
    if found is None:
        return None
    return {"total": found.total, "damaged": found.damaged, "flags": dict(found.flags)}
