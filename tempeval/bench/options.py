"""What a benchmark measures: options as given, and the settings that follow from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.families.base import LoadOptions
from tempeval.families.loading import torch_device

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPES = ("float32", "bfloat16", "float16")
#: The parts of a benchmark, in the order in which they are measured.
SECTIONS = ("labels", "methods", "questions", "staged")
FULL_TOKENS, QUICK_TOKENS = (1300, 3900), (36, 64)
FULL_QUESTIONS, QUICK_QUESTIONS = (1, 5, 15), (1, 3)
FULL_LABELS, QUICK_LABELS = (27, 174, 700), (5, 9)
STAGED_CPU, STAGED_CUDA, QUICK_STAGED = (2048, 4096, 8192), (8192, 32768), (64,)
PIXELS_PER_TOKEN = 28
FRAMES_PER_GRID = 2
#: Longest side over shortest side of a rendered frame.
_MAX_ASPECT = 1.34


@dataclass(frozen=True)
class BenchOptions:
    """Options of `tempeval bench`; None and empty lists take the defaults.

    Attributes:
        out: folder of `benchmarks.md` and `benchmarks.json`.
        pairs: alternating pairs per cell, at least 2; default 7.
        questions: questions per video; default 1, 5, 15.
        tokens: visual tokens per video, about; default 1300, 3900.
        labels: numbers of choices; default 27, 174, 700: those of
            Jester, Something-Something V2 and Kinetics-700.
        staged: visual tokens of the staged-sparse part; default 2048, 4096, 8192 on a CPU and
            8192, 32768 on a GPU.
        sections: parts to measure, of `SECTIONS`; default all. What an earlier run measured of
            others stays.
        pretrained: Qwen2.5-VL folder or hub id; None builds random weights.
        device: torch device.
        dtype: `float32`, `bfloat16` or `float16`.
        threads: CPU threads of torch; None leaves them.
        batch_size: questions answered together by this engine (stock: one at a time).
        max_new_tokens: tokens that both sides generate per answer.
        quick: tiny model and sizes; its numbers mean nothing.
        overwrite: drop measurements made with other settings.
    """

    out: Path = Path("results/bench")
    pairs: int | None = None
    questions: Sequence[int] = ()
    tokens: Sequence[int] = ()
    labels: Sequence[int] = ()
    staged: Sequence[int] = ()
    sections: Sequence[str] = ()
    pretrained: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    batch_size: int = 8
    max_new_tokens: int = 6
    quick: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Settings:
    """Options with every default filled in; two measurements mix only when these are equal.

    Attributes are those of `BenchOptions`, and `frames`, the frames per video.
    """

    questions: tuple[int, ...]
    tokens: tuple[int, ...]
    pretrained: str | None
    device: str
    dtype: str
    threads: int
    batch_size: int
    max_new_tokens: int
    frames: int
    quick: bool

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}


def settings_of(options: BenchOptions, threads: int) -> Settings:
    """Check options and fill in defaults.

    Args:
        options: as given.
        threads: CPU threads of torch when the options name none.

    Raises:
        InvalidSetting: for a value that is not accepted.
    """
    quick = options.quick
    for name in ("questions", "tokens", "labels", "staged"):
        values = getattr(options, name)
        if any(value < 1 for value in values) or len(set(values)) < len(values):
            raise InvalidSetting(
                f"{name}={list(values)} is not accepted; give different positive whole numbers"
            )
    for name in ("pairs", "threads", "batch_size", "max_new_tokens"):
        value = getattr(options, name)
        least = 2 if name == "pairs" else 1
        if value is not None and value < least:
            raise InvalidSetting(f"{name}={value} must be at least {least}")
    if options.dtype not in DTYPES:
        raise InvalidSetting(f"dtype={options.dtype!r} is not one of {', '.join(DTYPES)}")
    _check_device(options.device)
    return Settings(
        questions=tuple(options.questions or (QUICK_QUESTIONS if quick else FULL_QUESTIONS)),
        tokens=tuple(options.tokens or (QUICK_TOKENS if quick else FULL_TOKENS)),
        pretrained=options.pretrained,
        device=options.device,
        dtype=options.dtype,
        threads=options.threads or threads,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        frames=8 if quick else 32,
        quick=quick,
    )


def _check_device(name: str) -> None:
    """Refuse a device that cannot be timed here, before anything is written."""
    device = torch_device(LoadOptions(device=name))
    if device.type not in ("cpu", "cuda"):
        raise InvalidSetting(f"device={name!r} cannot be timed; accepted: cpu or cuda")
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    if device.index is not None and device.type == "cuda" and device.index >= there:
        raise InvalidSetting(f"device={name!r}: there is {there} CUDA device here, from cuda:0")


def pairs_of(options: BenchOptions) -> int:
    """Return the pairs per cell."""
    return options.pairs or (2 if options.quick else 7)


def sections_of(options: BenchOptions) -> tuple[str, ...]:
    """Return the parts to measure, in their order.

    Raises:
        UnknownName: for a part that does not exist.
    """
    for name in options.sections:
        if name not in SECTIONS:
            raise UnknownName("section of the benchmark", name, SECTIONS)
    return tuple(name for name in SECTIONS if name in (options.sections or SECTIONS))


def labels_of(options: BenchOptions) -> tuple[int, ...]:
    """Return the numbers of choices; no `Settings`, for the reason of `staged_tokens_of`."""
    return tuple(options.labels or (QUICK_LABELS if options.quick else FULL_LABELS))


def staged_tokens_of(options: BenchOptions) -> tuple[int, ...]:
    """Return the sizes of the staged-sparse part.

    They are no `Settings`: a cell's name says its size, so sizes may be measured in any order.
    """
    on_gpu = options.device.startswith("cuda")
    default = QUICK_STAGED if options.quick else STAGED_CUDA if on_gpu else STAGED_CPU
    return tuple(options.staged or default)


def frame_size(tokens: int, frames: int) -> tuple[int, int]:
    """Choose the (height, width) in pixels whose visual tokens come nearest to `tokens`.

    Args:
        tokens: visual tokens per video, wanted.
        frames: frames per video; every two make one temporal grid.
    """
    grids = frames // FRAMES_PER_GRID
    wanted = max(tokens / grids, 1.0)
    most = int(wanted**0.5) + 1
    shapes = [
        (rows, columns)
        for rows in range(1, most + 1)
        for columns in range(rows, max(int(rows * _MAX_ASPECT), rows) + 1)
    ]
    rows, columns = min(shapes, key=lambda s: (abs(s[0] * s[1] - wanted), s[1] - s[0]))
    return rows * PIXELS_PER_TOKEN, columns * PIXELS_PER_TOKEN
