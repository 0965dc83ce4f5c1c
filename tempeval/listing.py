"""The tables of `tempeval list` and of the README, without importing torch or the host."""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from tempeval.benchmarks.registry import BENCHMARKS, benchmark
from tempeval.extensions import OWN
from tempeval.families.registry import FAMILIES
from tempeval.methods.registry import BASELINE, METHODS, entry_of, method_class
from tempeval.plugin import MODELS
from tempeval.side_channels.registry import SIDE_CHANNELS
from tempeval.tasklist import task_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.extensions import Registry
    from tempeval.methods.base import Method

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
    """Return name, stages, summary and paper of every working method, `baseline` first."""
    rows = [(BASELINE, "-", BASELINE_SUMMARY, "-")]
    entries = sorted(METHODS.values(), key=lambda entry: entry.name)
    return rows + [(e.name, ", ".join(e.stages), e.summary, e.paper) for e in entries]


def method_table() -> str:
    """Return the methods as the markdown table of the README; imports every method."""
    heads = ("method", "what it does", "stage", "paper", "written from", "families", "training")
    lines = [f"| {' | '.join(heads)} | settings |", "| --- " * (len(heads) + 1) + "|"]
    every = ", ".join(FAMILIES.own)
    lines.append(f"| `{BASELINE}` | {BASELINE_SUMMARY} | - | - | - | {every} | - | - |")
    training = {True: "needs it", False: "none", None: "none (probe)"}
    for entry in sorted(METHODS.own.values(), key=lambda entry: entry.name):
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
    """Return `setting=default` for every setting of a method, as a chain is written."""
    return _defaults_of(method_class(method))


def _defaults_of(cls: type[Method]) -> list[str]:
    texts = []
    for field in fields(cls):
        value = "..." if field.default is MISSING else field.default
        parts = value if isinstance(value, tuple) else (value,)
        shown = "/".join(f"{v:.3g}" if isinstance(v, float) else str(v) for v in parts)
        texts.append(f"{field.name}={shown}")
    return texts


def list_methods() -> list[str]:
    """Return one line per method."""
    rows = [
        (name, stages, _from(METHODS, name, text if paper == "-" else f"{text} [{paper}]"))
        for name, stages, text, paper in method_rows()
    ]
    return columns(rows) + _broken(METHODS)


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
    rows = [
        (e.name, ", ".join(e.model_types), _from(FAMILIES, e.name, e.summary))
        for e in FAMILIES.values()
    ]
    return columns(rows) + _broken(FAMILIES)


def list_benchmarks() -> list[str]:
    """Return one line per benchmark: name, tasks and title."""
    rows = []
    for name in BENCHMARKS:
        chosen = benchmark(name)
        rows.append((name, ", ".join(chosen.tasks), _from(BENCHMARKS, name, chosen.title)))
    return columns(rows) + _broken(BENCHMARKS)


def list_models() -> list[str]:
    """Return one line per lmms-eval model id."""
    return columns([(name, f"lmms-eval --model {name}", path) for name, path in MODELS.items()])


def list_side_channels() -> list[str]:
    """List side channels with their summaries."""
    rows = [
        (name, _from(SIDE_CHANNELS, name, entry.summary)) for name, entry in SIDE_CHANNELS.items()
    ]
    return columns(rows) + _broken(SIDE_CHANNELS)


def _from(registry: Registry[Any], name: str, text: str) -> str:
    """Add to what is said of a name the package that it comes from, if it is another's."""
    package = registry.package_of(name)
    return text if package == OWN else f"{text} (from {package})"


def _broken(registry: Registry[Any]) -> list[str]:
    """Return a line on each name of other packages that cannot be used."""
    return [str(error) for error in registry.broken()]


def describe_method(text: str) -> list[str]:
    """Return what is known of one method: idea, source, stages, settings, and where it works.

    Args:
        text: its name, `path/file.py:Class` or `package.module:Class`.

    Raises:
        UnknownName: if there is no such method.
        BrokenPlugin: if it is another's and cannot be used.
    """
    cls = method_class(text)
    entry = METHODS.own.get(cls.name) or entry_of(cls, text)
    training = {True: "needs it", False: "none", None: "none (probe)"}
    facts = [
        ("method", cls.name),
        ("what it does", entry.summary),
        ("paper", entry.paper),
        ("stages", ", ".join(entry.stages) or "-"),
        ("modifies", ", ".join(sorted(cls.modifies)) or "-"),
    ]
    if cls.name in METHODS.own:
        facts += [("written from", entry.code), ("training", training[entry.trained])]
        facts.append(("checked on", ", ".join(entry.families)))
    else:
        place = METHODS.package_of(cls.name) if cls.name in METHODS else text
        facts += [("from", place), ("checked on", f"nothing yet: tempeval verify {text}")]
    lines = columns(facts)
    rows = [("setting", "type", "default", "meaning"), *_settings(cls)]
    return [*lines, "", *(columns(rows) if len(rows) > 1 else ["it has no settings"])]


def _settings(cls: type[Method]) -> list[tuple[str, str, str, str]]:
    """Return name, type, default and meaning of every setting of a method."""
    hints, meanings = typing.get_type_hints(cls), meanings_of(cls)
    defaults = dict(text.split("=", 1) for text in _defaults_of(cls))
    return [
        (f.name, _type(hints[f.name]), defaults[f.name], meanings.get(f.name, "-"))
        for f in fields(cls)
    ]


def meanings_of(cls: type) -> dict[str, str]:
    """Read what a class's docstring says of its attributes or arguments, by name."""
    found: dict[str, str] = {}
    name, inside = "", False
    for line in (inspect.getdoc(cls) or "").splitlines():
        if line and not line.startswith(" "):
            inside, name = line in ("Attributes:", "Args:"), ""
        elif inside and (match := re.fullmatch(r" {4}([\w, ]+?)(?: \([^)]*\))?: (.*)", line)):
            name = match[1]
            found |= dict.fromkeys(re.split(r",\s*", name), match[2])
        elif inside and name and line.strip():
            more = {key: f"{found[key]} {line.strip()}" for key in re.split(r",\s*", name)}
            found |= more
    return found


def _type(hint: Any) -> str:
    """Name a type of a setting as a reader writes it."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return " or ".join(map(str, args))
    if typing.get_origin(hint) is tuple:
        return f"{_type(args[0])}/..."
    if args:
        return " or ".join(_type(arg) for arg in args)
    return "none" if hint is type(None) else getattr(hint, "__name__", str(hint))


LISTINGS: dict[str, Callable[[], list[str]]] = {
    "methods": list_methods,
    "tasks": list_tasks,
    "families": list_families,
    "benchmarks": list_benchmarks,
    "models": list_models,
    "side-channels": list_side_channels,
}
