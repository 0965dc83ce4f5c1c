"""Digests of source code: what an answer, or a score, went through.

A module counts by its syntax tree, and with what it imports of its own package. Comments,
docstrings, white space and what only type checkers import change no digest; constants and defaults
do. A digest is the same in every version of Python.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.errors import TempevalError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from importlib.machinery import ModuleSpec

    from tempeval.methods.base import Chain
    from tempeval.video.clip import SideSpec

PACKAGE = __name__.partition(".")[0]
#: Modules that only name others, or that no answer and no score depends on.
_NAMING = frozenset(
    {
        PACKAGE,  # its version is recorded
        f"{PACKAGE}.errors",
        f"{PACKAGE}.versions",
        f"{PACKAGE}.source_digest",
        *(f"{PACKAGE}.{room}.registry" for room in ("benchmarks", "families", "methods")),
        f"{PACKAGE}.side_channels.registry",
    }
)
#: Where the code of answers starts; a family, and the methods of a chain, come on top.
_ANSWER_ROOTS = tuple(
    f"{PACKAGE}.{name}"
    for name in (
        "engine.inference",
        "engine.base_model",  # what merges an adapter makes the weights
        "methods.base",
        "model_wrappers.requests",
    )
)
#: What it ends at: the journal, whose format has a number, and what renders the mini suite, whose
#: files have stamps.
_ANSWERS_NOT = (f"{PACKAGE}.engine.journal", f"{PACKAGE}.mini")
#: What the module of a file that was named by its path is called, before the digest of its text.
FILE_MODULE = "tempeval_file_"
_DATA_SUFFIXES = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".yaml", ".npz", ".safetensors")
_GIT_SECONDS = 10


@dataclass(frozen=True)
class _Source:
    """One module.

    Attributes:
        digest: of its syntax tree, or of its file where it has no source.
        imported: dotted names that it imports; some are of things in modules, not of modules.
        data: names of files that it mentions.
    """

    digest: str
    imported: frozenset[str]
    data: frozenset[str]


@cache
def modules_of(
    roots: tuple[str, ...], outside: tuple[str, ...] = (), within: tuple[str, ...] = (PACKAGE,)
) -> frozenset[str]:
    """Return modules with everything that they import of their packages, at any depth.

    Args:
        roots: dotted names; those of other packages bring their own packages.
        outside: names of modules and packages that are not followed.
        within: packages that are followed; a root's own is, too.
    """
    tops = {*within, *(root.partition(".")[0] for root in roots)}
    tops |= {top for root in roots for top in _beside(root)}
    found: set[str] = set()
    wanted = list(roots)
    while wanted:
        name = wanted.pop()
        known = name in found or name in _NAMING or name.partition(".")[0] not in tops
        if known or _is_below(name, outside) or (name not in roots and _spec(name) is None):
            continue
        found.add(name)
        wanted += _parents(name)
        wanted += source_of(name).imported
    return frozenset(found)


@cache
def _beside(module: str) -> frozenset[str]:
    """Return the top-level modules in the folder of a file that was named by its path.

    They are its own, where `PYTHONPATH` or the working folder lets it import them.
    """
    spec = _spec(module) if module.startswith(FILE_MODULE) else None
    if spec is None or not spec.origin:
        return frozenset()
    folder = Path(spec.origin).parent
    wanted, found = {module}, set()
    while wanted:
        for name in source_of(wanted.pop()).imported:
            top = name.partition(".")[0]
            place = getattr(_spec(top), "origin", None)
            mine = (str(folder / f"{top}.py"), str(folder / top / "__init__.py"))
            if top not in found and place in mine:
                found.add(top)
                wanted.add(top)
    return frozenset(found)


def digest_of(modules: Iterable[str]) -> str:
    """Return one digest over modules."""
    return combined({name: source_of(name).digest for name in modules})


def combined(parts: Mapping[str, str]) -> str:
    """Return one digest over named digests, in any order."""
    whole = hashlib.sha256()
    for name, part in sorted(parts.items()):
        whole.update(f"{name}\0{part}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def answer_code(family: str) -> dict[str, str]:
    """Return the digests of the code that all answers of a family go through, part by part.

    Args:
        family: dotted name of the module of the family's class.
    """
    found: dict[str, set[str]] = {part: set() for part in ("engine", "family", "requests", "video")}
    for name in _answering(family):
        found[_part(name)].add(name)
    return {part: digest_of(names) for part, names in found.items()}


def chain_code(chain: Chain, family: str) -> str | None:
    """Return the digest of what a chain's methods and side channels bring; None for no method.

    Args:
        chain: its methods may be of any package.
        family: dotted name of the module of the family's class, whose code is not counted again.
    """
    if not chain.methods:
        return None
    from tempeval.side_channels.registry import side_channel_class
    from tempeval.video.clip import FramePlan

    side: tuple[SideSpec, ...] = ()
    with suppress(TempevalError):  # a chain that cannot run is refused where it meets the model
        side = chain.frames(FramePlan()).side
    channels = [side_channel_class(spec.name) for spec in side]
    roots = {cls.__module__ for cls in (*map(type, chain.methods), *channels)}
    own = modules_of(tuple(sorted(roots)), _ANSWERS_NOT) - _answering(family)
    return combined({name: source_of(name).digest for name in own} | _foreign_data(own))


def foreign_code(module: str) -> tuple[str, ...]:
    """Return the digest of a module of others, with what it imports of its own; else nothing.

    The version of this package's methods says what their settings mean; others may forget theirs.

    Args:
        module: dotted name of the module of a method's class.
    """
    if _is_below(module, (PACKAGE,)):
        return ()
    own = {name for name in modules_of((module,)) if not _is_below(name, (PACKAGE,))}
    return (combined({name: source_of(name).digest for name in own} | _foreign_data(own)),)


def _foreign_data(modules: Iterable[str]) -> dict[str, str]:
    """Return the digests of the data files that modules of others mention."""
    others = [name for name in modules if not _is_below(name, (PACKAGE,))]
    return {
        f"data {name}": hashlib.sha256(content).hexdigest()
        for name, content in data_of(others).items()
    }


def run_code(chain: Chain, family: str) -> dict[str, str]:
    """Return the digests of all code that the answers of a run go through, part by part."""
    own = chain_code(chain, family)
    return answer_code(family) | ({} if own is None else {"methods": own})


def _answering(family: str) -> frozenset[str]:
    return modules_of((*_ANSWER_ROOTS, family), _ANSWERS_NOT)


def _part(module: str) -> str:
    room = module.removeprefix(f"{PACKAGE}.").partition(".")[0]
    if room == "families" or module.partition(".")[0] != PACKAGE:
        return "family"
    return {"video": "video", "model_wrappers": "requests"}.get(room, "engine")


def data_of(modules: Iterable[str]) -> dict[str, bytes]:
    """Return the data files beside modules, or in a folder `data` there, that they mention.

    Returns:
        Content by the module's package and the file's name.
    """
    found: dict[str, bytes] = {}
    for module in modules:
        spec = _spec(module)
        loader: Any = getattr(spec, "loader", None)
        if spec is None or not spec.origin or not hasattr(loader, "get_data"):
            continue
        folder = Path(spec.origin).parent
        for name in source_of(module).data:
            for path in (folder / name, folder / "data" / name):
                try:
                    found[f"{spec.parent}/{name}"] = loader.get_data(str(path))
                except OSError:  # a name that the module mentions for something else
                    continue
    return found


@cache
def source_of(module: str) -> _Source:
    """Read one module."""
    spec = _spec(module)
    loader: Any = getattr(spec, "loader", None)
    source = None
    if loader is not None and hasattr(loader, "get_source"):
        try:
            source = loader.get_source(module)
        except (ImportError, OSError):
            source = None
    path = spec.origin if spec is not None else getattr(sys.modules.get(module), "__file__", None)
    if source is None and str(path).endswith(".py"):  # a script, which has no loader
        with suppress(OSError, UnicodeDecodeError):
            source = Path(str(path)).read_text(encoding="utf-8")
    if source is None:
        return _Source(_digest_without_source(module, path), frozenset(), frozenset())
    is_package = spec is not None and spec.submodule_search_locations is not None
    return read_source(source, module if is_package else module.rpartition(".")[0])


def read_source(text: str, package: str = "") -> _Source:
    """Digest the text of one module.

    Args:
        text: Python source; text that is none is digested as it is.
        package: what its relative imports start from.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        whole = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        return _Source(whole, frozenset(), frozenset())
    walk = _Walk(package)
    walk.node(tree)
    whole = hashlib.sha256("\0".join(walk.parts).encode(errors="surrogatepass")).hexdigest()
    return _Source(whole, frozenset(walk.imported), frozenset(walk.data))


