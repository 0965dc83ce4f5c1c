"""Frames show what ffmpeg's command line shows: mirrored, turned, in its colours, in square pixels.

`reference/video/ffmpeg_frames.npz` holds the first frame of each file, uint8 `[H, W, 3]`, as
ffmpeg 5.1.9 writes it (`ffmpeg -i FILE -frames:v 1 -pix_fmt rgb24`).
"""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from video_files import numbers_of, set_display_matrix, write_video

from tempeval.engine.encoder import DecodeOptions
from tempeval.errors import BadVideo
from tempeval.side_channels.decoding import SideDecoder
from tempeval.video import flags
from tempeval.video.clip import Clip, Sampling, VideoRef
from tempeval.video.convert import turning_of
from tempeval.video.decode import read_clip

if TYPE_CHECKING:
    from numpy.typing import NDArray

REFERENCE = Path(__file__).parent.parent / "reference" / "video"
ROUNDING = 3

# a, b, c, d of the display matrix: (x, y) is shown at (a x + c y, b x + d y).
MATRICES: dict[str, tuple[float, float, float, float]] = {
    "identity": (1, 0, 0, 1),
    "rot90": (0, 1, -1, 0),
    "rot180": (-1, 0, 0, -1),
    "rot270": (0, -1, 1, 0),
    "hflip": (-1, 0, 0, 1),
    "vflip": (1, 0, 0, -1),
    "transpose": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
    "turn30": (0.8660254, 0.5, -0.5, 0.8660254),
}


@pytest.fixture(scope="module")
def shown() -> dict[str, NDArray[np.uint8]]:
    with np.load(REFERENCE / "ffmpeg_frames.npz") as frames:
        return dict(frames)


def first_frame(path: Path, **options: Any) -> Clip:
    return read_clip(VideoRef(str(path)), Sampling("uniform", 1), **options)


def turned(tmp_path: Path, name: str) -> Path:
    path = tmp_path / f"{name}.mp4"
    shutil.copyfile(REFERENCE / "m_identity.mp4", path)
    return set_display_matrix(path, *MATRICES[name])


def assert_same(frame: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).max() <= ROUNDING


@pytest.mark.parametrize("name", MATRICES)
def test_every_display_matrix_is_shown_as_ffmpeg_shows_it(
    tmp_path: Path, shown: dict[str, NDArray[np.uint8]], name: str
) -> None:
    path = turned(tmp_path, name)
    clip = first_frame(path)
    assert_same(clip.frames[0], shown[name])
    assert clip.source_size == shown[name].shape[:2]
    assert clip.flags == ()
    side = SideDecoder(DecodeOptions(workers=0))
    assert_same(side.clip(VideoRef(str(path)), Sampling("uniform", 1), None).frames[0], shown[name])


@pytest.mark.parametrize("name", MATRICES)
def test_decord_shows_the_same_or_is_refused(
    tmp_path: Path, shown: dict[str, NDArray[np.uint8]], name: str
) -> None:
    pytest.importorskip("decord")
    try:
        clip = first_frame(turned(tmp_path, name), decoder="decord")
    except BadVideo as error:
        reason = error.reason
    else:
        assert_same(clip.frames[0], shown[name])
        return
    assert name != "identity"
    assert "use decoder='pyav'" in reason


@pytest.mark.parametrize("name", ["identity", "rot90", "rot180", "rot270"])
def test_side_data_that_pyav_cannot_name_costs_no_turn(tmp_path: Path, name: str) -> None:
    with av.open(str(turned(tmp_path, name))) as container:
        frame = next(container.decode(video=0))
    assert turning_of(WithUnknownSideData(frame)) == turning_of(frame)  # type: ignore[arg-type]


class WithUnknownSideData:
    """A frame of a kind of side data that PyAV has no name for."""

    def __init__(self, frame: av.VideoFrame) -> None:
        self._frame = frame

    @property
    def side_data(self) -> None:
        raise ValueError("28 is not a valid Type")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._frame, name)


def test_a_mirrored_picture_is_resized_in_its_own_directions(tmp_path: Path) -> None:
    clip = first_frame(turned(tmp_path, "transverse"), resize=to_48_by_32)
    assert clip.frames.shape == (1, 48, 32, 3)
    turned_back = np.rot90(clip.frames[0], 2).swapaxes(0, 1)
    whole = first_frame(REFERENCE / "m_identity.mp4", resize=to_32_by_48)
    assert np.abs(turned_back.astype(int) - whole.frames[0]).mean() <= ROUNDING


