"""Methods of others, by file, module or entry point; what is broken is named with its reason."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tempeval import listing
from tempeval.errors import BrokenPlugin, InvalidSetting, TempevalError, UnknownName
from tempeval.methods import registry
from tempeval.methods.registry import (
    chain_names,
    load_method,
    method_class,
    parse_chain,
    spelling,
    split_chains,
)
from tempeval.run.matrix import plan_matrix
from tempeval.run.spec import RunSpec

HEAD = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar, Literal
from tempeval.methods.base import Method
"""
STAGE = "def {name}(self, tokens):\n        return tokens"


def first_stage() -> str:
    """A stage of two arguments, whatever it is called."""
    from tempeval.methods.base import STAGES

    return STAGES[1]


def method_text(name: str = "Fade", settings: str = "", more: str = "", head: str = HEAD) -> str:
    stage = f"    def {first_stage()}(self, tokens):\n        return tokens\n"
    lines = textwrap.indent(textwrap.dedent(settings), "    ")
    top = f'{head}\n@dataclass(frozen=True)\nclass {name}(Method):\n    """Fade frames out."""\n'
    return f"{top}{lines}\n{stage}{more}"


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr(registry, "_REFERRED", {})


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


SETTINGS = """strength: float = 0.5
layers: tuple[int, ...] = (1, 2)
kind: Literal['a', 'b'] = 'a'
note: str | None = None"""


@pytest.fixture
def fade(tmp_path):
    return write(tmp_path / "one" / "methods.py", method_text(settings=SETTINGS))


def test_a_file_in_a_chain_has_a_short_name_and_its_settings(fade):
    chain = parse_chain(f"pas+{fade}:Fade[strength=2;layers=3/4]")
    assert chain.spec == "pas+fade[strength=2.0;layers=3/4]"
    assert chain_names(f"{fade}:Fade+pas") == ["fade", "pas"]
    assert parse_chain(chain.spec) == chain, "the short name is known from then on"
    assert parse_chain(spelling(chain)) == chain
    assert str(fade) in spelling(chain)
    assert parse_chain(f"{fade}:Fade", {"fade": {"strength": "3"}}).methods[0].settings() == {
        "strength": 3.0,
        "layers": [1, 2],
        "kind": "a",
        "note": None,
    }


def test_a_path_may_be_relative_from_home_or_have_a_plus(fade, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    cls = method_class(f"{fade}:Fade")
    for place in ("one/methods.py", "./one/methods.py", "~/one/methods.py"):
        assert method_class(f"{place}:Fade") is cls
    shutil.copytree(tmp_path / "one", tmp_path / "a+b")
    chain = parse_chain("temporal_exit+./a+b/methods.py:Fade[strength=1]+pas")
    assert chain.name == "temporal_exit+fade+pas"
    assert split_chains("pas, a.py:B[note=x,y],c:D") == ["pas", "a.py:B[note=x,y]", "c:D"]


def test_a_moved_file_is_the_same_method_and_a_changed_one_is_not(fade, tmp_path):
    was = parse_chain(f"{fade}:Fade").fingerprint
    moved = write(tmp_path / "two" / "other.py", fade.read_text() + "\n# a comment\n")
    assert parse_chain(f"{moved}:Fade").fingerprint == was
    changed = fade.read_text().replace("return tokens", "return tokens  if True else None")
    assert parse_chain(f"{write(fade, changed)}:Fade").fingerprint != was


def test_two_files_of_one_stem_and_several_classes_in_one_file(tmp_path):
    first = write(tmp_path / "a" / "m.py", method_text() + method_text("SlowFade2D", head=""))
    second = write(tmp_path / "b" / "m.py", method_text("Blur"))
    chain = parse_chain(f"{first}:Fade+{second}:Blur+{first}:SlowFade2D")
    assert chain.name == "fade+blur+slow_fade2_d"


def test_the_data_and_the_modules_beside_a_file_count(tmp_path, monkeypatch):
    text = method_text(head=HEAD + "import doors_helper\nNAME = 'table.json'\n")
    file = write(tmp_path / "m.py", text)
    helper = write(tmp_path / "doors_helper.py", "X = 1\n")
    table = write(tmp_path / "table.json", "1")
    code = "from tempeval.methods.registry import parse_chain as p"
    run = f"{code}; print(p('{file}:Fade').fingerprint)"

    def fingerprint() -> str:
        env = {**os.environ, "PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", run], env=env, check=True, capture_output=True, text=True
        ).stdout

    found = [fingerprint(), fingerprint()]
    assert found[0] == found[1], "every process names it the same"
    helper.write_text("X = 2\n")
    found.append(fingerprint())
    table.write_text("2")
    found.append(fingerprint())
    assert len(set(found)) == 3


