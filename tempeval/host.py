"""The only module that drives lmms-eval: loads tasks once, evaluates, writes its files."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import os
import sys
from argparse import Namespace
from collections import ChainMap
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tempeval.engine.continuations import Continuations
from tempeval.errors import InvalidSetting, RunFailed, TempevalError, UnknownName
from tempeval.host_files import MODEL_NAME
from tempeval.host_scores import Scoring, check_metric, score_samples
from tempeval.run.counting import TaskFacts, digest
from tempeval.source_digest import PACKAGE, digest_of
from tempeval.task_sources import definition_digest, object_digest, read_documents
from tempeval.tasklist import (
    LIST_HINT,
    entries_in,
    foreign_task_folders,
    group_of,
    task_entries,
    tasks_path,
)
from tempeval.video.stamp import video_digests

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from tempeval.host_scores import Metric
    from tempeval.tasklist import TaskEntry

_LOG = logging.getLogger(__name__)

#: What `lmms-eval` itself strips from answers before scoring, unless told otherwise.
REASONING_TAGS = '[["<think>", "</think>"], ["<analysis>", "</analysis>"]]'

_LONGEST_PATH = 4096

#: What the names of our tasks begin with.
PREFIX = "tempeval_"

#: Modules of the host whose progress bars say nothing: they last milliseconds, one per task.
_BARS = ("lmms_eval.evaluator", "lmms_eval.api.task")


def import_host() -> Any:
    """Import `lmms_eval.evaluator`.

    Raises:
        TempevalError: if lmms-eval is not installed.
    """
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    try:
        return importlib.import_module("lmms_eval.evaluator")
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] == "lmms_eval":
            raise TempevalError("lmms-eval is missing; reinstall tempeval") from error
        raise


@contextlib.contextmanager
def host_log(path: Path | None) -> Iterator[None]:
    """Send the host's log to a file; warnings also go to stderr, nothing to stdout.

    Without a file, as on all ranks but the first, only the warnings are kept.

    A disk that is full costs lines of the log, and nothing else.

    Raises:
        RunFailed: if the file cannot be opened.
    """
    from loguru import logger

    import_host()  # which adds a sink of its own
    logger.remove()
    sinks = [] if path is None else [logger.add(_LogFile(path), level="INFO")]
    sinks += [
        logger.add(sys.stderr, level="WARNING", format="{level}: {message}", filter=_is_news),
    ]
    try:
        yield
    finally:
        for sink in sinks:
            with contextlib.suppress(ValueError):  # the host removes all sinks now and then
                logger.remove(sink)


class _LogFile:
    """A log that goes on without its file when that cannot be written.

    loguru's own would print a traceback for each line, and raise when it is closed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file: IO[str] | None = path.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise RunFailed(
                f"cannot write {path}: {error.strerror or error}; free some space, or choose "
                "another -o"
            ) from error

    def write(self, text: str) -> None:
        """Write a line, if the file still takes any."""
        if self._file is not None:
            try:
                self._file.write(text)
            except OSError as error:
                self._give_up(error)

    def stop(self) -> None:
        """Close the file."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        file, self._file = self._file, None
        _LOG.warning("%s ends early: %s", self._path, error.strerror or error)
        with contextlib.suppress(OSError):  # what is in its buffer cannot be written either
            if file is not None:
                file.close()


def _is_news(record: Any) -> bool:
    """Leave out a warning that lmms-eval gives once per choice: answers start a chat turn here."""
    return "do not have whitespace" not in record["message"]


@contextlib.contextmanager
def one_process() -> Iterator[None]:
    """Let the host believe that it runs alone: answers of all ranks are in the journal."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """Hide the host's own progress bars; the model's stays."""
    modules: list[Any] = [sys.modules.get(name) for name in _BARS]
    modules = [module for module in modules if hasattr(module, "tqdm")]
    kept = [module.tqdm for module in modules]
    for module, bar in zip(modules, kept, strict=True):
        module.tqdm = _hidden(bar)
    try:
        yield
    finally:
        for module, bar in zip(modules, kept, strict=True):
            module.tqdm = bar


def _hidden(bar: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: bar(*args, **{**kwargs, "disable": True})


class UnloadableTask(TempevalError):
    """A task whose data or code cannot be loaded."""


class HostTasks:
    """The chosen tasks, loaded once by the host and evaluated for every run.

    Args:
        names: tasks and groups, ours or the host's own.
        limit: evaluate at most this many documents per task; None for all.
        skip_unloadable: leave out tasks and groups that cannot be loaded, if others can.
        include_path: folder with more task YAMLs, as lmms-eval's option of that name; None for
            none.
        metric: which metric ranks the tasks that are not of this package; None for the first of
            each that has a number.

    Attributes:
        left_out: why a task or group that was asked for is not evaluated, by name.
        skipped: names of the documents that are not evaluated, by task; see `leave_out`.

    Raises:
        UnknownName: for a name that neither this package nor the host knows.
    """

    def __init__(
        self,
        names: Sequence[str],
        limit: int | None = None,
        *,
        skip_unloadable: bool = False,
        include_path: Path | None = None,
        metric: Metric | None = None,
    ) -> None:
        self.names, self.limit, self.skip_unloadable = list(names), limit, skip_unloadable
        self.include_path = None if include_path is None else include_path.absolute()
        self.metric = metric
        self.left_out: dict[str, str] = {}
        self.skipped: dict[str, list[str]] = {}
        # The host takes seconds to import, so it waits until it must tell its own names.
        self._manager = None if _all_ours(names) else _task_manager(names, self.include_path)
        self._tree: dict[Any, Any] = {}
        self._loaded: dict[str, Any] = {}
        self._videos: dict[str, list[tuple[str, ...]]] = {}
        self._video_digests: dict[str, tuple[str, str]] = {}
        self._prompt_hashes: dict[str, str] = {}

    @classmethod
    def of(cls, tree: dict[Any, Any], names: Sequence[str], limit: int | None) -> HostTasks:
        """Take tasks that the host has loaded.

        Args:
            tree: task objects by name, in the host's nested groups.
            names: tasks and groups as they were asked for.
            limit: documents per task, at most; None for all.
        """
        tasks = cls((), limit)
        tasks.names = list(names)
        tasks._show(tree)
        return tasks

    def build_all(self) -> None:
        """Build the requests of every document, also where the host asked this rank for some."""
        with _without_bars():
            for task in self._loaded.values():
                task.build_all_requests(limit=self.limit, rank=0, world_size=1)

    def load(self) -> dict[str, TaskFacts]:
        """Load data sets and task objects, on the first call.

        Returns:
            The facts of each task by name, groups resolved.

        Raises:
            MissingData, BadData: for annotation files of ours, which are read before the host
                reads them: it would try five times, and bury the reason.
            UnloadableTask: for anything else that keeps a task from being loaded.
        """
        if not self._loaded:
            found: list[dict[Any, Any]] = []
            for name in list(self.names):
                try:
                    read_documents(name)
                    self._manager = self._manager or _task_manager(self.names, self.include_path)
                    found.append(_load_one(self._manager, name))
                except TempevalError as error:
                    if not self.skip_unloadable:
                        raise
                    self.left_out[name] = str(error)
            if not found:
                raise UnloadableTask("no task can be loaded: " + "; ".join(self.left_out.values()))
            # As the host itself merges what it has loaded: its order is that of the results.
            self._show(dict(ChainMap(*found)))
            if self.metric is not None:
                for name, task in self._loaded.items():
                    if name not in task_entries():
                        check_metric(task, self.metric)
        return {name: self._facts(name, task) for name, task in self._loaded.items()}

    def _show(self, tree: dict[Any, Any]) -> None:
        """Let the evaluator find these tasks: it asks the manager again in every run."""
        self._tree, self._loaded = tree, dict(_leaves(tree))
        tops = {getattr(top, "group_name", top) for top in tree}
        self.names = [name for name in self.names if name in tops or name not in self.left_out]
        if self._manager is not None:
            self._manager.load_task_or_group = lambda *_args, **_kwargs: tree

    def videos(self, name: str) -> list[tuple[str, ...]]:
        """Return the paths of the videos and images that each document of a task shows.

        What is not known before a model asks for it is left out: images inside a data set, and
        whatever the task's code can only say with the data at hand.

        Args:
            name: of a loaded task.
        """
        if name not in self._videos:
            task = self._loaded[name]
            docs = task.eval_docs
            number = len(docs) if self.limit is None else min(self.limit, len(docs))
            known = _names_videos(task)
            self._videos[name] = [_paths(task, docs[i]) if known else () for i in range(number)]
        return self._videos[name]

    def video_digests(self, name: str) -> tuple[str, str]:
        """Return the digests of a task's videos, as they are when this is first asked.

        Returns:
            That of their stamps, and that of their contents (`tempeval.video.stamp`).
        """
        if name not in self._video_digests:
            self._video_digests[name] = video_digests(self.videos(name))
        return self._video_digests[name]

    def task_digest(self, name: str) -> str:
        """Return the digest of what makes a loaded task, or a group, ask and score as it does."""
        ours = task_entries()
        if name in ours:
            return definition_digest(ours[name].path)
        index = getattr(self._manager, "task_index", {})
        path = index.get(name, {}).get("yaml_path", -1)
        if isinstance(path, (str, os.PathLike)):
            found = definition_digest(Path(path))
        else:
            found = object_digest(vars(self._loaded[name].config)) if name in self._loaded else ""
        # What gives samples of other tasks their scores, failed ones too.
        scoring = ("host_scores", "model_wrappers.failures", "tasks.failed")
        code = digest_of(f"{PACKAGE}.{module}" for module in scoring)
        return digest([found, str(self.metric), code])

    def group_digests(self) -> dict[str, str]:
        """Return the digests of the groups that were asked for, whose own scores they make."""
        return {name: self.task_digest(name) for name in self.names if name not in self._loaded}

    def leave_out(self, missing: Mapping[str, Collection[int]]) -> None:
        """Leave documents out of every run; a task that keeps none is left out itself.

        Args:
            missing: numbers of documents, by task.

        Raises:
            UnloadableTask: if nothing is left.
        """
        for name, numbers in missing.items():
            task, videos = self._loaded[name], self.videos(name)
            kept = [i for i in range(len(videos)) if i not in numbers]
            docs = task.eval_docs
            self.skipped[name] = [_doc_name(docs[i], i) for i in sorted(numbers)]
            if not kept:
                self.left_out[name] = f"none of its {len(videos)} questions has its videos"
                continue
            self._videos[name] = [videos[i] for i in kept]
            split = _eval_split(task)
            bare = None if task.dataset_no_image is task.dataset else task.dataset_no_image
            for dataset in filter(None, (task.dataset, bare)):
                dataset[split] = dataset[split].select(kept)
        self._show(_without(self._tree, self.left_out))
        if not self._loaded:
            raise UnloadableTask("nothing is left to evaluate: " + _said(self.left_out))

    def _facts(self, name: str, task: Any) -> TaskFacts:
        documents = len(task.eval_docs)
        metrics = list(task.higher_is_better().values())
        return TaskFacts(
            name=name,
            version=task.VERSION,
            expected=documents if self.limit is None else min(self.limit, documents),
            score_key=getattr(task.config, "score_key", None) or "score",
            cluster_key=getattr(task.config, "cluster_key", None) or "doc_id",
            higher_is_better=bool(metrics[0]) if metrics else True,
            group=group_of(name),
        )

    def tasks(self) -> dict[str, Any]:
        """Load data sets and task objects, on the first call; return the objects by name."""
        self.load()
        return dict(self._loaded)

    def generate(self) -> bool:
        """Return True if the answer of some task is generated, not chosen by likelihood."""
        return any(task.OUTPUT_TYPE.startswith("generate") for task in self.tasks().values())

    def requests(self, model: Any, seed: int) -> dict[str, list[Any]]:
        """Build the requests of all tasks, by request type; of every rank, not of this one.

        Args:
            model: gets the documents, as the host's evaluator would hand them.
            seed: of the host's few-shot sampling.
        """
        self.load()
        found: dict[str, list[Any]] = {}
        with _without_bars():
            for name, task in self._loaded.items():
                task.set_fewshot_seed(seed=seed)
                task.build_all_requests(limit=self.limit, rank=0, world_size=1)
                model.task_dict[name] = task.dataset
                for request in task.instances:
                    found.setdefault(request.request_type, []).append(request)
        return found

    def score_samples(self, name: str, results: dict[str, Any]) -> Scoring:
        """Return where the scores of a task's samples are, after giving them what they lack.

        Args:
            name: of a loaded task.
            results: what `evaluate` returned; samples of tasks that are not of this package get a
                name, a cluster and a score.
        """
        task, facts = self._loaded[name], self._facts(name, self._loaded[name])
        if name in task_entries():
            return Scoring(
                facts.score_key, facts.score_key, facts.cluster_key, facts.higher_is_better
            )
        samples, numbers = results["samples"][name], results["results"].get(name, {})
        return score_samples(task, samples, numbers, self.videos(name), self.metric)

    def prompt_hash(self, name: str) -> str:
        """Return the digest of every prompt of a task; only after it was evaluated."""
        if name not in self._prompt_hashes:
            self._prompt_hashes[name] = digest(list(_prompts(self._loaded[name])))
        return self._prompt_hashes[name]

    def evaluate(
        self, model: Any, *, model_args: str, output: Path, batch_size: int | None, seed: int
    ) -> dict[str, Any]:
        """Run all tasks with a loaded model, through the host's own evaluator.

        Args:
            model: an instance of the host's `lmms`.
            model_args: how the host's command line would spell the model, for its record.
            output: the run folder, for tasks that write submissions.
            batch_size: for the record; the model has its own.
            seed: of Python, NumPy and torch.

        Returns:
            The host's results, `samples` included.
        """
        self.load()
        arguments = {
            "model": MODEL_NAME,
            "model_args": model_args,
            "tasks": ",".join(self.names),
            "batch_size": batch_size,
            "limit": self.limit,
            "seed": seed,
            "log_samples": True,
            "output_path": str(output),
            "process_with_media": False,
            "reasoning_tags": REASONING_TAGS,
        }
        with _without_bars(), one_process():
            results: dict[str, Any] = import_host().simple_evaluate(
                model=model,
                model_args=model_args,
                tasks=self.names,
                batch_size=batch_size,
                limit=self.limit,
                task_manager=self._manager,
                log_samples=True,
                verbosity="WARNING",
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
                cli_args=Namespace(**arguments),
            )
        return results


def _load_one(manager: Any, name: str) -> dict[Any, Any]:
    """Load a task or group.

    Raises:
        UnloadableTask: with the reason that lies under whatever the host raises.
    """
    try:
        found: dict[Any, Any] = manager.load_task_or_group([name], "chat")
    except (Exception, SystemExit) as error:  # a task's own code may raise anything, and exit
        cause = _cause(error)
        if isinstance(cause, TempevalError):
            raise cause from error
        ours = task_entries()
        whose = "" if name in ours else "lmms-eval's "
        raise UnloadableTask(
            f"{whose}task {name} cannot be loaded: {_reason(cause)}{_instead(name, ours)}"
        ) from error
    return found


def _cause(error: BaseException) -> BaseException:
    """Return what a retry of the host's gave up on, or the error itself."""
    attempt = getattr(error, "last_attempt", None)
    found = attempt.exception() if attempt is not None else None
    return error if found is None else _cause(found)


