"""Digests of code: what changes an answer changes them, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from tempeval import source_digest
from tempeval.methods.base import Chain
from tempeval.methods.registry import parse_chain
from tempeval.source_digest import read_source, run_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tempeval.source_digest import _Source

QWEN = "tempeval.families.qwen_vl"
CODE = '''
"""Docstring."""
from typing import TYPE_CHECKING
import tempeval.engine.rows  # why

if TYPE_CHECKING:
    from tempeval.methods.pas import PAS

SIZES = {1, 2}

class Thing:
    """Docstring."""
    size: int = 3

    def grow(self, by=1.0):
        """Docstring."""
        return f"{self.size + by:>{8}} -> {by!r}" if by in {"a", "b"} else -0.0
'''


def changed(old: str, new: str) -> bool:
    assert old in CODE
    return read_source(CODE).digest != read_source(CODE.replace(old, new)).digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""Docstring."""', '"""Another one."""'),
        ('        """Docstring."""\n', ""),
        ("# why", "# because"),
        ("    size: int = 3", "\n\n    size:int=(3)"),
        ("methods.pas import PAS", "methods.vrope import VRoPE"),
        ('"a", "b"', "'a', 'b'"),
    ],
)
def test_what_no_answer_depends_on_changes_nothing(old: str, new: str) -> None:
    assert not changed(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("= 3", "= 4"),
        ("by=1.0", "by=1"),
        ("by=1.0", "*, by=1.0"),
        ("-0.0", "0.0"),
        (" + by", " - by"),
        ("{1, 2}", "[1, 2]"),
        ("!r", "!s"),
        ("size: int", "size: float"),
        ("engine.rows", "engine.tail"),
    ],
)
def test_what_an_answer_may_depend_on_changes_it(old: str, new: str) -> None:
    assert changed(old, new)


def test_text_that_is_no_python_counts_as_it_is() -> None:
    assert read_source("def f(:").digest != read_source("def f(: ").digest


