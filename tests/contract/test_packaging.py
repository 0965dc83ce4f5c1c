"""What ships: the wheel works outside the checkout, and the lists in the files are complete."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tempeval.cli_quickstart import PARTS
from tempeval.families.registry import FAMILIES, family_class
from tempeval.methods.registry import METHODS, method_class, parse_chain
from tempeval.tasklist import task_entries

ROOT = Path(__file__).resolve().parents[2]
MAPPED = ("tempeval", "tasks", "model_wrappers", "leaderboard")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def shipped_modules() -> set[str]:
    """Dotted names of all modules in the four folders, as they are imported."""
    names = set()
    for folder in MAPPED:
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            parts = parts if folder == "tempeval" else ("tempeval", *parts)
            names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return names


def test_every_folder_with_code_is_a_listed_package() -> None:
    block = re.search(r"^packages = \[(.*?)\]", PYPROJECT, re.DOTALL | re.MULTILINE)
    assert block
    listed = re.findall(r'"([^"]+)"', block[1])
    modules = shipped_modules()
    packages = {name for name in modules if any(m.startswith(f"{name}.") for m in modules)}
    folders = {name.rpartition(".")[0] for name in modules if "." in name}
    assert set(listed) == packages | folders
    assert listed == sorted(listed)


def test_every_registry_path_imports() -> None:
    for name, method in METHODS.items():
        assert method_class(name).name == name
        assert method.name == name
    for name, family in FAMILIES.items():
        assert family_class(name).name == name
        assert family_class(name).model_types == family.model_types


def test_every_module_imports() -> None:
    entry_points = ("tempeval.__main__",)
    for name in sorted(shipped_modules().difference(entry_points)):
        importlib.import_module(name)


def test_members_of_groups_exist() -> None:
    for entry in task_entries().values():
        assert set(entry.members) <= set(task_entries())


def test_the_generated_tables_and_pages_are_up_to_date() -> None:
    pages = ("benchmark", "leaderboard", "options", "record")
    for script in ("readme.py", *(f"{name}_docs.py" for name in pages)):
        subprocess.run([sys.executable, ROOT / ".ci" / script, "--check"], check=True)


def test_the_quickstart_tables_of_the_readme_are_its_tables() -> None:
    """Each part of the quickstart has one, with all its methods at one number of visual tokens."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = []
    for name in ("quickstart-table", "budget-tables", "side-channel-tables"):
        block = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
        assert block
        for table in re.findall(r"(?:^\|.*\n)+", block[1], re.MULTILINE):
            rows = [line.strip("|").split("|") for line in table.splitlines()]
            header, rule, *body = ([cell.strip() for cell in row] for row in rows)
            assert header[0] == "method"
            assert set("".join(rule)) <= set(":-")
            assert all(len(row) == len(header) for row in body)
            tokens = header.index("tokens")
            assert len({row[tokens] for row in body}) == 1, "the budgets are matched"
            found.append({row[0].split(" (")[0].replace("\\", "") for row in body})
    asked = [{parse_chain(method).spec for method in part.methods} for part in PARTS]
    assert sorted(map(sorted, found)) == sorted(map(sorted, asked))


def test_every_command_of_the_makefile_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)", text, re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z-]+)", text))
    assert named
    assert named <= targets


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy of what git would ship, so that no `build/` is left or used."""
    source = tmp_path_factory.mktemp("source")
    for name in (*MAPPED, "pyproject.toml", "README.md", "LICENSE"):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source],
        check=True,
        capture_output=True,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for module in shipped_modules():
        path = module.replace(".", "/")
        assert {f"{path}.py", f"{path}/__init__.py"} & names, module
    assert "tempeval/py.typed" in names
    tasks = ROOT / "tasks"
    data = {p.relative_to(tasks).as_posix() for p in tasks.rglob("*") if p.is_file()}
    data = {name for name in data if "__pycache__" not in name}
    assert {f"tempeval/tasks/{name}" for name in data} <= names
    checkpoints = ROOT / "tempeval" / "mini" / "checkpoints"
    files = {p.relative_to(ROOT).as_posix() for p in checkpoints.rglob("*") if p.is_file()}
    assert files, "the package ships a checkpoint"
    assert files <= names
    assert not any("__pycache__" in name for name in names)
    assert not any(name.split("/")[0] in MAPPED[1:] for name in names), "no top-level `tasks`"


def python(installed: Path, cwd: Path, *arguments: str) -> str:
    """Run the unpacked wheel, ahead of the editable install, away from the checkout."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_works_outside_the_checkout(installed: Path, tmp_path: Path) -> None:
    where = python(installed, tmp_path, "-c", "import tempeval; print(tempeval.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    folder = python(installed, tmp_path, "-m", "tempeval", "tasks-path").strip()
    assert Path(folder).is_relative_to(installed)
    tasks = python(installed, tmp_path, "-m", "tempeval", "list", "tasks").split()
    assert set(task_entries()) <= set(tasks)
    checkpoint = python(installed, tmp_path, "-m", "tempeval", "mini", "path").strip()
    assert Path(checkpoint).is_relative_to(installed)
    assert (Path(checkpoint) / "config.json").is_file()
    assert python(installed, tmp_path, "-m", "tempeval", "list", "methods")


def test_the_wheel_declares_the_plugin(installed: Path) -> None:
    (entries,) = installed.glob("tempeval-*.dist-info/entry_points.txt")
    text = entries.read_text()
    assert "[lmms_eval.models]\ntempeval = tempeval.plugin:manifests" in text
    assert "tempeval = tempeval.cli:main" in text
    (licence,) = installed.glob("tempeval-*.dist-info/licenses/LICENSE")
    assert "MIT" in licence.read_text()
