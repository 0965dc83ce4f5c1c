"""Side channel `highfps`: more frames through the base model's own vision tower.

PAVE does this with another tower (LanguageBind at 2 frames per second, pooled to 2 x 2); its own
features are side channel `languagebind`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch.nn.functional import adaptive_avg_pool2d

from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.side_channels.align import frame_spans
from tempeval.side_channels.base import Channel, video_part, video_path
from tempeval.side_channels.decoding import FixedSize, SideDecoder
from tempeval.side_channels.shuffle import VideoSiblings, check_shuffle
from tempeval.stages import SideFeatures
from tempeval.video.clip import Sampling, VideoRef
from tempeval.video.stamp import content_stamp

if TYPE_CHECKING:
    from tempeval.engine.encoder import DecodeOptions
    from tempeval.families.base import Family
    from tempeval.side_channels.base import Doc
    from tempeval.video.clip import Clip

_BATCH = 32
"""Frames that go through the tower at once, or the next multiple that its blocks allow."""


@dataclass(frozen=True)
class HighFpsSettings:
    """Settings of `highfps`.

    Attributes:
        fps: frames per second (1/s), by time.
        factor: take this many times the clip's own frames instead, uniformly; None goes by `fps`.
        pool: rows and columns that each frame is averaged to.
        max_frames: most frames; of a longer video they are uniform instead.
        shuffle: seed that gives each video the frames of another one in its folder; None for none.
    """

    fps: float = 8.0
    factor: int | None = None
    pool: int = 2
    max_frames: int = 512
    shuffle: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fps <= 240:
            raise InvalidSetting(f"highfps.fps={self.fps}; accepted: up to 240 frames per second")
        for name in ("factor", "pool", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidSetting(f"highfps.{name}={value} must be at least 1")
        check_shuffle(self.shuffle)


class HighFps(Channel):
    """Features before the projector `[T_k, pool, pool, C]`, of more frames than the model sees.

    Frames are decoded at the size of the clip's own.

    Args:
        settings: a `HighFpsSettings`.
        family: the loaded base model.
        decoding: how videos are decoded.

    Raises:
        InvalidSetting: without a base model.
    """

    settings_type: ClassVar[type[Any]] = HighFpsSettings

    def __init__(
        self, settings: HighFpsSettings, family: Family | None, decoding: DecodeOptions
    ) -> None:
        if family is None:
            raise InvalidSetting(
                "side channel highfps runs the vision tower of a base model; give one (pretrained)"
            )
        self.settings, self.family = settings, family
        self._decoder = SideDecoder(decoding)
        self._siblings = VideoSiblings()

    def features(self, doc: Doc, clip: Clip) -> SideFeatures:
        """Return the pooled features of a video's frames, with the times of the frames.

        Raises:
            BadSideChannel: if the frames cannot be decoded.
        """
        ref = self._ref(doc, clip)
        height, width = clip.frames.shape[1:3]
        more = self._decoder.clip(ref, self._sampling(clip), FixedSize(height, width))
        features, flops = self._encoded(more)
        grids = math.ceil(more.num_frames / self.family.frames_per_grid)
        if len(features) < grids:
            raise BadSideChannel(
                ref.path, f"{more.num_frames} frames gave {len(features)} grids, not {grids}"
            )
        spans = frame_spans(more, grids)
        if self.settings.shuffle is not None and clip.span and more.span:
            spans = spans + (clip.span[0] - more.span[0])
        return SideFeatures(features[:grids], spans, ref.path, flops)

    def stamp(self, doc: Doc) -> str:
        """Name the other video when frames are shuffled; else there is nothing but the video."""
        if self.settings.shuffle is None:
            return ""
        try:
            path = self._siblings.another(video_path(doc), self.settings.shuffle)
        except BadSideChannel as error:
            return f"missing: {error.reason}"
        return f"{path}: {content_stamp(path)}"

    def _ref(self, doc: Doc, clip: Clip) -> VideoRef:
        path, seed = video_path(doc), self.settings.shuffle
        rate = doc.get("fps")
        if rate is None and Path(path).is_dir():
            rate = clip.source_fps
        fps = None if rate is None else float(rate)
        if seed is None:
            return VideoRef(path, *video_part(doc), fps)
        return VideoRef(self._siblings.another(path, seed), fps=fps)

    def _sampling(self, clip: Clip) -> Sampling:
        most, factor = self.settings.max_frames, self.settings.factor
        if factor is not None:
            return Sampling("uniform", min(most, factor * clip.num_frames))
        return Sampling("fps", most, self.settings.fps)

    @torch.no_grad()
    def _encoded(self, clip: Clip) -> tuple[torch.Tensor, float]:
        """Return features float32 `[T, pool, pool, C]`, and what the tower cost in operations.

        The last frame is repeated until the tower's blocks are full.
        """
        block = math.lcm(self.family.frames_per_grid, self.family.frames_per_block)
        batch = block * math.ceil(_BATCH / block)
        places = np.arange(block * math.ceil(clip.num_frames / block))
        places = places.clip(max=clip.num_frames - 1)
        pooled, flops = [], 0.0
        for start in range(0, len(places), batch):
            own = places[start : start + batch]
            part = replace(
                clip,
                frames=clip.frames[own],
                timestamps=clip.timestamps[own],
                indices=clip.indices[own],
            )
            tokens = self.family.encode(part, with_features=True)
            flops += self.family.vision_flops([tokens])
            if tokens.features is None:
                raise BadSideChannel(clip.source, "the model gave no features of its frames")
            # [T, h, w, C] -> [T, C, h, w]
            cells = tokens.features.float().permute(0, 3, 1, 2)
            pooled.append(adaptive_avg_pool2d(cells, self.settings.pool).permute(0, 2, 3, 1))
        return torch.cat(pooled).cpu(), flops
