"""Measure the error rates of the leaderboard's statistics and write them to docs/statistics.md.

    python .ci/statistics_docs.py [coverage] [errors] [families] [power] [cost] [build]

Without names all are measured: about 15 minutes on one core. The simulations are those of
tests/helpers/calibration.py.
"""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tabulate import tabulate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "helpers"))

import calibration as c  # noqa: E402
from build_speed import build_speed  # noqa: E402
from synthetic_runs import Shape  # noqa: E402

from tempeval.leaderboard import stats  # noqa: E402


def percent(share: float) -> str:
    """Print a share with the digits that 10,000 simulations give."""
    return f"{100 * share:.2f} %"


def described(design: c.Design) -> list[Any]:
    """Return a design's columns: clusters, questions in each, and what the method does."""
    does = {"by size": "better in large clusters, worse in small", "rare": "changes 2 % of answers"}
    gain = "nothing" if design.gain == 0 else f"answers better by {design.gain:g} logits"
    return [
        design.clusters,
        design.questions or "1, 5 or 30",
        does.get(design.kind, gain),
    ]


COLUMNS = ["clusters", "questions in each", "the method"]


def coverage() -> str:
    """Measure how often intervals hold the true difference."""
    rows = [
        [
            *described(design),
            f"{100 * design.truth:+.2f}",
            "studentised" if design.clusters < stats.STUDENTISED_BELOW else "percentile",
            percent(c.coverage(design, c.SIMULATIONS)),
        ]
        for design in (*c.CALIBRATED, *c.REPORTED)
    ]
    return table(rows, [*COLUMNS, "true difference", "interval", "holds it in"])


def errors() -> str:
    """Measure how often tests find a difference where there is none."""
    rows = []
    for design in c.NO_EFFECT:
        found = c.rejections(design, c.SIMULATIONS)
        rows.append([*described(design), percent(found["sign_flip"]), percent(found["mcnemar"])])
    return table(rows, [*COLUMNS, "sign-flip test", "McNemar's test"])


def families() -> str:
    """Measure how often a table has a false finding."""
    rows = []
    for name, designs in c.FAMILIES.items():
        found = c.family_errors(designs, c.METHODS, c.SIMULATIONS)
        rows.append([name, percent(found["uncorrected"]), percent(found["holm"])])
    tasks = "; ".join(f"{d.clusters} x {d.questions}" for d in c.FAMILIES["no effects"])
    title = f"{c.METHODS} methods, tasks of {tasks} questions"
    return table(rows, [title, "without correction", "with Holm's"])


def power() -> str:
    """Measure how often the test finds a difference as large as the minimum detectable effect."""
    rows = []
    for design in c.POWER:
        found = c.power_at_detectable(design, c.SIMULATIONS)
        rows.append(
            [*described(design)[:2], f"{100 * found['difference']:+.2f}", percent(found["power"])]
        )
    return table(rows, [*COLUMNS[:2], "minimum detectable effect", "found in"])


def cost() -> str:
    """Measure the time of 100 cells of 10,000 clusters."""
    rng = np.random.default_rng(0)
    names = [f"{i:05d}" for i in range(10_000)]
    base = (rng.random(len(names)) < 0.6).astype(np.float64)
    changed = rng.random((len(names), 10)) < 0.2
    scores = {
        "right or wrong": np.where(changed, 1 - base[:, np.newaxis], base[:, np.newaxis]),
        "any number": base[:, np.newaxis] + rng.normal(0, 0.1, (len(names), 10)),
    }
    rows = []
    for name, values in scores.items():
        start = time.process_time()
        for _ in range(10):
            stats.paired(values, base, names)
        rows.append([name, f"{time.process_time() - start:.1f}"])
    header = f"CPU seconds, {stats.DRAWS:,} draws, {platform.machine()}, numpy {np.__version__}"
    return table(rows, ["scores", header])


def build() -> str:
    """Measure whole leaderboards of 10 methods on 10 tasks, from files to files."""
    rows = []
    for samples in (1_250, 2_500, 5_000, 10_000):
        folder = Path(tempfile.mkdtemp(prefix="tempeval-speed-"))
        try:
            found = build_speed(folder, Shape(samples=samples))
        finally:
            shutil.rmtree(folder)
        count = 100 * samples
        rows.append(
            [
                f"{count:,}",
                f"{found['seconds']:.1f}",
                f"{found['cpu']:.1f}",
                f"{1e6 * found['cpu'] / count:.0f}",
                f"{found['megabytes']:.0f}",
            ]
        )
    return table(rows, ["sample lines", "seconds", "CPU seconds", "CPU µs per line", "peak MB"])


def table(rows: Sequence[Sequence[Any]], header: Sequence[str]) -> str:
    """Return a GitHub table."""
    right = [
        "right" if isinstance(value, int) or value[:1].isdigit() else "left" for value in rows[0]
    ]
    return tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=right)


PARTS: dict[str, Callable[[], str]] = {
    part.__name__: part for part in (coverage, errors, families, power, cost, build)
}


def main() -> None:
    """Measure the parts named on the command line and rewrite their blocks."""
    page = ROOT / "docs" / "statistics.md"
    for name in sys.argv[1:] or PARTS:
        new = f"<!-- {name} -->\n{PARTS[name]()}\n<!-- /{name} -->"
        text = page.read_text(encoding="utf-8")
        pattern = rf"<!-- {name} -->\n.*?<!-- /{name} -->"
        page.write_text(re.sub(pattern, lambda _, new=new: new, text, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main()
