"""Evaluate methods x tasks x budgets with one loaded model, one run folder each."""

from __future__ import annotations

import importlib
import tempfile
import time
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from tempeval.benchmarks.roots import use_root
from tempeval.errors import InvalidSetting, RunFailed, TempevalError
from tempeval.host import HostTasks, host_log
from tempeval.host_scores import Metric
from tempeval.methods.registry import BASELINE
from tempeval.run.matrix import plan_matrix
from tempeval.run.paired import pair_with_baselines
from tempeval.run.preflight import preflight, stands
from tempeval.run.ranks import Ranks
from tempeval.run.record import FILE_NAME
from tempeval.run.resume import keep, outdated, reusable
from tempeval.run.scoring import (
    LOG_NAME,
    Run,
    counts,
    describe,
    ending,
    remove_half_written,
    replayed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tempeval.run.matrix import Plan
    from tempeval.run.record import RunRecord
    from tempeval.run.scoring import ChainModel
    from tempeval.run.spec import RunSpec

    Report = Callable[[str], None]

JOURNAL_NAME = "journal"


class IncompleteRuns(RunFailed):
    """Some runs of a matrix lack answers; their records say which and why."""


def run_matrix(
    options: RunSpec,
    *,
    report: Report = lambda _line: None,
    load: Callable[[RunSpec], ChainModel] | None = None,
    since: float | None = None,
) -> list[Path]:
    """Evaluate every method under every budget; skip what is already there, complete and equal.

    Everything that can be refused is refused before the model is loaded.

    Args:
        options: what to run.
        report: gets one line of progress at a time.
        load: makes the model; by default the `tempeval` wrapper.
        since: when the command began, in seconds since the epoch: runs that were made since are
            its own, by another process, and are not called reused.

    All methods of a budget are answered in one pass over the videos, and every answer is journalled
    in `OUT/journal`: the same command goes on where it was interrupted. Then the host scores each
    method from the journal and writes its standard files; at last, samples with choices get the
    change of the answer's probability against the baseline (see `tempeval.run.paired`).

    Returns:
        The run folders, in order.

    Raises:
        TempevalError: for options that cannot be honoured.
        IncompleteRuns: after all runs, if any of them lacks an answer.
    """
    plans, tasks, kept = prepare(options, report, _check_writable)
    first = Ranks(options.out / JOURNAL_NAME).is_first
    for plan in plans:
        if old := kept.get(plan.folder):
            own = since is not None and (plan.folder / FILE_NAME).stat().st_mtime >= since
            if first:
                keep(plan.folder, old)
                remove_half_written(plan.folder)
            said = (
                f"complete, {counts(old)}" if own else f"complete already, reused ({counts(old)})"
            )
            report(f"{_name(plan, options)}: {said}")
    left = [plan for plan in plans if plan.folder not in kept]
    bad = _Matrix(options, tasks, report).run(left, load or load_model) if left else []
    if first:
        pair_with_baselines(plans)
    report(f"{len(plans) - len(bad)} of {len(plans)} runs complete in {options.out}")
    if bad:
        raise IncompleteRuns(_said(bad))
    return [plan.folder for plan in plans]


class Prepared(NamedTuple):
    """A matrix before its model is loaded.

    Attributes:
        plans: its runs.
        tasks: loaded, without the questions that are left out.
        kept: records of the runs that stand and are reused, by folder.
    """

    plans: list[Plan]
    tasks: HostTasks
    kept: dict[Path, RunRecord]


def prepare(options: RunSpec, report: Report, place: Callable[[Path], None]) -> Prepared:
    """Lay out the runs, load the tasks, and look which videos and earlier runs are there.

    Args:
        options: what to run.
        report: gets one line about whatever is not as one would expect.
        place: refuses a folder that cannot be written.

    Raises:
        TempevalError: for options that cannot be honoured, without a model.
    """
    use_root(options.data_root)
    plans = plan_matrix(options)
    tasks = HostTasks(
        options.tasks,
        options.limit,
        skip_unloadable=options.skip_unloadable,
        include_path=options.include_path,
        metric=None if options.metric is None else Metric.parse(options.metric),
    )
    tasks.load()
    if options.gen_kwargs and not tasks.generate():
        raise InvalidSetting(
            f"gen_kwargs={dict(options.gen_kwargs)} has no effect: no task generates an answer, "
            "all score choices; leave it out"
        )
    preflight(tasks, plans, options, report)
    for name, reason in tasks.left_out.items():
        report(f"{name} is left out: {reason}")
    place(options.out)
    kept = {}
    if not options.overwrite:
        equal = reusable(plans, options.overwrite_different, options.allowed)
        for plan in plans:
            record = equal.get(plan.folder)
            if record is None or not stands(tasks, plan.folder, record):
                continue
            if reasons := outdated(plan, record, tasks):
                report(f"{_name(plan, options)}: made again from the journal: {'; '.join(reasons)}")
            else:
                kept[plan.folder] = record
    return Prepared(plans, tasks, kept)


class Bad(NamedTuple):
    """A run that is not complete."""

    folder: Path
    status: str
    reason: str | None


class _Matrix:
    """Answers every budget's methods in one pass over the videos, then scores them one by one."""

    def __init__(self, options: RunSpec, tasks: HostTasks, report: Report) -> None:
        self.options, self.tasks, self.report = options, tasks, report

    def run(self, plans: Sequence[Plan], load: Callable[[RunSpec], ChainModel]) -> list[Bad]:
        """Return what is said of each run that is not complete."""
        options = self.options
        journal = options.out / JOURNAL_NAME
        ranks = Ranks(journal)
        try:
            model = load(options)
            model.open_journal(journal)
        except TempevalError as error:
            ranks.start(str(error))
            raise
        bad: list[Bad] = []
        try:
            ranks.start()
            for step, (_, group) in enumerate(groupby(plans, key=lambda plan: plan.budget)):
                bad += self._budget(model, ranks, [Run(plan, options) for plan in group], str(step))
        except BaseException as error:
            ranks.failed(describe(error))
            raise
        finally:
            model.close_journal()
        return bad

    def _budget(self, model: ChainModel, ranks: Ranks, runs: Sequence[Run], step: str) -> list[Bad]:
        """Answer and score the runs of one budget; what ends them all early is in their records."""
        if ranks.is_first:
            for name in self.tasks.load():
                self.tasks.video_digests(name)  # as they are before anything is answered
            for run in runs:
                run.begin(ranks.world_size)
        try:
            return self._answered_and_scored(model, ranks, runs, step)
        except BaseException as error:
            if ranks.is_first:
                for run in runs:
                    if not run.ended:
                        run.end(ending(error), describe(error))
            raise

    def _answered_and_scored(
        self, model: ChainModel, ranks: Ranks, runs: Sequence[Run], step: str
    ) -> list[Bad]:
        began = time.perf_counter()
        problem: TempevalError | None = None
        bad: list[Bad] = []
        try:
            model.set_budget(runs[0].plan.budget)
        except TempevalError as error:  # of the settings, so that every rank meets it
            problem = error
        else:
            runs, bad = self._accepted(model, runs, ranks)
            problem = self._answer(model, runs, ranks) if runs else None
        ranks.done(f"answered{step}")
        if not ranks.is_first:
            ranks.wait_for_first(f"scored{step}")
            return []
        ranks.wait_for_others(f"answered{step}")
        model.reload_journal()
        answering = time.perf_counter() - began
        if runs and problem is None:
            self.report(f"answered in {answering:.1f} s, all {len(runs)} together")
        for run in runs:
            name, began = _name(run.plan, self.options), time.perf_counter()
            if problem is None:
                run.score(model, self.tasks, answering, shared_with=len(runs))
            else:
                run.end("failed", str(problem))
            record, seconds = run.record, time.perf_counter() - began
            whole = f"{counts(record)}{replayed(record)}"
            said = whole if record.tasks else record.error
            self.report(f"{name}: {record.status}, {said}, scored in {seconds:.1f} s")
            if record.status != "complete":
                bad.append(Bad(run.plan.folder, record.status, record.error))
        ranks.done(f"scored{step}")
        return bad

    def _accepted(
        self, model: ChainModel, runs: Sequence[Run], ranks: Ranks
    ) -> tuple[list[Run], list[Bad]]:
        """Drop the methods that this model refuses, so that they cost the others nothing."""
        accepted, bad = [], []
        for run in runs:
            try:
                model.set_method(run.plan.chain.spec)
            except TempevalError as error:
                if ranks.is_first:
                    run.end("failed", str(error))
                self.report(f"{_name(run.plan, self.options)}: failed, {error}")
                bad.append(Bad(run.plan.folder, "failed", str(error)))
            else:
                accepted.append(run)
        return accepted, bad

    def _answer(self, model: ChainModel, runs: Sequence[Run], ranks: Ranks) -> TempevalError | None:
        """Answer this rank's share; return what ended it, or raise it where it ends the others."""
        specs = [run.plan.chain.spec for run in runs]
        self.report(f"answering {len(specs)} methods, video by video: {', '.join(specs)}")
        try:
            # The folder is rank 0's, and so is its log.
            with host_log(runs[0].plan.folder / LOG_NAME if ranks.is_first else None):
                requests = self.tasks.requests(model, self.options.seed)
                if self.options.overwrite:
                    model.forget_answers(requests, specs)
                for _ in model.answer_all(requests, specs):
                    ranks.check()
        except TempevalError as error:
            if ranks.world_size > 1:
                raise
            return error
        return None


def load_model(options: RunSpec) -> ChainModel:
    """Load the `tempeval` wrapper with an empty chain, which is not checked: it may be no row."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    module = importlib.import_module("tempeval.model_wrappers.chain")
    model: ChainModel = module.TempevalMatrix(**{**options.model_arguments(), "method": BASELINE})
    return model


def _said(bad: Sequence[Bad]) -> str:
    """Say which runs are not complete, and each reason once, however many runs have it."""
    by_reason: dict[tuple[str, str | None], list[str]] = {}
    for run in bad:
        by_reason.setdefault((run.status, run.reason), []).append(str(run.folder))
    return "; ".join(
        f"{', '.join(folders)} {'is' if len(folders) == 1 else 'are'} {status}: {reason}"
        for (status, reason), folders in by_reason.items()
    )


def _check_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise TempevalError(
            f"cannot write to {out}: {error.strerror}; choose another -o"
        ) from error


def _name(plan: Plan, options: RunSpec) -> str:
    return str(plan.folder.relative_to(options.out))
