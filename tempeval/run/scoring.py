"""One run: scored by the host from the answers there are, and recorded from first to last."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from tempeval import __version__
from tempeval.errors import RunFailed, TempevalError
from tempeval.host import host_log
from tempeval.host_files import file_facts, save_host_files
from tempeval.run.counting import (
    damage_of,
    failures_of,
    method_label,
    status_of,
    task_record,
    too_damaged,
    usage_of,
    videos_record,
)
from tempeval.run.ranks import RankDied
from tempeval.run.record import (
    FILE_NAME,
    SCHEMA,
    FileFacts,
    GitState,
    Request,
    RunRecord,
    StartedRecord,
    write_record,
)
from tempeval.run.spec import options as spec_options
from tempeval.source_digest import git_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tempeval.host import HostTasks
    from tempeval.host_scores import Scoring
    from tempeval.methods.base import Chain
    from tempeval.run.counting import Allowed
    from tempeval.run.matrix import Plan
    from tempeval.run.record import ModelFacts, Status, VideoCounts
    from tempeval.run.spec import RunSpec

LOG_NAME = "host.log"
INTERRUPTED = "interrupted"
_LOG = logging.getLogger(__name__)
_MODEL_ARGS = frozenset(name for name, _ in spec_options("model_args")) - {"seed"}
#: Names in a run folder: what it holds, and what a killed process left half written.
_HALF_WRITTEN = (f".{FILE_NAME}.*", ".*_samples_*.jsonl.*")
_RUN_FILES = ("*_results.json", "*_samples_*.jsonl", LOG_NAME, FILE_NAME, *_HALF_WRITTEN)


class ChainModel(Protocol):
    """What a matrix needs of a model, besides being an `lmms` of the host."""

    def set_method(self, method: str) -> None:
        """Change the method chain; weights and encoded videos stay."""

    def set_budget(self, visual_token_budget: int | None) -> None:
        """Change the visual-token budget."""

    def run_facts(self) -> ModelFacts:
        """Return the model, method and frames part of a record."""

    def open_journal(self, folder: Path) -> None:
        """Keep every answer in a folder, and find earlier ones there."""

    def close_journal(self) -> None:
        """Let go of the journal."""

    def reload_journal(self) -> None:
        """Read what other ranks have written."""

    def forget_answers(self, requests: Mapping[str, Sequence[Any]], methods: Sequence[str]) -> None:
        """Forget earlier answers to requests under several chains, and no others."""

    def answer_all(
        self, requests: Mapping[str, Sequence[Any]], methods: Sequence[str]
    ) -> Iterator[Any]:
        """Answer requests under several chains, video by video, into the journal."""


def remove_half_written(folder: Path) -> None:
    """Remove what processes that run no more left half written in a run folder."""
    for pattern in _HALF_WRITTEN:
        for path in folder.glob(pattern):
            process = path.name.rpartition(".")[2]
            if process.isdecimal() and not _runs(int(process)):
                path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    """Return True if there is a process of that number on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return True