@pytest.fixture
def edit(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """`edit(module, old, new)` changes what the digests see of a module of the package."""
    read = source_digest.source_of
    edited: dict[str, _Source] = {}

    def change(module: str, old: str, new: str) -> None:
        spec = source_digest._spec(module)
        assert spec
        text = spec.loader.get_source(module)  # type: ignore[union-attr]
        assert old in text
        edited[module] = read_source(text.replace(old, new), module.rpartition(".")[0])
        source_digest.modules_of.cache_clear()

    monkeypatch.setattr(source_digest, "source_of", lambda name: edited.get(name) or read(name))
    yield change
    source_digest.modules_of.cache_clear()


METHODS = ("baseline", "pas", "temporal_exit", "intp", "rope_scale", "vrope+temporal_exit")


def everywhere(part: str) -> dict[str, set[str]]:
    return {method: {part} for method in METHODS}


def all_codes() -> dict[str, dict[str, str]]:
    return {method: run_code(parse_chain(method), QWEN) for method in METHODS}


def differing(before: dict[str, dict[str, str]]) -> dict[str, set[str]]:
    now = all_codes()
    found = {
        method: {part for part in parts | now[method] if parts.get(part) != now[method].get(part)}
        for method, parts in before.items()
    }
    return {method: parts for method, parts in found.items() if parts}


def test_a_run_has_a_digest_of_each_part() -> None:
    assert set(run_code(Chain(), QWEN)) == {"engine", "family", "requests", "video"}
    assert set(run_code(parse_chain("pas"), QWEN)) == {*run_code(Chain(), QWEN), "methods"}


@pytest.mark.parametrize(
    ("module", "old", "new", "expected"),
    [
        ("methods.pas", "return ", "return not ", {"pas": {"methods"}}),
        (
            "methods.rope_scale",
            "return ",
            "return not ",
            {"intp": {"methods"}, "rope_scale": {"methods"}},
        ),
        (
            "methods.temporal_exit",
            "return ",
            "return not ",
            {"temporal_exit": {"methods"}, "vrope+temporal_exit": {"methods"}},
        ),
        ("methods.pas", "\n\nfrom __future__", "\n\n# said otherwise\nfrom __future__", {}),
        ("methods.registry", "return ", "return not ", {}),
        ("families.llava_onevision", "return ", "return not ", {}),
        ("tasks.mini", "return ", "return not ", {}),
        ("engine.session", "return ", "return not ", everywhere("engine")),
        ("stages", "return ", "return not ", everywhere("engine")),
        ("methods.base", "return ", "return not ", everywhere("engine")),
        ("families.mrope", "return ", "return not ", everywhere("family")),
        ("video.pyav_reader", "return ", "return not ", everywhere("video")),
        ("model_wrappers.requests", "return ", "return not ", everywhere("requests")),
    ],
)
def test_a_change_of_one_part_is_of_that_part_alone(
    edit: Callable[[str, str, str], None],
    module: str,
    old: str,
    new: str,
    expected: dict[str, set[str]],
) -> None:
    before = all_codes()
    edit(f"tempeval.{module}", old, new)
    assert differing(before) == expected


def test_a_method_brings_the_code_of_its_side_channel(
    edit: Callable[[str, str, str], None],
) -> None:
    chain = parse_chain("pave[adapter=mini:audio]")
    before = run_code(chain, QWEN)
    edit("tempeval.side_channels.audio", "return ", "return not ")
    after = run_code(chain, QWEN)
    assert {part for part in after if after[part] != before[part]} == {"methods"}


FOREIGN = {
    "__init__.py": "",
    "methods/__init__.py": "",
    "methods/mine.py": "from ..helpers import SHARE\nfrom . import other\n",
    "methods/other.py": "import foreign.deep\n",
    "helpers.py": "SHARE = 0.5\n",
    "deep.py": "X = 1\n",
    "unused.py": "X = 1\n",
}
SCRIPT = (
    "from tempeval.source_digest import *\nprint(digest_of(modules_of(('foreign.methods.mine',))))"
)


@pytest.mark.parametrize("zipped", [False, True])
def test_methods_of_other_packages_count_with_what_they_import(
    tmp_path: Path, zipped: bool
) -> None:
    def digest(**changes: str) -> str:
        place = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        files = {**FOREIGN, **{f"{k.replace('__', '/')}.py": v for k, v in changes.items()}}
        if zipped:
            with zipfile.ZipFile(place / "foreign.zip", "w") as archive:
                for name, text in files.items():
                    archive.writestr(f"foreign/{name}", text)
        else:
            for name, text in files.items():
                path = place / "foreign" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
        where = str(place / "foreign.zip" if zipped else place)
        found = f"import sys; sys.path.insert(0, {where!r})"
        done = subprocess.run(
            [sys.executable, "-c", f"{found}\n{SCRIPT}"], capture_output=True, text=True, check=True
        )
        return done.stdout

    first = digest()
    assert first.startswith("sha256:")
    assert digest(unused="X = 2\n", helpers="SHARE = 0.5  # half\n") == first
    assert digest(helpers="SHARE = 0.6\n") != first
    assert digest(deep="X = 2\n") != first


def test_the_state_of_a_checkout_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of a repository in which the package happens to be installed."""
    package = tmp_path / "tempeval"
    package.mkdir()
    (package / "source_digest.py").write_text("")

    def git(*arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    monkeypatch.setattr(source_digest, "__file__", str(package / "source_digest.py"))
    state = source_digest.git_state.__wrapped__
    git("init", "-q")
    assert state() is None, "no checkout of the package"
    (tmp_path / "pyproject.toml").write_text("")
    assert state() is None, "no commit"
    git("add", ".")
    git("commit", "-qm", "one")
    clean = state()
    assert clean
    assert (len(clean["commit"]), clean["dirty"]) == (40, False)
    (tmp_path / "notes.txt").write_text("mine")
    assert state() == clean
    (package / "new.py").write_text("")
    assert state() == clean | {"dirty": True}
