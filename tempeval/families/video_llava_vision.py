"""Frames to visual tokens for Video-LLaVA: the port's CLIP tower, and the original tower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.video_llava_pixels import official_pixels
from tempeval.stages import VisualTokens
from tempeval.video.sampling import nearest_multiple

if TYPE_CHECKING:
    from PIL import Image
    from torch import nn

    from tempeval.families.languagebind import LanguageBindVideoTower
    from tempeval.video.clip import Clip


@dataclass(frozen=True)
class ClipCost:
    """Sizes of a CLIP tower with a two-layer projector, for counting floating-point operations.

    A multiplication with an addition counts as two operations; norms, activations and softmax are
    left out. Per frame, with N = 1 + patches, width C, MLP width I, LM width D, blocks of t frames:

        patch embedding  2 (N - 1) C (3 patch^2)
        each layer       2 N C (4 C + 2 I) + 4 C N^2
        ... over time    2 N C (4 C) + 4 C N t        (t > 1 only)
        projector        2 n D (C + D)                (n tokens go through it)

    Attributes:
        layers: layers that run.
        width: C.
        mlp_width: I.
        out_width: D.
        patch: pixels per patch side.
        side: patches per side.
        block: t.
    """

    layers: int
    width: int
    mlp_width: int
    out_width: int
    patch: int
    side: int
    block: int = 1

    def flops(self, visual: VisualTokens) -> float:
        """Count operations for one visual, as the tower made it."""
        t, h, w = visual.grid
        patches = self.side**2
        tokens = patches + 1
        embed = 2 * patches * self.width * 3 * self.patch**2
        layer = 2 * tokens * self.width * (4 * self.width + 2 * self.mlp_width)
        layer += 4 * self.width * tokens**2
        if self.block > 1:
            layer += 8 * tokens * self.width**2 + 4 * self.width * tokens * self.block
        kept = visual.lead + h * w
        projector = 2 * kept * self.out_width * (self.width + self.out_width)
        return float(t * (embed + self.layers * layer + projector))


class Vision(ABC):
    """A vision tower with its projector, and the preprocessing that feeds it.

    Attributes:
        cost: sizes.
        image_size: side in pixels of what enters the tower.
    """

    cost: ClipCost
    image_size: int

    @property
    def feature_width(self) -> int:
        """Channels of the features of a patch."""
        return self.cost.width

    @property
    def per_frame(self) -> int:
        """Tokens of a video frame: CLS and patches."""
        return 1 + self.cost.side**2

    @abstractmethod
    def video(self, clip: Clip, num_groups: int, with_features: bool) -> VisualTokens:
        """Encode a clip; see `VideoLlava.encode`."""

    @abstractmethod
    def image(self, image: Image.Image) -> VisualTokens:
        """Encode an RGB image."""

    def _tokens(
        self, clip: Clip, embeddings: torch.Tensor, states: torch.Tensor | None
    ) -> VisualTokens:
        """Wrap embeddings `[T * N, D]`, and states `[T, N, C]` where features are wanted."""
        side, seconds = self.cost.side, clip.seconds_per_frame
        grid = (clip.num_frames, side, side)
        return VisualTokens(
            embeddings=embeddings,
            grid=grid,
            seconds_per_grid=1.0 if seconds is None else seconds,
            frames=clip.num_frames,
            features=None if states is None else states[:, 1:].reshape(*grid, -1),
            lead=1,
        )


class PortVision(Vision):
    """The Hugging Face port: each frame by itself, by the checkpoint's own processors.

    Args:
        model: transformers' `VideoLlavaForConditionalGeneration`.
        processor: its processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        self._model, self._processor = model, processor
        config = model.config.vision_config
        self.image_size = config.image_size
        self.cost = ClipCost(
            # transformers runs every layer, also those after the selected hidden state.
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            mlp_width=config.intermediate_size,
            out_width=model.config.text_config.hidden_size,
            patch=config.patch_size,
            side=config.image_size // config.patch_size,
        )

    @property
    def feature_width(self) -> int:
        """Channels of the features of a patch: those of all joined layers."""
        layers = self._model.config.vision_feature_layer
        return self.cost.width * (1 if isinstance(layers, int) else len(layers))

    @torch.no_grad()
    def video(self, clip: Clip, num_groups: int, with_features: bool) -> VisualTokens:
        """Encode a clip; frames never see one another, so groups change nothing."""
        frames = clip.frames if clip.frames.flags.writeable else clip.frames.copy()
        pixels = self._processor.video_processor(
            # [T, H, W, 3] -> [T, 3, H, W]
            videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
            do_sample_frames=False,
            input_data_format="channels_first",
            device=self._model.device,
            return_tensors="pt",
        )["pixel_values_videos"]
        output = self._model.model.get_video_features(self._checked(pixels), return_dict=True)
        states = self._states(output) if with_features else None
        return self._tokens(clip, output.pooler_output.flatten(0, 1), states)

    @torch.no_grad()
    def image(self, image: Image.Image) -> VisualTokens:
        """Encode an image; its CLS token is dropped under `vision_feature_select_strategy=default`.

        An image has a tower of its own.
        """
        pixels = self._processor.image_processor(
            images=[image], return_tensors="pt", return_legacy_image_output=False
        )["pixel_values"]
        output = self._model.model.get_image_features(self._checked(pixels), return_dict=True)
        full = self._model.config.vision_feature_select_strategy == "full"
        return VisualTokens(
            embeddings=output.pooler_output.flatten(0, 1),
            grid=(1, self.cost.side, self.cost.side),
            kind="image",
            lead=int(full),
        )

    def _checked(self, pixels: torch.Tensor) -> torch.Tensor:
        size, side = tuple(pixels.shape[-2:]), self.image_size
        if size != (side, side):
            raise UnsupportedModel(
                f"the checkpoint's processor makes frames of {size[0]} x {size[1]} px, but its "
                f"vision tower takes {side} x {side}; mend its preprocessor configuration"
            )
        return pixels.to(self._model.device)

    def _states(self, output: Any) -> torch.Tensor:
        layers = self._model.config.vision_feature_layer
        picked = [layers] if isinstance(layers, int) else layers
        return torch.cat([output.hidden_states[layer] for layer in picked], dim=-1)