NAMED = "name: ClassVar[str] = {!r}"
BROKEN = {
    "import error": ("import no_such_module_here\n", "No module named 'no_such_module_here'.*line"),
    "syntax error": ("def (:\n", "SyntaxError"),
    "raises": ("raise RuntimeError('not today')\n", "RuntimeError: not today.*line 1"),
    "exits": ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
    "not a method": ("class Fade:\n    pass\n", "class Fade is not a method"),
    "not a class": ("Fade = 3\n", "int is not a method"),
    "no such name": (method_text("Fader"), "did you mean 'Fader'"),
    "taken": (method_text(settings=NAMED.format("pas")), "'pas', as a method of tempeval"),
    "baseline": (method_text(settings=NAMED.format("baseline")), "not 'baseline'"),
    "odd name": (method_text(settings=NAMED.format("a b")), "small letters"),
    "no decorator": (
        method_text(settings="x: int = 1").replace("@dataclass(frozen=True)\n", ""),
        "dataclass",
    ),
    "not frozen": (method_text().replace("(frozen=True)", ""), "TypeError.*frozen"),
    "setting type": (method_text(settings="x: dict = None"), "Fade.x is of type"),
    "unknown type": (method_text(settings="x: Missing = 1"), "'Missing' is not defined"),
    "wrong signature": (method_text().replace("(self, tokens)", "(self)"), "its .* takes"),
    "no stage": (
        HEAD + "class Fade(Method):\n    def encoode(self): ...\n",
        "changes nothing.*encoode",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_with_its_reason_and_costs_nothing_else(name, tmp_path):
    text, reason = BROKEN[name]
    file = write(tmp_path / "m.py", text)
    modules = set(sys.modules)
    with pytest.raises(BrokenPlugin, match=f"(?s){file}.*{reason}"):
        parse_chain(f"pas+{file}:Fade")
    assert parse_chain("pas").spec == "pas"
    if "error" in name or name in ("raises", "exits", "not frozen"):
        assert not {m for m in set(sys.modules) - modules if m.startswith("tempeval_file")}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("nowhere/m.py:Fade", BrokenPlugin, "cannot read .*nowhere/m.py: No such file"),
        ("no_such_package.m:Fade", BrokenPlugin, "PYTHONPATH"),
        ("tempeval.errors:TempevalError", BrokenPlugin, "not a method"),
        ("some/m.py", InvalidSetting, "write some/m.py:Class"),
        ("pa", UnknownName, "did you mean 'pas'"),
    ],
)
def test_what_is_not_there_is_said(text, error, words):
    with pytest.raises(error, match=words):
        parse_chain(text)


def test_the_package_s_own_class_may_be_named_in_full():
    assert parse_chain("tempeval.methods.pas:PAS[unit=position]") == parse_chain(
        "pas[unit=position]"
    )


def test_load_method(fade):
    assert (
        load_method(f"{fade}:Fade[strength=1]", layers=(5,)).spec() == "fade[strength=1.0;layers=5]"
    )
    for text in ("baseline", "pas+vrope", f"{fade}:Fade[strength=1]"):
        with pytest.raises(InvalidSetting):
            load_method(text, **({"strength": 2} if "Fade" in text else {}))


def test_a_plan_of_a_matrix_keeps_no_path_and_a_changed_file_is_new_code(fade, tmp_path):
    def plan(*methods, **settings):
        return plan_matrix(
            RunSpec(out=tmp_path / "out", methods=methods, tasks=["tempeval_mini"], **settings)
        )

    (run,) = plan(f"{fade}:Fade", settings={"fade": {"strength": "2"}})
    assert run.folder.name == "fade-strength-2.0" or "fade" in run.folder.name
    assert str(tmp_path) not in str(run.request)
    assert run.request["method"] == "fade[strength=2.0]"
    (same,) = plan(f"{fade}:Fade")
    write(fade, fade.read_text().replace("return tokens", "return tokens  if True else None"))
    (changed,) = plan(f"{fade}:Fade")
    assert changed.folder == same.folder
    assert {k for k in same.code if same.code[k] != changed.code[k]} == {"methods"}
    other = write(tmp_path / "other.py", method_text(settings="speed: int = 1"))
    with pytest.raises(BrokenPlugin, match="two methods of one command"):
        plan(f"{fade}:Fade", f"{other}:Fade")
    with pytest.raises(UnknownName, match="did you mean 'fade'"):
        plan(f"{fade}:Fade", settings={"fadee": {"strength": "2"}})


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Make a distribution with entry points, as pip leaves it; nothing is installed."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(str(site))

    def install(name: str, module: str | None, group: str = "tempeval.methods", **points: str):
        if module is not None:
            write(site / f"{name}.py", module)
        info = site / f"{name}-1.0.dist-info"
        write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{key} = {value}\n" for key, value in points.items())
        write(info / "entry_points.txt", f"[{group}]\n{lines}")
        from tempeval.extensions import _extensions

        _extensions.cache_clear()

    yield install
    from tempeval.extensions import _extensions

    _extensions.cache_clear()
    for name in [m for m in sys.modules if m.startswith("doors_")]:
        del sys.modules[name]


