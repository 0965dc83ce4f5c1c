"""Frame sizes: by a pixel range (`SmartResize`) or by a visual-token budget (`BudgetResize`).

Both are sent to decoding workers, so this module imports neither torch nor transformers.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tempeval.errors import InfeasibleBudget, InvalidSetting, UnsupportedModel
from tempeval.video.clip import tokens_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tempeval.video.clip import Grid, GridRule, Sampling

#: A plan fits a budget of N when it makes 98 to 100 % of N visual tokens.
MIN_FILL_PERCENT = 98

#: A budget plan may change a frame's aspect ratio by at most this factor, either way. Grids of
#: few tokens need it: 128 tokens of a square frame are 9 x 14 at best.
MAX_DISTORTION = 2.0
_MOST_DISTORTION = math.log(MAX_DISTORTION) + 1e-9

#: Width / height of the videos that a choice of frames must serve: square, 4:3 and 16:9, both ways.
COMMON_ASPECTS = (1.0, 4 / 3, 16 / 9, 3 / 4, 9 / 16)

#: Frames longer or wider than this are refused, as by `smart_resize` of transformers.
MAX_ASPECT_RATIO = 200

# qwen-vl-utils 0.0.14 (`fetch_video`) limits a frame to this many merged tokens, and a video to
# its share of 90 % of the context.
_FRAME_TOKENS = 768
_CONTEXT_TOKENS = 128_000
_CONTEXT_SHARE = 0.9


def smart_resize(
    height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int
) -> tuple[int, int]:
    """Round a size to multiples of `factor` within a pixel range, keeping the aspect ratio.

    Source: transformers 5.23.0 `qwen2_vl/image_processing_qwen2_vl.py:smart_resize`.
    Differs in: a side is never 0 (a 5 x 300 image rounds to one row, as in qwen-vl-utils).

    Args:
        height: source rows in pixels.
        width: source columns in pixels.
        factor: pixels per merged token and side (patch size x merge size).
        min_pixels: fewest pixels per frame.
        max_pixels: most pixels per frame.

    Raises:
        UnsupportedModel: if the source is more than `MAX_ASPECT_RATIO` times as long as wide.
    """
    _check_aspect(height, width)
    rows = max(factor, round(height / factor) * factor)
    columns = max(factor, round(width / factor) * factor)
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns


@dataclass(frozen=True)
class SmartResize:
    """Frame size within a pixel range, as lmms-eval's wrapper and qwen-vl-utils choose it.

    Attributes:
        factor: pixels per merged token and side.
        min_pixels: fewest pixels per frame.
        max_pixels: most pixels per frame; lowered by the caps of qwen-vl-utils 0.0.14 (768 tokens
            per frame; all frames within 90 % of 128,000 tokens).
    """

    factor: int
    min_pixels: int
    max_pixels: int

    def __post_init__(self) -> None:
        if not 0 < self.min_pixels <= self.max_pixels:
            raise InvalidSetting(
                f"min_pixels={self.min_pixels} and max_pixels={self.max_pixels} must be positive "
                "and in this order"
            )

    def __call__(self, height: int, width: int, num_frames: int) -> tuple[int, int]:
        """Return the decoded (height, width) in pixels."""
        return smart_resize(
            height,
            width,
            factor=self.factor,
            min_pixels=self.min_pixels,
            max_pixels=self._most_pixels(num_frames),
        )

    def most_tokens(self, num_frames: int) -> int:
        """Return the most merged tokens that a frame can have, whatever its shape."""
        return max(1, self._most_pixels(num_frames) // self.factor**2)

    def _most_pixels(self, num_frames: int) -> int:
        area = self.factor**2
        frames = num_frames + num_frames % 2
        share = _CONTEXT_TOKENS * area * _CONTEXT_SHARE / frames * 2
        cap = max(min(_FRAME_TOKENS * area, share), int(self.min_pixels * 1.05))
        return int(min(self.max_pixels, cap))


@dataclass(frozen=True)
class BudgetResize:
    """Frame size that makes 98 to 100 % of a visual-token budget.

    The number of frames is given (by the sampling); the size is the one closest to the source's
    aspect ratio among those that fit, the larger one at a tie.

    Attributes:
        budget: visual tokens for the whole prompt.
        factor: pixels per merged token and side.
        frames_per_grid: frames per temporal grid (`temporal_patch_size`).
        num_visuals: videos that share the budget evenly.
        grid_rules: what stage `tokens` will make of a video's grids.
    """

    budget: int
    factor: int
    frames_per_grid: int = 2
    num_visuals: int = 1
    grid_rules: tuple[GridRule, ...] = ()

    def __post_init__(self) -> None:
        if self.budget < 1 or self.num_visuals < 1:
            raise InvalidSetting(
                f"visual_token_budget={self.budget} for {self.num_visuals} visuals: both must be "
                "at least 1"
            )

    def __call__(self, height: int, width: int, num_frames: int) -> tuple[int, int]:
        """Return the decoded (height, width) in pixels.

        Raises:
            InfeasibleBudget: if no size fits, naming the nearest budget that has one.
            UnsupportedModel: as `smart_resize`.
        """
        _check_aspect(height, width)
        grids = self.grids(num_frames)
        size = self._best(grids, width / height)
        if size is None:
            nearest = self._nearest(grids, width / height)
            raise InfeasibleBudget(
                f"visual_token_budget={self.budget}: {self._shape(num_frames)} of "
                f"{height} x {width} px make 98 to 100 % of it at no size within {MAX_DISTORTION} "
                f"times the aspect ratio. Nearest feasible for this video: {nearest}; or change "
                "the number of frames"
            )
        return size[0] * self.factor, size[1] * self.factor

    def check(self, sampling: Sampling) -> None:
        """Refuse a sampling that fits at no frame size.

        Raises:
            InfeasibleBudget: naming the nearest feasible budget.
        """
        # At a fixed rate a clip may be as short as one grid, so only that is sure to be known.
        frames = 1 if sampling.rule == "fps" else sampling.num_frames
        if not any(self._sizes(self.grids(frames), None)):
            raise InfeasibleBudget(
                f"visual_token_budget={self.budget}: {self._shape(frames)} make 98 to 100 % of it "
                f"at no frame size. Nearest feasible: {self._nearest(self.grids(frames), None)}; "
                "or change the number of frames"
            )

    def frames_near(self, preferred: int, unit: int = 1) -> int:
        """Choose the number of frames nearest to `preferred` at which common shapes all fit.

        Args:
            preferred: number of frames, rounded up to whole grids.
            unit: only multiples of it are chosen.

        Raises:
            InfeasibleBudget: if no number of frames up to one per token does.
        """
        step = math.lcm(self.frames_per_grid, unit)
        most = self.budget // self.num_visuals * self.frames_per_grid
        wanted = max(1, self.grids(preferred)) * self.frames_per_grid
        for frames in sorted(range(step, most + 1, step), key=lambda f: (abs(f - wanted), -f)):
            grids = self.grids(frames)
            accepted = all(any(True for _ in rule.choices(grids)) for rule in self.grid_rules)
            if accepted and all(any(self._sizes(grids, aspect)) for aspect in COMMON_ASPECTS):
                return frames
        number = "number of" if unit == 1 else f"multiple of {unit}"
        raise InfeasibleBudget(
            f"visual_token_budget={self.budget}: no {number} frames makes 98 to 100 % of it for "
            f"all of the aspect ratios {', '.join(f'{a:.2f}' for a in COMMON_ASPECTS)}; give a "
            "larger budget, or num_frames to plan for your own videos"
        )

    def grids(self, num_frames: int) -> int:
        """Count the temporal grids of one visual of `num_frames` frames."""
        return -(-num_frames // self.frames_per_grid)

    def _shape(self, num_frames: int) -> str:
        videos = f"{self.num_visuals} videos of " if self.num_visuals > 1 else ""
        return f"{videos}{num_frames} frames ({self.grids(num_frames)} temporal grids)"

    def tokens(self, grids: int, rows: int, columns: int) -> int:
        """Return the tokens of all visuals together."""
        return self.num_visuals * count_tokens(self.grid_rules, (grids, rows, columns))

    def _sizes(self, grids: int, aspect: float | None) -> Iterator[tuple[int, int]]:
        """Yield (rows, columns) that make 98 to 100 % of the budget.

        Args:
            grids: temporal grids of one visual.
            aspect: width / height, to be kept within the distortion limit; None for any.
        """
        low = -(-self.budget * MIN_FILL_PERCENT // 100)
        for rows, all_columns, tokens in self._rows(grids, aspect):
            for columns in all_columns[bisect_left(all_columns, low, key=tokens) :]:
                if tokens(columns) > self.budget:
                    break
                if aspect is None or _distortion((rows, columns), aspect) <= _MOST_DISTORTION:
                    yield rows, columns

    def _rows(
        self, grids: int, aspect: float | None
    ) -> Iterator[tuple[int, range, Callable[[int], int]]]:
        """Yield rows with the columns that `aspect` allows, and the tokens of each column.

        Ends with the first rows whose fewest columns are too many tokens for the budget.
        """
        for rows in itertools.count(1):
            tokens = partial(self.tokens, grids, rows)
            first, last = 1, 2 * self.budget + 1
            if aspect is not None:
                first = max(1, math.ceil(rows * aspect / MAX_DISTORTION * (1 - 1e-9)))
                last = math.floor(rows * aspect * MAX_DISTORTION * (1 + 1e-9))
            yield rows, range(first, last + 1), tokens
            if first <= last and tokens(first) > self.budget:
                return

    def _best(self, grids: int, aspect: float) -> tuple[int, int] | None:
        """Return (rows, columns) nearest to `aspect` (width / height); None if none fits."""
        sizes = self._sizes(grids, aspect)
        return min(sizes, key=lambda size: _rank(size, aspect), default=None)

    def _nearest(self, grids: int, aspect: float | None) -> int:
        """Return the feasible budget nearest to `self.budget`; of two, the larger."""
        below, above = 0, 0
        for _, all_columns, tokens in self._rows(grids, aspect):
            # Nothing lies between 98 and 100 % of the budget, so this parts smaller from larger.
            larger = bisect_left(all_columns, self.budget, key=tokens)
            if larger > 0:
                below = max(below, tokens(all_columns[larger - 1]))
            if larger < len(all_columns):
                least = tokens(all_columns[larger])
                above = min(above or least, least)
        # A budget may exceed its tokens by 2 %, so each count serves a range that ends above it.
        lower = below * 100 // MIN_FILL_PERCENT
        return lower if lower and self.budget - lower < above - self.budget else above


def count_tokens(grid_rules: tuple[GridRule, ...], grid: Grid) -> int:
    """Return the tokens that a video of `grid` has after stage `tokens`."""
    return tokens_after(grid_rules, grid)


def _check_aspect(height: int, width: int) -> None:
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise UnsupportedModel(
            f"a frame of {height} x {width} px has an aspect ratio above {MAX_ASPECT_RATIO}, which "
            "Qwen-VL does not accept; crop or pad the video"
        )


def _distortion(size: tuple[int, int], aspect: float) -> float:
    """Return |log| of the change of aspect ratio."""
    return abs(math.log(size[1] / size[0] / aspect))


def _rank(size: tuple[int, int], aspect: float) -> tuple[float, int, int]:
    """Order sizes: nearest aspect ratio, then more tokens, then fewer rows."""
    return round(_distortion(size, aspect), 9), -size[0] * size[1], size[0]