def _reason(error: BaseException) -> str:
    """Return one line about an exception of a task's own code."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, KeyError) and first.strip("'").isupper():
        return f"it needs the environment variable {first.strip(chr(39))}"
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _instead(name: str, ours: Collection[str]) -> str:
    """Name the task of this package that asks the same, where a foreign one has one."""
    if name in ours:
        return ""
    bare = [known.removeprefix(PREFIX) for known in ours]
    close = [name] if name in bare else difflib.get_close_matches(name, bare, n=1, cutoff=0.75)
    return f"; did you mean {PREFIX}{close[0]}?" if close else ""


def _eval_split(task: Any) -> str:
    return str(task.config.test_split if task.has_test_docs() else task.config.validation_split)


def _names_videos(task: Any) -> bool:
    """Return True if a task says what its documents show without reading pictures."""
    split = _eval_split(task)
    whole, bare = task.dataset[split], task.dataset_no_image[split]
    if getattr(whole, "column_names", None) != getattr(bare, "column_names", None):
        return False
    return task.config.doc_to_visual is not None or callable(task.config.doc_to_messages)


def _paths(task: Any, doc: Any) -> tuple[str, ...]:
    """Return the paths of what a document shows; none where its task cannot say."""
    try:
        if task.config.doc_to_visual is not None:
            shown = task.doc_to_visual(doc)
        else:
            messages = task.doc_to_messages(doc)
            parts = [part for message in messages for part in message["content"]]
            shown = [part.get("url") for part in parts if isinstance(part, dict)]
    except SystemExit as error:  # how tasks of the host say that a video is not there
        return (str(error),)
    except (OSError, LookupError, ValueError, TypeError, AttributeError):
        return ()
    shown = shown if isinstance(shown, (list, tuple)) else [shown]
    return tuple(
        os.fspath(one)
        for one in shown
        if isinstance(one, os.PathLike) or (isinstance(one, str) and _is_path(one))
    )


def _is_path(text: str) -> bool:
    """Return True if a visual that is a text names a file, not an address or the content itself."""
    if "://" in text or text.startswith("data:") or "\n" in text or len(text) > _LONGEST_PATH:
        return False
    return os.sep in text or "." in text[1:]


def _doc_name(doc: Any, number: int) -> str:
    """Return a document's own name, or that of its place."""
    known = doc.get("sample_id") if isinstance(doc, dict) else None
    return f"doc-{number}" if known is None else str(known)


