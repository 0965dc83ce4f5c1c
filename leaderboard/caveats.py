"""What a reader must know of how a table came about; plain text, escaped by who prints it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from tempeval.leaderboard import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.leaderboard.schema import Row, Table


def caveats(table: Table) -> Iterator[str]:
    """Give one sentence or a few for each caveat."""
    yield from _unsound(table)
    yield from _no_means_of_costs(table["rows"])
    yield from _by_sum(table)
    yield from _own_frames(table["rows"])
    yield from table["notes"]
    for row in table["rows"]:
        yield from _answered(table, row)


def _unsound(table: Table) -> Iterator[str]:
    """Name damaged videos and questions that were left out, of each task and in which rows."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for place, name in enumerate(text.columns(table["tasks"])):
        cells = [(row["label"], cell) for row in table["rows"] if (cell := row["cells"][place])]
        rows: dict[str, list[str]] = {}
        for label, cell in cells:
            videos, skipped = cell["videos"], cell["costs"]["skipped"]
            facts = [text.damage(videos)] if videos and videos["damaged"] else []
            if skipped:
                facts.append(f"{skipped} questions left out, whose videos are not there")
            if facts:
                rows.setdefault("; ".join(facts), []).append(label)
        for fact, labels in rows.items():
            where = "" if len(labels) == len(cells) else f" ({', '.join(labels)})"
            tasks.setdefault((fact, where), []).append(name)
    for (fact, where), names in tasks.items():
        each = "" if len(names) == 1 else ", each"
        yield f"{', '.join(names)}{each}: {fact}{where}."


def _no_means_of_costs(rows: Sequence[Row]) -> Iterator[str]:
    """Name the costs that have no mean because of some questions."""
    for row in rows:
        costs = [cell["costs"] for cell in row["cells"] if cell is not None]
        said = []
        for key, what in (("unmeasured", "is missing"), ("negative", "is below 0")):
            found = Counter[str]()
            for each in costs:
                found.update(each["unmeasured"] if key == "unmeasured" else each["negative"])
            said += [f"{name} {what} on {count} questions" for name, count in found.items()]
        if said:
            yield f"No mean of some costs of {row['label']}: {', '.join(said)}."


def _own_frames(rows: Sequence[Row]) -> Iterator[str]:
    """Name the methods that see another number of frames than the baseline, as measured."""
    seen = {
        row["label"]: row["costs"]["measures"]["frames"]
        for row in rows
        if row["costs"] is not None and row["costs"]["measures"]["frames"] is not None
    }
    base = next((seen.get(row["label"]) for row in rows if row["is_baseline"]), None)
    own = [
        f"{label} {text.count(value)}"
        for label, value in seen.items()
        if base is not None and value != base
    ]
    if own:
        yield f"The frames above are the baseline's; other methods see: {', '.join(own)}."


def _answered(table: Table, row: Row) -> Iterator[str]:
    """Give a method's differences without failed questions, where failures differ."""
    names = text.columns(table["tasks"])
    shown = []
    for name, task, cell in zip(names, table["tasks"], row["cells"], strict=True):
        if cell is None or (both := cell["both_answered"]) is None:
            continue
        p = both["p_holm"] if table["ranked"] else both["p"]
        gap = text.signed(both["difference"], task["fraction"])
        shown.append(f"{name} {gap} ({both['n']} of {cell['n']} questions, p {text.p_value(p)})")
    if shown:
        yield (
            f"{row['label']} and the baseline failed on other questions. Differences over those "
            f"that both answered: {', '.join(shown)}. Bold needs the test to hold there too."
        )


def _by_sum(table: Table) -> Iterator[str]:
    """Name the scores that the sum of log-likelihoods makes other ones, task by task."""
    names = text.columns(table["tasks"])
    same = []
    for place, (name, task) in enumerate(zip(names, table["tasks"], strict=True)):
        cells = [(row, row["cells"][place]) for row in table["rows"]]
        known = [(r, c) for r, c in cells if c is not None and c["score_by_sum"] is not None]
        others = [
            f"{row['label']} {text.score(cell['score_by_sum'], task['fraction'])}"
            for row, cell in known
            if cell["score_by_sum"] != cell["score"]
        ]
        if others:
            tail = "" if len(others) == len(known) else "; no other score is changed"
            yield (
                f"{name} by the sum of log-likelihoods, not the mean per token: "
                f"{', '.join(others)}{tail}."
            )
        elif known:
            same.append(name)
    if same:
        yield (
            "The sum of log-likelihoods gives the same scores as their mean per token: "
            f"{', '.join(same)}."
        )
