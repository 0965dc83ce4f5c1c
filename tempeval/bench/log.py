"""The measurements on disk: written after every round, so that nothing measured is lost."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, TempevalError

if TYPE_CHECKING:
    from tempeval.bench.options import Settings

SCHEMA = 2
#: Folders of this package whose code runs while it is timed.
TIMED = ("engine", "families", "methods", "video")


class BenchLog:
    """Rounds by cell, and the facts around them, in one JSON file.

    Args:
        path: the file; found again, it is continued.
        settings: of the benchmark.
        machine: facts of the machine; another machine does not continue a file. Other versions of
            `packages` do: every cell says with which ones it was measured, and mixes none.
        overwrite: start anew where settings or machine differ.

    Attributes:
        data: everything, as it is in the file.
        code: digest of the sources that are timed.
        packages: versions installed now.

    Raises:
        InvalidSetting: if the file holds measurements of other settings or another machine.
    """

    def __init__(
        self, path: Path, settings: Settings, machine: dict[str, Any], *, overwrite: bool = False
    ) -> None:
        self.path = path
        same = {key: value for key, value in machine.items() if key != "packages"}
        basis = {"schema": SCHEMA, "settings": settings.to_dict(), "machine": same}
        self.code = code_digest()
        self.packages: dict[str, str] = machine["packages"]
        self.data: dict[str, Any] = {**basis, "sessions": [], "cells": {}}
        found = _read(path)
        if found is None:
            return
        changed = _differences(found, basis)
        if not changed:
            self.data = found
        elif not overwrite:
            raise InvalidSetting(
                f"{path} holds another benchmark ({'; '.join(changed)}); choose another folder or "
                "pass --overwrite"
            )

    def rounds(self, cell: str) -> list[dict[str, Any]]:
        """Return the rounds of a cell, oldest first."""
        held: dict[str, Any] = self.data["cells"].get(cell, {})
        rounds: list[dict[str, Any]] = held.get("rounds", [])
        return rounds

    def cells(self, beginning: str) -> list[str]:
        """Return the names of the measured cells that begin so."""
        return [name for name in self.data["cells"] if name.startswith(beginning)]

    def facts(self, cell: str) -> dict[str, Any]:
        """Return the facts of a cell; empty before they are set."""
        held: dict[str, Any] = self.data["cells"].get(cell, {})
        facts: dict[str, Any] = held.get("facts", {})
        return facts

    def add_round(self, cell: str, facts: dict[str, Any], measured: dict[str, Any]) -> None:
        """Append one round of a cell and write the file."""
        new = {"code": self.code, "packages": self.packages, "rounds": []}
        held = self.data["cells"].setdefault(cell, new)
        held["facts"] = facts
        held["rounds"].append(measured)
        self.write()

    def drop_other_code(self, cell: str) -> int:
        """Drop the rounds of a cell if other code or packages were timed; return how many."""
        held: dict[str, Any] | None = self.data["cells"].get(cell)
        if held is None or (held["code"], held["packages"]) == (self.code, self.packages):
            return 0
        del self.data["cells"][cell]
        return len(held["rounds"])

    def codes(self) -> set[str]:
        """Return the digests of the code behind the cells."""
        return {held["code"] for held in self.data["cells"].values()}

    def versions(self) -> dict[str, list[str]]:
        """Return the cells by the versions of packages they were measured with."""
        found: dict[str, list[str]] = {}
        for name, held in self.data["cells"].items():
            text = ", ".join(f"{package} {number}" for package, number in held["packages"].items())
            found.setdefault(text, []).append(name)
        return found

    def write(self) -> None:
        """Write the file whole or not at all."""
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        with part.open("w", encoding="utf-8") as file:
            json.dump(self.data, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)


def code_digest() -> str:
    """Return the digest of the sources that are timed; rounds of two versions do not mix."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for folder in TIMED:
        for source in sorted((root / folder).glob("*.py")):
            digest.update(source.name.encode() + source.read_bytes())
    return f"sha256:{digest.hexdigest()[:16]}"


def _differences(found: dict[str, Any], basis: dict[str, Any]) -> list[str]:
    """Name every fact in which a file differs from what is measured now."""
    changed = []
    for key, now in basis.items():
        then = found.get(key)
        if not (isinstance(now, dict) and isinstance(then, dict)):
            if then != now:
                changed.append(f"{key}: {then!r} there, {now!r} here")
            continue
        changed += [
            f"{key} {name}: {then.get(name)!r} there, {now.get(name)!r} here"
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        ]
    return changed


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TempevalError(f"{path} cannot be read ({error}); remove it") from error
    if not isinstance(found, dict):
        raise TempevalError(f"{path} is not a JSON object; remove it")
    return found
