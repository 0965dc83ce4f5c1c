"""What other packages and files add: found by entry point, path or module, and loaded or refused.

Nothing is imported before it is asked for. What cannot be used is a `BrokenPlugin` that says why;
it costs nothing but itself.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.metadata
import importlib.util
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from tempeval.errors import BrokenPlugin, UnknownName
from tempeval.source_digest import FILE_MODULE, read_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import CodeType, ModuleType

#: What the package itself is called where it is said where a name comes from.
OWN = "tempeval"


class _Entry(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str: ...


Entry = TypeVar("Entry", bound=_Entry)


@dataclass(frozen=True)
class Extension:
    """A name that an installed package adds by an entry point.

    Attributes:
        name: what the user writes.
        path: `package.module:attribute`.
        package: the distribution with its version, such as `fade 1.2`.
    """

    name: str
    path: str
    package: str


class Registry(Mapping[str, Entry], Generic[Entry]):
    """Names of one kind: those of this package, then those that installed packages add.

    As a mapping it has every entry that works; entries of other packages are imported for it. One
    that does not work raises its `BrokenPlugin` when it is asked for, and is in `broken`.

    Args:
        kind: what one is called in messages, such as `method`.
        group: entry-point group of other packages' names.
        own: the entries of this package.
        read: makes an entry of an extension and the object that it loads, or raises `BrokenPlugin`.
        hint: how to list the names, for messages.

    Attributes:
        own: the entries of this package by name.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        own: Iterable[Entry],
        read: Callable[[Extension, object], Entry],
        hint: str = "",
    ) -> None:
        self.kind, self.group, self.hint = kind, group, hint
        self.own = {entry.name: entry for entry in own}
        self._read = read
        self._found: dict[Extension, Entry | BrokenPlugin] = {}

    def names(self) -> list[str]:
        """Return every name that can be asked for, without importing anything."""
        return [*self.own, *(name for name in self._extensions() if name not in self.own)]

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self._extensions()

    def __getitem__(self, name: str) -> Entry:
        """Return an entry.

        Raises:
            UnknownName: if there is none of that name.
            BrokenPlugin: if another package's cannot be used.
        """
        if name in self.own:
            return self.own[name]
        named = self._extensions().get(name)
        if named is None:
            raise UnknownName(self.kind, name, self.names(), self.hint)
        found = self._looked_up(named)
        if isinstance(found, BrokenPlugin):
            raise found
        return found

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from self.installed()

    def __len__(self) -> int:
        return len(self.own) + len(self.installed())

    def installed(self) -> dict[str, Entry]:
        """Return the working entries of other packages by name; imports them."""
        every = {name: self._looked_up(named) for name, named in self._extensions().items()}
        return {
            name: found
            for name, found in every.items()
            if name not in self.own and not isinstance(found, BrokenPlugin)
        }

    def broken(self) -> list[BrokenPlugin]:
        """Return why each of other packages' entries that does not work cannot be used."""
        every = [self._looked_up(named) for named in self._all()]
        return [found for found in every if isinstance(found, BrokenPlugin)]

    def package_of(self, name: str) -> str:
        """Return the distribution that a name comes from, with its version."""
        named = None if name in self.own else self._extensions().get(name)
        return OWN if named is None else named.package

    def _all(self) -> tuple[Extension, ...]:
        return extensions(self.group)

    def _extensions(self) -> dict[str, Extension]:
        return {named.name: named for named in reversed(self._all())}

    def _looked_up(self, named: Extension) -> Entry | BrokenPlugin:
        if named not in self._found:
            try:
                self._found[named] = self._checked(named)
            except BrokenPlugin as error:
                self._found[named] = error
        return self._found[named]

    def _checked(self, named: Extension) -> Entry:
        where = f"{self.kind} {named.name!r} of {named.package}"
        others = [other for other in self._all() if other.name == named.name and other != named]
        if named.name in self.own:
            raise BrokenPlugin(where, f"the name is that of tempeval's own {self.kind}")
        if others:
            packages = ", ".join(sorted({other.package for other in others}))
            raise BrokenPlugin(where, f"{packages} has the same name; uninstall one of them")
        try:
            return self._read(named, load_object(named.path))
        except BrokenPlugin as error:
            raise BrokenPlugin(where, error.reason) from error


