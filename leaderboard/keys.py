"""What two runs must share to be compared, besides the budget."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tempeval.leaderboard.records import Entry, Run

_DRIVE = re.compile(r"[A-Za-z]:/")
# Types whose rounding is of one size; any other is a family of its own.
_HALF = ("float16", "bfloat16")
HALF = "16-bit float"
#: The part of a run's code that is its methods' own, and no other run's.
OWN_CODE = "methods"


class Key(NamedTuple):
    """What two entries must share to be compared; the field names are used in messages.

    A message names the first field that differs, so causes stand before what follows from them:
    a limit changes the sample set, which changes the digests of data and prompts.
    """

    task: str
    task_version: str
    model: str
    model_revision: str
    metric: str
    limit: float | None
    skipped: str
    sample_set: str
    dataset_digest: str
    targets: str
    prompt_hash: str
    task_digest: str
    videos: str
    frame_policy: str
    position_rule: str
    dtype: str
    code: str

    def differing(self, other: Key) -> list[str]:
        """Name the fields whose values are not those of another key.

        The right answers of other samples, or those that a file does not state, say nothing.
        """
        names = [name for name in self._fields if getattr(self, name) != getattr(other, name)]
        told = self.targets and other.targets and self.sample_set == other.sample_set
        return [name for name in names if name != "targets" or told]

    def without_version(self) -> Key:
        """Give what stays the same when only the version of a task changes, with its data."""
        return self._replace(
            task_version="",
            metric="",
            skipped="",
            sample_set="",
            dataset_digest="",
            targets="",
            prompt_hash="",
            task_digest="",
            videos="",
        )


class Plan(NamedTuple):
    """What a run was planned with, besides its method: what its measured budget follows from.

    Two runs of one method and plan are one run made twice. `frame_policy` is canonical JSON.
    """

    visual_token_budget: int | None
    min_pixels: int | None
    max_pixels: int | None
    frame_policy: str


def plan_of(run: Run) -> Plan:
    """Give the plan of a run."""
    return Plan(
        run.record.visual_token_budget,
        run.record.min_pixels,
        run.record.max_pixels,
        run.frame_policy,
    )


def key_of(entry: Entry, on: str = "visual_tokens") -> Key:
    """Give what an entry must share with its baseline.

    Args:
        entry: a task of a run.
        on: the measure that is the budget. If it is not visual tokens, how many frames a run has
            is how it keeps to the budget, and not part of its frame policy.
    """
    run, task, samples = entry.run, entry.task, entry.samples
    direction = "higher" if task.higher_is_better else "lower"
    return Key(
        task=task.name,
        task_version=version_name(task.version),
        model=model_name(run.record.model),
        model_revision=run.record.model_revision,
        metric=f"{task.score_key}, {direction} is better, clusters {task.cluster_key}",
        limit=run.record.limit,
        skipped=f"{task.skipped} skipped ({task.skipped_digest})" if task.skipped else "none",
        sample_set=f"{len(samples.ids)} samples ({samples.digest[:8]})",
        dataset_digest=task.dataset_digest,
        targets=samples.targets,
        prompt_hash=task.prompt_hash,
        task_digest=task.task_digest,
        videos=task.videos_digest,
        frame_policy=run.frame_policy if on == "visual_tokens" else _uncounted(run.frame_policy),
        position_rule=run.record.position_rule,
        dtype=dtype_family(run.record.dtype),
        code=json.dumps(
            {k: v for k, v in run.record.code.items() if k != OWN_CODE}, sort_keys=True
        ),
    )


def dtype_family(dtype: str) -> str:
    """Join the types of 16 bits, which round alike."""
    return HALF if dtype in _HALF else dtype


def model_name(name: str) -> str:
    """Name a model wherever it lies: a hub id as it is, a path by its last folder."""
    plain = name.replace("\\", "/").rstrip("/")
    local = plain.startswith(("/", "./", "../", "~")) or _DRIVE.match(plain)
    return plain.rpartition("/")[2] if local else name


def version_name(version: str) -> str:
    """Give versions that are the same number one name: 1.0 is 1, as YAML files write either."""
    return re.sub(r"(\.0+)+$", "", version) if re.fullmatch(r"[\d.]+", version) else version


def version_order(version: str) -> list[tuple[int, int, str]]:
    """Give what versions are sorted by: numbers as numbers, so that 10 comes after 9."""
    parts = re.findall(r"\d+|[^\d.]+", version_name(version))
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]


def moment(time: str | None) -> float:
    """Give a time of ISO 8601 in seconds since 1970, for sorting.

    A time without a zone is taken as UTC; what is no time comes before all others.
    """
    text = time or ""
    try:
        found = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        return -math.inf
    known = found if found.tzinfo else found.replace(tzinfo=UTC)
    return (known - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


def _uncounted(policy: str) -> str:
    fields = json.loads(policy)
    counts = ("num_frames", "fps")
    kept = {name: value for name, value in fields.items() if name not in counts}
    return json.dumps(kept, sort_keys=True)
