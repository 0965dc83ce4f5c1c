"""The numbers of one task: every method's score, and its difference to the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from tempeval.leaderboard import stats
from tempeval.leaderboard.costs import costs_of, known_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.leaderboard.match import Comparison
    from tempeval.leaderboard.records import Entry, Floats
    from tempeval.leaderboard.schema import Cell, Interval


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
    cells = {base.run.fingerprint: _cell(base, stats.clustered_se(_scores(base), codes, clusters))}
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
        cells[entry.run.fingerprint] = cell
    return cells


def correct(cells: Sequence[Cell]) -> int:
    """Write the corrected p values of a table into its cells; return the number of tests.

    Args:
        cells: all cells of a table; those of the baseline have no p value and are no test.
    """
    found = stats.holm([cell["p"] for cell in cells])
    for cell, p in zip(cells, found.p, strict=True):
        cell["p_holm"] = p
        cell["significant"] = p is not None and p <= stats.ALPHA
    return found.tests


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
        "costs": costs_of([entry]),
    }
