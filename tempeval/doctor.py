"""Checks of an installation, one row each; a check that breaks is a failed row, not a crash."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tempeval.errors import TempevalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from packaging.requirements import Requirement

Mark = Literal["ok", "warn", "fail"]
Found = tuple[Mark, str]

#: The Python that the tests run on; later ones are accepted and untested.
TESTED_PYTHON = "3.11"
MIN_FREE_GIB = 1.0
_VERSIONED = ("torch", "transformers", "lmms-eval", "datasets")
#: How a broken installation shows itself; anything else is a bug in the check.
_BROKEN = (
    TempevalError,
    ImportError,
    AttributeError,
    OSError,
    RuntimeError,
    ValueError,
    importlib.metadata.PackageNotFoundError,
)


@dataclass(frozen=True)
class Check:
    """One row.

    Attributes:
        mark: `ok`, `warn` (works, with a limit) or `fail` (a run needs it).
        name: what was checked.
        detail: what was found, and what to do about it.
    """

    mark: Mark
    name: str
    detail: str


def checks(pretrained: str = "mini") -> Iterator[Check]:
    """Run all checks, quick ones first.

    Args:
        pretrained: checkpoint to load: hub id, folder, or `mini`.
    """
    rows: dict[str, Callable[[], Found]] = {
        "python": _python,
        **{name: partial(_version, name) for name in _VERSIONED},
        "decoder av": _av,
        "decoder decord": _decord,
        "cache folder": _cache,
        "gpu": _gpu,
        "processes": _processes,
        "host models": _host_models,
        "host tasks": _host_tasks,
        "checkpoint": partial(_checkpoint, pretrained),
    }
    for name, check in rows.items():
        try:
            mark, detail = check()
            yield Check(mark, name, detail)
        except _BROKEN as error:
            yield Check("fail", name, f"{type(error).__name__}: {error}")


def _python() -> Found:
    version = platform.python_version()
    if version.startswith(f"{TESTED_PYTHON}."):
        return "ok", version
    return "warn", f"{version}; the tests run on {TESTED_PYTHON}, others are untested"


def _requirement(name: str) -> Requirement:
    from packaging.requirements import Requirement

    lines = importlib.metadata.requires("tempeval") or []
    found = (Requirement(line) for line in lines)
    return next(requirement for requirement in found if requirement.name == name)


def _version(name: str) -> Found:
    wanted = _requirement(name).specifier
    version = importlib.metadata.version(name)
    if wanted.contains(version, prereleases=True):
        return "ok", f"{version} (accepted: {wanted or 'any'})"
    return "fail", f"{version}, accepted: {wanted}; run: pip install '{name}{wanted}'"


def _av() -> Found:
    import av

    codecs = ("h264", "hevc", "vp9", "av1", "mpeg4", "gif")
    missing = [name for name in codecs if name not in av.codecs_available]
    if missing:
        return "warn", f"av {av.__version__} cannot decode {', '.join(missing)}"
    return "ok", f"av {av.__version__}: {', '.join(codecs)}"


def _decord() -> Found:
    if importlib.util.find_spec("decord") is None:
        return "warn", "not installed; only decoder=decord needs it"
    return "ok", f"decord {importlib.import_module('decord').__version__} (only when asked for)"


def _cache() -> Found:
    from tempeval.mini.paths import cache_dir

    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    datasets = os.environ.get("HF_DATASETS_CACHE") or f"{home}/datasets"
    notes = []
    for folder in (cache_dir(), Path(datasets).expanduser()):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        free = shutil.disk_usage(folder).free / 2**30
        if free < MIN_FREE_GIB:
            return "warn", f"{folder} has {free:.1f} GiB free; a run may need {MIN_FREE_GIB:g}"
        notes.append(f"{folder} ({free:.0f} GiB free)")
    return "ok", ", ".join(notes)


def _gpu() -> Found:
    import torch

    if not torch.cuda.is_available():
        return "warn", f"none; runs use the CPU with {torch.get_num_threads()} threads"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return "ok", f"{', '.join(names)} (CUDA {torch.version.cuda})"


def _processes() -> Found:
    """Say how several processes are started here: accelerate ignores their number on a CPU."""
    import torch

    if (count := torch.cuda.device_count()) > 1:
        return "ok", f"accelerate launch --num_processes {count} -m tempeval run ..."
    return "ok", (
        "on a CPU: ACCELERATE_USE_CPU=true torchrun --nproc_per_node 2 -m tempeval run ... "
        "(accelerate launch --cpu --num_processes 2 starts one process, without a word)"
    )


def _host_models() -> Found:
    from lmms_eval.models import MODEL_REGISTRY_V2

    from tempeval.plugin import MODELS

    known = set(MODEL_REGISTRY_V2.list_canonical_model_ids())
    if missing := sorted(set(MODELS) - known):
        return "fail", f"lmms-eval does not know {', '.join(missing)}; reinstall tempeval"
    wrong = [n for n, path in MODELS.items() if MODEL_REGISTRY_V2.resolve(n).class_path != path]
    if wrong:
        return "fail", f"another plugin took the model ids {', '.join(wrong)}; remove it"
    return "ok", f"lmms-eval --model {', '.join(MODELS)}"


def _host_tasks() -> Found:
    from tempeval.host import import_host
    from tempeval.plugin import OPT_OUT
    from tempeval.tasklist import task_entries

    import_host()
    manager = importlib.import_module("lmms_eval.tasks").TaskManager("WARNING")
    ours = set(task_entries())
    missing = sorted(ours - set(manager.all_tasks))
    if not missing:
        return "ok", f"lmms-eval finds our {len(ours)} tasks and groups"
    hint = 'add --include_path "$(tempeval tasks-path)" to lmms-eval'
    if os.environ.get(OPT_OUT, "") not in ("", "0"):
        return "warn", f"{OPT_OUT} is set; {hint}"
    return "fail", f"lmms-eval does not find {', '.join(missing)}; {hint}"


def _checkpoint(pretrained: str) -> Found:
    from tempeval.engine.base_model import load_family
    from tempeval.families.base import LoadOptions
    from tempeval.mini.paths import located

    source = located(pretrained)
    family = load_family(source, LoadOptions()).name
    return "ok", f"{pretrained} loads ({family}): {source}"
