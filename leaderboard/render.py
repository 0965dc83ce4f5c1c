"""Write a board as GitHub-flavoured markdown and as JSON; same board, same bytes."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from tempeval.leaderboard import text, wording

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.leaderboard.board import Board, Costs, Row, Table
    from tempeval.leaderboard.records import Run

SCHEMA = 1
_FEW_CLUSTERS = 30

_MINI = (
    "These are real measurements of a tiny model (the mini suite); "
    "they say nothing about 7B models."
)
_COSTS = ("tokens", "layers", "KV", "s/q", "unparsed")


def to_json(board: Board) -> str:
    """Give everything in full precision; missing values are null."""
    record = {"schema": SCHEMA, **dataclasses.asdict(board)}
    for table, raw in zip(board.tables, record["tables"], strict=True):
        raw["setting"] = _with_policy(table.setting._asdict())
        raw["is_mini"] = text.is_mini(table)
    record["runs"] = [_with_policy(run) for run in record["runs"]]
    return json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def to_markdown(board: Board) -> str:
    """Give the whole document."""
    lines = ["# Leaderboard", "", *_legend(board)]
    for table in board.tables:
        lines += ["", *_summary(table), *_details(table)]
    if not board.tables:
        lines += ["", "No run could be compared; the reasons follow."]
    lines += ["", "## Not comparable", "", *_refusals(board)]
    lines += ["", "## Provenance", "", *_provenance(board)]
    return "\n".join(lines) + "\n"


def to_summary(board: Board) -> str:
    """Give what fits a terminal: the summary tables and how many runs are in none."""
    lines: list[str] = []
    for table in board.tables:
        lines += [*_summary(table), ""]
    if not board.tables:
        lines += ["No run could be compared.", ""]
    runs = len({refusal.run for refusal in board.refusals})
    lines.append(
        f"{runs} {'run is' if runs == 1 else 'runs are'} not comparable, at least in part; "
        "leaderboard.md says why."
        if runs
        else "Every run was comparable."
    )
    return "\n".join(lines) + "\n"


def _legend(board: Board) -> list[str]:
    return [
        f"Methods against {text.code(board.baseline)} at matched measured visual tokens "
        f"(99 % of the questions and the mean within {100 * board.tolerance:.3g} %).",
        "",
        "- Scores in percent, ± standard error clustered by video (or the task's cluster key). "
        "A failed question counts as wrong.",
        f"- Difference: to the baseline, paired by question, with a 95 % cluster-bootstrap "
        f"interval ({board.draws} draws, seed {board.seed}). It is not corrected for the number "
        "of comparisons.",
        "- macro: mean of the task scores, only where no task is missing.",
        "- tokens: visual tokens. layers: token-layers (visual tokens present, averaged over the "
        "layers). KV: bytes of keys and values held. s/q: seconds per question standing alone "
        "(decode + encode + prefill + answer). unparsed: answers that could not be parsed. All "
        "are measured means over the answered questions.",
        "- '-': not measured, or a task is missing.",
    ]


def _title(table: Table) -> str:
    limit = table.setting.limit
    mark = "" if limit is None else f" ({wording.limited(limit)}: not a full run)"
    name = text.escape(table.model)
    return f"## {name}, {text.count(table.budget)} visual tokens per question{mark}"


def _summary(table: Table) -> Iterator[str]:
    """Give a table's heading, its facts and the summary of all tasks."""
    setting = table.setting
    yield _title(table)
    yield ""
    yield (
        f"Model {text.code(table.model)} ({text.short(setting.model_revision)}), "
        f"{wording.frames(setting.frame_policy)}, {text.escape(setting.position_rule)} positions, "
        f"{text.escape(setting.dtype)}, {text.escape(', '.join(table.devices))}. "
        f"{table.n} questions in {table.clusters} clusters."
    )
    for note in _notes(table):
        yield ""
        yield f"> {note}"
    yield ""
    macro = len(table.tasks) > 1
    header = ["method", *text.columns(table.tasks)]
    if macro:
        header += ["macro", "Δ macro [95 % CI]"]
    else:
        header += ["difference [95 % CI]"]
    rows = []
    for row in table.rows:
        pairs = zip(table.tasks, row.cells, strict=True)
        scores = [text.score(cell.score if cell else None, t.fraction) for t, cell in pairs]
        if macro:
            gap = text.difference(row.macro_difference, row.macro_interval, fraction=True)
            scores += [text.score(row.macro, fraction=True), gap]
        else:
            scores.append(_difference(table, row, 0))
        rows.append([text.escape(row.label), *scores, *_cost_texts(row.costs)])
    header += _COSTS
    if any(row.costs and row.costs.failed for row in table.rows):
        header.append("failed")
        rows = [[*line, _failed(row.costs)] for line, row in zip(rows, table.rows, strict=True)]
    yield _grid(header, rows)