class OriginalVision(Vision):
    """The LanguageBind video tower and projector of the original checkpoint.

    Args:
        tower: attends over blocks of frames.
        projector: `[..., C] -> [..., D]`.
    """

    def __init__(self, tower: LanguageBindVideoTower, projector: nn.Sequential) -> None:
        self.tower, self.projector = tower, projector
        config = tower.config
        self.image_size = config.image_size
        self.cost = ClipCost(
            layers=config.layers_run,
            width=config.hidden_size,
            mlp_width=config.intermediate_size,
            out_width=cast("nn.Linear", projector[-1]).out_features,
            patch=config.patch_size,
            side=config.image_size // config.patch_size,
            block=config.num_frames,
        )

    @torch.no_grad()
    def video(self, clip: Clip, num_groups: int, with_features: bool) -> VisualTokens:
        """Encode a clip: each group by itself, in blocks; frames come back in their order."""
        frames = clip.num_frames
        order = strided_order(frames, num_groups, self.cost.block)
        weight = next(self.projector.parameters())
        pixels = official_pixels(clip.frames, self.image_size, weight.device)
        states = self.tower(pixels[:, order].unsqueeze(0).to(weight))[0][order.argsort()]
        embeddings = self.projector(states).flatten(0, 1)
        return self._tokens(clip, embeddings, states if with_features else None)

    def image(self, image: Image.Image) -> VisualTokens:
        """Refuse: the original checkpoint's image tower is not loaded.

        Raises:
            UnsupportedModel: always.
        """
        raise UnsupportedModel(
            "images are not supported on the original Video-LLaVA checkpoint, of which the video "
            "tower alone is loaded; use the Hugging Face port for prompts with images"
        )


def strided_order(num_frames: int, num_groups: int, block: int) -> torch.Tensor:
    """Order frames group by group: group g holds frames g, g + m, g + 2m, ...

    `order.argsort()` brings what was encoded in this order back to the order of time.

    Source: INTP, arXiv 2409.12963, section 3.

    Args:
        num_frames: F.
        num_groups: m.
        block: frames over which the tower attends; each group is whole blocks.

    Returns:
        long `[F]`.

    Raises:
        InvalidSetting: if the groups are not whole blocks, naming the nearest F of which they are.
    """
    unit = num_groups * block
    if num_groups < 1 or num_frames == 0 or num_frames % unit:
        nearest = nearest_multiple(num_frames, max(unit, block))
        raise InvalidSetting(
            f"{num_frames} frames in num_groups={num_groups} strided groups are not whole blocks "
            f"of {block} frames, over which the vision tower attends; the nearest number of frames "
            f"is {nearest}"
        )
    return torch.arange(num_frames).view(-1, num_groups).T.reshape(-1)
