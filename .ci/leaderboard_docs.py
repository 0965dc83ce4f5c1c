"""Write docs/leaderboard.md: how to read a leaderboard, and the schema of its JSON and CSV."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path

from tempeval.leaderboard import schema
from tempeval.leaderboard.csv_file import COLUMNS
from tempeval.leaderboard.records import MEASURES

PAGE = Path(__file__).resolve().parent.parent / "docs" / "leaderboard.md"

INTRODUCTION = """<!-- written by .ci/leaderboard_docs.py -->

# The files of a leaderboard

`tempeval leaderboard RUNS... -o DIR` writes:

| file | what it is |
| --- | --- |
| `leaderboard.md` | tables for GitHub: one summary per model, setting and budget, the smallest budget first; then task by task |
| `index.html` | the same as one page that loads nothing: a click on a column's name sorts, the field at the top filters, hovering or focusing a number shows its interval and budget; every run has its settings |
| `leaderboard.json` | the document all other files are made from; its schema is below |
| `leaderboard.csv` | one row for each table, method and task; its columns are below |
| `plots/*.svg`, `*.png` | differences with intervals, and scores against each cost with the Pareto front; of the means and of each task |

The same inputs give the same bytes. **Bold** means that the clustered sign-flip test says there is
a difference to the baseline, in either direction, after Holm's correction over all methods and tasks
of one setting (model, budget, frames); nothing else is called a difference. How the numbers are
computed: [statistics.md](statistics.md).

**Ranked task by task.** A run that lacks answers in one task (failed questions, no time left) is
ranked on its complete tasks; what is left out is listed with the reason and what helps. A question
that failed is wrong under every metric. Questions over damaged videos are answered and count; how
many there are, and of how many videos, stands over the table. Runs that left other questions out
(`--skip-missing`) are not compared.

**Which tasks stand in one table.** A row has a mean, costs and a rank over all tasks of its table or
none. So the tasks of one setting are divided where that gives more of them: the first table is of
the tasks for which (number of tasks) x (methods that have all of them) is largest, of equal ones
that with more tasks; what is left is divided likewise, and tasks that only the baseline has stand
apart. The correction is over all these tables together. Where tasks have budgets of their own, the
heading names them and no mean over tasks is drawn against a cost.

**What is replaced.** In DIR, only files that its `leaderboard.json` lists are replaced or deleted. A
file of that name which no leaderboard wrote is refused before anything is written, and so are a
`--baseline` that no run has, and replacing a leaderboard that has tables by one that has none.
"""  # noqa: E501  # rows of a table


def page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION, "## leaderboard.csv", _csv(), "## leaderboard.json", _schema()]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _csv() -> str:
    rows = [f"| `{name}` | {about} |" for name, about in COLUMNS.items()]
    rows += [f"| `{name}` | {about} |" for name, about in MEASURES.items()]
    costs = "Costs are means over the answered questions; peak memory is the largest."
    return "\n".join(["| column | what it holds |", "| --- | --- |", *rows, "", costs])


def _schema() -> str:
    about = inspect.cleandoc(schema.__doc__ or "").partition("\n\nThis module")[0]
    lines = [f"Schema {schema.SCHEMA}. {about}"]
    for name, kind in vars(schema).items():
        if isinstance(kind, type) and "__annotations__" in vars(kind):
            lines.append(_type(name, inspect.cleandoc(kind.__doc__ or "")))
    return "\n\n".join(lines)


def _type(name: str, about: str) -> str:
    summary, _, attributes = about.partition("Attributes:")
    fields = re.split(r"\n(?=    \w)", "\n" + attributes.strip("\n"))
    items = []
    for field in fields:
        key, _, text = " ".join(field.split()).partition(": ")
        if key:
            items.append(f"- `{key}`: {text}")
    return "\n\n".join(part for part in (f"### {name}", summary.strip(), "\n".join(items)) if part)


def main() -> None:
    """Write the page, or with --check say whether it is up to date."""
    if "--check" in sys.argv:
        stale = not PAGE.is_file() or PAGE.read_text("utf-8") != page()
        sys.exit("docs/leaderboard.md is out of date; run: make readme" if stale else 0)
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