def _details(table: Table) -> Iterator[str]:
    """Give one table per task."""
    for place, task in enumerate(table.tasks):
        yield ""
        yield f"### {text.escape(task.name)}"
        yield ""
        yield (
            f"Version {text.escape(task.version)}, prompt {text.code(text.short(task.prompt_hash))}"
            f", data {text.code(text.short(task.dataset_digest))}."
        )
        yield ""
        header = ["method", "score ± SE", "difference [95 % CI]", "n", "clusters", *_COSTS]
        rows = []
        found = [(row, cell) for row in table.rows if (cell := row.cells[place]) is not None]
        for row, cell in found:
            numbers = [text.with_error(cell, task.fraction), _difference(table, row, place)]
            numbers += [str(cell.n), str(cell.clusters)]
            numbers += _cost_texts(cell.costs)
            rows.append([text.escape(row.label), *numbers])
        if any(cell.costs.failed for _, cell in found):
            header.append("failed")
            pairs = zip(rows, found, strict=True)
            rows = [[*line, _failed(cell.costs)] for line, (_, cell) in pairs]
        yield _grid(header, rows)


def _difference(table: Table, row: Row, place: int) -> str:
    cell = row.cells[place]
    if cell is None:
        return text.MISSING
    return text.difference(cell.difference, cell.interval, table.tasks[place].fraction)


def _notes(table: Table) -> Iterator[str]:
    """Give what a reader must know before trusting a table."""
    if text.is_mini(table):
        yield _MINI
    few = [task for task in table.tasks if task.clusters < _FEW_CLUSTERS]
    if few and len(table.rows) > 1:
        names = ", ".join(text.escape(task.name) for task in few)
        yield f"Fewer than {_FEW_CLUSTERS} clusters in {names}: intervals are likely too narrow."
    flat = [text.escape(row.label) for row in table.rows if _flat(row)]
    if flat:
        yield (
            "Intervals of zero width say that no draw differs, not that the difference is known: "
            f"{', '.join(flat)}."
        )
    raw = [text.escape(task.name) for task in table.tasks if not task.fraction]
    if raw:
        tail = "" if len(table.tasks) == 1 else ", and there is no macro score"
        yield f"Not percentages but the task's own scale: {', '.join(raw)}{tail}."
    if len({task.higher_is_better for task in table.tasks}) > 1:
        yield "Lower is better in tasks marked ↓, so there is no macro score."
    yield from _by_sum(table)
    yield from _own_frames(table)
    if table.setting.variant:
        yield "Tasks of another table with another version, prompt, data or sample set."
    for name, values in table.differs.items():
        yield f"The runs differ in {name}: {text.escape(', '.join(values))}."


def _by_sum(table: Table) -> Iterator[str]:
    """Give the scores by the sum of log-likelihoods, one line for each task that has them."""
    names = text.columns(table.tasks)
    for place, (name, task) in enumerate(zip(names, table.tasks, strict=True)):
        cells = [(row, row.cells[place]) for row in table.rows]
        scores = [
            f"{text.escape(row.label)} {text.score(cell.score_by_sum, task.fraction)}"
            for row, cell in cells
            if cell is not None and cell.score_by_sum is not None
        ]
        if scores:
            yield (
                f"{name} by the sum of log-likelihoods, not the mean per token: "
                f"{', '.join(scores)}."
            )