class _Walk:
    """One pass over a syntax tree.

    Empty fields are left out, so that a field that a later Python adds to a node changes nothing.
    """

    _LEFT_OUT = frozenset({"ctx", "kind", "type_comment", "type_ignores"})

    def __init__(self, package: str) -> None:
        self.parts: list[str] = []
        self.imported: set[str] = set()
        self.data: set[str] = set()
        self._package = package
        self._fields: dict[type[ast.AST], tuple[str, ...]] = {}

    def node(self, node: ast.AST) -> None:
        kind = type(node)
        fields = self._fields.get(kind)
        if fields is None:
            fields = tuple(name for name in node._fields if name not in self._LEFT_OUT)
            self._fields[kind] = fields
        put = self.parts.append
        put(kind.__name__)
        if kind is ast.Import or kind is ast.ImportFrom:
            self._note(node)
        elif kind is ast.Constant:
            self._constant(node.value)  # type: ignore[attr-defined]
            return
        for name in fields:
            value = getattr(node, name, None)
            if value is None or value == []:
                continue
            put(name)
            if isinstance(value, list):
                for child in _statements(node, value) if name == "body" else value:
                    if isinstance(child, ast.AST):
                        self.node(child)
                    else:
                        put(repr(child))
                put("]")
            elif isinstance(value, ast.AST):
                self.node(value)
            else:
                put(repr(value))
        put(")")

    def _constant(self, value: object) -> None:
        if isinstance(value, str) and value.endswith(_DATA_SUFFIXES) and "\n" not in value:
            self.data.add(value.rpartition("/")[2])
        # Sets are written in no order of their own.
        self.parts.append(repr(sorted(map(repr, value)) if isinstance(value, frozenset) else value))

    def _note(self, node: Any) -> None:
        if isinstance(node, ast.Import):
            self.imported.update(alias.name for alias in node.names)
            return
        base = node.module or ""
        if node.level:
            start = self._package.split(".")[: len(self._package.split(".")) - node.level + 1]
            base = ".".join([*start, *([base] if base else [])])
        self.imported.add(base)
        self.imported.update(f"{base}.{alias.name}" for alias in node.names)


