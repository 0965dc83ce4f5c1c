"""SlowFast pooling: few frames with all their tokens, then all frames with few tokens each.

Source: SlowFast-LLaVA, arXiv 2407.15841; apple/ml-slowfast-llava @ 6551895,
`LlavaMetaForCausalLM.prepare_slowfast` and the settings under `cfgs/`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, max_pool2d

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.methods.base import Method
from tempeval.methods.slowfast_grids import SlowFastGrids
from tempeval.stages import Pathway

if TYPE_CHECKING:
    from tempeval.stages import RunFacts, VisualTokens
    from tempeval.video.clip import FramePlan


@dataclass(frozen=True)
class SlowFast(Method):
    """Split a video's tokens into a slow and a fast pathway, slow first, without training.

    The slow path holds some temporal grids, evenly spread from the first, with the tokens that the
    base model has for them; the fast path holds all grids, each averaged over areas of cells. In
    the reference code a frame is a temporal grid; where the model merges frames into grids
    (Qwen-VL), the grid is what counts here.

    The paper's setting is 50 frames, 10 of them slow, and 24 x 24 tokens per frame pooled to
    4 x 4; here these are parts (a fifth of the grids, a sixth of each side, rounded up), because
    frames and tokens per frame differ between models. Its slow path halves the columns; here it is
    whole unless `slow_pool` is set, because the models here pool or merge their patches before.
    So `slowfast[slow_frames=10;slow_pool=max;fast_size=4/4]` on 50 frames is the published method.
    Its linear scaling of positions by 2 is `rope_scale[kind=linear;scale=2]`.

    Tokens that have no cell (the CLS token of Video-LLaVA, one per frame) are kept as they are, at
    the head of each frame of both paths. Newline tokens are the family's. With M-RoPE the paths
    lie one after the other in time, the slow one with the larger steps between its grids. Images
    and videos of one temporal grid stay as they are.

    With a visual-token budget, frames are sized so that both paths together make it; where the
    tokens of a frame are fixed, the numbers of frames and of slow frames are chosen instead, the
    latter as near as possible to its part (unless it is set as a whole number).

    Attributes:
        slow_frames: temporal grids of the slow path: a whole number, or a part in (0, 1).
        slow_pool: `none`, or `max` or `avg` over pairs of neighbouring columns.
        fast_size: rows and columns of the fast path (never more than there are), as 4/4; None for
            a sixth of either.
    """

    name: ClassVar[str] = "slowfast"
    modifies: ClassVar[frozenset[str]] = frozenset({"pathways"})

    slow_frames: int | float = 10 / 50
    slow_pool: Literal["none", "max", "avg"] = "none"
    fast_size: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        whole = isinstance(self.slow_frames, int)
        if not (self.slow_frames >= 1 if whole else 0 < self.slow_frames < 1):
            raise InvalidSetting(
                f"slowfast.slow_frames={self.slow_frames}; accepted: a whole number from 1, or a "
                "part of all temporal grids in (0, 1)"
            )
        if self.fast_size is not None and (len(self.fast_size) != 2 or min(self.fast_size) < 1):
            raise InvalidSetting(
                f"slowfast.fast_size={'/'.join(map(str, self.fast_size))} is not accepted; give "
                "rows and columns from 1, as fast_size=4/4"
            )

    @property
    def grids(self) -> SlowFastGrids:
        """Which grids and cells are left."""
        size = None if self.fast_size is None else (self.fast_size[0], self.fast_size[1])
        return SlowFastGrids(self.slow_frames, self.slow_pool != "none", size)

    def frames(self, plan: FramePlan) -> FramePlan:
        """Announce what becomes of the grids, so that frames are sized or counted for it."""
        return replace(plan, grid_rules=(*plan.grid_rules, self.grids))

    def bind(self, facts: RunFacts) -> SlowFast:
        """Take the number of slow grids that the budget left."""
        planned = [rule for rule in facts.grid_rules if isinstance(rule, SlowFastGrids)]
        return replace(self, slow_frames=planned[0].slow_frames) if planned else self

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Check that the paths differ; return their temporal grids.

        Raises:
            InvalidSetting: if the slow path has all the grids there are.
        """
        grids = -(-facts.num_frames // facts.frames_per_grid)
        slow = self.grids.slow_count(grids)
        if slow >= grids:
            raise InvalidSetting(
                f"slowfast.slow_frames={self.slow_frames} of the {grids} temporal grids that "
                f"num_frames={facts.num_frames} makes on this model is all of them, so the fast "
                "path would add nothing; give more frames or fewer slow ones"
            )
        return {"slow_grids": slow, "fast_grids": grids}

    def tokens(self, tokens: VisualTokens) -> VisualTokens:
        """Make the two paths of a video."""
        t, h, w = tokens.grid
        if tokens.kind == "image" or t == 1:
            return tokens
        if tokens.cells is not None:
            raise UnsupportedModel(
                "slowfast pools whole grids of visual tokens, and a method of the chain has "
                "dropped some; leave it out, or have it modify 'tokens', so that it comes after"
            )
        slow_grid, fast_grid = self.grids(tuple(run.grid for run in tokens.runs))
        index = torch.tensor(self.grids.slow_index(t), device=tokens.embeddings.device)
        # [N, D] -> [t, lead + h * w, D]
        per_grid = tokens.embeddings.reshape(t, tokens.lead + h * w, -1)
        lead = per_grid[:, : tokens.lead]
        # [t, h * w, D] -> [t, D, h, w]
        cells = per_grid[:, tokens.lead :].reshape(t, h, w, -1).permute(0, 3, 1, 2)
        slow = _joined(lead[index], self._pooled_columns(cells[index]))
        fast = _joined(lead, adaptive_avg_pool2d(cells, fast_grid[1:]))
        seconds = tokens.seconds_per_grid
        return replace(
            tokens,
            embeddings=torch.cat([slow, fast]),
            pathways=(
                Pathway(slow_grid, seconds * t / slow_grid[0]),
                Pathway(fast_grid, seconds),
            ),
        )

    def _pooled_columns(self, cells: torch.Tensor) -> torch.Tensor:
        """Pool pairs of columns of `[n, D, h, w]`; an odd last column stays alone."""
        if self.slow_pool == "max":
            return max_pool2d(cells, (1, 2), ceil_mode=True)
        if self.slow_pool == "avg":
            return avg_pool2d(cells, (1, 2), ceil_mode=True)
        return cells


def _joined(lead: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Return `[n * (lead + h * w), D]` from `[n, lead, D]` and `[n, D, h, w]`."""
    # [n, D, h, w] -> [n, h * w, D]
    return torch.cat([lead, cells.flatten(2).transpose(1, 2)], dim=1).flatten(0, 1)
