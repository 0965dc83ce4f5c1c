"""Fill the results of docs/pave.md from a leaderboard of mini audio runs, and draw its figure.

    python .ci/pave_docs.py LEADERBOARD.json

The runs: `baseline` and `pave[adapter=mini:audio;...]` on `tempeval_mini_audio_choice`.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from tabulate import tabulate

DOCS = Path(__file__).resolve().parent.parent / "docs"
ADAPTER = "pave[adapter=mini:audio"
CHANCE = {"box": 25.0, "count": 25.0, "order": 50.0}
#: Okabe and Ito's colours, told apart by colour-blind readers.
COLOURS = {"box": "#0072B2", "count": "#E69F00", "order": "#009E73"}


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Return one record per row: its setting, scores in percent by aspect, and costs."""
    (table,) = json.loads(path.read_text(encoding="utf-8"))["tables"]
    aspects = [re.sub(r"^tempeval_mini_audio_|_choice$", "", t["name"]) for t in table["tasks"]]
    found = []
    for row in table["rows"]:
        inside = re.fullmatch(rf"{re.escape(ADAPTER)};?(.*)\]", row["label"].split(" (")[0])
        found.append(
            {
                "setting": _setting(inside[1]) if inside else row["label"],
                "difference": row["macro_difference"],
                "interval": row["macro_interval"],
                "flops": row["costs"]["measures"]["prefill_flops"],
                "scores": {
                    aspect: (100 * cell["score"], 100 * cell["se"])
                    for aspect, cell in zip(aspects, row["cells"], strict=True)
                },
            }
        )
    return found


def _setting(text: str) -> str:
    """Return a row's setting; the trained neighbourhood, written out, is none."""
    return "" if text == "neighborhood=None" else text


def table_of(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a markdown table, in the order of their settings."""
    lines = []
    for row in sorted(rows, key=lambda row: _order(row["setting"])):
        low, high = (row["interval"] or {}).values() or (None, None)
        change = "-"
        if row["difference"] is not None and low is not None:
            change = f"{100 * row['difference']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
        name = row["setting"] or "as trained"
        scores = [f"{score:.1f} ± {se:.1f}" for score, se in row["scores"].values()]
        lines.append([f"`{name}`", *scores, change, f"{row['flops'] / 1e6:.0f}"])
    header = ["setting", *rows[0]["scores"], "Δ macro to the baseline [95 % CI]", "prefill MFLOPs"]
    return tabulate(lines, header, tablefmt="github", disable_numparse=True)


_NUMBER = re.compile(r"-?[\d.]+")
#: Settings that are no number, after those that are.
_LAST = {"reversed": float("inf")}


def _order(setting: str) -> tuple[int, str, float]:
    name, _, value = setting.rpartition("=")
    first = {"baseline": 0, "": 1}.get(setting, 2)
    number = re.sub(r"^step:", "", value)
    return first, name, float(number) if _NUMBER.fullmatch(number) else _LAST.get(number, -1.0)


#: Where a side channel came from, and how its bar is labelled.
ORIGINS = {
    "": "own",
    "shift=reversed": "own,\nreversed",
    "shuffle=0": "another\nclip's",
    "baseline": "none",
}
TRAINED_STEP = 0.05

Point = tuple[float, "dict[str, Any]"]


def _numbered(rows: list[dict[str, Any]], name: str) -> list[Point]:
    found = []
    for row in rows:
        setting, _, value = row["setting"].partition("=")
        value = value.removeprefix("step:")
        if setting == name and _NUMBER.fullmatch(value):
            found.append((float(value), row))
    return found


def _curves(axes: Any, label: str, points: list[Point]) -> None:
    points.sort(key=lambda point: point[0])
    for aspect, colour in COLOURS.items():
        y, bars = zip(*(row["scores"][aspect] for _, row in points), strict=True)
        x = [place for place, _ in points]
        axes.errorbar(x, y, yerr=bars, color=colour, marker="o", ms=4, capsize=2, label=aspect)
    axes.set_xlabel(label)


def _origins(axes: Any, rows: list[dict[str, Any]]) -> None:
    by_setting = {row["setting"]: row for row in rows}
    for number, (aspect, colour) in enumerate(COLOURS.items()):
        y, bars = zip(*(by_setting[name]["scores"][aspect] for name in ORIGINS), strict=True)
        x = [place + 0.27 * (number - 1) for place in range(len(ORIGINS))]
        axes.bar(x, y, 0.25, yerr=bars, color=colour, capsize=2)
    axes.set_xticks(range(len(ORIGINS)), list(ORIGINS.values()), fontsize=8)
    axes.set_xlabel("sound")


def draw(rows: list[dict[str, Any]], target: Path) -> None:
    """Draw accuracy over shift, neighbourhood, FLOPs of the step, and whose sound it is."""
    mpl.rcParams["svg.hashsalt"] = "pave"
    figure = Figure(figsize=(10, 6.2), layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).flat
    (trained,) = (row for row in rows if row["setting"] == "")
    shifts, neighbours = _numbered(rows, "shift"), _numbered(rows, "neighborhood")
    _curves(panels[0], "shift of the sound in seconds", [*shifts, (0.0, trained)])
    _curves(panels[1], "neighborhood: steps on each side", neighbours)
    steps = [*_numbered(rows, "side_settings"), (TRAINED_STEP, trained)]
    costs = [(row["flops"] / 1e6, row) for _, row in steps]
    _curves(panels[2], "prefill MFLOPs (at each point the step in seconds)", costs)
    for step, row in steps:
        place = (row["flops"] / 1e6, 60)
        panels[2].annotate(f"{step:g}", place, ha="center", fontsize=8)
    _origins(panels[3], rows)
    for axes in panels:
        for aspect, colour in COLOURS.items():
            axes.axhline(CHANCE[aspect], color=colour, lw=0.8, ls=":")
        axes.set_ylim(0, 103)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (panels[0], panels[2]):
        axes.set_ylabel("accuracy in percent")
    panels[0].legend(frameon=False, loc="upper left", fontsize=8)
    figure.savefig(target, metadata={"Date": None})


def main() -> None:
    """Rewrite the block of docs/pave.md and the figure."""
    rows = rows_of(Path(sys.argv[1]))
    page = DOCS / "pave.md"
    text = page.read_text(encoding="utf-8")
    block = re.compile(r"(<!-- pave-results -->\n).*?(<!-- /pave-results -->)", re.DOTALL)
    new = block.sub(lambda found: f"{found[1]}{table_of(rows)}\n{found[2]}", text)
    page.write_text(new, encoding="utf-8")
    draw(rows, DOCS / "pave-audio.svg")


if __name__ == "__main__":
    main()
