"""What the files of runs say, as frozen dataclasses; `run_record` and `samples` read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.leaderboard.schema import Kind, ListedScore

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

# Per-question measures -> unit: fields of a token_counts entry, and times in seconds.
MEASURES = {
    "visual_tokens": "tokens",
    "token_layers": "tokens (sum over layers of visual tokens present / layers)",
    "kv_bytes": "bytes",
    "seconds": "seconds per question, standalone: decode + encode + prefill + answer",
    "amortised_seconds": "seconds per question as run, what is shared divided by who shares it",
    "prefill_flops": "floating-point operations",
    "frames": "frames",
    "distinct_temporal_ids": "ids",
    "quantised_fraction": "fraction",
    "peak_memory_bytes": "bytes",
}
# What a budget may be matched on.
BUDGETS = ("visual_tokens", "token_layers", "kv_bytes", "prefill_flops", "frames")


@dataclass(frozen=True, slots=True)
class VideoCounts:
    """The videos of a task, each once; `flags` is how many of them each flag of damage is on."""

    total: int
    damaged: int
    flags: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """One task of a run, as its `run.json` describes it; the counts are samples.

    `skipped` were left out of the run because their video is not there, and are not in `expected`;
    `skipped_digest` says which, None for none. `damaged` were answered over a damaged video; it and
    `videos` are None where the record does not say. `unranked` says why the task cannot be ranked,
    and is empty where it can.
    `task_digest` is of what asks and scores (YAML, code, data of metrics), `videos_digest` of the
    videos; both are empty where the record does not say.
    """

    name: str
    version: str
    prompt_hash: str
    dataset_digest: str
    expected: int
    answered: int
    failed: int
    unparsed: int
    samples_file: str
    score_key: str
    cluster_key: str
    higher_is_better: bool
    group: str | None
    skipped: int = 0
    skipped_digest: str | None = None
    damaged: int | None = None
    videos: VideoCounts | None = None
    task_digest: str = ""
    videos_digest: str = ""
    unranked: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One method x one base model x one frame budget, over one or more tasks.

    `name` is the run folder relative to what all runs have in common, so that output does not
    depend on where the folder lies. `frame_policy` is canonical JSON. `wall_seconds` is in
    seconds, `limit` in samples (a fraction of the samples below 1). `code` is the digest of each
    part of the code that its answers went through; empty where the record does not say.
    """

    name: str
    status: str
    method: str
    fingerprint: str
    label: str
    settings: Mapping[str, Any]
    model: str
    model_revision: str
    family: str
    tasks: tuple[TaskRecord, ...]
    frame_policy: str
    visual_token_budget: int | None
    min_pixels: int | None
    max_pixels: int | None
    position_rule: str
    dtype: str
    attention_kernel: str | None
    device: str
    gpu: str | None
    world_size: int
    seed: int
    limit: float | None
    packages: Mapping[str, str]
    tempeval_version: str
    started: str
    finished: str | None
    wall_seconds: float | None
    command: str
    code: Mapping[str, str] = field(default_factory=dict)


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
    task: TaskRecord
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
