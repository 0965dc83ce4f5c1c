"""The numbers of a leaderboard as frozen dataclasses, before any of them is text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.leaderboard.match import Setting
    from tempeval.leaderboard.records import Refusal, Run
    from tempeval.leaderboard.stats import Interval


@dataclass(frozen=True, slots=True)
class Costs:
    """Means over the answered samples; None where any of them was not measured."""

    measures: Mapping[str, float | None]
    parse_failure_rate: float | None
    failed: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one task.

    Scores are as the task gives them (0 to 1 for fractions). `difference` is to the baseline,
    paired by sample, None for the baseline itself. `score_by_sum` is the score by the sum of
    log-likelihoods, None where the task is not scored so.
    """

    run: str
    score: float
    score_by_sum: float | None
    se: float | None
    difference: float | None
    interval: Interval | None
    n: int
    clusters: int
    costs: Costs


@dataclass(frozen=True, slots=True)
class Row:
    """One method at one budget; `cells` are in the order of the table's tasks.

    The macro score is the mean of the task scores; it, its difference and the costs (means over
    the questions of all tasks) are None when a task is missing.
    """

    label: str
    method: str
    fingerprint: str
    settings: Mapping[str, Any]
    is_baseline: bool
    cells: tuple[Cell | None, ...]
    macro: float | None
    macro_difference: float | None
    macro_interval: Interval | None
    costs: Costs | None


@dataclass(frozen=True, slots=True)
class Task:
    """A column: what was asked. `fraction` is True when every score lies in [0, 1]."""

    name: str
    version: str
    prompt_hash: str
    dataset_digest: str
    group: str | None
    higher_is_better: bool
    fraction: bool
    n: int
    clusters: int


@dataclass(frozen=True, slots=True)
class Table:
    """One base model at one budget. `differs` lists facts in which the runs differ."""

    model: str
    setting: Setting
    budget: float | None
    devices: tuple[str, ...]
    n: int
    clusters: int
    tasks: tuple[Task, ...]
    rows: tuple[Row, ...]
    differs: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that is written: tables, refusals, and the runs they came from."""

    baseline: str
    tolerance: float
    max_failure_ratio: float
    draws: int
    seed: int
    tables: tuple[Table, ...]
    refusals: tuple[Refusal, ...]
    runs: tuple[Run, ...]
