"""Still images are read by one rule: given by path, as PIL images or as frames of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from tempeval.engine.question import Picture, read_picture
from tempeval.errors import BadVideo, InvalidSetting
from tempeval.model_wrappers.requests import visuals_of
from tempeval.video.clip import Sampling, VideoRef
from tempeval.video.decode import read_clip
from tempeval.video.still import read_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGES = Path(__file__).parent.parent / "reference" / "images"
RAMP = np.arange(0, 65536, 64, dtype=np.uint16).reshape(16, 64)
EIGHT = np.rint(RAMP / 257).astype(np.uint8)


def read_every_way(image: Image.Image, folder: Path, suffix: str, **save: Any) -> NDArray[np.uint8]:
    """Return uint8 `[H, W, 3]`, the same from a path, a PIL image, and a folder's frame."""
    folder.mkdir(exist_ok=True)
    path = folder / f"0001.{suffix}"
    image.save(path, **save)
    by_path = np.asarray(read_picture(Picture("k", str(path))))
    with Image.open(path) as opened:
        by_image = np.asarray(read_picture(Picture("k", opened)))
    np.testing.assert_array_equal(by_image, by_path)
    if suffix in ("png", "jpg", "webp"):
        clip = read_clip(VideoRef(str(folder), fps=1.0), Sampling("uniform", 1))
        np.testing.assert_array_equal(clip.frames[0], by_path)
    return by_path


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_upright_and_turned_once(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((20, 30, 3), np.uint8)
    upright[:10, :15, 0], upright[:10, 15:, 1], upright[10:, :15, 2] = 255, 255, 255
    lying = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.swapaxes(0, 1),
        6: np.rot90(upright),  # shown after a quarter turn clockwise
        7: np.rot90(upright, 2).swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.fromarray(np.ascontiguousarray(lying))
    got = read_every_way(image, tmp_path / "png", "png", exif=exif)
    np.testing.assert_array_equal(got, upright)
    with Image.open(tmp_path / "png" / "0001.png") as opened:
        once = read_rgb(opened)
    np.testing.assert_array_equal(np.asarray(read_rgb(once)), upright)


def test_a_photograph_that_lies_on_its_side() -> None:
    image = read_rgb(IMAGES / "exif.jpg")
    with Image.open(IMAGES / "exif.jpg") as lying:
        assert image.size == lying.size[::-1]
        assert np.array_equal(np.asarray(image), np.rot90(np.asarray(lying), -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_metadata_does_not_hide_an_image(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((8, 8, 3), np.uint8))
    got = read_every_way(
        image, tmp_path / "jpg", "jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01"
    )
    assert got.shape == (8, 8, 3)


def test_the_grey_ramp_of_16_bits_keeps_its_shades() -> None:
    for name in ("f0.png", "f1.png"):
        with Image.open(IMAGES / "grey16" / name) as image:
            values = np.asarray(image)
        shown = np.asarray(read_rgb(IMAGES / "grey16" / name))
        assert np.abs(shown - values[..., None] / 257).max() <= 0.5
    clip = read_clip(VideoRef(str(IMAGES / "grey16"), fps=1.0), Sampling("uniform", 2))
    np.testing.assert_array_equal(clip.frames[1], shown)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_16_bit_grey_is_divided_by_257(tmp_path: Path, suffix: str) -> None:
    got = read_every_way(Image.fromarray(RAMP), tmp_path / suffix, suffix)
    np.testing.assert_array_equal(got, EIGHT[..., None].repeat(3, axis=2))


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RAMP),
        Image.fromarray(RAMP.astype(">u2")),
        Image.fromarray(RAMP.astype(np.int32)),
        Image.fromarray(RAMP.astype(np.float32)),
        Image.fromarray((RAMP / 65472).astype(np.float32)),
        Image.fromarray((RAMP / 65472 * 255).astype(np.float32)),
    ],
    ids=["I;16", "I;16B", "I", "F", "F to 1", "F to 255"],
)
def test_every_deep_mode_of_pillow_spans_black_to_white(image: Image.Image) -> None:
    shown = np.asarray(read_rgb(image))
    assert np.abs(shown.astype(int) - EIGHT[..., None]).max() <= 1
    assert (shown[0, 0].max(), shown[-1, -1].min()) == (0, 255)


