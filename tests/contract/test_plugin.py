"""The plugin as lmms-eval meets it. Imports of the host run in subprocesses: they are global."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from tempeval import plugin
from tempeval.plugin import MODELS

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = ("torch", "transformers", "numpy", "yaml", "datasets", "lmms_eval.tasks")

#: A TaskManager whose index holds only what the wrapper adds and what the caller includes.
INDEX_ONLY = """
import json, sys
def index(module, **kwargs):
    manager = object.__new__(module.TaskManager)
    seen = []
    manager._get_task_and_group = lambda folder: seen.append(str(folder)) or {}
    manager.initialize_tasks(**kwargs)
    return seen
"""


def python(code: str, cwd: Path | None = None, **environment: str) -> Any:
    """Run `code` in a fresh interpreter; return the JSON it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_importing_the_plugin_loads_nothing_heavy() -> None:
    loaded = python(
        "import sys, json, tempeval, tempeval.plugin;"
        f"print(json.dumps([m for m in {HEAVY} + ('lmms_eval',) if m in sys.modules]))"
    )
    assert loaded == []


def test_calling_the_entry_point_loads_nothing_heavy_and_is_quick() -> None:
    seconds, loaded = python(
        f"""
import sys, time, json
import lmms_eval.models.registry_v2  # calls the entry point once, as part of the host's import
names = [n for n in sys.modules if n.split(".")[0] == "tempeval"]
for name in names:
    del sys.modules[name]
start = time.perf_counter()
from tempeval.plugin import manifests
manifests()
seconds = time.perf_counter() - start
print(json.dumps([seconds, [m for m in {HEAVY} if m in sys.modules]]))
"""
    )
    assert loaded == []
    assert seconds < 0.05


def test_every_id_reaches_the_host_with_both_class_paths() -> None:
    found = python(
        """
import json
from lmms_eval.models import MODEL_REGISTRY_V2 as registry
names = [n for n in registry.list_canonical_model_ids() if n.startswith("tempeval")]
print(json.dumps({n: [registry.resolve(n).class_path,
                      registry.resolve(n, force_simple=True).class_path] for n in names}))
"""
    )
    assert found == {name: [path, f"{path}Simple"] for name, path in MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_classes_exist_and_say_which_path_they_serve(name: str) -> None:
    module, attribute = MODELS[name].rsplit(".", 1)
    loaded = importlib.import_module(module)
    assert getattr(loaded, attribute).is_simple is False
    assert getattr(loaded, f"{attribute}Simple").is_simple is True


def test_no_id_of_the_host_is_replaced() -> None:
    ids = python(
        """
import json
from lmms_eval.models import _build_builtin_manifests
print(json.dumps([n for m in _build_builtin_manifests() for n in (m.model_id, *m.aliases)]))
"""
    )
    host = {name for name in ids if name not in MODELS}
    assert len(host) > 50
    assert not host & set(MODELS)
    assert all(name.startswith("tempeval") for name in MODELS)


def test_lmms_eval_models_lists_ours() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lmms_eval", "models"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    rows = dict(line.split(None, 1) for line in done.stdout.splitlines() if "tempeval" in line)
    assert {name: kind.strip() for name, kind in rows.items()} == dict.fromkeys(
        MODELS, "chat+simple"
    )


@pytest.mark.parametrize("order", ["models, tasks", "tasks, models"])
def test_tasks_are_found_in_both_import_orders(order: str, tmp_path: Path) -> None:
    first, second = (f"import lmms_eval.{name}" for name in order.split(", "))
    ours, again, own, found, left = python(
        f"""{INDEX_ONLY}
{first}
{second}
import lmms_eval.tasks as tasks
from tempeval.plugin import _TasksFinder, manifests
from tempeval.tasklist import tasks_path
once = tasks.TaskManager.initialize_tasks
manifests()
left = sum(isinstance(finder, _TasksFinder) for finder in sys.meta_path)
own = index(tasks, include_path="/somewhere", include_defaults=False)
print(json.dumps([
    str(tasks_path()),
    once is tasks.TaskManager.initialize_tasks,
    own,
    [index(tasks, include_path=p) for p in (None, "/somewhere", str(tasks_path()))],
    left,
]))
""",
        cwd=tmp_path,
    )
    default, included, explicit = (folders[1:] for folders in found)
    assert again, "a second call must not wrap again"
    assert left == 0, "the finder removes itself"
    assert default == [ours]
    assert included == ["/somewhere", ours]
    assert explicit == [ours], "ours is searched once when the user names it too"
    assert own == ["/somewhere"]


def test_the_host_indexes_every_task_of_ours_from_our_folder(tmp_path: Path) -> None:
    """A task named like one of the host's own would be ignored without a word."""
    wrong, tasks = python(
        """
import json, lmms_eval.models
from lmms_eval.tasks import TaskManager
from tempeval.tasklist import task_entries
index = TaskManager("WARNING").task_index
wrong = [n for n, e in task_entries().items()
         if n not in index or index[n]["yaml_path"] != str(e.path)]
print(json.dumps([wrong, len(index)]))
""",
        cwd=tmp_path,
    )
    assert wrong == []
    assert tasks > 500, "the host's own tasks are still there"


def test_opt_out() -> None:
    folders = python(
        f"""{INDEX_ONLY}
import lmms_eval.models, lmms_eval.tasks
print(json.dumps(index(lmms_eval.tasks)))
""",
        TEMPEVAL_NO_AUTOTASKS="1",
    )
    assert len(folders) == 1


class Manager:
    """A host whose method takes something else."""

    def initialize_tasks(self, folders: list[str]) -> list[str]:
        return folders


@pytest.mark.parametrize("manager", [None, types.SimpleNamespace(), Manager])
def test_a_changed_host_gives_a_warning_that_helps(manager: Any) -> None:
    module = types.ModuleType(plugin.HOST_TASKS)
    if manager is not None:
        module.TaskManager = manager  # type: ignore[attr-defined]
    with pytest.warns(RuntimeWarning, match=r'--include_path "\$\(tempeval tasks-path\)"'):
        plugin._extend(module)
