"""What a method did to the probability of the right answer, question by question.

`p_c_change` of a sample is P~ - P: `p_c` under the method minus `p_c` of the same question under
the baseline of the same matrix (`p_c`: see `tempeval.tasks.choice_task.probabilities`). It is
negative where the method makes the right answer less likely.

Source: the metric of "Causality Matters", arXiv 2508.11576.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from tempeval.errors import TempevalError
from tempeval.host_files import file_facts
from tempeval.methods.registry import BASELINE
from tempeval.run.counting import identity
from tempeval.run.record import FileFacts, RunRecord, read_record, write_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tempeval.run.matrix import Plan

Identity = tuple[str, str]


def pair_with_baselines(plans: Sequence[Plan]) -> None:
    """Write `p_c_change` into the samples of every run that has a baseline of its budget.

    It depends on nothing but the files of the runs, and rewrites a file whole or not at all and
    only when something in it changes: after a crash, or when runs were added to a matrix, the next
    call completes it. Records get the mean of each task, over the questions that have both.

    Args:
        plans: the runs of a matrix.

    Raises:
        TempevalError: if a record or a samples file cannot be read or written.
    """
    baselines = {plan.budget: plan for plan in plans if plan.chain.name == BASELINE}
    for plan in plans:
        baseline = baselines.get(plan.budget)
        if baseline is not None and plan is not baseline:
            _pair_run(plan.folder, baseline.folder)


def _pair_run(folder: Path, baseline: Path) -> None:
    record, other = read_record(folder), read_record(baseline)
    if not isinstance(record, RunRecord) or not isinstance(other, RunRecord):
        return
    tasks, files = dict(record.tasks), dict(record.files)
    for name, task in record.tasks.items():
        if name not in other.tasks:
            continue
        expected = _probabilities(baseline / other.tasks[name].samples_file)
        if expected:
            changes = _pair_samples(folder / task.samples_file, expected)
            mean = sum(changes) / len(changes) if changes else None
            tasks[name] = task.model_copy(update={"p_c_change": mean, "p_c_pairs": len(changes)})
            files[task.samples_file] = FileFacts(**file_facts(folder / task.samples_file))
    paired = record.model_copy(update={"tasks": tasks, "files": files})
    if paired != record:
        write_record(folder, paired)


def _probabilities(path: Path) -> dict[Identity, float | None]:
    """Return `p_c` by question; empty for a task that does not score choices."""
    return {identity(s): s["p_c"] for s in _samples(path) if "p_c" in s}


def _pair_samples(path: Path, expected: Mapping[Identity, float | None]) -> list[float]:
    """Bring a samples file up to date; return the changes that are known."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    changes, differs = [], False
    try:
        with part.open("w", encoding="utf-8") as file:
            for sample in _samples(path):
                if "p_c" in sample:
                    change = _difference(sample["p_c"], expected.get(identity(sample)))
                    if change is not None:
                        changes.append(change)
                    unknown = "p_c_change" not in sample
                    differs |= unknown or sample["p_c_change"] != change
                    sample["p_c_change"] = change
                file.write(json.dumps(sample, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if differs:
            part.replace(path)
    except OSError as error:
        raise TempevalError(f"cannot write {path}: {error.strerror}; is the disk full?") from error
    finally:
        part.unlink(missing_ok=True)
    return changes


def _difference(value: float | None, baseline: float | None) -> float | None:
    return None if value is None or baseline is None else value - baseline


def _samples(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except (OSError, ValueError) as error:
        raise TempevalError(
            f"{path} cannot be read ({error}); pass --overwrite to run it again"
        ) from error