def to_48_by_32(height: int, width: int, num_frames: int) -> tuple[int, int]:
    return 48, 32


def to_32_by_48(height: int, width: int, num_frames: int) -> tuple[int, int]:
    return 32, 48


def test_a_422_picture_keeps_its_chroma_when_it_is_turned(tmp_path: Path) -> None:
    """Its columns of chroma, 2 pixels broad, become rows: as ffmpeg does, after RGB."""
    path = write_video(tmp_path / "422.mp4", range(2), pixel_format="yuv422p", draw=stripes)
    plain = first_frame(path).frames[0]
    clip = first_frame(set_display_matrix(path, *MATRICES["rot90"]))
    np.testing.assert_array_equal(clip.frames[0], np.rot90(plain, -1))


def stripes(number: int, height: int, width: int) -> NDArray[np.uint8]:
    image = np.zeros((height, width, 3), np.uint8)
    image[::4, :, 0], image[1::4, :, 1], image[2::4, :, 2] = 255, 255, 255
    return image


@pytest.mark.parametrize(
    ("aspect", "size"),
    [
        (Fraction(2), (96, 320)),
        (Fraction(10, 11), (106, 160)),
        (Fraction(341, 340), (96, 160)),  # square but for the rounding of a size
        (Fraction(40), (96, 160)),  # a damaged header
    ],
)
@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_pixels_that_are_not_square_are_stretched(
    tmp_path: Path, aspect: Fraction, size: tuple[int, int], decoder: str
) -> None:
    pytest.importorskip("decord")
    path = with_pixel_aspect(tmp_path / "wide.mkv", aspect)
    clip = read_clip(VideoRef(str(path)), Sampling("uniform", 4), decoder=decoder)  # type: ignore[arg-type]
    assert clip.source_size == clip.frames.shape[1:3] == size
    assert numbers_of(clip) == list(clip.indices)


def test_long_pixels_turn_with_the_picture(tmp_path: Path) -> None:
    path = with_pixel_aspect(tmp_path / "wide.mp4", Fraction(2))
    clip = first_frame(set_display_matrix(path, *MATRICES["rot90"]))
    assert clip.source_size == clip.frames.shape[1:3] == (320, 96)


def with_pixel_aspect(path: Path, aspect: Fraction) -> Path:
    whole = write_video(path.with_name(f"square{path.suffix}"), range(30))
    change = f"h264_metadata=sample_aspect_ratio={aspect.numerator}/{aspect.denominator}"
    return filtered(whole, path, change)


def filtered(source: Path, target: Path, bitstream_filter: str) -> Path:
    """Copy a video through one of FFmpeg's bitstream filters."""
    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        change = av.BitStreamFilterContext(bitstream_filter, stream, copy)
        for packet in given.demux(stream):
            for changed in change.filter(packet if packet.size else None):
                changed.stream = copy
                out.mux(changed)
    return target


@pytest.mark.parametrize("name", ["col_reserved_tag3.mp4", "col_ycgco_tag.mp4"])
def test_an_unknown_colour_matrix_is_the_default_one_with_a_flag(
    shown: dict[str, NDArray[np.uint8]], name: str
) -> None:
    clip = first_frame(REFERENCE / name)
    assert_same(clip.frames[0], shown[name])
    assert clip.flags == (flags.ASSUMED_MATRIX,)


def test_every_colour_tag_is_decoded(tmp_path: Path) -> None:
    """Tag 0 says RGB, which 4:2:0 is not; 10 is BT.2020 of constant luminance."""
    whole = write_video(tmp_path / "whole.mp4", [0], draw=stripes)
    of_tag = {}
    for tag in range(18):
        path = filtered(
            whole, tmp_path / f"tag{tag}.mp4", f"h264_metadata=matrix_coefficients={tag}"
        )
        clip = first_frame(path)
        known = tag in (1, 2, 4, 5, 6, 7, 9)
        assert clip.flags == (() if known else (flags.ASSUMED_MATRIX,)), tag
        of_tag[tag] = clip.frames[0]
    for tag in (0, 3, 8, *range(11, 18)):
        np.testing.assert_array_equal(of_tag[tag], of_tag[2])
    np.testing.assert_array_equal(of_tag[10], of_tag[9])
    assert (of_tag[9] != of_tag[2]).any()


def test_a_flag_is_damage_or_a_note() -> None:
    named = {
        value for name, value in vars(flags).items() if name.isupper() and isinstance(value, str)
    }
    assert named == flags.DAMAGE | flags.NOTES
    assert not flags.DAMAGE & flags.NOTES
