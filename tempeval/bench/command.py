"""`tempeval bench`: build or load the models, measure round by round, write page and numbers."""

from __future__ import annotations

import contextlib
import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tempeval.bench import checkpoint, inputs
from tempeval.bench.cells import LabelsCell, MethodsCell, QuestionsCell
from tempeval.bench.goals import goals_of
from tempeval.bench.log import BenchLog
from tempeval.bench.machine import OtherWork, is_busy, load_average, machine_facts, timestamp
from tempeval.bench.options import (
    FRAMES_PER_GRID,
    frame_size,
    labels_of,
    pairs_of,
    sections_of,
    settings_of,
    staged_tokens_of,
)
from tempeval.bench.render import check_page, render, warnings_of, write_page
from tempeval.bench.results import CHAINS, STAGED_CHAINS, results_of
from tempeval.bench.sides import MAX_PIXELS, MIN_PIXELS, Sides, quiet
from tempeval.bench.staged import StagedCell
from tempeval.errors import InvalidSetting
from tempeval.families.base import LoadOptions
from tempeval.families.qwen_vl import QwenVL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tempeval.bench.cells import Cell
    from tempeval.bench.goals import Goal
    from tempeval.bench.options import BenchOptions, Settings

#: Videos per call with one question each; one call over one video would only measure start-up.
VIDEOS_OF_ONE_QUESTION = 3


@dataclass(frozen=True)
class BenchReport:
    """What a benchmark left behind.

    Attributes:
        markdown: the page, with the tables between its marks.
        json: all measurements and results.
        text: the tables as they are in the page.
        goals: goals with what was measured.
        warnings: what makes the numbers doubtful.
        complete: whether every round was measured; False after Ctrl-C.
    """

    markdown: Path
    json: Path
    text: str
    goals: list[Goal]
    warnings: list[str]
    complete: bool


def run_bench(options: BenchOptions, report: Callable[[str], None]) -> BenchReport:
    """Measure what is missing, and write `benchmarks.md` and `benchmarks.json`.

    Every round is in the JSON file before the next begins. Ctrl-C ends the measuring, and the
    tables are made of what is there; the same command goes on later.

    Args:
        options: of the command.
        report: prints a line of progress.

    Raises:
        InvalidSetting: for options that are not accepted, or a folder of other measurements.
        UnknownName: for a section that does not exist.
        UnsupportedModel: if the checkpoint is no Qwen2.5-VL.
        BenchMismatch: if the two sides do not do the same work.
    """
    threads_before = torch.get_num_threads()
    settings = settings_of(options, threads_before)
    sections = sections_of(options)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidSetting(f"cannot write to {options.out}: {error}") from error
    log = BenchLog(
        options.out / "benchmarks.json",
        settings,
        machine_facts(settings.device, settings.threads),
        overwrite=options.overwrite,
    )
    page = options.out / "benchmarks.md"
    check_page(page)  # before hours of measuring, not after
    load = load_average()
    if is_busy(load):
        report(f"warning: the load average is {load}; ratios will be unreliable")
    session: dict[str, Any] = {"start": timestamp(), "load_start": load}
    torch.set_num_threads(settings.threads)
    complete = False
    try:
        with tempfile.TemporaryDirectory(prefix="tempeval-bench-") as folder:
            run = _Run(log, settings, session, report)
            run.measure(Path(folder), options, sections)
        complete = True
    except KeyboardInterrupt:
        report("interrupted; what was measured is kept")
    finally:
        torch.set_num_threads(threads_before)
        session |= {"end": timestamp(), "load_end": load_average()}
        log.data.setdefault("model", "not loaded")
        results = results_of(log)
        goals = goals_of(results)
        log.data["results"] = results.to_dict()
        log.data["goals"] = [vars(goal) for goal in goals]
        log.write()
        text = render(log, results, goals)
        write_page(page, text)
    return BenchReport(page, log.path, text, goals, warnings_of(log), complete)


