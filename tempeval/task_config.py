"""A task YAML of ours with its functions, read without the host."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tempeval.errors import TempevalError, UnknownName
from tempeval.tasklist import LIST_HINT, task_entries

if TYPE_CHECKING:
    from pathlib import Path

    from yaml import Node, SafeLoader

Config = dict[str, Any]


def task_config(name: str, *, functions: bool = True) -> Config:
    """Return the configuration of a task or group, templates included.

    Args:
        name: a task or group of the package.
        functions: whether to import the functions that it names; else they stay dotted names.

    Raises:
        UnknownName: if there is none of that name.
        TempevalError: if the YAML names a function that does not exist, or a file that is not
            there.
    """
    entries = task_entries()
    if name not in entries:
        raise UnknownName("task", name, entries, LIST_HINT)
    return _read(entries[name].path, _loader(functions))


def _read(path: Path, loader: type[SafeLoader]) -> Config:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TempevalError(f"{path} cannot be read ({error.strerror})") from error
    found: Any = yaml.load(text, Loader=loader)  # noqa: S506  # a SafeLoader
    if not isinstance(found, dict):
        raise TempevalError(f"{path} is not a mapping")
    included = found.pop("include", None)
    return found if included is None else {**_read(path.parent / included, loader), **found}


def _loader(functions: bool) -> type[SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", _function if functions else _name)
    return Loader


def _name(loader: SafeLoader, node: Node) -> str:
    import yaml

    if not isinstance(node, yaml.ScalarNode):
        raise TempevalError(f"!function takes one dotted name{node.start_mark}")
    return str(loader.construct_scalar(node))


def _function(loader: SafeLoader, node: Node) -> Any:
    """Resolve `package.module.name`; a class of the host is left as its path."""
    dotted = _name(loader, node)
    module, _, attribute = dotted.rpartition(".")
    if attribute[:1].isupper():
        return dotted
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise TempevalError(f"!function {dotted}: {error}{node.start_mark}") from error
