"""Side channels of PAVE's released checkpoints, from the files that its authors published.

Source: PAVE, arXiv 2503.19794; code github.com/dragonlzm/PAVE.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch

from tempeval.errors import BadSideChannel
from tempeval.side_channels.align import clip_span, equal_parts
from tempeval.side_channels.base import is_whole, video_part, video_path
from tempeval.side_channels.feature_folder import (
    check_length,
    check_shape,
    read_tensors,
    the_features,
)
from tempeval.side_channels.folder_channel import FolderChannel
from tempeval.stages import SideFeatures
from tempeval.video.sampling import SCENE_VIEWS, is_scene

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.side_channels.base import Doc
    from tempeval.video.clip import Clip

WIDTH = 1024


class OfficialChannel(FolderChannel):
    """One kind of features that PAVE's authors published."""

    accepted: ClassVar[str]

    def features(self, doc: Doc, clip: Clip) -> SideFeatures:
        """Return the features of a video.

        Raises:
            BadSideChannel: if there is no file, or it cannot be used for this video.
        """
        path = self._files.find(doc)
        tensors, _ = read_tensors(path)
        raw = the_features(path, tensors, self.accepted)
        whole = is_whole(doc, clip)
        known = clip_span(clip) if whole else None
        # Of a shuffled file the length is that of the other video.
        seconds = known[1] if known and self.settings.shuffle is None else None
        features = self._arranged(path, raw, seconds)
        # Of a whole video: none, so that released weights get the partition they were trained with.
        spans = None if whole else self.part_spans(doc, len(features))
        if spans is None and not whole:
            raise BadSideChannel(
                str(path),
                f"its steps have no times, so the part {video_part(doc)} s of a video cannot be "
                "found among them; use whole videos",
            )
        return SideFeatures(features, spans, str(path))

    @abstractmethod
    def _arranged(self, path: Path, raw: torch.Tensor, seconds: float | None) -> torch.Tensor:
        """Check what a file holds, and return `[T, h, w, C]`.

        Args:
            path: for errors.
            raw: float32, finite, not empty.
            seconds: duration of the video where the file has to match it.
        """


class ImageBind(OfficialChannel):
    """ImageBind's audio embeddings `[K, 1024]`: windows of 2 s, one every second."""

    accepted: ClassVar[str] = "[K, 1024], K steps of one second"

    def _arranged(self, path: Path, raw: torch.Tensor, seconds: float | None) -> torch.Tensor:
        check_shape(path, raw, (None, WIDTH))
        if seconds is not None:
            expected = max(1, int(seconds) - 1)
            check_length(path, "steps of one second", len(raw), expected, max(2, 0.1 * expected))
        return raw[:, None, None]

    def part_spans(self, doc: Doc, steps: int) -> torch.Tensor | None:
        """Return the windows: 2 s long, one every second."""
        starts = torch.arange(steps, dtype=torch.float64)
        return torch.stack([starts, starts + 2], dim=1)


class LanguageBind(OfficialChannel):
    """LanguageBind's video tower at 2 frames per second: CLS and 2 x 2 cells, `[T, 5, 1024]`.

    CLS is dropped. T is a multiple of 8, the blocks of the tower.
    """

    accepted: ClassVar[str] = "[T, 5, 1024], T frames at 2 per second"

    def _arranged(self, path: Path, raw: torch.Tensor, seconds: float | None) -> torch.Tensor:
        check_shape(path, raw, (None, 5, WIDTH))
        if seconds is not None:
            expected = max(1, int(2 * seconds / 8)) * 8
            check_length(path, "frames at 2 per second", len(raw), expected, max(8, 0.1 * expected))
        return raw[:, 1:].reshape(len(raw), 2, 2, WIDTH)

    def part_spans(self, doc: Doc, steps: int) -> torch.Tensor | None:
        """Return equal parts of half a second."""
        return equal_parts(0.0, steps / 2, steps)


class Llava3D(OfficialChannel):
    """LLaVA-3D's features of a scene: `[1, 18432, 1024]` are 32 views of 24 x 24 cells.

    Of a ScanNet scene's folder, image i is view i (see `tempeval.video.sampling`).
    """

    views: ClassVar[int] = SCENE_VIEWS
    side: ClassVar[int] = 24
    accepted: ClassVar[str] = "[1, 18432, 1024], 32 views of 24 x 24"

    def _arranged(self, path: Path, raw: torch.Tensor, seconds: float | None) -> torch.Tensor:
        check_shape(path, raw, (1, self.views * self.side**2, WIDTH))
        return raw.view(self.views, self.side, self.side, WIDTH)

    def part_spans(self, doc: Doc, steps: int) -> torch.Tensor | None:
        """Return the times of the views where they are the images of a ScanNet scene's folder."""
        fps = doc.get("fps")
        if fps is None or not is_scene(video_path(doc)):
            return None
        return equal_parts(0.0, steps / float(fps), steps)