def _without(tree: Mapping[Any, Any], names: Collection[str]) -> dict[Any, Any]:
    """Return the host's nested groups without some tasks; a group that is empty then goes too."""
    found: dict[Any, Any] = {}
    for top, value in tree.items():
        if isinstance(value, dict):
            if inner := _without(value, names):
                found[top] = inner
        elif top not in names:
            found[top] = value
    return found


def _said(reasons: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {why}" for name, why in reasons.items())


def _all_ours(names: Sequence[str]) -> bool:
    """Say whether the package has all names; refuse one that looks like ours and is not."""
    ours = task_entries()
    for name in names:
        if name not in ours and name.startswith("tempeval"):
            raise UnknownName("task", name, ours, LIST_HINT)
    return all(name in ours for name in names)


def _task_manager(names: Sequence[str], include_path: Path | None) -> Any:
    """Return a manager that knows `names`; the host's own tasks are indexed only when asked for.

    Raises:
        InvalidSetting: if `include_path` is no folder.
        UnknownName: for a name that nobody knows.
    """
    ours = task_entries()
    theirs = {} if include_path is None else _included(include_path)
    foreign = [name for name in names if name not in ours]
    folders = [
        tasks_path(),
        *foreign_task_folders(),
        *([] if include_path is None else [include_path]),
    ]
    import_host()
    tasks = importlib.import_module("lmms_eval.tasks")
    manager = tasks.TaskManager(
        "WARNING",
        include_path=[str(folder) for folder in folders],
        include_defaults=_needs_defaults(foreign, theirs),
        model_name=MODEL_NAME,
    )
    for name in foreign:
        if name not in manager.all_tasks:
            close = difflib.get_close_matches(name, manager.all_tasks, n=3, cutoff=0.5)
            raise UnknownName(
                "task", name, {*close, *ours}, f"{LIST_HINT}, or lmms-eval tasks list"
            )
    return manager


def _included(folder: Path) -> Mapping[str, TaskEntry]:
    """Return the tasks of a folder of the user's.

    Raises:
        InvalidSetting: if it is no folder, or one of its names is that of a task of this package,
            which the host would silently take instead.
    """
    if not folder.is_dir():
        raise InvalidSetting(
            f"include_path {str(folder)!r} is no folder; give one that holds task YAMLs"
        )
    ours, theirs = task_entries(), entries_in(folder)
    if twice := sorted(ours.keys() & theirs.keys()):
        raise InvalidSetting(
            f"task {twice[0]!r} of {theirs[twice[0]].path} has the name of one of tempeval's; "
            "give it another"
        )
    return theirs


def _needs_defaults(names: Sequence[str], theirs: Mapping[str, TaskEntry]) -> bool:
    """Return True if a name, or a member of a group, can only be one of the host's own tasks.

    Reading all of these takes seconds.
    """
    members = [m for name in names if name in theirs for m in theirs[name].members]
    known = theirs.keys() | task_entries().keys()
    return any(name not in theirs for name in names) or any(m not in known for m in members)


def _leaves(loaded: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    """Walk the host's nested groups; yield task name and object."""
    for name, value in loaded.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield str(name), value


def _prompts(task: Any) -> Iterator[list[Any]]:
    """Yield what each request of a task says to the model, visuals left out.

    Choices that are asked for in one request are named by their digest.
    """
    own_messages = callable(task.config.doc_to_messages)
    documents = task.eval_docs if own_messages else ()
    for request in task.instances:
        texts: list[str] = []
        if own_messages:
            messages = task.doc_to_messages(documents[request.doc_id])
            parts = (part for message in messages for part in message["content"])
            texts = [part["text"] for part in parts if isinstance(part, dict) and "text" in part]
        options: list[Any] = [value for value in request.args if isinstance(value, dict)]
        options += [value.digest for value in request.args if isinstance(value, Continuations)]
        yield [request.doc_id, str(request.args[0]), options, texts]