class Run:
    """One run: its record from the first write, which says that it did not finish, to the last."""

    def __init__(self, plan: Plan, options: RunSpec) -> None:
        self.plan, self.options = plan, options
        self.model_args = ",".join(
            f"{key}={json.dumps(value) if isinstance(value, dict) else value}"
            for key, value in plan.request.items()
            if value is not None and key in _MODEL_ARGS
        )
        self.began = time.perf_counter()
        #: Whether its last record was written.
        self.ended = False
        self.record: StartedRecord | RunRecord = started_record(
            plan.chain,
            seed=options.seed,
            limit=options.limit,
            request=plan.request,
            code=plan.code,
        )

    def begin(self, world_size: int) -> None:
        """Clear what an earlier run left, and say that this one has not finished."""
        folder = self.plan.folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for pattern in _RUN_FILES:
                for stale in folder.glob(pattern):
                    stale.unlink()
        except OSError as error:
            raise RunFailed(
                f"cannot write to {folder}: {error.strerror or error}; choose another -o"
            ) from error
        self.record = self.record.model_copy(update={"world_size": world_size})
        write_record(folder, self.record)

    def score(
        self, model: ChainModel, tasks: HostTasks, answering: float, shared_with: int
    ) -> None:
        """Score the answers with the host's evaluator; write its files and the record.

        A `TempevalError` ends this run and is in its record; any other exception is raised,
        because the runs after it would meet it too.

        Args:
            model: has the answers.
            tasks: the tasks.
            answering: seconds that answering took, for all methods that shared it.
            shared_with: number of those methods.
        """
        self.began = time.perf_counter() - answering
        self.record = self.record.model_copy(
            update={"answering_seconds": round(answering, 3), "shared_with": shared_with}
        )
        try:
            with host_log(self.plan.folder / LOG_NAME):
                self._evaluate(model, tasks)
        except TempevalError as error:
            self.end("failed", str(error))

    def _evaluate(self, model: ChainModel, tasks: HostTasks) -> None:
        model.set_method(self.plan.chain.spec)
        results = tasks.evaluate(
            model,
            model_args=self.model_args,
            output=self.plan.folder,
            batch_size=self.options.batch_size,
            seed=self.options.seed,
        )
        samples = results["samples"]
        scoring = {name: tasks.score_samples(name, results) for name in tasks.load()}
        results_file, names = save_host_files(results, self.plan.folder, self.model_args)
        self.record = scored_record(
            self.record,
            model.run_facts(),
            self.plan.chain,
            tasks,
            scoring,
            samples,
            self.plan.folder,
            (results_file, names),
        )
        for name, task in self.record.tasks.items():
            if task.unranked:
                _LOG.warning("%s will not be ranked: %s", name, task.unranked)
            if 2 * task.unparsed > task.answered:
                _LOG.warning(
                    "%s: no answer was read in %d of %d texts; they are in %s",
                    *(name, task.unparsed, task.answered, task.samples_file),
                )
        self.end(*verdict(self.record, self.options.allowed))

    def end(self, status: Status, error: str | None) -> None:
        """Write the last record."""
        self.ended = True
        self.record = ended_record(self.record, status, error, time.perf_counter() - self.began)
        try:
            write_record(self.plan.folder, self.record)
        except RunFailed as error:
            # A full disk has a message of its own by now; the record on disk says "did not finish".
            _LOG.warning("cannot write the record in %s: %s", self.plan.folder, error)
            if status == "complete":
                raise


def started_record(
    chain: Chain,
    *,
    seed: int,
    limit: float | None,
    request: Mapping[str, Any],
    code: Mapping[str, str],
    world_size: int = 1,
) -> StartedRecord:
    """Return the record of a run that begins: it says that the run did not finish.

    Args:
        chain: the methods.
        seed: of Python, NumPy and torch.
        limit: most samples of a task, or a share of them below 1; None for all.
        request: what was asked for.
        code: digests of the code that answers go through, part by part.
        world_size: processes that answer.
    """
    git = git_state()
    return StartedRecord(
        schema_version=SCHEMA,
        tempeval_version=__version__,
        status="failed",
        error="the run did not finish",
        method=chain.name,
        method_settings=chain.settings(),
        method_fingerprint=chain.fingerprint,
        tasks={},
        world_size=world_size,
        seed=seed,
        limit=limit,
        started=_now(),
        finished=None,
        wall_seconds=None,
        answering_seconds=None,
        shared_with=None,
        command=shlex.join(sys.argv),
        request=Request(**request),
        code=dict(code),
        git=None if git is None else GitState(**git),
    )


def scored_record(
    started: StartedRecord,
    facts: ModelFacts,
    chain: Chain,
    tasks: HostTasks,
    scoring: Mapping[str, Scoring],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    folder: Path,
    files: tuple[str, Mapping[str, str]],
) -> RunRecord:
    """Return the record of a run with scores, its status still that of `started`.

    Args:
        started: what was known before.
        facts: what the model says.
        chain: the methods.
        tasks: what was asked; evaluated.
        scoring: where the score of each task's samples is.
        samples: the host's logged samples, by task.
        folder: where the host's files are.
        files: name of the results file, and of each task's samples file.
    """
    results_file, names = files
    usages = [
        usage
        for rows in samples.values()
        for sample in rows
        for usage in usage_of(sample)
        if not usage.get("error")
    ]
    if measured := chain.measured(usages):  # what only the answers tell
        notes = [*facts.method_notes, *measured]
        label = method_label(chain.spec, notes)
        facts = facts.model_copy(update={"method_notes": notes, "method_label": label})
    found = {
        name: task_record(
            replace(
                known,
                score_key=scoring[name].score_key,
                cluster_key=scoring[name].cluster_key,
                higher_is_better=scoring[name].higher_is_better,
                unranked=scoring[name].unranked,
            ),
            names[name],
            samples[name],
            digests=_digests(tasks, name),
            videos_of=tasks.videos(name).__getitem__,
            skipped=tasks.skipped.get(name, ()),
        )
        for name, known in tasks.load().items()
    }
    return RunRecord(
        **{**dict(started), **dict(facts), "tasks": found},
        results_file=results_file,
        groups=tasks.group_digests(),
        files={
            name: FileFacts(**file_facts(folder / name)) for name in (results_file, *names.values())
        },
        left_out=dict(tasks.left_out),
        videos=videos_record(
            damage_of(rows, tasks.videos(name).__getitem__) for name, rows in samples.items()
        ),
        failures=failures_of(sample for rows in samples.values() for sample in rows),
    )


