"""A frame folder as the list of its images, as other models of the host read a video in frames."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from tempeval.video.folder import image_times, shown_images
from tempeval.video.sampling import trim

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
        images = shown_images(clip)
        first, last = trim(image_times(clip, len(images), clip.fps), clip.start, clip.end)
        return [str(image) for image in images[first : last + 1]]

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[str]:
        return iter(self._images)

    def __getitem__(self, index: Any) -> Any:
        return self._images[index]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameList, (self.clip,)
