"""What of a request is not there, found before the model loads: videos, images, feature files."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tempeval.errors import TempevalError
from tempeval.run.counting import allowed_failures, error_of, skipped_digest
from tempeval.tasklist import group_of
from tempeval.video.clip import FramePlan, VideoRef
from tempeval.video.folder import is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from tempeval.host import HostTasks
    from tempeval.run.matrix import Plan
    from tempeval.run.record import RunRecord
    from tempeval.run.spec import RunSpec
    from tempeval.video.clip import SideSpec


class MissingVideos(TempevalError):
    """Videos of a request that are not there, so that its questions would fail."""


@dataclass
class Survey:
    """What one benchmark lacks of one kind of file.

    Attributes:
        name: of the group, or of the task that is in none.
        kind: `videos`, or the feature files that a method reads.
        files: all that are wanted, by name, with whether each is there.
        questions: numbers of the documents that lack one, by task.
    """

    name: str
    kind: str
    files: dict[str, bool] = field(default_factory=dict)
    questions: dict[str, set[int]] = field(default_factory=dict)

    @property
    def failing(self) -> int:
        """Number of questions that lack a file."""
        return sum(map(len, self.questions.values()))

    def said(self, outcome: str) -> str:
        """Return one line: how many files are there, and what becomes of how many questions."""
        there, number = sum(self.files.values()), self.failing
        questions = "1 question" if number == 1 else f"{number} questions"
        return f"{self.name}: {there} of {len(self.files)} {self.kind} there, {questions} {outcome}"

    @property
    def first(self) -> str:
        """The first file that is not there."""
        return next(name for name, there in self.files.items() if not there)


def preflight(
    tasks: HostTasks,
    plans: Sequence[Plan],
    options: RunSpec,
    report: Callable[[str], None] = lambda _line: None,
) -> None:
    """Look which files of all questions are there; leave out questions, or refuse the request.

    What fails within `max_failures` is said and goes on. A video that is there and cannot be
    decoded is not known before it is decoded.

    Args:
        tasks: loaded; with `skip_missing` questions are left out of them.
        plans: the runs, whose methods may read files of features.
        options: of the request.
        report: gets one line per benchmark that lacks something.

    Raises:
        MissingVideos: if more questions would fail than a complete run may have.
        UnloadableTask: if every question would be left out.
    """
    expected = sum(facts.expected for facts in tasks.load().values())
    found = [survey for survey in _surveys(tasks, plans) if survey.questions]
    if not found:
        return
    missing: dict[str, set[int]] = {}
    for survey in found:
        for name, numbers in survey.questions.items():
            missing.setdefault(name, set()).update(numbers)
    if options.skip_missing:
        for survey in found:
            report(survey.said("left out of every method"))
        tasks.leave_out(missing)
        return
    failing = sum(map(len, missing.values()))
    if failing > allowed_failures(options.max_failures, expected):
        lines = "; ".join(survey.said("will fail") for survey in found)
        raise MissingVideos(
            f"{lines}; --skip-missing leaves them out of every method (--max-failures {failing} "
            f"counts them as wrong; the first that is not there: {found[0].first!r})"
        )
    for survey in found:
        report(survey.said("will fail, as max_failures allows"))


def stands(tasks: HostTasks, folder: Path, record: RunRecord) -> bool:
    """Return True if an earlier run has nothing to gain from another one.

    Its questions must be those that are there now, and of its failed questions none may have all
    its videos: whatever else failed them, such as memory or a damaged file, may have gone.

    Args:
        tasks: of this request, after `preflight`.
        folder: of the run.
        record: its record.
    """
    facts = tasks.load()
    if set(record.tasks) != set(facts):
        return False
    for name, task in record.tasks.items():
        if task.skipped_digest != skipped_digest(tasks.skipped.get(name, ())):
            return False
        if not task.failed:
            continue
        videos = tasks.videos(name)
        try:
            with (folder / task.samples_file).open(encoding="utf-8") as file:
                samples = [json.loads(line) for line in file]
            failed = [videos[sample["doc_id"]] for sample in samples if error_of(sample)]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return False  # what is damaged is made again
        if any(all(map(is_there, paths)) for paths in failed):
            return False
    return True


def _surveys(tasks: HostTasks, plans: Sequence[Plan]) -> Iterator[Survey]:
    """Yield what is there of the videos of each benchmark, then of each method's features."""
    by_benchmark: dict[str, list[str]] = {}
    for name in tasks.load():
        by_benchmark.setdefault(group_of(name) or name, []).append(name)
    there: dict[str, bool] = {}

    def has(path: str) -> bool:
        if path not in there:
            there[path] = is_there(path)
        return there[path]

    for benchmark, members in by_benchmark.items():
        survey = Survey(benchmark, "videos")
        for name in members:
            for number, paths in enumerate(tasks.videos(name)):
                survey.files.update({path: has(path) for path in paths})
                if not all(map(has, paths)):
                    survey.questions.setdefault(name, set()).add(number)
        yield survey
    for spec in _folders(plans):
        for benchmark, members in by_benchmark.items():
            yield _features(benchmark, members, tasks, spec)


def _folders(plans: Sequence[Plan]) -> Iterable[SideSpec]:
    """Return the side channels that the methods read from folders of feature files."""
    found: dict[SideSpec, None] = {}
    for plan in plans:
        # A method that cannot be built is refused alone, by the model.
        with suppress(TempevalError):
            for spec in plan.chain.frames(FramePlan()).side:
                if dict(spec.settings).get("folder"):
                    found[spec] = None
    return found


def _features(benchmark: str, members: Sequence[str], tasks: HostTasks, spec: SideSpec) -> Survey:
    from tempeval.side_channels.base import doc_of
    from tempeval.side_channels.feature_folder import FeatureFolder

    settings = dict(spec.settings)
    files = FeatureFolder(str(settings["folder"]), None)
    survey = Survey(benchmark, f"{spec.name} files of {settings['folder']}")
    for name in members:
        for number, paths in enumerate(tasks.videos(name)):
            for path in paths:
                if path not in survey.files:
                    survey.files[path] = files.has(doc_of(VideoRef(path)))
            if not all(survey.files[path] for path in paths):
                survey.questions.setdefault(name, set()).add(number)
    return survey
