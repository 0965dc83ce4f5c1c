"""The tables of a leaderboard: its summary, the tasks one by one, differences and costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.leaderboard import cost_columns, text, tips
from tempeval.leaderboard.cost_columns import SPENT
from tempeval.leaderboard.grid import Cell, Column, Grid, GridRow
from tempeval.leaderboard.search import row_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.leaderboard import schema
    from tempeval.leaderboard.cost_columns import CostColumn
    from tempeval.leaderboard.grid import Order

# Differences up to these, as fractions of the scale, have the first, second and third colour of
# a heat table; larger ones the fourth.
HEAT_STEPS = (0.01, 0.03, 0.1)

_INTERVAL, _ERROR = "[95 % CI]", "± SE"
METHOD = Column("method", "ascending", is_text=True)
NOTHING = Cell(text.MISSING)


def summary(table: schema.Table) -> Grid:
    """Give one row per method: its scores, their mean, and the usual costs."""
    tasks = table["tasks"]
    orders: list[Order] = ["descending" if t["higher_is_better"] else "ascending" for t in tasks]
    columns = [METHOD]
    for name, task, order in zip(text.columns(tasks), tasks, orders, strict=True):
        columns.append(Column(name, order, f"score of {task['name']} ({task['metric']})"))
    if len(tasks) > 1:
        columns.append(Column("macro", orders[0], "mean of the task scores"))
        columns.append(Column("Δ macro", orders[0], "difference to the baseline", _INTERVAL))
        if _pooled(table):
            columns.append(Column("pooled", orders[0], "mean over the questions of all tasks"))
    else:
        columns.append(Column("Δ", orders[0], "difference to the baseline", _INTERVAL))
        if table["ranked"]:
            columns.append(Column("p", "ascending", "corrected p value of the difference"))
    costs = cost_columns.of([row["costs"] for row in table["rows"]])
    columns += [Column(cost.name, "ascending", cost.about) for cost in costs]
    rows = []
    for row in table["rows"]:
        cells = [*_scores(table, row), *_means(table, row)]
        cells += [_cost(table, row, cost) for cost in costs]
        rows.append(_row(table, row, cells))
    return Grid(tuple(columns), tuple(rows))


def task(table: schema.Table, place: int) -> Grid:
    """Give all numbers of one task, one row for each method that has it.

    Args:
        table: of the document.
        place: of the task in the table.
    """
    asked, ranked = table["tasks"][place], table["ranked"]
    order: Order = "descending" if asked["higher_is_better"] else "ascending"
    found = [(row, cell) for row in table["rows"] if (cell := row["cells"][place]) is not None]
    mcnemar = any(cell["mcnemar_p"] is not None for _, cell in found)
    columns = [
        METHOD,
        Column("score", order, f"{asked['metric']}, with clustered standard error", _ERROR),
        Column("Δ", order, "difference to the baseline", _INTERVAL),
        Column("p", "ascending", "clustered sign-flip test, uncorrected"),
        *([Column("p (Holm)", "ascending", "corrected over the table's cells")] if ranked else []),
        *([Column("p (McNemar)", "ascending", "exact McNemar test")] if mcnemar else []),
        Column("MDE", "ascending", "smallest difference that one test would find"),
        Column("better/same/worse", "descending", "questions, against the baseline"),
        Column("n", "descending", "questions"),
        Column("clusters", "descending"),
    ]
    costs = cost_columns.of([cell["costs"] for _, cell in found], narrow=True)
    columns += [Column(cost.name, "ascending", cost.about) for cost in costs]
    fraction = asked["fraction"]
    rows = []
    for row, cell in found:
        cells = [
            Cell(
                text.score(cell["score"], fraction),
                cell["score"],
                text.error(cell["se"], fraction),
                tips.cell(table, row, place),
            ),
            _gap(cell, fraction),
            _p(cell["p"]),
            *([_p(cell["p_holm"])] if ranked else []),
            *([_p(cell["mcnemar_p"])] if mcnemar else []),
            Cell(text.score(cell["mde"], fraction), cell["mde"]),
            _counts(cell),
            Cell(str(cell["n"]), cell["n"]),
            Cell(str(cell["clusters"]), cell["clusters"]),
            *[cost.cell(cell["costs"]) for cost in costs],
        ]
        rows.append(_row(table, row, cells, place))
    return Grid(tuple(columns), tuple(rows))


def heat(table: schema.Table) -> Grid | None:
    """Give the differences of methods x tasks; None where there is no method or one task."""
    tasks = table["tasks"]
    others = [row for row in table["rows"] if not row["is_baseline"]]
    if len(tasks) < 2 or not others:
        return None
    columns = [METHOD]
    for name, asked in zip(text.columns(tasks), tasks, strict=True):
        order: Order = "descending" if asked["higher_is_better"] else "ascending"
        columns.append(Column(name, order, f"difference in {asked['name']}"))
    columns.append(Column("macro", "descending", "difference of the means; not tested"))
    rows = []
    for row in others:
        cells = []
        for place, (asked, cell) in enumerate(zip(tasks, row["cells"], strict=True)):
            if cell is None:
                cells.append(NOTHING)
                continue
            gap = cell["difference"]
            cells.append(
                Cell(
                    text.signed(gap, asked["fraction"]),
                    gap,
                    tip=tips.cell(table, row, place),
                    strong=cell["significant"],
                    level=_level(gap, asked),
                )
            )
        macro = row["macro_difference"]
        level = _level(macro, tasks[0])
        tip = tips.means(table, row)
        cells.append(Cell(text.signed(macro, fraction=True), macro, tip=tip, level=level))
        rows.append(_row(table, row, cells))
    return Grid(tuple(columns), tuple(rows))


def costs(table: schema.Table) -> Grid | None:
    """Give all costs that were measured, one row per method; None where the summary has them."""
    known = [row["costs"] for row in table["rows"]]
    found = cost_columns.of(known, full=True)
    if len(found) == len(cost_columns.of(known)):
        return None
    columns = [METHOD, *[Column(cost.name, "ascending", cost.about) for cost in found]]
    rows = [_row(table, row, [_cost(table, row, cost) for cost in found]) for row in table["rows"]]
    return Grid(tuple(columns), tuple(rows))


def _cost(table: schema.Table, row: schema.Row, column: CostColumn) -> Cell:
    """Print a cost of all tasks; where they have budgets of their own, what each spends of it."""
    whole = column.cell(row["costs"])
    if table["budget"] is not None or column.name not in SPENT or row["costs"] is None:
        return whole
    known = [value for c in row["cells"] if c and (value := column.value(c["costs"])) is not None]
    shown = list(dict.fromkeys(column.text(value) for value in sorted(known)))
    words = "/".join(shown) if len(shown) <= 3 else f"{shown[0]} to {shown[-1]}"
    return Cell(words or text.MISSING, max(known, default=None))


def _row(
    table: schema.Table, row: schema.Row, cells: list[Cell], place: int | None = None
) -> GridRow:
    """Make the row of a method, over all tasks or the one at `place`."""
    meant = row["cells"] if place is None else [row["cells"][place]]
    runs = {cell["run"] for cell in meant if cell is not None}
    run = runs.pop() if len(runs) == 1 else ""
    words = row_words(table, row, place)
    return GridRow(row["label"], row["method"], tuple(cells), row["is_baseline"], run, words)


def _scores(table: schema.Table, row: schema.Row) -> Iterator[Cell]:
    for place, (asked, cell) in enumerate(zip(table["tasks"], row["cells"], strict=True)):
        if cell is None:
            yield NOTHING
            continue
        yield Cell(
            text.score(cell["score"], asked["fraction"]),
            cell["score"],
            tip=tips.cell(table, row, place),
            strong=cell["significant"],
        )


def _means(table: schema.Table, row: schema.Row) -> Iterator[Cell]:
    """Give macro and pooled scores; for one task its difference and corrected p value."""
    if len(table["tasks"]) > 1:
        tip = tips.means(table, row) if row["macro"] is not None else ""
        yield Cell(text.score(row["macro"], fraction=True), row["macro"], tip=tip)
        ends = text.interval(row["macro_interval"], True, row["macro_interval_kind"])
        yield _difference(row["macro_difference"], ends, fraction=True)
        if _pooled(table):
            yield Cell(text.score(row["pooled"], fraction=True), row["pooled"], tip=tip)
    elif (cell := row["cells"][0]) is None:
        yield from (NOTHING, NOTHING) if table["ranked"] else (NOTHING,)
    else:
        fraction = table["tasks"][0]["fraction"]
        yield _gap(cell, fraction)
        if table["ranked"]:
            yield _p(cell["p_holm"])


def _pooled(table: schema.Table) -> bool:
    """Tell whether the pooled score is another number than the macro score."""
    known = any(row["pooled"] is not None for row in table["rows"])
    return known and len({asked["n"] for asked in table["tasks"]}) > 1


def _gap(cell: schema.Cell, fraction: bool) -> Cell:
    ends = text.interval(cell["interval"], fraction, cell["interval_kind"])
    return _difference(cell["difference"], ends, fraction, cell["significant"])


def _difference(value: float | None, ends: str, fraction: bool, strong: bool = False) -> Cell:
    if value is None:
        return NOTHING
    return Cell(text.signed(value, fraction), value, ends, strong=strong)


def _p(value: float | None) -> Cell:
    return Cell(text.p_value(value), value)


def _counts(cell: schema.Cell) -> Cell:
    numbers = (cell["wins"], cell["ties"], cell["losses"])
    if cell["wins"] is None or cell["losses"] is None:
        return NOTHING
    return Cell("/".join(str(number) for number in numbers), cell["wins"] - cell["losses"])


def _level(gap: float | None, asked: schema.Task) -> int:
    """Grade a difference from -4 to 4, 0 where it rounds to nothing or has no common scale."""
    if gap is None or not asked["fraction"] or abs(gap) < 0.0005:
        return 0
    size = 1 + sum(abs(gap) > step for step in HEAT_STEPS)
    return size if (gap > 0) == asked["higher_is_better"] else -size