class _Run:
    """One session of measuring."""

    def __init__(
        self,
        log: BenchLog,
        settings: Settings,
        session: dict[str, Any],
        report: Callable[[str], None],
    ) -> None:
        self.log, self.settings, self.report = log, settings, report
        self.session = session

    def measure(self, folder: Path, options: BenchOptions, sections: Sequence[str]) -> None:
        """Measure cell by cell, so that an early end leaves whole ones."""
        pairs = pairs_of(options)
        cells = self._cells(folder, options, sections)
        wanted = {cell.name: pairs + cell.extra_rounds for cell in cells}
        left = [cell for cell in cells if len(self.log.rounds(cell.name)) < wanted[cell.name]]
        if not left:
            self.report("every round is there already")
            return
        self.log.data["sessions"].append(self.session)
        for cell in left:
            self.report(f"{cell.name}: checking that both sides do the same, warming up")
            if dropped := self.log.drop_other_code(cell.name):
                self.report(f"{cell.name}: {dropped} rounds of other code are dropped")
            facts = cell.prepare()
            with _long_lived():
                for number in range(len(self.log.rounds(cell.name)), wanted[cell.name]):
                    others = OtherWork()
                    measured = cell.measure(number)
                    measured |= {"other_cores": others.cores(), "load": load_average()}
                    self.log.add_round(cell.name, facts, measured)
                    times = ", ".join(f"{k} {v:.2f} s" for k, v in measured["seconds"].items())
                    self.report(f"{cell.name}: round {number + 1}/{wanted[cell.name]}: {times}")

    def _cells(self, folder: Path, options: BenchOptions, sections: Sequence[str]) -> list[Cell]:
        settings = self.settings
        self.report("loading the models")
        with quiet():
            small, deep = self._checkpoints(folder)
            sides = Sides(small, settings)
            family = sides.family if deep == small else _load(deep, settings)
        parameters = [f.model.num_parameters() / 1e6 for f in (sides.family, family)]
        self.log.data["model"] = (
            settings.pretrained
            if settings.pretrained is not None
            else f"Qwen2.5-VL with random weights, {parameters[0]:.0f} M parameters "
            f"({sides.family.geometry.num_layers} layers); for the methods {parameters[1]:.0f} M "
            f"({family.geometry.num_layers} layers)"
        )
        cells: list[Cell] = []
        checked: dict[str, dict[str, Any]] = {}
        files = {"labels", "methods", "questions"} & set(sections)
        for tokens in settings.tokens if files else ():  # the goals' first
            videos = [self._clip(folder, tokens, n) for n in range(VIDEOS_OF_ONE_QUESTION)]
            if "labels" in sections:
                cells += [
                    LabelsCell(
                        sides.family,
                        videos[0],
                        inputs.questions(1)[0],
                        inputs.labels(count),
                        tokens,
                        settings.frames,
                        settings.dtype,
                    )
                    for count in labels_of(options)
                ]
            if "methods" in sections and tokens == max(settings.tokens):
                cells.append(MethodsCell(family, videos[0], CHAINS, tokens, settings.frames))
            if "questions" in sections:
                cells += [
                    QuestionsCell(
                        sides,
                        videos if count == 1 else videos[:1],
                        inputs.questions(count),
                        tokens,
                        checked,
                    )
                    for count in sorted(settings.questions, reverse=True)
                ]
        if "staged" in sections:
            question, grids = inputs.questions(1)[0], settings.frames // FRAMES_PER_GRID
            cells += [
                StagedCell(family, STAGED_CHAINS, question, tokens, grids)
                for tokens in staged_tokens_of(options)
            ]
        return cells

    def _checkpoints(self, folder: Path) -> tuple[str, str]:
        """Return the folders of the model for questions and labels, and of that for methods."""
        if self.settings.pretrained is not None:
            return (self.settings.pretrained,) * 2
        if self.settings.quick:
            tiny = checkpoint.save_random(folder, checkpoint.TINY)
            return str(tiny), str(checkpoint.save_random(folder, checkpoint.TINY_DEEP))
        small = checkpoint.save_random(folder, checkpoint.HALF_DEPTH)
        return str(small), str(checkpoint.save_random(folder, checkpoint.FULL_DEPTH))

    def _clip(self, folder: Path, tokens: int, number: int) -> str:
        path = folder / f"clip-{tokens}-{number}.mp4"
        if not path.exists():
            frames = self.settings.frames
            inputs.write_clip(path, frames, frame_size(tokens, frames), seed=number)
        return str(path)


@contextlib.contextmanager
def _long_lived() -> Iterator[None]:
    """Keep what exists out of garbage collections: with all modules they would take half a second.

    Collections then run between the timed parts, where they are cheap, and rarely within them.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _load(pretrained: str, settings: Settings) -> QwenVL:
    return QwenVL.load(
        pretrained,
        LoadOptions(
            device=settings.device,
            dtype=settings.dtype,
            position_rule="native",
            min_pixels=MIN_PIXELS,
            max_pixels=MAX_PIXELS,
        ),
    )
