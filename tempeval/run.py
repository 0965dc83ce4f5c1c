"""Evaluate methods x tasks x budgets with one loaded model, one run folder each."""

from __future__ import annotations

import importlib
import importlib.metadata
import shlex
import sys
import tempfile
import time
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from tempeval import __version__
from tempeval.errors import TempevalError
from tempeval.host import HostTasks, host_log, save_host_files
from tempeval.matrix import plan_matrix
from tempeval.methods.registry import BASELINE
from tempeval.record import (
    FILE_NAME,
    SCHEMA,
    differences,
    failures_of,
    read_record,
    status_of,
    task_record,
    write_record,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from tempeval.matrix import Plan, RunOptions

    Report = Callable[[str], None]

LOG_NAME = "host.log"
#: Settings that change no answer, so that a run with others may stand.
_FREE = ("batch_size",)
_NOT_MODEL_ARGS = ("tasks", "tasks_digest", "limit", "seed", "tempeval_version")
_RUN_FILES = ("*_results.json", "*_samples_*.jsonl", LOG_NAME, FILE_NAME)


class IncompleteRuns(TempevalError):
    """Some runs of a matrix lack answers; their records say which and why."""


class ChainModel(Protocol):
    """What a matrix needs of a model, besides being an `lmms` of the host."""

    def set_method(self, method: str) -> None:
        """Change the method chain; weights and encoded videos stay."""

    def set_budget(self, visual_token_budget: int | None) -> None:
        """Change the visual-token budget."""

    def run_facts(self) -> dict[str, Any]:
        """Return the model, method and frames part of a record."""


def run_matrix(
    options: RunOptions,
    *,
    report: Report = lambda _line: None,
    load: Callable[[RunOptions], ChainModel] | None = None,
) -> list[Path]:
    """Evaluate every method under every budget; skip what is already there, complete and equal.

    Everything that can be refused is refused before the model is loaded.

    Args:
        options: what to run.
        report: gets one line of progress at a time.
        load: makes the model; by default the `tempeval` wrapper.

    Returns:
        The run folders, in order.

    Raises:
        TempevalError: for options that cannot be honoured.
        IncompleteRuns: after all runs, if any of them lacks an answer.
    """
    plans = plan_matrix(options)
    tasks = HostTasks(options.tasks, options.limit)
    _check_writable(options.out)
    kept = {} if options.overwrite else _reusable(plans, options.overwrite_different)
    model: ChainModel | None = None
    bad = []
    for number, plan in enumerate(plans, start=1):
        name = f"[{number}/{len(plans)}] {plan.folder.relative_to(options.out)}"
        if old := kept.get(plan.folder):
            report(f"{name}: complete already, reused ({_counts(old)})")
            continue
        report(f"{name}: running")
        if model is None:
            model = (load or load_model)(options)
        record = _Run(plan, options).execute(model, tasks)
        report(f"{name}: {record['status']}, {_counts(record)}, {record['wall_seconds']:.1f} s")
        if record["status"] != "complete":
            bad.append(f"{plan.folder} is {record['status']}: {record['error']}")
    report(f"{len(plans) - len(bad)} of {len(plans)} runs complete in {options.out}")
    if bad:
        raise IncompleteRuns("; ".join(bad))
    return [plan.folder for plan in plans]


def load_model(options: RunOptions) -> ChainModel:
    """Load the `tempeval` wrapper with an empty chain."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    module = importlib.import_module("tempeval.model_wrappers.chain")
    arguments = {
        "pretrained": options.pretrained,
        "method": BASELINE,
        "num_frames": options.num_frames,
        "fps": options.fps,
        "sampling": options.sampling,
        "dtype": options.dtype,
        "position_rule": options.position_rule,
        "device": options.device,
        "batch_size": options.batch_size,
    }
    model: ChainModel = module.Tempeval(**{k: v for k, v in arguments.items() if v is not None})
    return model


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise TempevalError(
            f"cannot write to {out}: {error.strerror}; choose another -o"
        ) from error


def _reusable(plans: Sequence[Plan], replace: bool) -> dict[Path, dict[str, Any]]:
    """Return the complete records of equal earlier runs, by folder.

    Args:
        plans: what is to run.
        replace: run again what differs, instead of refusing.

    Raises:
        TempevalError: if a folder holds a run of something else.
    """
    kept = {}
    for plan in plans:
        record = read_record(plan.folder)
        if record is None:
            continue
        complete = record.get("status") == "complete"
        old = _settings(record.get("request", {}))
        new = _settings(plan.request)
        old["method_fingerprint"] = record.get("method_fingerprint")
        new["method_fingerprint"] = plan.chain.fingerprint
        if complete:  # a run that did not end may not know these yet, and is replaced anyway
            old |= {"model_revision": record.get("model_revision"), **record.get("packages", {})}
            new |= {"model_revision": _revision(plan.request["pretrained"])}
            new |= _versions(record.get("packages", {}))
        changes = differences(old, new)
        if changes and not replace:
            raise TempevalError(
                f"{plan.folder} holds a run that differs ({'; '.join(changes)}); "
                "choose another -o, or pass --overwrite"
            )
        if complete and not changes:
            kept[plan.folder] = record
    return kept


def _settings(request: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in request.items() if key not in _FREE}


def _versions(packages: Mapping[str, str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in packages:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


@cache
def _revision(pretrained: str) -> str:
    from tempeval.families.revision import local_folder, revision_of
    from tempeval.mini.paths import checkpoint

    return revision_of(checkpoint() if pretrained == "mini" else local_folder(pretrained))


class _Run:
    """One run: its record from the first write, which says that it did not finish, to the last."""

    def __init__(self, plan: Plan, options: RunOptions) -> None:
        self.plan, self.options = plan, options
        self.model_args = ",".join(
            f"{key}={value}"
            for key, value in plan.request.items()
            if value is not None and key not in _NOT_MODEL_ARGS
        )
        self.began = time.perf_counter()
        self.record: dict[str, Any] = {
            "schema": SCHEMA,
            "tempeval_version": __version__,
            "status": "failed",
            "error": "the run did not finish",
            "method": plan.chain.name,
            "method_settings": plan.chain.settings(),
            "method_fingerprint": plan.chain.fingerprint,
            "tasks": {},
            "world_size": 1,
            "seed": options.seed,
            "limit": options.limit,
            "started": _now(),
            "finished": None,
            "wall_seconds": None,
            "command": shlex.join(sys.argv),
            "request": dict(plan.request),
        }

    def execute(self, model: ChainModel, tasks: HostTasks) -> dict[str, Any]:
        """Evaluate, write the host's files and the record.

        A `TempevalError` ends this run and is in its record; any other exception is recorded and
        raised again, because the runs after it would meet it too.
        """
        folder = self.plan.folder
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in _RUN_FILES:
            for stale in folder.glob(pattern):
                stale.unlink()
        write_record(folder, self.record)
        try:
            with host_log(folder / LOG_NAME):
                self._evaluate(model, tasks)
        except TempevalError as error:
            self._end("failed", str(error))
        except BaseException as error:
            self._end("failed", f"{type(error).__name__}: {error}")
            raise
        return self.record

    def _evaluate(self, model: ChainModel, tasks: HostTasks) -> None:
        model.set_budget(self.plan.budget)
        model.set_method(self.plan.chain.spec)
        results = tasks.evaluate(
            model,
            model_args=self.model_args,
            output=self.plan.folder,
            batch_size=self.options.batch_size,
            seed=self.options.seed,
        )
        samples = results["samples"]
        results_file, names = save_host_files(results, self.plan.folder, self.model_args)
        self.record |= model.run_facts()
        self.record["method"] = self.plan.chain.name
        self.record["results_file"] = results_file
        self.record["tasks"] = {
            name: task_record(facts, tasks.prompt_hash(name), names[name], samples[name])
            for name, facts in tasks.load().items()
        }
        failures = failures_of(sample for rows in samples.values() for sample in rows)
        self.record["failures"] = failures
        first = next((f"; first failure {k}: {v}" for k, v in failures.items()), "")
        status = status_of(self.record["tasks"])
        self._end(status, None if status == "complete" else _counts(self.record) + first)

    def _end(self, status: str, error: str | None) -> None:
        self.record |= {
            "status": status,
            "error": error,
            "finished": _now(),
            "wall_seconds": round(time.perf_counter() - self.began, 3),
        }
        write_record(self.plan.folder, self.record)


def _counts(record: Mapping[str, Any]) -> str:
    keys = ("answered", "expected", "failed", "unparsed")
    totals = {key: sum(task[key] for task in record["tasks"].values()) for key in keys}
    return (
        f"{totals['answered']} of {totals['expected']} answered, "
        f"{totals['failed']} failed, {totals['unparsed']} unparsed"
    )


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