def test_entry_points_are_listed_with_where_they_come_from(installed):
    installed("doors_good", method_text(), fade="doors_good:Fade")
    installed("doors_gone", None, gone="doors_gone:Gone")
    installed("doors_rude", method_text("PAS"), pas="doors_rude:PAS")
    installed("doors_other", method_text("Blur"), blurred="doors_other:Blur")
    installed("doors_twice", method_text("Twice"), twice="doors_twice:Twice")
    installed("doors_again", method_text("Twice"), twice="doors_again:Twice")
    assert parse_chain("fade+pas").spec == "fade+pas"
    assert method_class("pas").__module__ == "tempeval.methods.pas"
    lines = listing.list_methods()
    (line,) = [line for line in lines if line.startswith("fade ")]
    assert "Fade frames out (from doors_good 1.0)" in line
    said = "\n".join(line for line in lines if line.startswith("cannot use"))
    for words in (
        "'gone' of doors_gone 1.0: it cannot be imported.*install",
        "'pas' of doors_rude 1.0: the name is that of tempeval's own method",
        "'blurred' of doors_other 1.0: the entry point is called 'blurred' and the method 'blur'",
        "'twice' of doors_twice 1.0: doors_again 1.0 has the same name",
    ):
        assert registry.re.search(words, said), words
    for name in ("gone", "blurred", "twice"):
        with pytest.raises(BrokenPlugin):
            parse_chain(name)
    with pytest.raises(BrokenPlugin, match=r"as a method of doors_good 1\.0 is"):
        parse_chain(f"{_copy_of_fade()}:Fade")


def _copy_of_fade() -> Path:
    place = Path(sys.modules["doors_good"].__file__ or "").parent / "copied" / "m.py"
    return write(place, method_text(settings="x: int = 2"))


def test_families_benchmarks_and_side_channels_have_doors_too(installed):
    from tempeval.benchmarks.registry import BENCHMARKS, benchmark
    from tempeval.families.registry import FAMILIES, family_class, family_of
    from tempeval.side_channels.registry import SIDE_CHANNELS
    from tempeval.tasklist import task_entries

    installed(
        "doors_family",
        "from tempeval.families.qwen_vl import QwenVL\nclass Mine(QwenVL):\n    '''My own.'''\n"
        "    name = 'mine'\n    model_types = ('my_type',)\n",
        "tempeval.families",
        mine="doors_family:Mine",
    )
    installed("doors_half", "class Half: pass\n", "tempeval.families", half="doors_half:Half")
    folder = Path(sys.path[0])
    assert family_class("mine").model_types == ("my_type",)
    lines = [line.split() for line in listing.list_families()]
    assert ["mine", "my_type", "My", "own", "(from", "doors_family", "1.0)"] in lines
    write(folder / "model" / "config.json", '{"model_type": "my_type"}')
    assert family_of(str(folder / "model")) == "mine"
    assert FAMILIES.package_of("mine") == "doors_family 1.0"
    assert any("'half' of doors_half 1.0" in line for line in listing.list_families())
    write(folder / "yaml" / "my_task.yaml", "task: my_task\nmetadata: {summary: mine}\n")
    installed(
        "doors_bench",
        "from pathlib import Path\nfrom tempeval.benchmarks.base import Benchmark\n"
        "BENCH = Benchmark('my_bench', 'My bench', 'CC', 'ask', 'tree', {}, lambda r, s: [],\n"
        "    lambda r, s: [], tasks=('my_task',), task_folder=Path(__file__).parent / 'yaml')\n",
        "tempeval.benchmarks",
        my_bench="doors_bench:BENCH",
    )
    assert benchmark("my_bench").title == "My bench"
    assert task_entries()["my_task"].summary == "mine"
    assert any("(from doors_bench 1.0)" in line for line in listing.list_benchmarks())
    write(folder / "yaml" / "taken.yaml", "task: tempeval_mini\n")
    from tempeval.tasklist import entries_in

    entries_in.cache_clear()
    BENCHMARKS._found.clear()
    assert "has the name of tempeval's own task" in str(BENCHMARKS.broken()[0])
    assert "my_task" not in task_entries()
    assert SIDE_CHANNELS.group == "tempeval.side_channels"
    entries_in.cache_clear()


def test_model_arguments_reach_a_method_in_a_file(fade):
    from lmms_eval.utils import simple_parse_args_string

    from tempeval.model_wrappers.arguments import chain_with_settings

    text = f"pretrained=mini,method=pas+{fade}:Fade[strength=2;layers=3/4],kind=b,fade.note=x=y"
    given = simple_parse_args_string(text)
    del given["pretrained"]
    chain = chain_with_settings(given.pop("method"), given, ["pretrained"])
    assert chain.spec == "pas+fade[strength=2.0;layers=3/4;kind=b;note=x=y]"
    with pytest.raises(TempevalError):
        chain_with_settings(f"{fade}:Nothing", {}, [])
