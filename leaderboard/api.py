"""Build a leaderboard from run folders: the one function the command line calls."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.errors import InvalidSetting
from tempeval.leaderboard.board import Board
from tempeval.leaderboard.load import load
from tempeval.leaderboard.match import match
from tempeval.leaderboard.render import to_json, to_markdown, to_summary
from tempeval.leaderboard.tables import make_tables, merge_refusals

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tempeval.leaderboard.records import Refusal


@dataclass(frozen=True, slots=True)
class Summary:
    """What a build wrote.

    Attributes:
        markdown: path of leaderboard.md.
        json: path of leaderboard.json.
        text: the summary tables, for a terminal.
        tables: number of tables (one for each model, setting and budget).
        compared: number of method rows that stand beside a baseline.
        refusals: what is not comparable, and why.
    """

    markdown: Path
    json: Path
    text: str
    tables: int
    compared: int
    refusals: tuple[Refusal, ...]


def build(
    runs: Sequence[Path],
    out: Path,
    *,
    baseline: str = "baseline",
    tolerance: float = 0.02,
    seed: int = 0,
    draws: int = 10_000,
    max_failure_ratio: float = 0.05,
) -> Summary:
    """Compare runs and write leaderboard.md and leaderboard.json.

    A run that cannot be read or compared is listed with its reason and the rest is built. The
    output depends on the inputs only: neither on their order nor on the clock.

    Args:
        runs: run folders (searched recursively for run.json) or run.json files.
        out: folder to write to; made when missing.
        baseline: method name that the others are compared with.
        tolerance: largest difference of measured visual tokens, as a fraction >= 0.
        seed: of the bootstrap, >= 0.
        draws: bootstrap draws, >= 100.
        max_failure_ratio: most failed questions of a ranked task, as a fraction in [0, 1].

    Returns:
        The paths, the summary tables as text, and the refusals.

    Raises:
        RunsNotFound: a path does not exist or holds no run.json.
        InvalidSetting: an argument is out of range.
    """
    _check("tolerance", tolerance, 0, math.inf)
    _check("max_failure_ratio", max_failure_ratio, 0, 1)
    _check("seed", seed, 0, math.inf)
    _check("draws", draws, 100, math.inf)
    loaded = load(runs)
    matched = match(
        loaded.entries,
        baseline=baseline,
        tolerance=tolerance,
        max_failure_ratio=max_failure_ratio,
    )
    board = Board(
        baseline=baseline,
        tolerance=tolerance,
        max_failure_ratio=max_failure_ratio,
        draws=draws,
        seed=seed,
        tables=make_tables(matched.comparisons, draws=draws, seed=seed),
        refusals=merge_refusals((*loaded.refusals, *matched.refusals)),
        runs=loaded.runs,
    )
    markdown, json = out / "leaderboard.md", out / "leaderboard.json"
    _write({markdown: to_markdown(board), json: to_json(board)})
    return Summary(
        markdown=markdown,
        json=json,
        text=to_summary(board),
        tables=len(board.tables),
        compared=sum(not row.is_baseline for table in board.tables for row in table.rows),
        refusals=board.refusals,
    )


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high or value == math.inf:
        accepted = f">= {low}" if high == math.inf else f"in [{low}, {high}]"
        raise InvalidSetting(f"{name} is {value!r}; accepted: a number {accepted}")


def _write(files: dict[Path, str]) -> None:
    """Write all files beside their places first, then move them there: whole or not at all."""
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in files}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            parts[path].write_bytes(content.encode(errors="backslashreplace"))
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
