"""What lmms-eval loads: our model ids (strings only), and the hook that shows it our tasks.

The host calls `manifests` while it imports `lmms_eval.models`. An exception here would lose every
model of the package with nothing but a warning, and an import of torch would slow down commands
that need none, so nothing heavy is imported. `lmms_eval.tasks` is heavy: if it is not imported
yet, a finder waits for that import and extends `TaskManager` right after it.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import warnings
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

    from lmms_eval.models.registry_v2 import ModelManifest

HOST_TASKS = "lmms_eval.tasks"
OPT_OUT = "TEMPEVAL_NO_AUTOTASKS"

_WRAPPERS = "tempeval.model_wrappers"
#: Model id to its chat class; the simple class has the same path and ends in `Simple`.
MODELS: dict[str, str] = {
    "tempeval": f"{_WRAPPERS}.chain.Tempeval",
    "tempeval_baseline": f"{_WRAPPERS}.baseline.TempevalBaseline",
    "tempeval_intp": f"{_WRAPPERS}.intp.TempevalINTP",
    "tempeval_kv_quant": f"{_WRAPPERS}.kv_quant.TempevalKVQuant",
    "tempeval_pas": f"{_WRAPPERS}.pas.TempevalPAS",
    "tempeval_pave": f"{_WRAPPERS}.pave.TempevalPAVE",
    "tempeval_staged_sparse": f"{_WRAPPERS}.staged_sparse.TempevalStagedSparse",
    "tempeval_vrope": f"{_WRAPPERS}.vrope.TempevalVRoPE",
}


def manifests() -> list[ModelManifest]:
    """Return the models of the package, and make the host find its tasks.

    This is the entry point `tempeval` of the group `lmms_eval.models`.
    """
    from lmms_eval.models.registry_v2 import ModelManifest

    if os.environ.get(OPT_OUT, "") in ("", "0"):
        extend_task_manager()
    _show_in_listing()
    return [
        ModelManifest(model_id=name, chat_class_path=path, simple_class_path=f"{path}Simple")
        for name, path in MODELS.items()
    ]


def extend_task_manager() -> None:
    """Let every `TaskManager` of the host index our tasks, now or when the host imports it."""
    module = sys.modules.get(HOST_TASKS)
    if module is not None:
        _extend(module)
    elif not any(isinstance(finder, _TasksFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TasksFinder())


class _TasksFinder(MetaPathFinder):
    """Finds `lmms_eval.tasks` as the other finders do, and extends it once it is executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != HOST_TASKS:
            return None
        others = [finder for finder in sys.meta_path if finder is not self]
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_extend(module: ModuleType) -> None:
            execute(module)
            sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
            _extend(module)

        vars(spec.loader)["exec_module"] = execute_and_extend
        return spec


def _extend(module: ModuleType) -> None:
    """Wrap `TaskManager.initialize_tasks` so that it also searches our folder, once."""
    original = getattr(getattr(module, "TaskManager", None), "initialize_tasks", None)
    if not callable(original):
        _warn("it has no TaskManager.initialize_tasks")
        return
    if getattr(original, "adds_tempeval_tasks", False):
        return
    signature = inspect.signature(original)
    if not {"include_path", "include_defaults"} <= set(signature.parameters):
        _warn(f"TaskManager.initialize_tasks now takes {signature}")
        return

    @functools.wraps(original)
    def initialize_tasks(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        # Without its defaults, the host was asked for the given folders and nothing else.
        if call.arguments["include_defaults"]:
            call.arguments["include_path"] = _with_our_folder(call.arguments["include_path"])
        return original(*call.args, **call.kwargs)

    vars(initialize_tasks)["adds_tempeval_tasks"] = True
    module.TaskManager.initialize_tasks = initialize_tasks


def _with_our_folder(include_path: str | Sequence[str] | None) -> list[str]:
    from tempeval.tasklist import foreign_task_folders, tasks_path

    given = [include_path] if isinstance(include_path, str) else list(include_path or ())
    for folder in (tasks_path(), *foreign_task_folders()):
        ours = folder.resolve()
        if not any(ours.is_relative_to(Path(other).resolve()) for other in given):
            given.append(str(ours))
    return given


def _show_in_listing() -> None:
    """Add our ids to the two tables that `lmms-eval models` prints.

    The host's registry does not feed that command; the host adds its older kind of plugin to the
    same tables.
    """
    host = sys.modules.get("lmms_eval.models")
    for table, suffix in (
        ("AVAILABLE_CHAT_TEMPLATE_MODELS", ""),
        ("AVAILABLE_SIMPLE_MODELS", "Simple"),
    ):
        listing = getattr(host, table, None)
        if isinstance(listing, dict):
            listing.update({name: f"{path}{suffix}" for name, path in MODELS.items()})


def _warn(reason: str) -> None:
    warnings.warn(
        f"tempeval cannot add its tasks to this lmms-eval: {reason}. "
        'Add --include_path "$(tempeval tasks-path)" to the lmms-eval command, '
        "or use tempeval run.",
        RuntimeWarning,
        stacklevel=2,
    )