def _own_frames(table: Table) -> Iterator[str]:
    """Name the methods that see another number of frames than the baseline, as measured."""
    seen = {
        row.label: row.costs.measures["frames"]
        for row in table.rows
        if row.costs is not None and row.costs.measures["frames"] is not None
    }
    base = next((seen.get(row.label) for row in table.rows if row.is_baseline), None)
    own = [
        f"{text.escape(label)} {text.count(frames)}"
        for label, frames in seen.items()
        if base is not None and frames != base
    ]
    if own:
        yield f"The frames above are the baseline's; other methods see: {', '.join(own)}."


def _flat(row: Row) -> bool:
    """Tell whether an interval of the row has no width, as when no score differs."""
    found = [row.macro_interval, *(cell.interval for cell in row.cells if cell)]
    return any(interval is not None and interval.low == interval.high for interval in found)


def _cost_texts(costs: Costs | None) -> list[str]:
    if costs is None:
        return [text.MISSING] * len(_COSTS)
    return [
        text.count(costs.measures["visual_tokens"]),
        text.count(costs.measures["token_layers"]),
        text.size(costs.measures["kv_bytes"]),
        text.seconds(costs.measures["seconds"]),
        text.share(costs.parse_failure_rate),
    ]


def _failed(costs: Costs | None) -> str:
    return text.MISSING if costs is None else str(costs.failed)


def _grid(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int | None = None) -> str:
    """Lay out a pipe table, the last `numbers` columns to the right (by default all but one).

    tabulate widens every column by two when it knows the header; given as a row, the header
    costs no width, and the rule above it moves below.
    """
    right = len(header) - 1 if numbers is None else numbers
    align = ["left"] * (len(header) - right) + ["right"] * right
    lines = tabulate([header, *rows], tablefmt="pipe", colalign=align, disable_numparse=True)
    rule, names, *body = lines.split("\n")
    return "\n".join([names, rule, *body])


def _refusals(board: Board) -> Iterator[str]:
    if not board.refusals:
        yield "Every run was comparable."
    asked = {run.name: len(run.tasks) for run in board.runs}
    for refusal in board.refusals:
        method = f" {text.escape(refusal.method)}" if refusal.method else ""
        if 1 < len(refusal.tasks) == asked.get(refusal.run):
            tasks = f" (all {len(refusal.tasks)} tasks)"
        else:
            tasks = f" ({', '.join(map(text.escape, refusal.tasks))})" if refusal.tasks else ""
        other = f" against {text.code(refusal.other)}" if refusal.other else ""
        yield (
            f"- {text.code(refusal.run)}{method}{tasks}, "
            f"{text.escape(refusal.field)} {text.code(refusal.value)}{other}: "
            f"{text.escape(refusal.reason)}. {text.escape(refusal.action)}."
        )


def _provenance(board: Board) -> Iterator[str]:
    if not board.runs:
        yield "No complete run."
        return
    header = ["run", "method", "fingerprint", "model", "revision", "finished", "wall s"]
    rows = [
        [
            text.escape(run.name),
            text.escape(run.label),
            text.short(run.fingerprint),
            text.escape(run.model),
            text.short(run.model_revision),
            text.escape(run.finished or text.MISSING),
            text.MISSING if run.wall_seconds is None else f"{run.wall_seconds:.0f}",
        ]
        for run in board.runs
    ]
    yield _grid(header, rows, numbers=1)
    yield ""
    for versions, names in _versions(board.runs).items():
        where = "all runs" if len(names) == len(board.runs) else ", ".join(map(text.code, names))
        yield f"- {text.escape(versions)}: {where}"


def _versions(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Group the runs by the versions that made them."""
    found: dict[str, list[str]] = {}
    for run in runs:
        packages = {"tempeval": run.tempeval_version, **run.packages}
        line = ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))
        found.setdefault(line, []).append(run.name)
    return found


def _with_policy(fields: dict[str, Any]) -> dict[str, Any]:
    """Give a frame policy as the object it is."""
    return {**fields, "frame_policy": json.loads(fields["frame_policy"])}
