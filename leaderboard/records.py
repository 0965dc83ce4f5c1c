"""What the files of runs say, as frozen dataclasses; `run_record` and `samples` read them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tempeval.run.record import RunRecord, TaskRecord, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.leaderboard.schema import Kind, ListedScore

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

_UNITS = {found.name: str(found.metadata["unit"]) for found in fields(Usage)}
# Per-question measures -> unit: fields of a question's usage, and its times in seconds.
MEASURES = {
    **{name: _UNITS[name] for name in ("visual_tokens", "token_layers", "kv_bytes")},
    "seconds": "seconds per question, standalone: decode + encode + prefill + answer",
    "amortised_seconds": "seconds per question as run, what is shared divided by who shares it",
    **{name: _UNITS[name] for name in ("prefill_flops", "frames", "distinct_temporal_ids")},
    **{name: _UNITS[name] for name in ("quantised_fraction", "peak_memory_bytes")},
}
# What a budget may be matched on.
BUDGETS = ("visual_tokens", "token_layers", "kv_bytes", "prefill_flops", "frames")


class RunTask(TaskRecord):
    """One task of a run, as its record describes it, with its name."""

    name: str


@dataclass(frozen=True, slots=True)
class Run:
    """One method x one base model x one frame budget, over one or more tasks.

    Attributes:
        name: the run folder relative to what all runs have in common, so that output does not
            depend on where the folder lies.
        record: all that its `run.json` says.
        tasks: its tasks, sorted by name.
        frame_policy: canonical JSON of what runs must share of what the model sees.
    """

    name: str
    record: RunRecord
    tasks: tuple[RunTask, ...]
    frame_policy: str


@dataclass(frozen=True, slots=True)
class Source:
    """Any run that was found and whose first file could be read.

    Attributes:
        name: as `Run.name`; for a stock run also the start of its file names.
        status: `complete`, `partial`, `failed`, `interrupted` or `stock`.
        facts: all that `run.json` says; for a stock run what the results file says of it.
    """

    name: str
    status: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one task of one run as columns, sorted by sample id.

    Attributes:
        ids: sample ids, unique.
        contents: content hashes.
        clusters: `key=value` of the task's cluster key, so that ids of different keys differ.
        digest: hash of ids, contents and clusters; equal digests mean rows align.
        targets: hash of the right answers, empty where the file states none.
        score: [n], 0 for failed samples.
        by_sum: [n], score by the sum of log-likelihoods where `score` is by their mean per token,
            0 for failed samples; NaN where the file does not say.
        failed: [n], True where the run recorded an error instead of an answer.
        unparsed: [n], 1 where the answer could not be parsed, NaN where the file does not say.
        measures: name (see MEASURES) -> [n], NaN where not measured.
    """

    ids: tuple[str, ...]
    contents: tuple[str, ...]
    clusters: tuple[str, ...]
    digest: str
    targets: str
    score: Floats
    by_sum: Floats
    failed: Bools
    unparsed: Floats
    measures: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Entry:
    """One task of one run with its samples: what is matched and compared."""

    run: Run
    task: RunTask
    samples: Samples


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a run, or some of its tasks, is not ranked.

    Attributes:
        run: the run's name.
        method: its printed method name, empty when it could not be read.
        tasks: the tasks concerned; empty for the whole run.
        kind: what sort of reason it is, see `schema.NotComparable`.
        field: what differs or is wrong.
        value: this run's value.
        other: the value of the baseline, or what is accepted.
        reason: a sentence.
        action: what to do about it.
        scores: what is known all the same; of a stock run, for example.
    """

    run: str
    method: str
    tasks: tuple[str, ...]
    kind: Kind
    field: str
    value: str
    other: str
    reason: str
    action: str
    scores: tuple[ListedScore, ...] = ()
