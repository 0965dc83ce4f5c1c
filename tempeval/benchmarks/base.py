"""What a benchmark is: facts to print, and functions that read its official files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tempeval.errors import TempevalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from tempeval.benchmarks.document import Doc


class MissingData(TempevalError):
    """Files of a benchmark that are not where they are looked for.

    Args:
        reason: what is not where.
        action: what to do about it; `tempeval data check` says it in its own way.
    """

    def __init__(self, reason: str, action: str = "") -> None:
        self.reason, self.action = reason, action
        super().__init__(f"{reason}. {action}" if action else reason)

    def __reduce__(self) -> tuple[type[MissingData], tuple[str, str]]:
        return type(self), (self.reason, self.action)


class BadData(TempevalError):
    """A file of a benchmark that is not in its official form."""


@dataclass(frozen=True)
class Counts:
    """Published size of a split.

    Attributes:
        items: questions or labelled clips.
        videos: files (or frame folders, or scenes) they are about; None where it is not known.
        source: where the figures come from.
        checked: whether somebody looked there; else the README says that nobody did.
    """

    items: int
    videos: int | None
    source: str
    checked: bool = True


@dataclass(frozen=True)
class HubSource:
    """The Hugging Face data set that lmms-eval uses for a benchmark.

    Attributes:
        path: repository id.
        configs: configuration names by split of ours; None where it has only one.
        splits: the hub's split name by split of ours.
        cache_dir: folder under `HF_HOME` into which lmms-eval unpacks the videos.
        read: `(rows, videos, split)` to documents; `videos` is that folder.
    """

    path: str
    configs: Mapping[str, str | None]
    splits: Mapping[str, str]
    cache_dir: str
    read: Callable[[Iterable[Mapping[str, object]], Path, str], Iterable[Doc]]


@dataclass(frozen=True)
class Archive:
    """An official archive, possibly in parts that are joined in order of name.

    Attributes:
        pattern: glob of the file, or of its parts, under the benchmark's folder.
        target: folder under the benchmark's folder that its members are unpacked into.
        zipped: whether its parts also come with the ending `.zip`: each in a zip of its own, or
            only called so.
        annotations: whether it holds annotation files, so that it is not missed where they are.
    """

    pattern: str
    target: str = "."
    zipped: bool = False
    annotations: bool = False

    @property
    def patterns(self) -> tuple[str, ...]:
        """Globs of all its forms; what comes out of the first may be the parts of the last."""
        return (f"{self.pattern}.zip", self.pattern) if self.zipped else (self.pattern,)


@dataclass(frozen=True)
class Fetch:
    """Data of metrics, which lie outside the benchmark's folder; only metrics are None without.

    Attributes:
        missing: names of what is not there.
        get: downloads it, and returns what was done, one line each. Raises a TempevalError.
    """

    missing: Callable[[], Sequence[str]]
    get: Callable[[], Sequence[str]]


@dataclass(frozen=True)
class Benchmark:
    """One benchmark in its official on-disk layout.

    Attributes:
        name: its folder under `$TEMPEVAL_DATA`, such as `jester`.
        title: its name in papers.
        licence: of annotations and videos, one line.
        access: the exact next steps to get the files, with the registration page by name.
        tree: the expected tree under its folder, several lines.
        splits: published counts by split; None where they were not looked up.
        annotations: `(root, split)` to the annotation files that the split needs, in a fixed order.
            Raises MissingData naming the file and where it was looked for.
        read: `(root, split)` to the documents, in the official order. Raises MissingData or
            BadData for annotations; a missing video is no error here: its document names where the
            file would be, and its sample fails when it is decoded.
        labels: `(root)` to the label set, in official order of index; None for others.
        archives: official archives that `tempeval data prepare` unpacks.
        hub: the Hugging Face copy, if lmms-eval uses one.
        fetch: data of its metrics, which `tempeval data prepare` downloads.
        tasks: names of the tasks and groups that use it.
        metrics: one line for the README's table.
        notes: fine print, one line each.
        task_folder: folder of the YAMLs of its tasks, for a benchmark of another package; those of
            this package are in one place.
    """

    name: str
    title: str
    licence: str
    access: str
    tree: str
    splits: Mapping[str, Counts | None]
    annotations: Callable[[Path, str], Sequence[Path]]
    read: Callable[[Path, str], Iterable[Doc]]
    labels: Callable[[Path], Sequence[str]] | None = None
    archives: tuple[Archive, ...] = ()
    hub: HubSource | None = None
    fetch: Fetch | None = None
    tasks: tuple[str, ...] = ()
    metrics: str = ""
    notes: tuple[str, ...] = field(default=())
    task_folder: Path | None = None