def _statements(node: ast.AST, body: list[Any]) -> Iterator[Any]:
    """Leave docstrings out of a body, and blocks that only type checkers read."""
    has_docstring = isinstance(
        node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    )
    for number, child in enumerate(body):
        if number == 0 and has_docstring and _is_text(child):
            continue
        if isinstance(child, ast.If) and not child.orelse and _is_for_checkers(child.test):
            continue
        yield child


def _is_text(statement: ast.AST) -> bool:
    value = getattr(statement, "value", None)
    return (
        isinstance(statement, ast.Expr)
        and isinstance(value, ast.Constant)
        and isinstance(value.value, str)
    )


def _is_for_checkers(test: ast.AST) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", None), getattr(test, "attr", None))


def _is_below(name: str, packages: Collection[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _parents(name: str) -> Iterator[str]:
    while name := name.rpartition(".")[0]:
        yield name


@cache
def _spec(name: str) -> ModuleSpec | None:
    """Return a module's spec; None if there is no such module, as for a name inside one."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__spec__", None) is not None:
        return loaded.__spec__
    parent = name.rpartition(".")[0]
    if parent:
        above = _spec(parent)
        if above is None or above.submodule_search_locations is None:
            return None
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None


def _digest_without_source(module: str, path: str | None) -> str:
    """Digest a module that came without source: its file, else its package's version."""
    with suppress(OSError):
        return hashlib.sha256(Path(path or "").read_bytes()).hexdigest()
    with suppress(importlib.metadata.PackageNotFoundError):
        return f"version {importlib.metadata.version(module.partition('.')[0])}"
    return "unknown"


@cache
def git_state() -> dict[str, Any] | None:
    """Return `{commit, dirty}` of the checkout that the package runs from; None if it is installed.

    `dirty` is whether a file of the package differs from the commit.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists() or not (root / "pyproject.toml").is_file():
        return None
    rooms = ("tempeval", "tasks", "model_wrappers", "leaderboard")
    try:
        commit, changed = (
            subprocess.run(  # noqa: S603
                ["git", "-C", str(root), *arguments],  # noqa: S607
                capture_output=True,
                text=True,
                check=True,
                timeout=_GIT_SECONDS,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", *rooms))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changed)}
