"""What the tasks of a run are made of: the benchmark files they read, their YAML and their code."""

from __future__ import annotations

import hashlib
import importlib.metadata
import inspect
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.archives import file_digest
from tempeval.errors import TempevalError
from tempeval.source_digest import (
    PACKAGE,
    combined,
    data_of,
    digest_of,
    modules_of,
    read_source,
    source_of,
)
from tempeval.tasklist import expand_tasks, task_entries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from yaml import Node, SafeLoader

    from tempeval.benchmarks.base import Benchmark

Row = dict[str, Any]

#: Rooms whose code makes answers, not questions or scores; answers know it themselves.
_ANSWERING = tuple(
    f"{PACKAGE}.{room}"
    for room in (
        "engine",
        "families",
        "leaderboard",
        "methods",
        "model_wrappers",
        "pave",
        "side_channels",
        "video",
    )
)
#: Packages that score answers, and are no part of what a record says of every run.
_SCORING_PACKAGES = ("nltk", "pycocoevalcap")
#: Of what a YAML says, that which changes neither a question nor a score.
_SAID = ("summary", "protocol")
_HOST = "lmms_eval"


class _Named(str):
    """A function as a YAML names it."""


def source_rows(config: Mapping[str, Any]) -> list[Row]:
    """Return the rows of the data file that a task tests on.

    Args:
        config: as `tempeval.task_config.task_config` gives it.

    Returns:
        Its rows; for a task of a benchmark one, that names `benchmark` and `split`. None for other
        kinds of files, and for patterns, which only `datasets` resolves.
    """
    named = (config.get("dataset_kwargs") or {}).get("data_files", {})
    # As `datasets` reads it: a file, or a list of files, without a split is that of `train`.
    files = named if isinstance(named, dict) else {"train": named}
    found = files.get(config.get("test_split") or config.get("validation_split"), ())
    names = [found] if isinstance(found, str) else list(found)
    folder = task_entries()[config["task"]].path.parent
    lines = [
        line
        for name in names
        if name.endswith(".jsonl") and (folder / name).is_file()
        for line in (folder / name).read_text(encoding="utf-8").splitlines()
    ]
    return [json.loads(line) for line in lines if line]


def read_documents(name: str) -> None:
    """Read the annotation files of a task or group once, to see that they can be read.

    Args:
        name: task or group; those of the host, and those whose data ship with the package, have
            no such files.

    Raises:
        MissingData, BadData: with the reason.
    """
    from tempeval.benchmarks.sources import load_docs
    from tempeval.task_config import task_config

    for task in expand_tasks([name] if name in task_entries() else []):
        for row in source_rows(task_config(task, functions=False))[:1]:
            if "benchmark" in row:
                load_docs(row)


def source_digests(names: Iterable[str], *, skip_missing: bool = False) -> dict[str, str]:
    """Return the digest of the annotation files that tasks read, by `benchmark/split`.

    Args:
        names: tasks and groups; those of the host, and those whose data ship with the package,
            have none.
        skip_missing: leave out a benchmark whose files are not there.

    Raises:
        MissingData: if a benchmark's files are not there, so that a run ends before it begins.
    """
    from tempeval.benchmarks.base import MissingData
    from tempeval.task_config import task_config

    found: dict[str, str] = {}
    for name in expand_tasks([name for name in names if name in task_entries()]):
        for row in source_rows(task_config(name, functions=False))[:1]:
            if "benchmark" in row:
                key = f"{row['benchmark']}/{row['split']}"
                if key not in found:
                    try:
                        found[key] = _digest(row)
                    except MissingData:
                        if not skip_missing:
                            raise
    return found


def _digest(row: Row) -> str:
    from tempeval.benchmarks.base import MissingData
    from tempeval.benchmarks.registry import benchmark
    from tempeval.benchmarks.roots import benchmark_root

    chosen = benchmark(row["benchmark"])
    try:
        root = benchmark_root(chosen, row["split"])
    except MissingData:
        if chosen.hub is None:
            raise
        return _digest_of_documents(row)
    return _digest_of_files(chosen, row["split"], root)


