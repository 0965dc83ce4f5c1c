"""The document that a leaderboard is: one plain JSON value, which every output is made from.

`leaderboard.json` is this document and nothing else; markdown, HTML, CSV and plots read it and
compute nothing that is in a table. `null` always means: not measured, or not defined.

Units: scores as the task gives them (0 to 1 where `Task.fraction` is true), differences in the
unit of the scores, budgets and costs as in `records.MEASURES` (tokens, bytes, seconds,
floating-point operations), rates and p values as fractions in [0, 1]. Computed figures have 9
significant digits, whole ones all of theirs.

Keys are added without a new `schema`; removing one or changing what it means makes one.

This module is long because each field of the document has a line of its own and one that says what
it is; docs/leaderboard.md is written from it.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

SCHEMA = 3

#: What a run or task is listed for instead of ranked; see `NotComparable.kind`.
Kind = Literal[
    "unreadable",
    "unfinished",
    "stock",
    "limit",
    "failures",
    "damaged",
    "inconsistent",
    "duplicate",
    "older_version",
    "unmeasured",
    "unscored",
    "settings",
    "budget",
    "no_baseline",
]


#: How an interval of a difference was made; see `Cell.interval_kind`.
IntervalKind = Literal["percentile", "studentised", "percentile_fallback"]


class Interval(TypedDict):
    """A two-sided interval at the level of `Methodology.level`, in the unit of the value."""

    low: float
    high: float


class Costs(TypedDict):
    """What answering cost, over the answered questions.

    Attributes:
        measures: name (the keys of `records.MEASURES`) -> mean per question; for
            `peak_memory_bytes` the largest. Null where any question was not measured.
        parse_failure_rate: share of answers that could not be parsed.
        failed: questions with an error instead of an answer; they score 0.
        unparsed: answers that could not be parsed; null where the samples do not say.
        damaged: questions that were answered over a damaged video; null where the record does not
            say.
        skipped: questions that were left out of the run because their video is not there; they are
            in no other number.
        unmeasured: measure -> answered questions without it, where others have it; its mean is
            null.
        negative: measure -> answered questions on which it is below 0, which no cost is; its mean
            is null.
    """

    measures: dict[str, float | None]
    parse_failure_rate: float | None
    failed: int
    unparsed: int | None
    damaged: int | None
    skipped: int
    unmeasured: dict[str, int]
    negative: dict[str, int]


class Videos(TypedDict):
    """The videos of a task, each counted once.

    Attributes:
        total: that were asked about.
        damaged: of these, those that decode with a defect; their questions are answered and count.
        flags: name of a defect -> videos that have it; one video may have several.
    """

    total: int
    damaged: int
    flags: dict[str, int]


class BothAnswered(TypedDict):
    """The comparison over the questions that a method and the baseline both answered.

    Attributes:
        n: those questions.
        difference: of the mean scores over them.
        p: of the clustered sign-flip test over them, uncorrected.
        p_holm: corrected as `Cell.p_holm` is, with `Cell.p` for cells where both sides answered the
            same questions; null when the table is not ranked.
    """

    n: int
    difference: float
    p: float | None
    p_holm: float | None


class Cell(TypedDict):
    """One method on one task.

    All from `difference` to `mcnemar_p` compare with the table's baseline, paired by question,
    and are null in the baseline's own row.

    Attributes:
        run: name of the run, see `Run.name`.
        score: mean over the questions.
        score_by_sum: the score by the sum of log-likelihoods, where `score` is by their mean per
            token; null where the task is not scored so.
        se: standard error of the score, clustered by the task's cluster key.
        score_interval: t interval of the score, from its clustered standard error.
        difference: score minus the baseline's.
        interval: cluster-bootstrap interval of the difference.
        interval_kind: `studentised` below `Methodology.studentised_below` clusters, else
            `percentile`; `percentile_fallback` where there are fewer clusters and those that
            differ are too few to studentise (more than 2.5 % of the draws lie on one side and
            have no spread): such an interval is too narrow.
        difference_se: clustered standard error of the difference.
        p: of the clustered sign-flip test, uncorrected.
        p_exact: true when all sign patterns were counted, not drawn.
        p_holm: p corrected over the cells of the tables of one setting; null when the table is not
            ranked.
        significant: p_holm is at most `Methodology.alpha`; where `both_answered` is not null, its
            p_holm is too, for a difference in the same direction.
        better: the difference is in the good direction of the task; null at 0.
        mde: minimum detectable effect of one test, >= 0.
        wins: questions with a better score than the baseline's.
        ties: with the same.
        losses: with a worse one.
        mcnemar_p: of the exact test, where every cluster has one question and scores are 0 or 1.
        n: questions.
        clusters: clusters of questions.
        both_answered: the comparison without the questions that failed; null where the same
            questions were answered on both sides.
        costs: of this task's questions.
        videos: of this task in this run; null where the record does not say.
    """

    run: str
    score: float
    score_by_sum: float | None
    se: float | None
    score_interval: Interval | None
    difference: float | None
    interval: Interval | None
    interval_kind: IntervalKind | None
    difference_se: float | None
    p: float | None
    p_exact: bool | None
    p_holm: float | None
    significant: bool
    better: bool | None
    mde: float | None
    wins: int | None
    ties: int | None
    losses: int | None
    mcnemar_p: float | None
    n: int
    clusters: int
    both_answered: BothAnswered | None
    costs: Costs
    videos: Videos | None


class Means(TypedDict):
    """The means of a row over the table's tasks.

    They are null when a task is missing, or when the tasks have unlike scales or directions. No
    test is made of them.

    Attributes:
        macro: mean of the task scores.
        macro_score_interval: t interval of it, from its clustered standard error.
        macro_difference: minus the baseline's.
        macro_interval: cluster-bootstrap interval of the difference; null below 2 clusters, and
            where more than 1 % of the draws left a task without questions.
        macro_interval_kind: as `Cell.interval_kind`.
        pooled: mean over the questions of all tasks, so that large tasks weigh more.
        pooled_score_interval: as for macro.
        pooled_difference: as for macro.
        pooled_interval: cluster-bootstrap interval of it; null below 2 clusters.
        pooled_interval_kind: as for macro.
    """

    macro: float | None
    macro_score_interval: Interval | None
    macro_difference: float | None
    macro_interval: Interval | None
    macro_interval_kind: IntervalKind | None
    pooled: float | None
    pooled_score_interval: Interval | None
    pooled_difference: float | None
    pooled_interval: Interval | None
    pooled_interval_kind: IntervalKind | None


class Row(Means):
    """One method at the table's budget.

    Attributes:
        label: the printed name of the method with its settings, unique in its table.
        method: its name without settings.
        fingerprint: digest of the method and its settings; the same in every table.
        settings: as in the run record.
        is_baseline: whether the others are compared with this row.
        cells: in the order of the table's tasks, null where the method has no such task. The
            cells of all rows are the method x task matrix.
        costs: over the questions of all tasks.
    """

    label: str
    method: str
    fingerprint: str
    settings: dict[str, Any]
    is_baseline: bool
    cells: list[Cell | None]
    costs: Costs | None


class Task(TypedDict):
    """A column of a table: what was asked.

    Attributes:
        name: as lmms-eval knows it.
        version: of the task's YAML.
        metric: name of the score in a samples line.
        cluster_key: what questions are clustered by.
        prompt_hash: digest of the rendered prompts.
        dataset_digest: digest of sample ids and contents.
        group: the group that lists the task.
        higher_is_better: of the score.
        fraction: every score lies in [0, 1].
        n: questions.
        clusters: clusters of them.
    """

    name: str
    version: str
    metric: str
    cluster_key: str
    prompt_hash: str
    dataset_digest: str
    group: str | None
    higher_is_better: bool
    fraction: bool
    n: int
    clusters: int


class Plan(TypedDict):
    """What runs were planned with; the fields are those of Setting."""

    visual_token_budget: int | None
    min_pixels: int | None
    max_pixels: int | None
    frame_policy: dict[str, Any]


class Setting(TypedDict):
    """What all runs of a table share, besides the budget; sizes are the baseline's.

    Attributes:
        model: the base model.
        model_revision: commit or weight digest.
        frame_policy: rule, num_frames, fps and whatever else changes what the model sees. When
            the budget is not visual tokens, methods may have another number of frames.
        position_rule: `original` or `native`.
        dtype: of the baseline.
        limit: questions per task of a trial run (a share of them below 1), null for full runs.
        visual_token_budget: what was planned, in tokens.
        min_pixels: fewest pixels per frame.
        max_pixels: most pixels per frame.
        baseline: fingerprint of the baseline.
        methods_plan: plan of the methods, where a method stands beside this baseline with several
            plans, each in a table of its own; null where that is not so.
        variant: number of the table in this setting, from 0: several where one task has several
            comparable groups (two prompts, say), which cannot stand in one column.
    """

    model: str
    model_revision: str
    frame_policy: dict[str, Any]
    position_rule: str
    dtype: str
    limit: float | None
    visual_token_budget: int | None
    min_pixels: int | None
    max_pixels: int | None
    baseline: str
    methods_plan: Plan | None
    variant: int


class Table(TypedDict):
    """One base model at one matched budget.

    Attributes:
        id: `table-1`, ... in the order of the document; for anchors.
        model: the base model, as `setting.model`.
        is_mini: it is a checkpoint of the mini suite.
        ranked: false for `--limit` runs: rows then stand by name and nothing is significant.
        setting: what its runs share.
        match_on: the measure that is the budget, as `Methodology.match_on`.
        budget: its mean over the baseline's questions of all tasks; null where the tasks' budgets
            differ by more than 2 %.
        budgets: the baseline's mean by task, in the order of `tasks`.
        devices: GPUs or devices of its runs.
        n: questions of all tasks.
        clusters: clusters of all tasks; one video asked about by two tasks is one cluster.
        tasks: the columns.
        rows: the baseline first, then by macro score, then by name.
        tests: tests that `Cell.p_holm` is corrected for: those of all tables of its setting.
        notes: what had to be chosen or kept apart, a sentence each: which of several baselines, and
            which tasks stand in other tables of this setting too.
        differs: fact -> values, where the runs differ in one that is not compared by (GPU,
            package versions, ...).
    """

    id: str
    model: str
    is_mini: bool
    ranked: bool
    setting: Setting
    match_on: str
    budget: float | None
    budgets: list[float | None]
    devices: list[str]
    n: int
    clusters: int
    tasks: list[Task]
    rows: list[Row]
    tests: int
    notes: list[str]
    differs: dict[str, list[str]]


class Point(TypedDict):
    """One method at one budget in a plot.

    Attributes:
        table: `Table.id`.
        label: `Row.label`.
        method: `Row.method`.
        fingerprint: `Row.fingerprint`; equal ones are one method at several budgets.
        is_baseline: `Row.is_baseline`.
        budget: the row's own mean of the budget measure.
        score: macro score or score.
        interval: of the score.
        measures: the row's or the cell's costs, as `Costs.measures`.
    """

    table: str
    label: str
    method: str
    fingerprint: str
    is_baseline: bool
    budget: float | None
    score: float
    interval: Interval | None
    measures: dict[str, float | None]


class Plot(TypedDict):
    """Scores that may be drawn on one pair of axes: equal in all but method, budget and frames.

    Attributes:
        task: the task; null for the macro score over `tasks`.
        tasks: the tasks that the score is the mean of.
        group: what names them, as `Task.group` where it is the same for all, else null.
        model: base model.
        ranked: as `Table.ranked`.
        higher_is_better: of the score.
        fraction: scores lie in [0, 1].
        points: by budget, then in the order of the rows.
    """

    task: str | None
    tasks: list[str]
    group: str | None
    model: str
    ranked: bool
    higher_is_better: bool
    fraction: bool
    points: list[Point]


class ListedScore(TypedDict):
    """A score that is shown and not ranked.

    Attributes:
        task: the task.
        version: of it.
        metric: name of the score.
        higher_is_better: of the score; null where the file does not say.
        fraction: whether all scores lie in [0, 1]; null where only a mean is known.
        score: mean over the questions.
        se: its standard error: clustered where questions were read, else what lmms-eval gives.
        n: questions.
        clusters: clusters of them.
        costs: null where nothing was measured: the budget is unknown.
    """

    task: str
    version: str
    metric: str
    higher_is_better: bool | None
    fraction: bool | None
    score: float | None
    se: float | None
    n: int | None
    clusters: int | None
    costs: Costs | None


class NotComparable(TypedDict):
    """Why a run, or some of its tasks, is not ranked.

    Attributes:
        run: name of the run or, where it could not be read, of its folder.
        method: printed name of the method, empty where it could not be read.
        tasks: the tasks concerned; empty for the whole run.
        kind: what sort of reason it is.
        field: what differs or is wrong.
        value: this run's value.
        other: the nearest baseline's value, or what is accepted; may be empty.
        reason: a sentence without a full stop.
        action: what to do about it, without a full stop.
        scores: what is known all the same, by task; never ranked.
    """

    run: str
    method: str
    tasks: list[str]
    kind: Kind
    field: str
    value: str
    other: str
    reason: str
    action: str
    scores: list[ListedScore]


class Run(TypedDict):
    """One run that was read, ranked or not.

    Attributes:
        id: `run-1`, ... in the order of the document; for anchors and file names.
        name: its folder, relative to what all runs have in common; for a stock run also the
            start of its file names.
        label: the printed name of the method with its settings; of the model for a stock run.
        method: its name without settings; empty for a stock run.
        fingerprint: digest of the method and its settings; empty for a stock run.
        model: base model; a path has its last part only, as everywhere in the document.
        model_revision: commit or weight digest; empty where unknown.
        status: `complete`, `partial`, `failed` or `interrupted` as its record says; `stock` for a
            run of lmms-eval without one.
        started: ISO 8601.
        finished: ISO 8601.
        wall_seconds: of the run.
        tempeval_version: that wrote the record.
        packages: name -> version.
        tables: ids of the tables it stands in.
        facts: all of `run.json`; for a stock run the facts of lmms-eval's results file. Paths of
            the machine (from its root, a home, current or parent folder, or a drive) have their
            last part only.
    """

    id: str
    name: str
    label: str
    method: str
    fingerprint: str
    model: str
    model_revision: str
    status: str
    started: str | None
    finished: str | None
    wall_seconds: float | None
    tempeval_version: str | None
    packages: dict[str, str]
    tables: list[str]
    facts: dict[str, Any]


class Reference(TypedDict):
    """A published number; shown apart with its source, never ranked with measured ones.

    Attributes:
        value: as published, in percent where `metric` is an accuracy.
        metric: its name.
        task: the tempeval task it is about, or the benchmark's name.
        method: as published.
        model: as published.
        frames: as published, null where the source does not say.
        table: where in the source.
        source: tag of the source.
        details: whatever else the file says.
    """

    value: float
    metric: str
    task: str
    method: str
    model: str
    frames: int | str | None
    table: str
    source: str
    details: dict[str, Any]


class Methodology(TypedDict):
    """How tables were matched and numbers computed.

    Attributes:
        baseline: method name that the others are compared with.
        match_on: the measure that is the budget.
        unit: its unit.
        tolerance: of the measured budget, as a fraction.
        paired_share: share of paired questions that must be within the tolerance.
        max_failure_ratio: most failed questions of a ranked task, as a fraction.
        answered_share: share of questions that both sides must have answered, whatever
            `max_failure_ratio` is.
        draws: of every bootstrap, and sign patterns where a test is not exact.
        seed: of all draws.
        level: of intervals.
        alpha: of the corrected tests.
        power: of the minimum detectable effect.
        studentised_below: with fewer clusters, intervals are studentised.
    """

    baseline: str
    match_on: str
    unit: str
    tolerance: float
    paired_share: float
    max_failure_ratio: float
    answered_share: float
    draws: int
    seed: int
    level: float
    alpha: float
    power: float
    studentised_below: int


class Document(TypedDict):
    """A leaderboard.

    Attributes:
        schema: SCHEMA.
        tempeval_version: that built it.
        methodology: how.
        measures: name -> unit, of every measure in `Costs.measures`.
        tables: full runs before limited ones, then by model, revision, and budget from small to
            large.
        plots: macro scores first, then tasks by name.
        not_comparable: by run and task.
        references: published numbers for the benchmarks of the tables.
        files: what was written with it, by path relative to the folder; the next build there
            replaces or removes these files and no others.
        runs: by name.
    """

    schema: int
    tempeval_version: str
    methodology: Methodology
    measures: dict[str, str]
    tables: list[Table]
    plots: list[Plot]
    not_comparable: list[NotComparable]
    references: list[Reference]
    files: list[str]
    runs: list[Run]
