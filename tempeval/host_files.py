"""lmms-eval's own results and samples files, written through its own tracker and then checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.errors import TempevalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
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
        The name of the results file, and of each task's samples file.

    Raises:
        TempevalError: if a file is missing or has too few lines.
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
    if not (folder / aggregated).is_file():
        raise TempevalError(f"lmms-eval could not write {folder / aggregated}; see its log")
    for task, name in names.items():
        tracker.save_results_samples(task_name=task, samples=_released(samples[task]))
        _check_lines(folder / name, len(samples[task]))
    return aggregated, names


def _released(samples: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield samples, and drop the answers of each once it is written.

    The host turns them into texts in place: a pair for each label of each document.
    """
    for sample in samples:
        yield sample
        for name in ("resps", "filtered_resps"):
            sample.pop(name, None)


def _check_lines(path: Path, expected: int) -> None:
    written = 0
    if path.is_file():
        with path.open("rb") as file:
            written = sum(1 for _ in file)
    if written != expected:
        raise TempevalError(f"{path} has {written} lines, not {expected}; is the disk full?")
