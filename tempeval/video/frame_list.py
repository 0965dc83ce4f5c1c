"""A frame folder as the list of its images, as other models of the host read a video in frames."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tempeval.video.folder import rate_of, shown_images
from tempeval.video.sampling import part_of_folder, trim

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.video.clip import VideoPath


class FrameList(list[str]):
    """The image files of a clip's part, in order, that knows the clip.

    lmms-eval's own chat models pass a list of image files on to `qwen_vl_utils`, which takes it as
    a video, of which it uses every frame. Ours read `clip` and choose their own, so the folder is
    only listed when somebody asks for the images, and nothing is kept of it before.

    Reading it raises BadVideo or SamplingError for a folder, or a part, that cannot be read.

    Args:
        clip: a frame folder with its frame rate.
    """

    def __init__(self, clip: VideoPath) -> None:
        super().__init__()
        self.clip = clip

    @cached_property
    def _images(self) -> list[str]:
        clip = self.clip
        rate = rate_of(clip, clip.fps)
        images = shown_images(clip)
        start, end = part_of_folder(clip, rate, clip.start, clip.end)
        first, last = trim(np.arange(len(images)) / rate, start, end)
        return [str(image) for image in images[first : last + 1]]

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __getitem__(self, index: Any) -> Any:
        return self._images[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrameList) and self.clip.ref == other.clip.ref

    def __ne__(self, other: object) -> bool:  # a list's own would compare what it holds: nothing
        return not self == other

    __hash__ = None

    def __str__(self) -> str:
        """Return the folder, which is what a log should show."""
        return str(self.clip)

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameList, (self.clip,)
