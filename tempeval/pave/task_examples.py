"""Examples from the training split of an lmms-eval task: ours, or the host's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting
from tempeval.pave.examples import Example, Examples, digest_of
from tempeval.side_channels.base import doc_of, video_id
from tempeval.video.clip import VideoRef

if TYPE_CHECKING:
    from collections.abc import Sequence


def task_examples(name: str) -> Examples:
    """Read the training split of a task through its own `doc_to_messages` and `doc_to_target`.

    A task whose target is an index of its choices is answered with the text of the choice.

    Raises:
        UnknownName: if there is no such task.
        InvalidSetting: if it has no training split, or that is what it is tested on; if it makes no
            messages, or a target that is no text.
        MissingData, BadData: for a benchmark whose files are not there or not official.
    """
    from tempeval.host import HostTasks

    found = HostTasks([name]).tasks()
    items: list[Example] = []
    for part, task in found.items():
        items += [_example(part, task, doc) for doc in _training_docs(part, task)]
    versions = ", ".join(f"{part} {task.VERSION}" for part, task in found.items())
    return Examples(tuple(items), digest_of(items), f"training split of {versions}")


def _training_docs(name: str, task: Any) -> Any:
    split = task.config.training_split
    if not task.has_training_docs():
        raise InvalidSetting(
            f"task {name!r} has no training split (training_split in its YAML); its test data are "
            "not trained on"
        )
    if split in (task.config.test_split, task.config.validation_split):
        raise InvalidSetting(f"the training split {split!r} of task {name!r} is what it tests on")
    if not hasattr(task, "doc_to_messages"):
        raise InvalidSetting(
            f"task {name!r} scores choices and makes no messages; name the task that generates"
        )
    # The host has already run `process_docs` on every split that the task names.
    docs = task.training_docs()
    found = _benchmark_docs(docs)
    if found is None:
        return docs
    tested = {doc["sample_id"] for doc in task.eval_docs_no_media if "sample_id" in doc}
    if both := sorted(tested & {doc["sample_id"] for doc in found}):
        raise InvalidSetting(
            f"task {name!r} tests on {both[0]!r}, which its training split has too"
        )
    return found


def _benchmark_docs(docs: Any) -> list[dict[str, Any]] | None:
    """Return the documents that the one row of a benchmark's source stands for; None for others.

    A training split is large, so its task leaves it as that row until it is trained on.
    """
    if len(docs) != 1 or "benchmark" not in docs[0] or "sample_id" in docs[0]:
        return None
    from tempeval.benchmarks.sources import load_docs

    return load_docs(docs[0])


def _example(name: str, task: Any, doc: Any) -> Example:
    from tempeval.model_wrappers.requests import visuals_of

    messages = tuple(task.doc_to_messages(doc))
    visuals = visuals_of(messages)
    video = visuals[0] if len(visuals) == 1 else None
    if not isinstance(video, VideoRef):
        raise InvalidSetting(
            f"task {name!r} has a prompt with {len(visuals)} visuals; training takes one video"
        )
    # As in evaluation: tasks name videos otherwise, such as `music_avqa/00000001`.
    own = video_id(doc_of(video))
    return Example(video, own, messages, _target(name, task, doc))


def _target(name: str, task: Any, doc: Any) -> str:
    target = task.doc_to_target(doc)
    if isinstance(target, int) and not isinstance(target, bool):
        choices: Sequence[str] = task.doc_to_choice(doc)
        target = choices[target]
    if isinstance(target, list) and target:
        target = target[0]
    if not isinstance(target, str) or not target:
        raise InvalidSetting(f"task {name!r} has a target {target!r}; training needs a text")
    return target
