"""Still images as a viewer shows them: upright, 8 bits a channel, laid on white.

One rule for images given by path, as PIL images and as frames of a folder.
"""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import ExifTags, Image, ImageFile

from tempeval.errors import BadVideo, InvalidSetting
from tempeval.video.container import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_WHITE_16 = 65535
# Images of single numbers per pixel, beyond 8 bits.
_DEEP_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N", "F"})
# Whites of images in floating point, which state none.
_FLOAT_WHITES = (1, 255, _WHITE_16)


def read_rgb(image: Any) -> Image.Image:
    """Return an image as a viewer shows it.

    Turned as its EXIF orientation says; 16-bit values divided by 257; transparent parts on white.
    Of an animation it is the current frame. The result has no metadata, so that it can be given
    here again.

    Args:
        image: PIL image, or path of an image file.

    Returns:
        A PIL image of mode RGB.

    Raises:
        InvalidSetting: it is neither.
        BadVideo: it cannot be read, or it has values that no viewer would know how to show.
    """
    if isinstance(image, str | Path):
        source = str(image)
    elif isinstance(image, Image.Image):
        source = str(getattr(image, "filename", "") or "a PIL image")
    else:
        raise InvalidSetting(f"an image must be a PIL image or a path, got {type(image).__name__}")
    try:
        with _whole_images_only():
            if isinstance(image, str | Path):
                with Image.open(image) as opened:
                    return _shown(opened)
            return _shown(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadVideo(source, f"the image cannot be read: {reason_of(error)}") from error


@contextlib.contextmanager
def _whole_images_only() -> Iterator[None]:
    """Have Pillow refuse images that are cut.

    Some of lmms-eval's task modules allow them for the whole process; a cut image would then come
    back half grey, without a word.
    """
    lenient, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _shown(image: Image.Image) -> Image.Image:
    image.load()
    turn = _TURNS.get(_orientation(image))
    rgb = _on_white(image)
    # From an array: a copy would keep the orientation, and be turned again by the next reader.
    plain = Image.fromarray(np.asarray(rgb))
    return plain.transpose(turn) if turn is not None else plain


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none that can be read."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (OSError, ValueError, SyntaxError, TypeError, LookupError, struct.error):
        return 1  # damaged metadata does not keep a viewer from showing the image
    return value if isinstance(value, int) else 1


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in _DEEP_MODES:
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        # The transparent colour of a 16-bit PNG, whose values Pillow has cut to their upper half.
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, rgba).convert("RGB")


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Return uint8 `[H, W]` of an image of 16-bit or floating-point numbers.

    Integers are 16 bits deep, as Pillow keeps those of PNG, TIFF and PGM. White of floating point
    is the smallest of 1, 255 and 65535 that no pixel exceeds.

    Raises:
        ValueError: values below 0 or above 65535, or that are not finite.
    """
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= _WHITE_16):  # also refuses what is not a number
        raise ValueError(
            f"its values go from {low:g} to {high:g} (mode {image.mode}); accepted are 0 to "
            f"{_WHITE_16}. Save it with 8 or 16 bits"
        )
    white = _WHITE_16
    if image.mode == "F":
        white = next(white for white in _FLOAT_WHITES if high <= white)
    shown = np.rint(values * (255 / white)).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        shown[values == clear] = 255
    return shown
