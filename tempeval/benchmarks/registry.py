"""The benchmarks by name. A module is imported when its benchmark is asked for.

A benchmark of another package is the `Benchmark` that an entry point of its name loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tempeval.errors import BrokenPlugin, TempevalError
from tempeval.extensions import Registry, load_object

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.benchmarks.base import Benchmark
    from tempeval.extensions import Extension


@dataclass(frozen=True)
class BenchmarkEntry:
    """One line of the table of benchmarks.

    Attributes:
        name: what the user writes; also its folder under the data root.
        path: `module:CONSTANT`.
    """

    name: str
    path: str


def _read_entry(named: Extension, found: object) -> BenchmarkEntry:
    from tempeval.benchmarks.base import Benchmark

    if not isinstance(found, Benchmark):
        raise BrokenPlugin(named.path, f"it is a {type(found).__name__}, not a Benchmark")
    if found.name != named.name:
        raise BrokenPlugin(
            named.path,
            f"the entry point is called {named.name!r} and the benchmark {found.name!r}; give both "
            "one name",
        )
    folder = found.task_folder
    if folder is not None:
        _check_tasks(named, folder)
    return BenchmarkEntry(named.name, named.path)


def _check_tasks(named: Extension, folder: Path) -> None:
    """Refuse task YAMLs that cannot be read, or that would take another task's name."""
    from tempeval.tasklist import entries_in, tasks_path

    if not folder.is_dir():
        raise BrokenPlugin(named.path, f"its task_folder {folder} is no folder")
    try:
        tasks = entries_in(folder)
    except TempevalError as error:
        raise BrokenPlugin(named.path, str(error)) from error
    if taken := sorted(tasks.keys() & entries_in(tasks_path()).keys()):
        raise BrokenPlugin(named.path, f"its task {taken[0]!r} has the name of tempeval's own task")


BENCHMARKS: Registry[BenchmarkEntry] = Registry(
    "benchmark",
    "tempeval.benchmarks",
    (
        BenchmarkEntry("jester", "tempeval.benchmarks.jester:JESTER"),
        BenchmarkEntry("ssv2", "tempeval.benchmarks.ssv2:SSV2"),
        BenchmarkEntry("kinetics400", "tempeval.benchmarks.kinetics:KINETICS400"),
        BenchmarkEntry("kinetics700", "tempeval.benchmarks.kinetics:KINETICS700"),
        BenchmarkEntry("breakfast", "tempeval.benchmarks.breakfast:BREAKFAST"),
        BenchmarkEntry("mvbench", "tempeval.benchmarks.mvbench:MVBENCH"),
        BenchmarkEntry("tempcompass", "tempeval.benchmarks.tempcompass:TEMPCOMPASS"),
        BenchmarkEntry("egoschema", "tempeval.benchmarks.egoschema:EGOSCHEMA"),
        BenchmarkEntry("nextqa_mc", "tempeval.benchmarks.nextqa:NEXTQA_MC"),
        BenchmarkEntry("nextqa_oe", "tempeval.benchmarks.nextqa:NEXTQA_OE"),
        BenchmarkEntry("music_avqa", "tempeval.benchmarks.music_avqa:MUSIC_AVQA"),
        BenchmarkEntry("avqa", "tempeval.benchmarks.avqa:AVQA"),
        BenchmarkEntry("scanqa", "tempeval.benchmarks.scanqa:SCANQA"),
        BenchmarkEntry("sqa3d", "tempeval.benchmarks.sqa3d:SQA3D"),
    ),
    _read_entry,
    "List them with: tempeval data list",
)


def benchmark(name: str) -> Benchmark:
    """Return a benchmark.

    Raises:
        UnknownName: if there is none of that name.
        BrokenPlugin: if it is another package's and cannot be used.
    """
    return cast("Benchmark", load_object(BENCHMARKS[name].path))
