"""Build the document from what was read: matched, computed, and everything else listed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval import __version__
from tempeval.console import visible
from tempeval.errors import InvalidSetting, UnknownName
from tempeval.leaderboard import stats
from tempeval.leaderboard.distance import ANSWERED_SHARE, PAIRED_SHARE
from tempeval.leaderboard.listing import merge_refusals, not_comparable, runs_of
from tempeval.leaderboard.match import match
from tempeval.leaderboard.points import plots_of
from tempeval.leaderboard.records import BUDGETS, MEASURES
from tempeval.leaderboard.references import published_rows
from tempeval.leaderboard.rounding import rounded
from tempeval.leaderboard.schema import SCHEMA
from tempeval.leaderboard.tables import make_tables

if TYPE_CHECKING:
    from tempeval.leaderboard.load import Loaded
    from tempeval.leaderboard.records import Refusal
    from tempeval.leaderboard.schema import Document, Table


@dataclass(frozen=True, slots=True)
class Options:
    """How to compare.

    Attributes:
        baseline: method that the others are compared with: its name, or the name with settings
            as it is printed.
        match_on: the measure that is the budget, one of BUDGETS.
        tolerance: largest relative difference of the measured budget, >= 0 (0.02 is 2 %).
        max_failure_ratio: most failed questions of a ranked task, as a fraction in [0, 1].
        draws: of the bootstrap, and sign patterns where a test is not exact; >= 100.
        seed: of all draws, >= 0.
    """

    baseline: str = "baseline"
    match_on: str = "visual_tokens"
    tolerance: float = 0.02
    max_failure_ratio: float = 0.05
    draws: int = stats.DRAWS
    seed: int = 0

    def check(self) -> None:
        """Raise for a value out of range.

        Raises:
            InvalidSetting: naming the option and what is accepted.
            UnknownName: `match_on` is no measure that can be matched.
        """
        _check("tolerance", self.tolerance, 0, math.inf)
        _check("max_failure_ratio", self.max_failure_ratio, 0, 1)
        _check("seed", self.seed, 0, math.inf)
        _check("draws", self.draws, 100, math.inf)
        if self.match_on not in BUDGETS:
            raise UnknownName("budget to match on", self.match_on, BUDGETS)


def make_document(loaded: Loaded, options: Options) -> tuple[Document, tuple[Refusal, ...]]:
    """Match, compute and list.

    Args:
        loaded: what was read.
        options: how to compare; checked already.

    Returns:
        The document, and its list of what is not ranked as Refusals.
    """
    matched = match(
        loaded.entries,
        baseline=options.baseline,
        tolerance=options.tolerance,
        max_failure_ratio=options.max_failure_ratio,
        on=options.match_on,
    )
    tables: list[Table] = rounded(
        make_tables(
            matched.comparisons, on=options.match_on, draws=options.draws, seed=options.seed
        )
    )
    refusals = merge_refusals((*loaded.refusals, *matched.refusals))
    document: Document = {
        "schema": SCHEMA,
        "tempeval_version": __version__,
        "methodology": {
            "baseline": options.baseline,
            "match_on": options.match_on,
            "unit": MEASURES[options.match_on],
            "tolerance": options.tolerance,
            "paired_share": PAIRED_SHARE,
            "max_failure_ratio": options.max_failure_ratio,
            "answered_share": ANSWERED_SHARE,
            "draws": options.draws,
            "seed": options.seed,
            "level": stats.LEVEL,
            "alpha": stats.ALPHA,
            "power": stats.POWER,
            "studentised_below": stats.STUDENTISED_BELOW,
        },
        "measures": dict(MEASURES),
        "tables": tables,
        "plots": plots_of(tables),
        "not_comparable": rounded(not_comparable(refusals, loaded.entries)),
        "references": published_rows(
            sorted({task["name"] for table in tables for task in table["tasks"]})
        ),
        "files": [],
        "runs": runs_of(loaded.sources, refusals, tables),
    }
    return document, refusals


def to_json(document: Document) -> bytes:
    """Write the document as it is, as UTF-8; what cannot be seen is escaped, as JSON may."""
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    shown = "".join(c if visible(c) == c else json.dumps(c)[1:-1] for c in text)
    return shown.encode()


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high or value == math.inf:
        accepted = f">= {low}" if high == math.inf else f"in [{low}, {high}]"
        raise InvalidSetting(f"{name} is {value!r}; accepted: a number {accepted}")
