"""How the original Video-LLaVA prepares frames for its video tower."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Of OpenAI's CLIP.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def official_pixels(
    frames: NDArray[np.uint8], size: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Normalise, bring the short side to `size` and cut out the centre.

    Bilinear without antialiasing, after normalisation.

    Source: PKU-YuanGroup/Video-LLaVA @ 984e65b, languagebind/video/processing_video.py;
    pytorchvideo 0.1.5 `short_side_scale`; torchvision `CenterCropVideo`.
    Differs from it: no random horizontal flip, which the original draws at inference too, so that
    half of its videos are shown mirrored.

    Args:
        frames: uint8 `[T, H, W, 3]`.
        size: side of the result in pixels.
        device: where to compute.

    Returns:
        float32 `[3, T, size, size]`.
    """
    height, width = frames.shape[1:3]
    if width < height:
        rows, columns = math.floor(height / width * size), size
    else:
        rows, columns = size, math.floor(width / height * size)
    # Python rounds halves to even, as the original does.
    top, left = round((rows - size) / 2.0), round((columns - size) / 2.0)
    mean = torch.tensor(MEAN, device=device).view(1, 3, 1, 1)
    std = torch.tensor(STD, device=device).view(1, 3, 1, 1)
    cut = []
    for frame in frames:  # one at a time: a large clip in float32 would be four times its size
        # [H, W, 3] -> [1, 3, H, W]
        image = torch.tensor(frame, device=device).permute(2, 0, 1).unsqueeze(0)
        image = (image / 255.0 - mean) / std
        image = F.interpolate(image, (rows, columns), mode="bilinear", align_corners=False)
        cut.append(image[0, :, top : top + size, left : left + size])
    return torch.stack(cut, dim=1)
