"""Frames and images to visual tokens, by a Qwen-VL checkpoint's own processors and vision tower."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from transformers.vision_utils import get_vision_window_index

from tempeval.errors import InvalidSetting
from tempeval.families.vision_flops import VisionCost
from tempeval.stages import VisualTokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tempeval.families.loading import Checkpoint
    from tempeval.video.clip import Clip


class VisionTower:
    """The vision tower with its merger, and the processors that feed it.

    Args:
        checkpoint: a loaded checkpoint.

    Attributes:
        cost: sizes of the tower.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = checkpoint.model
        self._processor = checkpoint.processor
        self._config = checkpoint.model.config.vision_config
        self.cost = VisionCost.from_config(self._config, checkpoint.model_type)

    @property
    def pixels_per_token(self) -> int:
        """Side in pixels of one visual token; frame sizes are multiples of it."""
        return self.cost.patch * self.cost.merge

    @torch.no_grad()
    def encode(self, clip: Clip, num_groups: int, with_features: bool) -> VisualTokens:
        """Encode a clip: see `QwenVL.encode`."""
        height, width = clip.frames.shape[1:3]
        side = self.pixels_per_token
        if height % side or width % side:
            raise InvalidSetting(
                f"frames of {height} x {width} px are not multiples of {side}; decode them with "
                "the rule that resize() returns"
            )
        frames = clip.frames
        if num_groups > 1:
            frames = frames[strided_order(clip.num_frames, num_groups, self.cost.temporal_patch)]
        inputs = self._processor.video_processor(
            # [T, H, W, 3] -> [T, 3, H, W]
            videos=[_tensor(frames).permute(0, 3, 1, 2)],
            do_resize=False,
            do_sample_frames=False,
            cap_pixels_per_frame=False,
            input_data_format="channels_first",
            device=self._model.device,
            return_tensors="pt",
        )
        seconds = clip.seconds_per_frame
        return self._run(
            inputs["pixel_values_videos"],
            inputs["video_grid_thw"],
            with_features,
            VisualTokens(
                embeddings=torch.empty(0),
                grid=(0, 0, 0),
                seconds_per_grid=1.0 if seconds is None else seconds * self.cost.temporal_patch,
                kind="video",
                frames=clip.num_frames,
            ),
        )

    @torch.no_grad()
    def encode_image(self, image: Image.Image, size: tuple[int, int]) -> VisualTokens:
        """Encode a still image.

        Args:
            image: RGB image.
            size: (height, width) in pixels to resize to first (bicubic, as in qwen-vl-utils).
        """
        resized = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        inputs = self._processor.image_processor(
            images=[resized], do_resize=False, device=self._model.device, return_tensors="pt"
        )
        tokens = VisualTokens(torch.empty(0), grid=(0, 0, 0), kind="image")
        return self._run(inputs["pixel_values"], inputs["image_grid_thw"], False, tokens)

    def _run(
        self, pixels: torch.Tensor, patches: torch.Tensor, with_features: bool, tokens: VisualTokens
    ) -> VisualTokens:
        """Return `tokens` with grid, embeddings and (if asked for) features filled in.

        Args:
            pixels: `[n, 3 * temporal_patch * patch^2]`, normalised.
            patches: `[1, 3]`, temporal grids, patch rows, patch columns.
            with_features: also return the merger's input.
            tokens: what is known of the visual.
        """
        base, device = self._model.model, self._model.device
        tower = base.get_video_features if tokens.kind == "video" else base.get_image_features
        output = tower(pixels.to(device), patches.to(device), return_dict=True)
        (embeddings,) = output.pooler_output
        t, rows, columns = patches[0].tolist()
        grid = (t, rows // self.cost.merge, columns // self.cost.merge)
        features = None
        if with_features:
            # [n, C] -> [N, merge * merge * C], in the tower's order
            features = output.last_hidden_state.reshape(embeddings.shape[0], -1)
            features = features[self._raster_order(patches).to(device)].reshape(*grid, -1)
        return replace(tokens, embeddings=embeddings, grid=grid, features=features)

    def _raster_order(self, patches: torch.Tensor) -> torch.Tensor:
        """Return `[N]`: where the tower holds the token of each grid, row and column."""
        if not self.cost.window:
            return torch.arange(int(patches.prod()) // self.cost.merge**2)
        order, _ = get_vision_window_index(
            patches,
            spatial_merge_size=self.cost.merge,
            window_size=self._config.window_size,
            patch_size=self.cost.patch,
        )
        raster: torch.Tensor = order.argsort()
        return raster


def strided_order(num_frames: int, num_groups: int, frames_per_grid: int) -> NDArray[np.int64]:
    """Order frames so that strided groups are encoded apart and come back in order of time.

    Group g holds frames g, g+m, g+2m, ...; its grids join `frames_per_grid` neighbours within the
    group, and grid k of group g comes at place k*m + g.

    Args:
        num_frames: frames of the clip.
        num_groups: m, at least 1.
        frames_per_grid: frames per temporal grid.

    Raises:
        InvalidSetting: if the groups do not all have the same whole number of grids.
    """
    unit = num_groups * frames_per_grid
    if num_groups < 1 or num_frames % unit:
        raise InvalidSetting(
            f"num_groups={num_groups}: {num_frames} frames do not divide into that many groups of "
            f"whole temporal grids ({frames_per_grid} frames each); use a multiple of {unit} frames"
        )
    # [k, j, g] -> [k, g, j]: frame j of grid k of group g
    return (
        np.arange(num_frames)
        .reshape(-1, frames_per_grid, num_groups)
        .transpose(0, 2, 1)
        .reshape(-1)
    )


def _tensor(array: NDArray[np.uint8]) -> torch.Tensor:
    """Wrap an array; frames in shared memory may be read-only, which torch can't wrap."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