def test_16_bit_colour_loses_its_lower_half_alone() -> None:
    colours = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=2)
    shown = np.asarray(read_rgb(_png_of_48_bits(colours)))
    assert np.abs(shown - colours / 257).max() < 1


def _png_of_48_bits(colours: NDArray[np.uint16]) -> Image.Image:
    import io
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    height, width = colours.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    return Image.open(
        io.BytesIO(
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b"")
        )
    )


@pytest.mark.parametrize("values", [[-1, 5], [0, 70000]])
def test_numbers_that_no_viewer_could_show_are_refused(values: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    with pytest.raises(BadVideo, match=r"a PIL image.*from -?\d.* accepted are 0 to 65535"):
        read_rgb(image)
    with pytest.raises(BadVideo, match="nan"):
        read_rgb(Image.fromarray(np.array([[0, np.nan]], np.float32)))


def half_clear(mode: str) -> Image.Image:
    """Return an image whose left half is black and whose right half is clear."""
    rgba = np.zeros((8, 16, 4), np.uint8)
    rgba[:, :8, 3] = 255
    return Image.fromarray(rgba).convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = half_clear(mode) if mode != "La" else half_clear("LA").convert("La")
    shown = np.asarray(read_rgb(image))
    assert (shown[:, :8] == 0).all()
    assert (shown[:, 8:] == 255).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_transparent_files_are_laid_on_white(tmp_path: Path, mode: str, suffix: str) -> None:
    save = {"lossless": True} if suffix == "webp" else {}
    got = read_every_way(half_clear(mode), tmp_path / "clear", suffix, **save)
    assert (got[:, :8] == 0).all()
    assert (got[:, 8:] == 255).all()


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1", "I;16"])
def test_a_colour_that_counts_as_clear_is_white(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image, clear = Image.fromarray(RAMP), int(RAMP[3, 3])
        black = np.s_[0, 0]
    else:
        grey = np.zeros((16, 64), np.uint8)
        grey[3, 3] = 255
        image = Image.fromarray(grey).convert(mode)
        clear = (255, 255, 255) if mode == "RGB" else int(image.getpixel((3, 3)))  # type: ignore[arg-type]
        if mode == "P":
            image.putpalette([0, 0, 0] * 255 + [255, 0, 0])
            clear = 255
        elif mode != "1":
            image.paste(clear, (3, 3, 4, 4))
        black = np.s_[0, 0]
    got = read_every_way(image, tmp_path / "key", "png", transparency=clear)
    assert (got[3, 3] == 255).all()
    assert (got[black] == 0).all()


def test_other_modes_become_rgb() -> None:
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    for mode in ("CMYK", "YCbCr", "HSV", "P"):
        assert (
            np.abs(np.asarray(read_rgb(red.convert(mode))).astype(int)[0, 0] - [255, 0, 0]).max()
            <= 2
        )
    bits = Image.fromarray(np.array([[0, 255]], np.uint8)).convert("1")
    assert np.asarray(read_rgb(bits)).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_a_cut_image_is_refused_even_where_the_process_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cut.png"
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadVideo, match=r"cut\.png.*the image cannot be read"):
        read_picture(Picture("k", str(path)))
    with Image.open(path) as opened, pytest.raises(BadVideo, match="cannot be read"):
        read_picture(Picture("k", opened))
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_what_is_no_image_is_named() -> None:
    with pytest.raises(InvalidSetting, match="an image must be a PIL image or a path, got int"):
        read_rgb(7)
    with pytest.raises(BadVideo, match="No such file"):
        read_rgb("/nowhere/gone.png")


def test_16_bit_images_of_one_prompt_differ_by_content(tmp_path: Path) -> None:
    def key(image: Image.Image) -> Any:
        messages = [{"role": "user", "content": [{"type": "image", "url": image}]}]
        (picture,) = visuals_of(messages)
        assert isinstance(picture, Picture)
        return picture.key

    bright, brighter = (Image.fromarray(np.full((4, 4), v, np.uint16)) for v in (30000, 60000))
    assert key(bright) != key(brighter)
    assert key(bright) == key(Image.fromarray(np.full((4, 4), 30000, np.uint16)))
    refused = Image.fromarray(np.full((4, 4), -1, np.int32))
    assert "unreadable" in key(refused)
