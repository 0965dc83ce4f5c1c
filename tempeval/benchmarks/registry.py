"""The benchmarks by name. A module is imported when its benchmark is asked for."""

from __future__ import annotations

from importlib import import_module

from tempeval.benchmarks.base import Benchmark
from tempeval.errors import UnknownName

#: Name (also the folder under the data root) to module; its constant of this name is the benchmark.
MODULES: dict[str, tuple[str, str]] = {
    "jester": ("tempeval.benchmarks.jester", "JESTER"),
    "ssv2": ("tempeval.benchmarks.ssv2", "SSV2"),
    "kinetics400": ("tempeval.benchmarks.kinetics", "KINETICS400"),
    "kinetics700": ("tempeval.benchmarks.kinetics", "KINETICS700"),
    "breakfast": ("tempeval.benchmarks.breakfast", "BREAKFAST"),
    "mvbench": ("tempeval.benchmarks.mvbench", "MVBENCH"),
    "tempcompass": ("tempeval.benchmarks.tempcompass", "TEMPCOMPASS"),
    "egoschema": ("tempeval.benchmarks.egoschema", "EGOSCHEMA"),
    "nextqa_mc": ("tempeval.benchmarks.nextqa", "NEXTQA_MC"),
    "nextqa_oe": ("tempeval.benchmarks.nextqa", "NEXTQA_OE"),
    "music_avqa": ("tempeval.benchmarks.music_avqa", "MUSIC_AVQA"),
    "avqa": ("tempeval.benchmarks.avqa", "AVQA"),
    "scanqa": ("tempeval.benchmarks.scanqa", "SCANQA"),
    "sqa3d": ("tempeval.benchmarks.sqa3d", "SQA3D"),
}


def benchmark(name: str) -> Benchmark:
    """Return a benchmark.

    Raises:
        UnknownName: if there is none of that name.
    """
    if name not in MODULES:
        raise UnknownName("benchmark", name, MODULES, "List them with: tempeval data list")
    module, constant = MODULES[name]
    found = getattr(import_module(module), constant)
    if not isinstance(found, Benchmark):
        raise TypeError(f"{module}.{constant} is a {type(found).__name__}, not a Benchmark")
    return found
