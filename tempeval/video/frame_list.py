"""A frame folder as the list of its images, as other models of the host read a video in frames."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tempeval.errors import BadVideo
from tempeval.video.folder import shown_images
from tempeval.video.sampling import SamplingError, trim

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tempeval.video.clip import VideoPath


class FrameList(list[str]):
    """The image files of a clip, in order, that knows the clip.

    lmms-eval's own chat models pass a list of image files on to `qwen_vl_utils`, which takes it as
    a video, of which it uses every frame. Ours read `clip` and choose their own.

    Attributes:
        clip: the folder, its part and its frame rate.
    """

    clip: VideoPath

    def __init__(self, images: Iterable[str], clip: VideoPath) -> None:
        super().__init__(images)
        self.clip = clip


def frame_list(clip: VideoPath) -> FrameList | VideoPath:
    """Return the images of a frame folder, of its part only; another clip, or a bad one, as it is.

    What is wrong with a folder is found, and said, by the model that opens it.
    """
    if clip.fps is None or not Path(clip).is_dir():
        return clip
    try:
        return FrameList(_images(str(clip), clip.start, clip.end, clip.fps), clip)
    except (BadVideo, SamplingError):
        return clip


# Questions about one folder follow each other.
@lru_cache(maxsize=8)
def _images(path: str, start: float | None, end: float | None, fps: float) -> tuple[str, ...]:
    images = shown_images(path)
    first, last = trim(np.arange(len(images)) / fps, start, end)
    return tuple(str(image) for image in images[first : last + 1])
