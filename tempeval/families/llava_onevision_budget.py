"""Frames at a fixed number of tokens each: what a visual-token budget leaves to choose.

Sent to decoding workers, so this module imports neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.errors import InfeasibleBudget, InvalidSetting
from tempeval.families.pixel_budget import MIN_FILL_PERCENT
from tempeval.video.clip import tokens_after
from tempeval.video.sampling import nearest_multiple

if TYPE_CHECKING:
    from tempeval.video.clip import GridRule, Sampling


@dataclass(frozen=True)
class FixedFrames:
    """Decodes frames at their own size, and holds their number against a budget.

    The model's own preprocessing makes every frame a square of one size, so a decoder must not
    resize, and a budget can choose nothing but the number of frames.

    Attributes:
        per_frame: visual tokens of one frame, newline tokens of its rows included.
        per_video: visual tokens of a video besides those of its frames.
        budget: visual tokens of the whole prompt; None for no budget.
        num_visuals: visuals that share the budget evenly.
        block: frames come in multiples of this, because the vision tower attends over so many.
        cells: rows and columns of a frame; read only where there are `grid_rules`.
        newline_rows: whether each row has a newline token; read only where there are `grid_rules`.
        grid_rules: what stage `tokens` will make of a video's grids.
    """

    per_frame: int
    per_video: int = 0
    budget: int | None = None
    num_visuals: int = 1
    block: int = 1
    cells: tuple[int, int] = (0, 0)
    newline_rows: bool = False
    grid_rules: tuple[GridRule, ...] = ()

    def __post_init__(self) -> None:
        if self.num_visuals < 1 or (self.budget is not None and self.budget < 1):
            raise InvalidSetting(
                f"visual_token_budget={self.budget} for {self.num_visuals} visuals: both must be "
                "at least 1"
            )

    def __call__(self, height: int, width: int, num_frames: int) -> tuple[int, int]:
        """Return (height, width) as they are.

        Raises:
            InfeasibleBudget: if so many frames are not 98 to 100 % of the budget.
        """
        self.check_frames(num_frames)
        return height, width

    def tokens(self, num_frames: int) -> int:
        """Return the visual tokens of a video, after stage `tokens`."""
        return self.tokens_after(self.grid_rules, num_frames)

    def tokens_after(self, grid_rules: tuple[GridRule, ...], num_frames: int) -> int:
        """Return the visual tokens of a video of whose grids `tokens` makes others."""
        if not grid_rules:
            return num_frames * self.per_frame + self.per_video
        rows, columns = self.cells
        lead = self.per_frame - rows * (columns + self.newline_rows)
        grid = (num_frames, rows, columns)
        frames = tokens_after(grid_rules, grid, lead=lead, newline_rows=self.newline_rows)
        return frames + self.per_video

    def check(self, sampling: Sampling) -> None:
        """Refuse a sampling that the budget cannot serve.

        Raises:
            InvalidSetting: if every video has its own number of frames, or the frames are not
                whole blocks.
            InfeasibleBudget: naming the nearest feasible budget, and number of frames.
        """
        self._check_blocks(sampling)
        if self.budget is None:
            return
        if sampling.rule == "fps":
            raise InvalidSetting(
                f"fps={sampling.fps} gives every video its own number of frames, which "
                f"visual_token_budget={self.budget} fixes ({self.per_frame} tokens per frame); "
                "leave fps out"
            )
        self.check_frames(sampling.num_frames)

    def _check_blocks(self, sampling: Sampling) -> None:
        if self.block == 1:
            return
        why = f"the vision tower attends over blocks of {self.block} frames"
        if sampling.rule == "fps":
            raise InvalidSetting(
                f"fps={sampling.fps} gives every video its own number of frames, but {why}; give "
                "num_frames and leave fps out"
            )
        if sampling.num_frames % self.block:
            raise InvalidSetting(
                f"num_frames={sampling.num_frames} is not a multiple of {self.block}: {why}. The "
                f"nearest that is: {nearest_multiple(sampling.num_frames, self.block)}"
            )

    def check_frames(self, num_frames: int) -> None:
        """Refuse a number of frames that is not 98 to 100 % of the budget."""
        self.check_tokens(self.tokens(num_frames), f"{num_frames} frames of {self.per_frame}")

    def check_tokens(self, tokens: int, what: str) -> None:
        """Refuse a visual if so many of its like are not 98 to 100 % of the budget.

        Args:
            tokens: of one visual.
            what: the visual in words, before "tokens".

        Raises:
            InfeasibleBudget: naming the nearest feasible budget.
        """
        total = tokens * self.num_visuals
        if self.budget is None or total in self._range():
            return
        times = f"{self.num_visuals} times " if self.num_visuals > 1 else ""
        nearest = total if self.budget < total else largest_budget(total)
        fitting = range(0) if self.grid_rules else self._fitting()
        frames = f"; {self._list(fitting)} would fit this one" if fitting else ""
        raise InfeasibleBudget(
            f"visual_token_budget={self.budget}: {times}{what} tokens make {total}, not "
            f"{MIN_FILL_PERCENT} to 100 % of it. Nearest feasible budget: {nearest}{frames}"
        )

    def frames_near(self, preferred: int) -> int:
        """Choose the number of frames nearest to `preferred`.

        Raises:
            InfeasibleBudget: if none fits the budget, naming the nearest budget that one does.
        """
        if self.budget is None:
            return nearest_multiple(preferred, self.block)
        fitting = self._fitting()
        if fitting:
            return min(max(nearest_multiple(preferred, self.block), fitting[0]), fitting[-1])
        below = self._most()
        above = self.tokens(below + self.block) * self.num_visuals
        lower = largest_budget(self.tokens(below) * self.num_visuals) if below else 0
        nearest = lower if lower and self.budget - lower < above - self.budget else above
        raise InfeasibleBudget(
            f"visual_token_budget={self.budget}: no number of frames of {self.per_frame} tokens"
            f"{f' in blocks of {self.block}' if self.block > 1 else ''} makes {MIN_FILL_PERCENT} "
            f"to 100 % of it. Nearest feasible: {nearest}"
        )

    def _range(self) -> range:
        """Totals that are 98 to 100 % of the budget."""
        budget = self.budget or 0
        return range(-(-budget * MIN_FILL_PERCENT // 100), budget + 1)

    def _most(self) -> int:
        """Most frames within the budget, in whole blocks; 0 if not even one block is."""
        share = (self.budget or 0) // self.num_visuals
        most = max((share - self.per_video) // self.per_frame, 0)
        return most - most % self.block

    def _fitting(self) -> range:
        """Numbers of frames that are 98 to 100 % of the budget."""
        least = -(-self._range()[0] // self.num_visuals)  # tokens of one video
        fewest = max(-(-(least - self.per_video) // self.per_frame), 1)
        return range(-(-fewest // self.block) * self.block, self._most() + 1, self.block)

    @staticmethod
    def _list(frames: range) -> str:
        if len(frames) == 1:
            return "1 frame" if frames[0] == 1 else f"{frames[0]} frames"
        steps = f" in steps of {frames.step}" if frames.step > 1 else ""
        return f"{frames[0]} to {frames[-1]} frames{steps}"


def largest_budget(tokens: int) -> int:
    """Return the largest budget of which `tokens` are at least 98 %."""
    return tokens * 100 // MIN_FILL_PERCENT
