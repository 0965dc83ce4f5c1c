"""From the log to the numbers of the tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tempeval.bench.stats import Spread, shared_limit, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.bench.log import BenchLog

STAGES = ("decode", "encode", "prefill", "answer")
BASELINE, EXIT, PAS = "baseline", "temporal_exit", "pas"
CHAINS = (BASELINE, EXIT, PAS)
STAGED_CHAINS = (
    BASELINE,
    *(f"staged_sparse[strategies={chosen}]" for chosen in ("1", "2", "3", "1/2", "1/3")),
)
#: From so many visual tokens on, strategies (2) and (3) are held against the baseline.
STAGED_GOAL_TOKENS = 4096


@dataclass(frozen=True)
class QuestionsRow:
    """m questions per video at one size; times are medians over pairs."""

    tokens: int
    facts: dict[str, Any]
    stock_s: float
    ours_s: float
    stages_ms: dict[str, float]
    ratio: Spread
    cpu_ratio: Spread
    limit: float
    share: float
    same_answers: float
    others: str


@dataclass(frozen=True)
class LabelsRow:
    """N labels at one size; `forwards_s` is scaled from the forwards measured."""

    tokens: int
    count: int
    facts: dict[str, Any]
    forward_s: float
    ours_s: float
    ratio: Spread
    cpu_ratio: Spread
    others: str

    @property
    def forwards(self) -> float:
        """Median cost of all labels of one video, in forwards of the whole prompt."""
        return self.count / self.ratio.median


@dataclass(frozen=True)
class MethodRow:
    """Prefill under one chain; `ratio` is its time over the baseline's.

    `least_s` and `most_s` are of single rounds. `operator` is what the cell measured of an
    operator alone, None where it did not.
    """

    tokens: int
    chain: str
    facts: dict[str, Any]
    seconds: float
    least_s: float
    most_s: float
    ratio: Spread
    cpu_ratio: Spread
    others: str

    @property
    def operator(self) -> dict[str, Any] | None:
        """`chain`, `seconds` for all `layers`, `repetitions`; of this row's chain or another's."""
        found: dict[str, Any] | None = self.facts.get("operator")
        return found


@dataclass(frozen=True)
class StagedRow(MethodRow):
    """Prefill and one question under one chain; `question_s` is the question's part."""

    question_s: float


@dataclass(frozen=True)
class Results:
    """All rows that the log allows; cells without two rounds are left out."""

    questions: list[QuestionsRow]
    labels: list[LabelsRow]
    methods: list[MethodRow]
    staged: list[StagedRow]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def results_of(log: BenchLog) -> Results:
    """Compute every row."""
    settings = log.data["settings"]
    questions = [
        _questions_row(log, f"questions/{count}@{tokens}", tokens)
        for tokens in settings["tokens"]
        for count in settings["questions"]
        if len(log.rounds(f"questions/{count}@{tokens}")) > 1
    ]
    labels = [
        _labels_row(log, f"labels/{count}@{tokens}", tokens, count)
        for tokens in settings["tokens"]
        for count in _label_counts(log)
        if len(log.rounds(f"labels/{count}@{tokens}")) > 1
    ]
    methods = [
        _method_row(log, f"prefill@{tokens}", tokens, chain)
        for tokens in settings["tokens"]
        for chain in CHAINS
        if len(log.rounds(f"prefill@{tokens}")) > 1
    ]
    sizes = sorted(int(cell.partition("@")[2]) for cell in log.cells("staged@"))
    staged = [
        _staged_row(log, f"staged@{tokens}", tokens, chain)
        for tokens in sizes
        for chain in STAGED_CHAINS
        if len(log.rounds(f"staged@{tokens}")) > 1
    ]
    return Results(questions, labels, methods, staged)


def _label_counts(log: BenchLog) -> list[int]:
    cells = log.cells("labels/")
    return sorted({int(cell.removeprefix("labels/").partition("@")[0]) for cell in cells})


def _questions_row(log: BenchLog, cell: str, tokens: int) -> QuestionsRow:
    rounds = log.rounds(cell)
    facts = log.facts(cell)
    ratio, cpu_ratio = _ratios(rounds, lambda s: s["stock"] / s["ours"])
    stages = {name: spread([r["stages_ms"][name] for r in rounds]).median for name in STAGES}
    # The limit of each pair comes from that pair's own stage times.
    limits = [shared_limit(r["stages_ms"], facts["questions"]) for r in rounds]
    seconds = [r["seconds"] for r in rounds]
    shares = [s["stock"] / s["ours"] / x for s, x in zip(seconds, limits, strict=True)]
    return QuestionsRow(
        tokens=tokens,
        facts=facts,
        stock_s=_seconds(rounds, "stock"),
        ours_s=_seconds(rounds, "ours"),
        stages_ms=stages,
        ratio=ratio,
        cpu_ratio=cpu_ratio,
        limit=spread(limits).median,
        share=spread(shares).median,
        same_answers=min(r["same_answers"] for r in rounds),
        others=_others(rounds),
    )


def _labels_row(log: BenchLog, cell: str, tokens: int, count: int) -> LabelsRow:
    rounds = log.rounds(cell)
    ratio, cpu_ratio = _ratios(rounds, lambda s: count * s["forward"] / s["shared"])
    return LabelsRow(
        tokens=tokens,
        count=count,
        facts=log.facts(cell),
        forward_s=_seconds(rounds, "forward"),
        ours_s=_seconds(rounds, "shared"),
        ratio=ratio,
        cpu_ratio=cpu_ratio,
        others=_others(rounds),
    )


def _method_row(log: BenchLog, cell: str, tokens: int, chain: str) -> MethodRow:
    rounds = log.rounds(cell)
    ratio, cpu_ratio = _ratios(rounds, lambda s: s[chain] / s[BASELINE])
    return MethodRow(
        tokens=tokens,
        chain=chain,
        facts=log.facts(cell),
        seconds=_seconds(rounds, chain),
        least_s=min(r["seconds"][chain] for r in rounds),
        most_s=max(r["seconds"][chain] for r in rounds),
        ratio=ratio,
        cpu_ratio=cpu_ratio,
        others=_others(rounds),
    )


def _staged_row(log: BenchLog, cell: str, tokens: int, chain: str) -> StagedRow:
    row = _method_row(log, cell, tokens, chain)
    asked = [measured["question_seconds"][chain] for measured in log.rounds(cell)]
    return StagedRow(**vars(row), question_s=spread(asked).median)


def _ratios(
    rounds: Sequence[dict[str, Any]], of: Callable[[dict[str, float]], float]
) -> tuple[Spread, Spread]:
    """Return the ratio of wall seconds and that of processor seconds."""
    wall, cpu = ([of(r[key]) for r in rounds] for key in ("seconds", "cpu_seconds"))
    return spread(wall), spread(cpu)


def _seconds(rounds: Sequence[dict[str, Any]], side: str) -> float:
    return spread([measured["seconds"][side] for measured in rounds]).median


def _others(rounds: Sequence[dict[str, Any]]) -> str:
    """Return the range of cores that other processes used during the rounds."""
    used = [r["other_cores"] for r in rounds if r.get("other_cores") is not None]
    return f"{min(used):.1f}-{max(used):.1f}" if used else "-"
