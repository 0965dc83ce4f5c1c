"""The task YAMLs that ship with the package, read without importing the host."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tempeval.errors import TempevalError, UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from yaml import SafeLoader

LIST_HINT = "List them with: tempeval list tasks"


@dataclass(frozen=True)
class TaskEntry:
    """One task or group of tasks.

    Attributes:
        name: what the user writes.
        kind: `task` or `group`.
        members: names of the tasks of a group, in order; empty for a task.
        summary: `metadata.summary` of the YAML, or an empty text.
        path: the YAML file.
    """

    name: str
    kind: Literal["task", "group"]
    members: tuple[str, ...]
    summary: str
    path: Path


def tasks_path() -> Path:
    """Return the folder of the task YAMLs.

    Raises:
        TempevalError: if the package was installed without it.
    """
    spec = find_spec("tempeval.tasks")
    locations = list(spec.submodule_search_locations or []) if spec else []
    if not locations:
        raise TempevalError(
            "the folder of tempeval.tasks is missing from this installation; reinstall tempeval"
        )
    return Path(locations[0])


def foreign_task_folders() -> list[Path]:
    """Return the folders of task YAMLs that benchmarks of other packages bring."""
    from tempeval.benchmarks.registry import BENCHMARKS, benchmark

    folders = [benchmark(name).task_folder for name in BENCHMARKS.installed()]
    return list(dict.fromkeys(folder for folder in folders if folder is not None))


def task_entries() -> Mapping[str, TaskEntry]:
    """Return every task and group of the package, and of other packages' benchmarks, by name.

    Raises:
        TempevalError: if a YAML cannot be read, or two files use one name.
    """
    found: dict[str, TaskEntry] = {}
    for folder in foreign_task_folders():
        found = {**entries_in(folder), **found}
    return {**entries_in(tasks_path()), **found} if found else entries_in(tasks_path())


@cache
def entries_in(folder: Path) -> Mapping[str, TaskEntry]:
    """Return every task and group that YAMLs below a folder define, by name.

    Raises:
        TempevalError: if a YAML cannot be read, or two files use one name.
    """
    found: dict[str, TaskEntry] = {}
    for path in sorted(folder.rglob("*.yaml")):
        entry = _read_entry(path)
        if entry is None:
            continue
        if entry.name in found:
            raise TempevalError(
                f"task {entry.name!r} is defined in {found[entry.name].path} and in {path}"
            )
        found[entry.name] = entry
    return found


def expand_tasks(names: Sequence[str]) -> list[str]:
    """Replace groups by their tasks.

    Args:
        names: tasks and groups of the package.

    Returns:
        Task names without repeats, in the order first met.

    Raises:
        UnknownName: for a name that is neither a task nor a group.
    """
    entries = task_entries()
    tasks: dict[str, None] = {}
    for name in names:
        if name not in entries:
            raise UnknownName("task", name, entries, LIST_HINT)
        entry = entries[name]
        for task in expand_tasks(entry.members) if entry.kind == "group" else [name]:
            tasks.setdefault(task)
    return list(tasks)


def group_of(task: str) -> str | None:
    """Return the group that lists `task`, or None."""
    for entry in task_entries().values():
        if task in entry.members:
            return entry.name
    return None


@cache
def _loader() -> type[SafeLoader]:
    """Return a safe YAML loader to which `!function` and any other tag mean None."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)
    return Loader


def _read_entry(path: Path) -> TaskEntry | None:
    import yaml

    try:
        config: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())  # noqa: S506
    except yaml.YAMLError as error:
        raise TempevalError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(config, dict):
        raise TempevalError(f"{path} is not a mapping")
    metadata = config.get("metadata")
    summary = str(metadata.get("summary", "")) if isinstance(metadata, dict) else ""
    task, group = config.get("task"), config.get("group")
    if isinstance(task, list):
        members = tuple(str(m["task"] if isinstance(m, dict) else m) for m in task)
        return TaskEntry(str(group), "group", members, summary, path)
    if isinstance(task, str):
        return TaskEntry(task, "task", (), summary, path)
    return None
