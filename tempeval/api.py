"""The functions of `import tempeval`: evaluate, rank and verify; their results become tables."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, TempevalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tempeval.leaderboard import Refusal
    from tempeval.leaderboard.schema import Document
    from tempeval.methods.base import Method
    from tempeval.run.record import RunRecord, StartedRecord
    from tempeval.verification.report import Check, Verification


@dataclass(frozen=True)
class Evaluation:
    """Runs that `evaluate` has made, or found complete.

    Attributes:
        out: folder of all runs.
        folders: one per method and budget, in order.
    """

    out: Path
    folders: tuple[Path, ...]

    @property
    def records(self) -> list[StartedRecord | RunRecord]:
        """What each run's `run.json` says, typed (docs/records.md).

        Raises:
            TempevalError: if one cannot be read.
        """
        return [_record(folder) for folder in self.folders]

    def to_pandas(self) -> Any:
        """Return a data frame with one row per run and task: what the record says of the task."""
        import pandas

        return pandas.DataFrame(list(self._rows()))

    def samples(self) -> Any:
        """Return a data frame with one row per run, task and question, as in the samples files.

        Raises:
            TempevalError: if a samples file cannot be read.
        """
        import pandas

        rows = []
        for folder, record in zip(self.folders, self.records, strict=True):
            for name, task in record.tasks.items():
                rows += [
                    {"method": record.method, "run": str(folder), "task": name, **line}
                    for line in _lines(folder / task.samples_file)
                ]
        return pandas.DataFrame(rows)

    def _rows(self) -> Iterator[dict[str, Any]]:
        from tempeval.run.record import RunRecord

        for folder, record in zip(self.folders, self.records, strict=True):
            said = {
                "method": record.method,
                "label": record.method_label if isinstance(record, RunRecord) else record.method,
                "budget": record.request.model_dump().get("visual_token_budget"),
                "status": record.status,
                "run": str(folder),
            }
            for name, task in record.tasks.items():
                yield {**said, "task": name, **_flat(task.model_dump())}


@dataclass(frozen=True)
class Ranking:
    """Runs compared at a matched budget.

    Attributes:
        document: what `leaderboard.json` holds.
        text: the summary tables, for a terminal.
        refusals: what is not ranked, and why.
        files: what was written; empty where no folder was named.
    """

    document: Document
    text: str
    refusals: tuple[Refusal, ...]
    files: tuple[Path, ...] = ()

    def to_pandas(self) -> Any:
        """Return a data frame with one row per table, method and task; as `leaderboard.csv`."""
        import pandas

        from tempeval.leaderboard.csv_file import columns, lines

        return pandas.DataFrame(list(lines(self.document)), columns=columns(self.document))

    def refused(self) -> Any:
        """Return a data frame of what is not ranked, and why."""
        import pandas

        rows = [(refusal.run, refusal.kind, refusal.reason) for refusal in self.refusals]
        return pandas.DataFrame(rows, columns=["run", "kind", "reason"])


def evaluate(
    methods: str | Sequence[str],
    tasks: str | Sequence[str],
    out: str | Path,
    *,
    report: Callable[[str], None] = lambda _line: None,
    **options: Any,
) -> Evaluation:
    """Evaluate methods x budgets on tasks with one loaded model, as `tempeval run` does.

    Runs that are complete already are reused; an interrupted one goes on where it stopped.

    Args:
        methods: chains such as `pas+temporal_exit` or `path/file.py:Class[setting=1]`.
        tasks: tasks and groups.
        out: folder that gets one folder per run.
        report: gets one line of progress at a time.
        options: any other option of a run, under the names of docs/options.md, such as
            `pretrained`, `num_frames`, `budgets` or `limit`.

    Raises:
        TempevalError: for options that cannot be honoured, before the model is loaded where that
            can be known; `RunFailed` for runs that lack answers, whose records say which.
    """
    from tempeval.accepted import load_accepting
    from tempeval.run.match_on import rerun_baselines
    from tempeval.run.runner import run_matrix
    from tempeval.run.spec import RunSpec

    given = {"methods": methods, "tasks": tasks, "out": out, **options}
    spec = RunSpec.of(given, "python", "option")

    def run(one: RunSpec) -> list[Path]:
        return run_matrix(one, report=report, load=load_accepting)

    folders = run(spec)
    more = rerun_baselines(spec, folders, spec.match_on, report=report, run=run)
    return Evaluation(spec.out, (*folders, *more))


def rank(
    runs: Evaluation | str | Path | Iterable[Evaluation | str | Path],
    out: str | Path | None = None,
    **options: Any,
) -> Ranking:
    """Compare runs at a matched budget, as `tempeval leaderboard` does.

    Args:
        runs: evaluations, run folders, or folders of run folders.
        out: folder for the leaderboard's files; None writes none.
        options: `baseline`, `match_on`, `tolerance`, `seed`, `draws`, `max_failure_ratio`; see
            `tempeval.leaderboard.build`.

    Raises:
        TempevalError: for runs that are not there, or an option that is not accepted.
    """
    from tempeval.leaderboard import build

    several = [runs] if isinstance(runs, (Evaluation, str, Path)) else list(runs)
    folders: list[Path] = []
    for one in several:
        folders += one.folders if isinstance(one, Evaluation) else [Path(one).expanduser()]
    with tempfile.TemporaryDirectory(prefix="tempeval-rank-") as scratch:
        place = Path(scratch) / "leaderboard" if out is None else Path(out).expanduser()
        try:
            made = build(folders, place, **options)
        except TypeError as error:  # of an option's name: `build` checks their values itself
            raise InvalidSetting(f"rank: {error}") from error
    files = () if out is None else made.files
    return Ranking(made.document, made.text, made.refusals, files)


def verify(
    method: str | Method | type[Method],
    *,
    family: str | None = None,
    report: Callable[[Check], None] = lambda _check: None,
    **settings: Any,
) -> Verification:
    """Prove a method on tiny random models, as `tempeval verify` does.

    Args:
        method: `pas[unit=position]`, `path/file.py:Class`, a method, or its class.
        family: only models of this family; else of every one that takes the method.
        report: gets each check as it is made.
        settings: more settings of the method, by name.

    Raises:
        TempevalError: for a method or family that cannot be used. A failed check raises nothing:
            see `ok`.
    """
    from tempeval.verification.report import verify_method

    return verify_method(method, family=family, report=report, **settings)


def _record(folder: Path) -> StartedRecord | RunRecord:
    from tempeval.run.record import read_record

    found = read_record(folder)
    if found is None:
        raise TempevalError(f"{folder} has no record of a run; evaluate it again")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as lines:
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise TempevalError(f"{path} cannot be read: {error}") from error


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested values by dotted names; lists are left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{key}.")
        elif not isinstance(value, list):
            found[f"{before}{key}"] = value
    return found
