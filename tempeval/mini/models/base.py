"""What training, packing and evaluating need to know about one kind of tiny model."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

INIT_SCALE = 4.0
"""Factor on transformers' initial matrices; training stays at chance without it."""


@dataclass(frozen=True)
class TokenGrid:
    """The visual tokens of a clip that probes read.

    Attributes:
        grids: temporal grids.
        rows, columns: cells per grid.
        frames_per_grid: frames that one grid covers.
    """

    grids: int
    rows: int
    columns: int
    frames_per_grid: int


class MiniModel(ABC):
    """One kind of tiny model.

    Attributes:
        name: as `tempeval mini train --family` takes it.
        title: what the model card calls it.
        placeholder: text of the token that stands for a video.
        trained_with: methods that training used, as the checkpoint's `config.json` says.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    placeholder: ClassVar[str]
    position_note: ClassVar[str]
    trained_with: ClassVar[str] = ""

    @abstractmethod
    def build_processor(self) -> Any:
        """Return the processor, with tokenizer and chat template."""

    @abstractmethod
    def build_config(self, tokenizer: Any) -> Any:
        """Return the configuration."""

    @abstractmethod
    def build_model(self, tokenizer: Any) -> Any:
        """Return an untrained model in float32; seed torch first."""

    @abstractmethod
    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        """Return the token grid of clips of a size in pixels."""

    @abstractmethod
    def pixels(self, processor: Any, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Return what the vision tower takes, as the processor makes it.

        Args:
            processor: from `build_processor`.
            frames: uint8 `[B, T, H, W, 3]`.
        """

    @abstractmethod
    def num_placeholders(self, grid: TokenGrid) -> int:
        """Return how many tokens a clip takes in the prompt."""

    @abstractmethod
    def visual_tokens(
        self, model: Any, pixels: torch.Tensor, batch: int, grid: TokenGrid
    ) -> torch.Tensor:
        """Return projected tokens of all cells, float `[B, grids, rows * columns + lead, D]`."""

    def lead(self) -> int:
        """Return the tokens of each grid before its cells."""
        return 0

    def in_prompt(self, model: Any, visual: torch.Tensor) -> torch.Tensor:
        """Return the tokens as they stand in the prompt, float `[B, placeholders, D]`."""
        return visual.flatten(1, 2)

    def positions(
        self, before: int, grid: TokenGrid, seconds_per_frame: float
    ) -> tuple[torch.Tensor, int]:
        """Return the prefix's positions `[axes, before + placeholders]`, and the next one.

        Args:
            before: text tokens before the video.
            grid: of the clip.
            seconds_per_frame: time between sampled frames in seconds.
        """
        length = before + self.num_placeholders(grid)
        return torch.arange(length).unsqueeze(0), length

    def position_ids(self, rows: torch.Tensor) -> torch.Tensor:
        """Turn `[axes, B, S]` positions into what the text stack takes."""
        return rows[0]

    def attention_mask(self, mask: torch.Tensor) -> Any:
        """Turn a bool `[1, 1, S, S]` mask into what the text stack takes."""
        return mask

    @contextlib.contextmanager
    def placed(self, model: Any) -> Iterator[None]:
        """Make the text stack take this kind's positions; restores it."""
        yield


def scale_up(model: torch.nn.Module) -> None:
    """Scale initial matrices by `INIT_SCALE`."""
    for weight in model.parameters():
        if weight.ndim >= 2:
            weight.data.mul_(INIT_SCALE)