def _digest_of_files(chosen: Benchmark, split: str, root: Any) -> str:
    whole = hashlib.sha256()
    for path in chosen.annotations(root, split):
        whole.update(f"{path.name}\0{file_digest(path)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _digest_of_documents(row: Row) -> str:
    """Return the digest of what the hub's copy says, whose files have no names of ours."""
    from tempeval.benchmarks.sources import load_docs

    whole = hashlib.sha256()
    for doc in load_docs(row):
        whole.update(f"{doc['sample_id']}\0{doc['content_hash']}\n".encode())
    return f"documents:sha256:{whole.hexdigest()}"


def definition_digest(path: Path) -> str:
    """Return the digest of what makes a task, or a group, ask and score as it does.

    That is its YAML with what it includes, the data files that lie beside it, and the functions
    that it names: their modules, what these import of the package, and the data that they mention.
    What answers go through is not among it. Comments change nothing.

    Args:
        path: the YAML; of any package.

    Raises:
        TempevalError: if it, or what it includes, cannot be read.
    """
    config = _configuration(path)
    folder = path.parent
    parts = {"config": _plain_digest(config)}
    roots: set[str] = set()
    for name in _functions(config):
        module = name.rpartition(".")[0]
        beside = folder / f"{module}.py"  # where the host looks first
        if beside.is_file():
            parts |= _files_beside(beside)
        elif module:
            roots.add(module)
    for name in _data_files(config):
        with suppress(OSError):
            parts[f"data {name}"] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    for row in _benchmark_rows(config, folder):
        from tempeval.benchmarks.registry import BENCHMARKS

        roots.add(BENCHMARKS[row["benchmark"]].path.partition(":")[0])
    return combined(parts | _code(roots))


def object_digest(config: Mapping[str, Any]) -> str:
    """Return the digest of a task whose YAML is not known, from its configuration in memory."""
    parts = {"config": _plain_digest(config)}
    for function in _callables(config):
        with suppress(TypeError, OSError):
            text = Path(inspect.getfile(function)).read_text(encoding="utf-8")
            parts[f"{function.__module__}.{function.__qualname__}"] = read_source(text).digest
    return combined(parts)


def _code(roots: set[str]) -> dict[str, str]:
    """Return the digests of modules with all that they import and mention."""
    ours = {root for root in roots if root.partition(".")[0] != _HOST}
    modules = modules_of(tuple(sorted(ours)), _ANSWERING)
    parts = {"code": digest_of(modules)}
    hosts = roots - ours
    # Of the host, whose tasks are many, only the modules of tasks; its version says the rest.
    for root in hosts:
        parts[f"code {root}"] = source_of(root).digest
    for name, content in data_of(modules).items():
        parts[f"data {name}"] = hashlib.sha256(content).hexdigest()
    imported = {name.partition(".")[0] for module in modules for name in source_of(module).imported}
    for package in (*_SCORING_PACKAGES, *([_HOST] if hosts else [])):
        if package in imported or package in {root.partition(".")[0] for root in hosts}:
            with suppress(importlib.metadata.PackageNotFoundError):
                parts[f"version {package}"] = importlib.metadata.version(package)
    if f"{PACKAGE}.metrics.wups_data" in modules:
        from tempeval.metrics.wups_data import stamps

        parts |= {f"nltk {name}": stamp for name, stamp in stamps().items()}
    return parts


def _configuration(path: Path) -> dict[str, Any]:
    """Read a YAML as the host does, templates included, with functions as names."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", _name)
    try:
        found: Any = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise TempevalError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise TempevalError(f"{path} is not a mapping")
    included = found.pop("include", None) or []
    whole: dict[str, Any] = {}
    for name in reversed([included] if isinstance(included, str) else included):
        template = Path(name) if Path(name).is_file() else path.parent / name
        whole |= _configuration(template)
    return whole | found


def _name(loader: SafeLoader, suffix: str, node: Node) -> str:
    import yaml

    value = loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else str(node)
    return _Named(value) if suffix == "function" else f"!{suffix} {value}"


def _plain_digest(config: Mapping[str, Any]) -> str:
    """Return the digest of what a configuration says to a model or a score."""
    kept = dict(config)
    if isinstance(kept.get("metadata"), dict):
        kept["metadata"] = {k: v for k, v in kept["metadata"].items() if k not in _SAID}
    kept.pop("training_split", None)
    kept["dataset_kwargs"] = _without_training(config)
    text = json.dumps(kept, sort_keys=True, default=_described)
    return hashlib.sha256(text.encode()).hexdigest()


def _described(value: object) -> str:
    """Name a value that is no JSON, without the address that it happens to have."""
    if callable(value):
        return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"
    return str(value)


def _without_training(config: Mapping[str, Any]) -> Any:
    kwargs = config.get("dataset_kwargs")
    files = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    if not isinstance(kwargs, dict) or not isinstance(files, dict):
        return kwargs
    used = {name: value for name, value in files.items() if name != config.get("training_split")}
    return {**kwargs, "data_files": used}


def _data_files(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of a configuration's data files, but for those of training."""
    kwargs = _without_training(config)
    files = kwargs.get("data_files") if isinstance(kwargs, dict) else None
    for value in files.values() if isinstance(files, dict) else (files,):
        yield from (name for name in (value if isinstance(value, list) else [value]) if name)


def _benchmark_rows(config: Mapping[str, Any], folder: Path) -> Iterator[Row]:
    """Yield the rows of one-row data files that stand for a benchmark."""
    for name in _data_files(config):
        with suppress(OSError, ValueError):
            first, _, rest = (folder / name).read_text(encoding="utf-8").partition("\n")
            row = json.loads(first)
            if not rest.strip() and isinstance(row, dict) and "benchmark" in row:
                yield row


def _functions(value: object) -> Iterator[str]:
    """Yield the functions that a configuration names, at any depth."""
    if isinstance(value, _Named):
        yield str(value)
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _functions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _functions(inner)


def _callables(value: object) -> Iterator[Callable[..., Any]]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _callables(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _callables(inner)
    elif callable(value):
        yield value


def _files_beside(path: Path, seen: frozenset[Path] = frozenset()) -> dict[str, str]:
    """Return the digests of a module beside a YAML, and of those it imports from there."""
    if path in seen or not path.is_file():
        return {}
    found = {}
    with suppress(OSError, UnicodeDecodeError):
        source = read_source(path.read_text(encoding="utf-8"))
        found[f"code {path.name}"] = source.digest
        for name in source.imported:
            for part in name.split("."):
                found |= _files_beside(path.with_name(f"{part}.py"), seen | {path})
    return found
