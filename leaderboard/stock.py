"""Read a run of lmms-eval that has no `run.json`: shown with its scores, never ranked.

Which weights, prompts and frames it used is not in its files, so nothing says what it may be
compared with. Scores and standard errors are lmms-eval's own.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

from tempeval.leaderboard.columns import BadLine, append_row, columns, parse
from tempeval.leaderboard.costs import summed_up
from tempeval.leaderboard.records import Refusal, Source
from tempeval.leaderboard.schema import Costs, ListedScore
from tempeval.leaderboard.unscored import UNSCORED
from tempeval.run.record import USAGE_KEY, BadRecord, parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ENDING = "_results.json"
_FACTS = (
    "model_source",
    "model_name",
    "lmms_eval_version",
    "git_hash",
    "date",
    "config",
    "versions",
    "n-shot",
    "n-samples",
    "task_hashes",
    "system_instruction",
)
_RERUN = "Rerun it, or leave it out"


def read_stock(name: str, path: Path, text: bytes) -> tuple[Source, Refusal]:
    """Read the results file of a stock run, and the samples files beside it where there are some.

    Args:
        name: the run's printed name.
        path: of `*_results.json`.
        text: its bytes.

    Returns:
        What is known of the run, and why it is not ranked, with its scores.

    Raises:
        BadRecord: the file is not lmms-eval's.
    """
    raw = _parse(path, text)
    names = sorted(name for name, value in raw["configs"].items() if isinstance(value, dict))
    scores, odd = [], []
    for task in names:
        listed, problems = _task(path, raw, task)
        scores.append(listed)
        odd += problems
    facts = {key: raw[key] for key in _FACTS if key in raw}
    reason = (
        "a run of lmms-eval without a run.json: its weights, prompts, frames and budget are unknown"
    )
    refusal = Refusal(
        run=name,
        method=_label(raw),
        tasks=tuple(names),
        kind="stock",
        field="run.json",
        value="none",
        other="one for each run",
        reason="; ".join([reason, *odd]),
        action="Run it with tempeval run to rank it",
        scores=tuple(scores),
    )
    return Source(name, "stock", facts), refusal


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    raw = parse_object(path, text, _RERUN)
    for key in ("results", "configs"):
        if not isinstance(raw.get(key), dict):
            reason = f"not a results file of lmms-eval: it has no object {key!r}"
            raise BadRecord(path, None, reason, _RERUN)
    return raw


def _label(raw: Mapping[str, Any]) -> str:
    """Name the model as the command line did."""
    known = [str(raw[key]) for key in ("model_source", "model_name") if raw.get(key)]
    if known:
        return " ".join(dict.fromkeys(known))
    config = raw.get("config")
    return str(config.get("model", "")) if isinstance(config, dict) else ""


def _task(path: Path, raw: Mapping[str, Any], task: str) -> tuple[ListedScore, list[str]]:
    """Give a task's main score, and what is wrong with it and with its samples file."""
    results, config = raw["results"].get(task), raw["configs"][task]
    if not isinstance(results, dict) or task in UNSCORED:
        results = {}
    metric, key, passed = _main(results, config)
    n = _count(raw.get("n-samples"), task)
    costs, problem = _costs(path, task, n)
    listed: ListedScore = {
        "task": task,
        "version": str(_of(raw.get("versions"), task, "unknown")),
        "metric": metric,
        "higher_is_better": _direction(raw, task, metric),
        "fraction": None,
        "score": _known(results[key]) if key else None,
        "se": _error(results, key) if key else None,
        "n": n,
        "clusters": None,
        "costs": costs,
    }
    problems = [f"{task}: {passed}"] if passed else []
    return listed, [*problems, problem] if problem else problems


def _main(results: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, str, str]:
    """Give the first metric of a task that has a number, and its key with the filter's name.

    The third value says which metrics before it should have a number and have none; what a task
    lists for its own files (a list, an object) is no such metric.
    """
    listed = config.get("metric_list")
    names = [
        str(entry["metric"])
        for entry in (listed if isinstance(listed, list) else [])
        if isinstance(entry, dict) and "metric" in entry
    ]
    odd: list[str] = []
    for name in names:
        for key, value in results.items():
            if key.partition(",")[0] != name:
                continue
            if _known(value) is not None:
                tail = f"{'; '.join(odd)}; {name} is shown instead" if odd else ""
                return name, key, tail
            if not isinstance(value, (list, dict)):
                odd.append(f"{name} is {str(value)[:20]}")
    return (names[0] if names else ""), "", "; ".join(odd)


def _error(results: Mapping[str, Any], key: str) -> float | None:
    """Give the standard error, clustered where lmms-eval has that."""
    name, comma, rest = key.partition(",")
    for kind in ("stderr_clustered", "stderr_clt", "stderr"):
        if (value := _known(results.get(f"{name}_{kind}{comma}{rest}"))) is not None:
            return value
    return None


def _direction(raw: Mapping[str, Any], task: str, metric: str) -> bool | None:
    directions = _of(raw.get("higher_is_better"), task, {})
    value = directions.get(metric) if isinstance(directions, dict) else None
    return value if isinstance(value, bool) else None


def _count(counts: object, task: str) -> int | None:
    sizes = _of(counts, task, {})
    value = sizes.get("effective") if isinstance(sizes, dict) else None
    return value if type(value) is int else None


def _of(mapping: object, key: str, default: object) -> Any:
    return mapping.get(key, default) if isinstance(mapping, dict) else default


def _known(value: object) -> float | None:
    """Give a finite number as float; lmms-eval also has lists and 'N/A'."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _costs(path: Path, task: str, expected: int | None) -> tuple[Costs | None, str]:
    """Give what the samples say of costs, as those of our wrappers under lmms-eval do."""
    file = path.with_name(f"{path.name.removesuffix(_ENDING)}_samples_{task}.jsonl")
    rows, failed, lines = array("d"), 0, 0
    try:
        with file.open("rb") as opened:
            for line in opened:
                if line.isspace():
                    continue
                lines += 1
                sample = parse(line)
                # The score is lmms-eval's; only the counts are read.
                counts = {USAGE_KEY: sample.get(USAGE_KEY), "score": 0.0}
                failed += append_row(rows, counts, "score")
    except FileNotFoundError:
        return None, ""
    except (OSError, BadLine) as error:
        return None, f"line {lines} of {file.name} cannot be used ({error})"
    problem = ""
    if expected is not None and lines != expected:
        problem = f"{file.name} has {lines} lines, the results are over {expected} samples"
        if expected and lines % expected == 0:
            problem += " (two runs may have written it in the same second)"
    _, measures = columns(rows)
    if problem or not lines or all(np.isnan(values).any() for values in measures.values()):
        return None, problem
    parts = [(measures, np.ones(lines, dtype=np.bool_))]
    costs = Costs(
        measures=summed_up(parts),
        parse_failure_rate=None,
        failed=failed,
        unparsed=None,
        damaged=None,
        skipped=0,
        unmeasured={},
        negative={},
    )
    return costs, problem
