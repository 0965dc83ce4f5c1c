"""Frames and images to visual tokens, by the processors and tower of a LLaVA-OneVision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import InvalidSetting
from tempeval.families.llava_onevision_tiles import Anyres
from tempeval.stages import Pathway, VisualTokens

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from tempeval.families.loading import Checkpoint
    from tempeval.video.clip import Clip


@dataclass(frozen=True)
class ImageTokens(VisualTokens):
    """Tokens of a still image.

    Attributes:
        tiles: squares that went through the tower.
    """

    tiles: int = 1


@dataclass(frozen=True)
class TileCost:
    """Sizes of a SigLIP tower with its projector, for counting floating-point operations.

    A multiplication with an addition counts as two operations. Norms, activations, softmax and
    pooling are left out, and a pooling head that no token comes from. With n patches per tile,
    width C, MLP width I, LM width D:

        patch embedding  2 n C (3 patch^2)
        each layer       2 n C (4 C + 2 I) + 4 C n^2
        projector        2 n D (C + D)

    Attributes:
        depth: layers.
        width: C.
        mlp_width: I.
        in_width: C times the number of layers whose features are joined.
        out_width: D.
        patch: pixels per patch side.
        side: patches per side.
    """

    depth: int
    width: int
    mlp_width: int
    in_width: int
    out_width: int
    patch: int
    side: int

    @classmethod
    def from_config(cls, config: Any) -> TileCost:
        """Read the sizes from a checkpoint's configuration."""
        vision, layers = config.vision_config, config.vision_feature_layer
        return cls(
            depth=vision.num_hidden_layers,
            width=vision.hidden_size,
            mlp_width=vision.intermediate_size,
            in_width=vision.hidden_size * (1 if isinstance(layers, int) else len(layers)),
            out_width=config.text_config.hidden_size,
            patch=vision.patch_size,
            side=vision.image_size // vision.patch_size,
        )

    def flops(self, tiles: int) -> float:
        """Count operations for a number of tiles (frames, or squares of an image)."""
        n = self.side**2
        embed = 2 * n * self.width * 3 * self.patch**2
        layer = 2 * n * self.width * (4 * self.width + 2 * self.mlp_width)
        layer += 4 * self.width * n**2
        projector = 2 * n * self.out_width * (self.in_width + self.out_width)
        return float(tiles * (embed + self.depth * layer + projector))


class VisionTower:
    """The SigLIP tower with projector and pooling, and the processors that feed it.

    Args:
        checkpoint: a loaded checkpoint.

    Attributes:
        cost: sizes of the tower.
        anyres: tiling of images.
        side: tokens per side of a frame, after pooling.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = checkpoint.model
        self._processor = checkpoint.processor
        self.cost = TileCost.from_config(checkpoint.model.config)
        self.anyres = Anyres.from_config(checkpoint.model.config)
        self.side = math.ceil(self.cost.side / 2)

    @torch.no_grad()
    def encode(self, clip: Clip, num_groups: int, with_features: bool) -> VisualTokens:
        """Encode a clip: see `LlavaOnevision.encode`."""
        if num_groups < 1 or clip.num_frames % num_groups:
            raise InvalidSetting(
                f"num_groups={num_groups}: {clip.num_frames} frames do not divide into that many "
                "groups; use a multiple of it"
            )
        pixels = self._processor.video_processor(
            # [T, H, W, 3] -> [T, 3, H, W]
            videos=[_tensor(clip.frames).permute(0, 3, 1, 2)],
            do_sample_frames=False,
            input_data_format="channels_first",
            return_tensors="pt",
        )["pixel_values_videos"]
        base = self._model.model
        output = base.get_video_features(self._placed(pixels), return_dict=True)
        grid = (clip.num_frames, self.side, self.side)
        features = None
        if with_features:
            # [T, n, C] -> [T, h * w, C] -> [T, h, w, C]
            features = base.apply_pooling(self._selected(output.hidden_states)).reshape(*grid, -1)
        seconds = clip.seconds_per_frame
        return VisualTokens(
            # [1, T * h * w + 1, D]: the newline that ends the video is the layout's to add
            embeddings=output.pooler_output[0, :-1],
            grid=grid,
            seconds_per_grid=1.0 if seconds is None else seconds,
            frames=clip.num_frames,
            features=features,
        )

    @torch.no_grad()
    def encode_image(self, image: Image.Image) -> ImageTokens:
        """Encode an RGB image: the base image, then the tiles without padding and newlines."""
        packing = self.anyres.pack(image.height, image.width)
        inputs = self._processor.image_processor(images=[image], return_tensors="pt")
        output = self._model.model.get_image_features(
            self._placed(inputs["pixel_values"]), inputs["image_sizes"], return_dict=True
        )
        (packed,) = output.pooler_output
        side, (rows, columns) = self.cost.side, (packing.rows, packing.columns)
        # [side^2 + rows * (columns + 1), D]; the last column is newlines
        tiles = packed[side**2 :].view(rows, columns + 1, -1)[:, :-1]
        return ImageTokens(
            embeddings=torch.cat([packed[: side**2], tiles.reshape(rows * columns, -1)]),
            grid=(1, side, side),
            kind="image",
            pathways=(Pathway((1, side, side)), Pathway((1, rows, columns))),
            tiles=packing.tiles,
        )

    def _placed(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.to(self._model.device, self._model.dtype)

    def _selected(self, hidden_states: Any) -> torch.Tensor:
        """Return the features `[T, n, C]` that the projector takes."""
        layers = self._model.config.vision_feature_layer
        chosen = [layers] if isinstance(layers, int) else layers
        return torch.cat([hidden_states[layer] for layer in chosen], dim=-1)


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """Wrap an array; frames in shared memory may be read-only, which torch can't wrap."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