def verdict(record: RunRecord, allowed: Allowed) -> tuple[Status, str | None]:
    """Say how a run with scores ended, and why it is not complete; None where it is.

    Args:
        record: with the counts of all tasks.
        allowed: what a complete run may lack.
    """
    status = status_of(record.tasks, record.videos, allowed)
    if status == "complete":
        return status, None
    reason = counts(record)
    if too_damaged(record.videos, allowed):
        reason += f" (more than max_damaged={allowed.damaged})"
    reason += next((f"; first failure {k}: {v}" for k, v in record.failures.items()), "")
    return status, reason


def ended_record(
    record: StartedRecord | RunRecord, status: Status, error: str | None, seconds: float
) -> StartedRecord | RunRecord:
    """Return the last record of a run.

    Args:
        record: what it says by now.
        status: how the run ended.
        error: why it is not complete; None where it is.
        seconds: from first to last.
    """
    return record.model_copy(
        update={
            "status": status,
            "error": error,
            "finished": _now(),
            "wall_seconds": round(seconds, 3),
        }
    )


def _digests(tasks: HostTasks, name: str) -> dict[str, str]:
    """Return what a task's questions, scores and videos were, for its record."""
    stamps, contents = tasks.video_digests(name)
    return {
        "prompt_hash": tasks.prompt_hash(name),
        "task_digest": tasks.task_digest(name),
        "videos_digest": contents,
        "video_stamps": stamps,
    }


def replayed(record: StartedRecord | RunRecord) -> str:
    """Say how many answers of a run came from the journal; nothing if none did."""
    if not isinstance(record, RunRecord) or not record.replayed:
        return ""
    whole = record.replayed + record.computed
    return f", {record.replayed} of {whole} answers taken from the journal"


def counts(record: StartedRecord | RunRecord) -> str:
    """Say how many samples were answered, failed and unparsed, and how many videos are damaged."""
    keys = ("answered", "expected", "failed", "unparsed", "skipped")
    totals = {key: sum(getattr(task, key) for task in record.tasks.values()) for key in keys}
    said = (
        f"{totals['answered']} of {totals['expected']} answered, "
        f"{totals['failed']} failed, {totals['unparsed']} unparsed"
    )
    if totals["skipped"]:
        said += f", {totals['skipped']} skipped"
    return said + (damage(record.videos) if isinstance(record, RunRecord) else "")


def damage(videos: VideoCounts | None) -> str:
    """Say how many videos of a run, or of a task, are damaged, and how; nothing if none is."""
    if videos is None or not videos.damaged:
        return ""
    by_number = sorted(videos.flags.items(), key=lambda flag: (-flag[1], flag[0]))
    flags = ", ".join(f"{name} {number}" for name, number in by_number)
    return f", {videos.damaged} of {videos.total} videos damaged: {flags}"


def describe(error: BaseException) -> str:
    """Return the reason that a record, or a marker for other ranks, carries for an early end."""
    if isinstance(error, KeyboardInterrupt):
        by = f" by {error}" if str(error) else ""
        return f"{INTERRUPTED}{by}; run the same command to go on where it stopped"
    if isinstance(error, TempevalError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def ending(error: BaseException) -> Status:
    """Return the status of a run that an exception ends early, in this process or in another."""
    if isinstance(error, RankDied) and error.reason.startswith(INTERRUPTED):
        return "interrupted"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
