"""lmms-eval's own results and samples files, written through its own tracker and then checked."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING, Any

from tempeval.archives import file_digest
from tempeval.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

MODEL_NAME = "tempeval"


def save_host_files(
    results: dict[str, Any], folder: Path, model_args: str
) -> tuple[str, dict[str, str]]:
    """Write the host's results and samples files through its own tracker.

    The tracker logs a failed save and goes on, so the files are looked for afterwards.

    Args:
        results: what `HostTasks.evaluate` returned; `samples` is taken out of it.
        folder: the run folder.
        model_args: as given to `evaluate`.

    Returns:
        The name of the results file, and of each task's samples file; all are on disk.

    Raises:
        RunFailed: if a file is missing, is cut, or cannot be brought to disk.
    """
    from lmms_eval.loggers import EvaluationTracker
    from lmms_eval.utils import get_datetime_str

    tracker = EvaluationTracker(output_path=str(folder))
    facts = tracker.general_config_tracker
    facts.log_experiment_args(
        model_source=MODEL_NAME,
        model_args=model_args,
        system_instruction=None,
        chat_template=None,
        fewshot_as_multiturn=False,
    )
    facts.model_name_sanitized = ""  # the files lie in the run folder itself
    samples = results.pop("samples")
    moment = get_datetime_str(timezone="UTC")
    tracker.save_results_aggregated(results=results, samples=samples, datetime_str=moment)
    prefix = moment.replace(":", "-")
    aggregated = f"{prefix}_results.json"
    names = {task: f"{prefix}_samples_{task}.jsonl" for task in samples}
    _check_json(folder / aggregated)
    for task, name in names.items():
        tracker.save_results_samples(task_name=task, samples=_released(samples[task]))
        check_lines(folder / name, len(samples[task]))
    bring_to_disk([folder / aggregated, *(folder / name for name in names.values()), folder])
    return aggregated, names


def file_facts(path: Path) -> dict[str, Any]:
    """Return size and digest of a file, by which a later run knows that it is whole.

    Raises:
        OSError: if it cannot be read.
    """
    return {"size": path.stat().st_size, "sha256": file_digest(path).removeprefix("sha256:")}


def is_whole(path: Path, facts: Mapping[str, Any]) -> bool:
    """Return True if a file is as `file_facts` found it."""
    try:
        return path.stat().st_size == facts.get("size") and file_facts(path) == dict(facts)
    except OSError:
        return False


def bring_to_disk(paths: Iterable[Path]) -> None:
    """Wait until files, or the names in a folder, are on disk.

    Raises:
        RunFailed: if one cannot be.
    """
    for path in paths:
        try:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            if path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                continue  # file systems that have nothing to bring to disk for a folder
            raise RunFailed(
                f"cannot bring {path} to disk: {error.strerror or error}; free some space and run "
                "the same command again"
            ) from error


def _released(samples: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield samples, and drop the answers of each once it is written.

    The host turns them into texts in place: a pair for each label of each document.
    """
    for sample in samples:
        yield sample
        for name in ("resps", "filtered_resps"):
            sample.pop(name, None)


def _check_json(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunFailed(
            f"lmms-eval could not write {path} ({error}); is the disk full? See its log"
        ) from error


def check_lines(path: Path, expected: int) -> None:
    """Raise RunFailed unless a file has as many lines as it should."""
    written = 0
    if path.is_file():
        with path.open("rb") as file:
            written = sum(1 for _ in file)
    if written != expected:
        raise RunFailed(f"{path} has {written} lines, not {expected}; is the disk full?")
