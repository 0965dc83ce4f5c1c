"""Write the record of a run that lmms-eval's own command makes, beside its results.

The command hands a model its requests and writes its files itself, so two of its steps are followed
in this process: `evaluate`, which has the loaded tasks, and the tracker that writes the files. The
record is written last, when all files are there: a run that was killed leaves none.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval import __version__
from tempeval.console import visible
from tempeval.errors import TempevalError
from tempeval.host import HostTasks
from tempeval.host_files import bring_to_disk, check_lines
from tempeval.run.counting import Allowed
from tempeval.run.record import FILE_NAME, write_record
from tempeval.run.scoring import ended_record, scored_record, started_record, verdict
from tempeval.source_digest import run_code
from tempeval.task_sources import source_digests

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LOG = logging.getLogger(__name__)
_INSTALLED = "_tempeval_record"


class CommandRun:
    """One run of lmms-eval's command, from its tasks to its last file.

    Args:
        model: of this package.
        tree: the host's loaded tasks, in their groups.
        names: tasks and groups as they were asked for.
        limit: documents per task, at most; None for all.
    """

    def __init__(
        self,
        model: Any,
        tree: dict[Any, Any],
        names: Sequence[str],
        limit: int | None,
    ) -> None:
        self._model = model
        self._tasks = HostTasks.of(tree, names, limit)
        self._scoring: dict[str, Any] = {}
        self._samples: Mapping[str, Any] = {}
        self._left: set[str] = set()
        self._prefix = Path()
        for name in self._tasks.load():
            self._tasks.video_digests(name)  # as they are before anything is answered
        chain = model.chain
        asked = replace(model.spec, method=chain.spec, tasks=tuple(names), limit=limit)
        request = {**asked.request(), "tempeval_version": __version__}
        if annotations := source_digests(names, skip_missing=True):
            request["annotations"] = annotations
        self._started = started_record(
            chain,
            seed=model.spec.seed,
            limit=limit,
            request=request,
            code=run_code(chain, type(model.family).__module__),
            world_size=int(os.environ.get("WORLD_SIZE", "1")),
        )

    def results_come(self, results: dict[str, Any], samples: Mapping[str, Any]) -> None:
        """Note the scores before the host writes its files, and what these must have."""
        self._samples, self._left = samples, set(samples)
        whole = {**results, "samples": samples}
        self._scoring = {name: self._tasks.score_samples(name, whole) for name in samples}

    def results_written(self, folder: Path, moment: str) -> None:
        """Note where the host wrote its results."""
        self._prefix = folder / moment

    def samples_written(self, name: str) -> bool:
        """Note that the samples of a task are written; return True if those of all are."""
        self._left.discard(name)
        return not self._left

    def write(self) -> Path:
        """Write the record.

        Raises:
            TempevalError, OSError: if a file is missing or cut, or the record cannot be written.
        """
        folder, moment = self._prefix.parent, self._prefix.name
        results = f"{moment}_results.json"
        names = {name: f"{moment}_samples_{name}.jsonl" for name in self._samples}
        for name, file in names.items():
            check_lines(folder / file, len(self._samples[name]))
        bring_to_disk([folder / results, *(folder / file for file in names.values()), folder])
        self._tasks.build_all()
        record = scored_record(
            self._started,
            self._model.run_facts(),
            self._model.chain,
            self._tasks,
            self._scoring,
            self._samples,
            folder,
            (results, names),
        )
        status, error = verdict(record, Allowed())
        ended = ended_record(record, status, error, time.perf_counter() - self._model.command_began)
        return write_record(folder, ended, f"{moment}_{FILE_NAME}")


class _Followed:
    """The run that is being made, if it is to have a record."""

    def __init__(self) -> None:
        self.run: CommandRun | None = None

    def begin(self, model: Any, call: Mapping[str, Any]) -> None:
        """Follow a run, if it is of a model that the command loaded and its files are written."""
        self.run = None
        began, given = getattr(model, "command_began", None), call.get("cli_args")
        wanted = getattr(given, "output_path", None) and call.get("log_samples")
        if began is None or not wanted or int(os.environ.get("RANK", "0")):
            return
        limit, offset = call.get("limit"), call.get("offset") or 0
        limit = None if limit is None or limit == -1 else limit
        if offset or (limit is not None and limit != int(limit)):
            _LOG.warning(
                "no %s is written: it knows neither --offset nor a --limit below 1", FILE_NAME
            )
            return
        names = str(getattr(given, "tasks", "")).split(",")
        try:
            whole = None if limit is None else int(limit)
            self.run = CommandRun(model, call["task_dict"], names, whole)
        except (TempevalError, OSError) as error:
            _not_written(error)

    def end(self, path: Path) -> None:
        """Write the record of the run that ended with a file."""
        run, self.run = self.run, None
        if run is None:
            return
        try:
            _LOG.info("the record of the run is %s", run.write())
        except (TempevalError, OSError) as error:
            _not_written(error, path)


def install() -> None:
    """Follow lmms-eval's command in this process; a second call does nothing."""
    evaluator: Any = importlib.import_module("lmms_eval.evaluator")
    tracker = importlib.import_module("lmms_eval.loggers").EvaluationTracker
    if getattr(evaluator.evaluate, _INSTALLED, False):
        return
    followed = _Followed()
    original = evaluator.evaluate
    signature = inspect.signature(original)

    @functools.wraps(original)
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        followed.begin(call.arguments.get("lm"), call.arguments)
        return original(*args, **kwargs)

    save_results, save_samples = tracker.save_results_aggregated, tracker.save_results_samples

    @functools.wraps(save_results)
    def save_results_aggregated(
        self: Any, results: dict[str, Any], samples: Mapping[str, Any], datetime_str: str
    ) -> None:
        run = followed.run
        if run is None or not samples:
            followed.run = None
            save_results(self, results=results, samples=samples, datetime_str=datetime_str)
            return
        try:
            run.results_come(results, samples)
        except (TempevalError, OSError) as error:
            followed.run = None
            _not_written(error)
        save_results(self, results=results, samples=samples, datetime_str=datetime_str)
        folder = Path(self.output_path) / self.general_config_tracker.model_name_sanitized
        run.results_written(folder, datetime_str.replace(":", "-"))

    @functools.wraps(save_samples)
    def save_results_samples(self: Any, task_name: str, samples: Any) -> None:
        save_samples(self, task_name=task_name, samples=samples)
        if followed.run is not None and followed.run.samples_written(task_name):
            followed.end(Path(self.output_path))

    setattr(evaluate, _INSTALLED, True)
    evaluator.evaluate = evaluate
    tracker.save_results_aggregated = save_results_aggregated
    tracker.save_results_samples = save_results_samples


def _not_written(error: BaseException, path: Path | None = None) -> None:
    place = "" if path is None else f" below {path}"
    _LOG.warning("%s", visible(f"no {FILE_NAME} is written{place}: {error}"))
