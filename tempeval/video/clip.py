"""The values of the video room: which frames are wanted (`FramePlan`) and the frames (`Clip`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

#: (T, h, w): temporal grids, rows, columns of visual tokens.
Grid = tuple[int, int, int]
SamplingRule = Literal["uniform", "segment", "fps"]
OrderRule = Literal["reversed", "shuffled"]
TowerInput = Literal["attention", "keys"]
#: Endings of files that are taken for videos when a folder is searched.
VIDEO_SUFFIXES = frozenset({".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".gif", ".mpg"})


@dataclass(frozen=True)
class Sampling:
    """How frames are chosen from a video.

    Attributes:
        rule: `uniform` (linspace over frame indices, ends included, as lmms-eval), `segment`
            (centres of equal segments, as MVBench) or `fps` (a fixed rate in time, with a cap).
        num_frames: frames wanted (`uniform`, `segment`), or the cap (`fps`); at least 1.
        fps: frames per second (1/s), for `fps` only.
    """

    rule: SamplingRule = "uniform"
    num_frames: int = 8
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in ("uniform", "segment", "fps"):
            raise InvalidSetting(
                f"sampling rule {self.rule!r} is not one of 'uniform', 'segment', 'fps'"
            )
        if self.num_frames < 1:
            raise InvalidSetting(f"num_frames={self.num_frames} must be at least 1")
        if (self.rule == "fps") != (self.fps is not None):
            raise InvalidSetting(
                f"fps={self.fps} goes with rule='fps' and only with it (rule={self.rule!r})"
            )
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise InvalidSetting(f"fps={self.fps} must be positive and finite (frames per second)")


@dataclass(frozen=True)
class Order:
    """A re-ordering of sampled frames: `reversed`, or `shuffled` by a seed."""

    rule: OrderRule
    seed: int = 0

    def permutation(self, num_frames: int) -> NDArray[np.int64]:
        """Return `[T]`: slot i shows the frame that was in slot `permutation[i]`."""
        if self.rule == "reversed":
            return np.arange(num_frames - 1, -1, -1)
        return np.random.default_rng(self.seed).permutation(num_frames)


class GridRule(Protocol):
    """What stage `tokens` of a method makes of a video's grids, said before there is a video.

    Frames are counted and sized with it. It is hashable and picklable, and its module imports no
    torch, because frames are sized in decoding workers. More rows or columns may never give fewer
    tokens, nor may more grids where there are `choices`.
    """

    def __call__(self, grids: tuple[Grid, ...]) -> tuple[Grid, ...]:
        """Return the grids of the pathways that `tokens` makes of those of a video."""
        ...

    def choices(self, num_grids: int) -> Iterable[tuple[float, GridRule]]:
        """Return the rules that a budget may choose for a number of temporal grids.

        Only where the tokens of a frame are fixed is there need to choose: elsewhere frames are
        sized.

        Returns:
            Pairs of what it costs to leave the wanted setting (0 for not leaving it) and a rule,
            those with the fewest tokens first; none for a number that the method refuses.
        """
        ...


class TokenRule:
    """How many tokens stage `tokens` of a method leaves of a video's grids: a `GridRule`.

    For methods that drop or merge tokens, whose grids stay as they are. Hashable and picklable, as
    a frozen dataclass is; more cells may never give fewer tokens.
    """

    def __call__(self, grids: tuple[Grid, ...]) -> tuple[Grid, ...]:
        """Return the grids as they are."""
        return grids

    def choices(self, num_grids: int) -> Iterable[tuple[float, TokenRule]]:
        """Return the rule alone: the wanted setting is the only one."""
        return ((0.0, self),)

    def counts(self, grids: tuple[Grid, ...], lead: int) -> tuple[tuple[int, ...], ...]:
        """Return the tokens that are left of each temporal grid of each pathway.

        Newline tokens are not among them. Where the number depends on what the video shows, only
        the sum over the video has to be right.

        Args:
            grids: (T, h, w) of each pathway.
            lead: tokens of each temporal grid before its cells.
        """
        raise NotImplementedError


def tokens_after(
    rules: tuple[GridRule, ...], grid: Grid, *, lead: int = 0, newline_rows: bool = False
) -> int:
    """Return the tokens that a video of `grid` has after stage `tokens`.

    Args:
        rules: of the chain, first to last.
        grid: (T, h, w) as the family makes it.
        lead: tokens of each temporal grid before its cells.
        newline_rows: whether each row that keeps a token has a newline token; where some are
            dropped, as many rows of a grid are counted as it has tokens, at most all.
    """
    grids = grids_after(rules, grid)
    dropping = [rule for rule in rules if isinstance(rule, TokenRule)]
    if not dropping:
        return sum(t * (lead + h * (w + newline_rows)) for t, h, w in grids)
    counts = dropping[-1].counts(grids, lead)
    total = sum(map(sum, counts))
    if newline_rows:
        for (_, rows, _), own in zip(grids, counts, strict=True):
            total += sum(min(rows, count) for count in own)
    return total


def grids_after(rules: tuple[GridRule, ...], grid: Grid) -> tuple[Grid, ...]:
    """Return the grids that a video of `grid` has after stage `tokens`."""
    grids: tuple[Grid, ...] = (grid,)
    for rule in rules:
        grids = rule(grids)
    return grids


@dataclass(frozen=True)
class SideSpec:
    """A side channel that a method asks for (see `tempeval.side_channels`).

    Attributes:
        name: registry name, such as `audio`.
        settings: its settings by name, sorted; all that its features depend on besides the video.
    """

    name: str
    settings: tuple[tuple[str, str | int | float | bool | None], ...] = ()


@dataclass(frozen=True)
class FramePlan:
    """Which frames, in which order, in which groups: what stage `frames` transforms.

    Attributes:
        sampling: how frames are chosen from the source.
        orders: re-orderings applied after sampling, first to last.
        num_groups: strided groups that are encoded separately (group g holds frames g, g+m, ...).
        unit: the number of frames must be a multiple of it.
        grid_rules: what stage `tokens` will make of the grids, first to last, so that a budget
            can be met; a `TokenRule` where it drops tokens.
        features: whether the features before the projector are wanted.
        tower: what else of the vision tower is wanted: its `attention` or its `keys`. A family
            that does not give it refuses the chain (see `Family.tower_inputs`).
        side: side channels that are wanted.
    """

    sampling: Sampling = field(default_factory=Sampling)
    orders: tuple[Order, ...] = ()
    num_groups: int = 1
    unit: int = 1
    grid_rules: tuple[GridRule, ...] = ()
    features: bool = False
    side: tuple[SideSpec, ...] = ()
    tower: tuple[TowerInput, ...] = ()

    def permutation(self, num_frames: int) -> NDArray[np.int64]:
        """Return the composed permutation `[T]` of all `orders`."""
        slots = np.arange(num_frames)
        for order in self.orders:
            slots = slots[order.permutation(num_frames)]
        return slots

    def reordered(self, order: Order) -> FramePlan:
        """Return the plan with one more re-ordering at the end."""
        return replace(self, orders=(*self.orders, order))


@dataclass(frozen=True)
class VideoRef:
    """A video on disk: a file, or a folder of numbered images, or a part of either.

    Attributes:
        path: file or folder.
        start, end: seconds from the first frame; None is the video's own end.
        fps: frame rate (1/s), needed for frame folders and refused for files.
    """

    path: str
    start: float | None = None
    end: float | None = None
    fps: float | None = None


@dataclass(frozen=True)
class Clip:
    """Decoded frames with their true times.

    Attributes:
        frames: uint8 `[T, H, W, 3]`, RGB, as a player shows them, resized while decoding.
        timestamps: float64 `[T]`, seconds from the start of the video; NaN where the file has none.
        indices: int64 `[T]`, index of each frame among the source's decodable frames.
        source: the path.
        source_frames: number of decodable frames in the (trimmed) source.
        source_size: (height, width) of the source as shown, in square pixels, before resizing.
        source_fps: mean frame rate of the source (1/s), None when unknown.
        flags: what is wrong with the source, such as `truncated`; empty for a sound one.
        decode_ms: wall milliseconds spent decoding this clip.
        decoder: which decoder made it.
        span: start and end in seconds of the (trimmed) source, from the start of the video, its
            last frame included; None where it has no timestamps.
    """

    frames: NDArray[np.uint8]
    timestamps: NDArray[np.float64]
    indices: NDArray[np.int64]
    source: str
    source_frames: int
    source_size: tuple[int, int]
    source_fps: float | None = None
    flags: tuple[str, ...] = ()
    decode_ms: float = 0.0
    decoder: str = ""
    span: tuple[float, float] | None = None

    @property
    def num_frames(self) -> int:
        """Number of frames T."""
        return int(self.frames.shape[0])

    @property
    def seconds_per_frame(self) -> float | None:
        """Mean time between neighbouring frames in seconds; None for one frame or no timestamps."""
        if self.num_frames < 2 or not np.isfinite(self.timestamps[[0, -1]]).all():
            return None
        span = float(self.timestamps.max() - self.timestamps.min())
        return span / (self.num_frames - 1) if span > 0 else None

    def reordered(self, slots: NDArray[np.int64]) -> Clip:
        """Return the clip with frames permuted; timestamps stay with the slots, not the frames.

        The model is told the time of the slot, so a reversed clip is a video played backwards.
        """
        return replace(self, frames=self.frames[slots], indices=self.indices[slots])


class VideoPath(str):
    """A path that carries the part and the frame rate of a video.

    Tasks return it from `doc_to_visual`: lmms-eval's own wrappers see a plain string, ours read
    the rest.

    Attributes:
        start: seconds from the first frame, or None.
        end: seconds from the first frame, or None.
        fps: frame rate (1/s) of a frame folder, or None.
    """

    start: float | None
    end: float | None
    fps: float | None

    def __new__(
        cls,
        path: str,
        *,
        start: float | None = None,
        end: float | None = None,
        fps: float | None = None,
    ) -> VideoPath:
        """Build from a path."""
        self = super().__new__(cls, path)
        self.start, self.end, self.fps = start, end, fps
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _video_path, (str(self), self.start, self.end, self.fps)

    @property
    def ref(self) -> VideoRef:
        """The same as a `VideoRef`."""
        return VideoRef(str(self), self.start, self.end, self.fps)


def _video_path(path: str, start: float | None, end: float | None, fps: float | None) -> VideoPath:
    return VideoPath(path, start=start, end=end, fps=fps)