def extensions(group: str) -> tuple[Extension, ...]:
    """Return what installed packages add to a group, sorted by name; imports nothing."""
    return _extensions(group, tuple(sys.path))


@cache
def _extensions(group: str, _searched: tuple[str, ...]) -> tuple[Extension, ...]:
    found = set()
    for point in importlib.metadata.entry_points(group=group):
        dist = point.dist
        package = "an unknown package" if dist is None else f"{dist.name} {dist.version}"
        found.add(Extension(point.name, point.value, package))
    return tuple(sorted(found, key=lambda named: (named.name, named.package, named.path)))


def is_reference(text: str) -> bool:
    """Return True if a text is of the form `path/file.py:Class` or `package.module:Class`."""
    place, colon, name = text.rpartition(":")
    return bool(place and colon and name.isidentifier())


def is_file_reference(text: str) -> bool:
    """Return True if a reference names a file rather than a module."""
    place = text.rpartition(":")[0]
    return place.endswith(".py") or "/" in place or place.startswith(("~", "."))


def load_object(reference: str) -> object:
    """Import what a reference names.

    Args:
        reference: `path/file.py:Name` (absolute, relative to the working folder, or from `~`), or
            `package.module:Name`.

    Raises:
        BrokenPlugin: if there is no such file, module or name, or importing it fails.
    """
    place, _, name = reference.rpartition(":")
    named = f"{reference!r}"
    if is_file_reference(reference):
        module = _load_file(place, named)
    else:
        module = _import_module(place, named)
    if not hasattr(module, name):
        known = [key for key in vars(module) if not key.startswith("_") and key[0].isupper()]
        raise BrokenPlugin(named, str(UnknownName(f"name in {place}", name, known)))
    return getattr(module, name)


def _import_module(name: str, named: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        hint = ""
        if isinstance(error, ModuleNotFoundError) and error.name in (name, name.partition(".")[0]):
            hint = (
                "; install the package, put its folder on PYTHONPATH, or name a file: "
                "path/file.py:Class"
            )
        raise BrokenPlugin(named, f"it cannot be imported: {_said(error)}{hint}") from error


def _load_file(place: str, named: str) -> ModuleType:
    """Import a file by its content: a copy elsewhere is the same module, a changed one another."""
    path = Path(place).expanduser().absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BrokenPlugin(named, f"cannot read {path}: {reason}") from error
    name = f"{FILE_MODULE}{read_source(text).digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_loader(name, _TextLoader(text, path), origin=str(path))
    if spec is None or spec.loader is None:
        raise BrokenPlugin(named, f"{path} cannot be imported")
    spec.has_location = True
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        hint = ""
        if isinstance(error, ModuleNotFoundError):
            hint = (
                "; a file stands alone: make a package of several, and name it package.module:Class"
            )
        raise BrokenPlugin(
            named, f"it cannot be imported: {_said(error, str(path))}{hint}"
        ) from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _TextLoader(importlib.abc.InspectLoader):
    """Loads a module from the very text that its name is the digest of."""

    def __init__(self, text: str, path: Path) -> None:
        self._text, self._path = text, path

    def get_source(self, fullname: str) -> str:
        return self._text

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._text, str(self._path))

    def get_data(self, path: str) -> bytes:
        """Return the content of a file beside the module."""
        return Path(path).read_bytes()


def _said(error: BaseException, path: str | None = None) -> str:
    """Name an exception with the line that it came from."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if path is not None and frame.filename == path
    ]
    return f"{text} (line {lines[-1]})" if lines else text
