"""Frame folders: numbered images in natural order, at a frame rate that the task states."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from av.video.frame import VideoFrame

from tempeval.errors import BadVideo
from tempeval.video import flags
from tempeval.video.container import reason_of
from tempeval.video.reading import Choose, Gatherer, Reading
from tempeval.video.sampling import is_posed, is_scene, scene_views
from tempeval.video.still import read_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tempeval.video.convert import Resize

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp"})

SCENE_SUFFIXES = frozenset({".jpg"})
"""Of a ScanNet scene's colour images; beside them lie depth maps (.png)."""

_NUMBER = re.compile(r"(\d+)")


def read(path: str, fps: float | None, choose: Choose, resize: Resize | None) -> Reading:
    """Read the images that `choose` picks; image i is shown at i / `fps` seconds.

    Of a ScanNet scene (see `is_scene`) the images are the 32 views of `scene_views`.

    Raises:
        BadVideo: `fps` is missing, or the folder or one of the wanted images is unusable.
    """
    rate = rate_of(path, fps)
    images = shown_images(path)
    if is_scene(path):  # a selection of views: their numbers need no order of their own
        found = {flags.REPEATED_FRAMES} if len(set(images)) < len(images) else set()
    else:
        found = {flags.NUMBER_GAPS} if _has_gaps(images) else set()
    times = np.arange(len(images)) / rate
    gatherer = Gatherer(choose(times), resize)
    size: tuple[int, int] | None = None
    for index in sorted(gatherer.missing):
        rgb = _load(path, images[index])
        height, width = rgb.shape[:2]
        if size is not None and size != (height, width):
            raise BadVideo(
                path,
                f"image {images[index].name!r} is {width}x{height}, but the first one wanted is "
                f"{size[1]}x{size[0]}; all images of a folder must have one size",
            )
        size = height, width
        gatherer.take(index, VideoFrame.from_ndarray(rgb, format="rgb24"))
    return gatherer.reading(times, frozenset(found), len(images))


def shown_images(path: str) -> list[Path]:
    """Return the images of a folder in natural order; of a ScanNet scene its 32 views.

    Raises:
        BadVideo: the folder cannot be listed, holds no image, or one without a number.
    """
    images = _images(path)
    return [images[view] for view in scene_views(len(images))] if is_scene(path) else images


def rate_of(path: str, fps: float | None) -> float:
    """Return the frame rate of a folder (1/s): image i is shown at i / rate seconds.

    Raises:
        BadVideo: `fps` is missing or no rate.
    """
    if fps is None:
        raise BadVideo(path, "a folder of images needs its frame rate; set fps (frames per second)")
    if not (math.isfinite(fps) and fps > 0):
        raise BadVideo(path, f"fps={fps} must be positive (frames per second)")
    return fps


def image_suffixes(path: str) -> frozenset[str]:
    """Return the suffixes, in lower case, of the images that are frames of a folder."""
    return SCENE_SUFFIXES if is_posed(path) else IMAGE_SUFFIXES


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key by which `frame_10` comes after `frame_9`."""
    return [
        (0, int(part), "") if part.isdecimal() else (1, 0, part.lower())
        for part in _NUMBER.split(name)
        if part
    ]


def _images(path: str) -> list[Path]:
    try:
        entries = list(Path(path).iterdir())
    except OSError as error:
        raise BadVideo(path, f"the folder cannot be listed: {reason_of(error)}") from error
    suffixes = image_suffixes(path)
    images = [
        entry
        for entry in entries
        if entry.suffix.lower() in suffixes and not entry.name.startswith(".")
    ]
    if not images:
        raise BadVideo(
            path,
            f"the folder holds no images ({', '.join(sorted(suffixes))}) among its "
            f"{len(entries)} entries",
        )
    unnumbered = [image.name for image in images if not _NUMBER.search(image.stem)]
    if unnumbered:
        raise BadVideo(
            path, f"image {min(unnumbered)!r} has no frame number in its name; remove or rename it"
        )
    return sorted(images, key=lambda image: natural_key(image.name))


def is_there(path: str) -> bool:
    """Return True if a path is a file, or a folder that holds an image; nothing is decoded."""
    suffixes = image_suffixes(path)
    try:
        with os.scandir(path) as entries:
            return any(
                Path(entry.name).suffix.lower() in suffixes and not entry.name.startswith(".")
                for entry in entries
            )
    except NotADirectoryError:
        return True
    except OSError:
        return False


def _has_gaps(images: list[Path]) -> bool:
    numbers = np.array([int(_NUMBER.findall(image.stem)[-1]) for image in images])
    steps = np.diff(numbers)
    return bool(len(steps) and (steps != steps[0]).any())


def _load(path: str, image: Path) -> NDArray[np.uint8]:
    try:
        return np.asarray(read_rgb(image))
    except BadVideo as error:
        raise BadVideo(path, error.reason.replace("the image", f"image {image.name!r}")) from error
