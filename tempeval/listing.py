"""The tables of `tempeval list` and of the README, without importing torch or the host."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import TYPE_CHECKING

from tempeval.families.registry import FAMILIES
from tempeval.methods.registry import BASELINE, METHODS, method_class
from tempeval.plugin import MODELS
from tempeval.side_channels.registry import SIDE_CHANNELS
from tempeval.tasklist import task_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BASELINE_SUMMARY = "the unmodified model, through the same wrapper and engine"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align the cells of rows; the last cell is not padded."""
    if not rows:
        return []
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=False)), row[-1]])
        for row in rows
    ]


def method_rows() -> list[tuple[str, str, str, str]]:
    """Return name, stages, summary and paper of every method, `baseline` first."""
    rows = [(BASELINE, "-", BASELINE_SUMMARY, "-")]
    entries = sorted(METHODS.values(), key=lambda entry: entry.name)
    return rows + [(e.name, ", ".join(e.stages), e.summary, e.paper) for e in entries]


def method_table() -> str:
    """Return the methods as the markdown table of the README; imports every method."""
    heads = ("method", "what it does", "stage", "paper", "written from", "families", "training")
    lines = [f"| {' | '.join(heads)} | settings |", "| --- " * (len(heads) + 1) + "|"]
    every = ", ".join(FAMILIES)
    lines.append(f"| `{BASELINE}` | {BASELINE_SUMMARY} | - | - | - | {every} | - | - |")
    training = {True: "needs it", False: "none", None: "none (probe)"}
    for entry in sorted(METHODS.values(), key=lambda entry: entry.name):
        cells = (
            entry.summary,
            ", ".join(entry.stages),
            entry.paper,
            entry.code,
            ", ".join(entry.families),
            training[entry.trained],
            ", ".join(f"`{text}`" for text in _defaults(entry.name)) or "-",
        )
        lines.append(f"| `{entry.name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _defaults(method: str) -> list[str]:
    """Return `setting=default` for every setting, as a chain is written."""
    texts = []
    for field in fields(method_class(method)):
        value = "..." if field.default is MISSING else field.default
        parts = value if isinstance(value, tuple) else (value,)
        shown = "/".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in parts)
        texts.append(f"{field.name}={shown}")
    return texts


def list_methods() -> list[str]:
    """Return one line per method."""
    return columns([(n, s, f"{t} [{p}]" if p != "-" else t) for n, s, t, p in method_rows()])


def list_tasks() -> list[str]:
    """Return one line per group, with its tasks below it."""
    entries = task_entries()
    groups = sorted(e.name for e in entries.values() if e.kind == "group")
    grouped = {member for name in groups for member in entries[name].members}
    rows = []
    for name in [*groups, *sorted(set(entries) - set(groups) - grouped)]:
        entry = entries[name]
        rows.append((name, entry.kind, entry.summary))
        rows += [(f"  {m}", "task", entries[m].summary) for m in entry.members if m in entries]
    return [line.rstrip() for line in columns(rows)]


def list_families() -> list[str]:
    """Return one line per family."""
    return columns([(e.name, ", ".join(e.model_types), e.summary) for e in FAMILIES.values()])


def list_models() -> list[str]:
    """Return one line per lmms-eval model id."""
    return columns([(name, f"lmms-eval --model {name}", path) for name, path in MODELS.items()])


def list_side_channels() -> list[str]:
    """List side channels with their summaries."""
    return columns([(entry.name, entry.summary) for entry in SIDE_CHANNELS.values()])


LISTINGS: dict[str, Callable[[], list[str]]] = {
    "methods": list_methods,
    "tasks": list_tasks,
    "families": list_families,
    "models": list_models,
    "side-channels": list_side_channels,
}
