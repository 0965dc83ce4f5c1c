"""Every returned frame of intact files, however awkward, is the frame that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from video_files import (
    QUIET_X265,
    cut_without_encoding,
    number_of,
    numbers_of,
    picture,
    rotate_metadata,
    write_video,
)

from tempeval.errors import BadVideo, InvalidSetting, UnknownName
from tempeval.video import flags
from tempeval.video.clip import Clip, Sampling, VideoRef
from tempeval.video.decode import read_clip

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

COUNT = 90
STRIDE = 7
"""Frames show multiples of it, so that an index is not mistaken for a number."""

OPEN_GOP = {
    "preset": "ultrafast",
    "x264-params": "open-gop=1:keyint=20:min-keyint=20:bframes=3:b-adapt=0",
}
VFR_STEPS_MS = [20 + 37 * (place % 4) + (700 if place == 50 else 0) for place in range(COUNT - 1)]
VFR_MS = [0, *np.cumsum(VFR_STEPS_MS).tolist()]

# name -> how to write it, and the flags an intact file of that kind carries
INTACT: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "h264.mp4": ({}, ()),
    "h264.mov": ({}, ()),
    "h264.mkv": ({}, ()),
    "long_gop.mp4": (
        {"options": {"preset": "ultrafast", "x264-params": "keyint=500:bframes=3:b-adapt=0"}},
        (),
    ),
    "open_gop.mp4": ({"options": OPEN_GOP}, ()),
    "open_gop.mkv": ({"options": OPEN_GOP}, ()),
    "vfr.mp4": ({"milliseconds": VFR_MS}, ()),
    "vfr.mkv": ({"milliseconds": VFR_MS}, ()),
    "late.mp4": ({"first_ms": 5000}, ()),
    "audio.mp4": ({"audio_seconds": 5.0}, ()),
    "audio.mkv": ({"audio_seconds": 5.0}, ()),
    "fragmented.mp4": ({"container": {"movflags": "frag_keyframe+empty_moov"}}, ()),
    "ten_bit.mp4": ({"pixel_format": "yuv420p10le"}, ()),
    "odd.mp4": ({"pixel_format": "yuv444p", "size": (97, 161)}, ()),
    "odd.webm": (
        {"codec": "libvpx-vp9", "size": (97, 161), "options": {"cpu-used": "8", "g": "40"}},
        (),
    ),
    "vp9.webm": (
        {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime", "g": "40"}},
        (),
    ),
    "vp8.webm": ({"codec": "libvpx", "options": {"cpu-used": "8", "g": "40"}}, ()),
    "hevc.mp4": (
        {"codec": "libx265", "options": {"x265-params": f"{QUIET_X265}:keyint=20:open-gop=1"}},
        (),
    ),
    "mpeg4.avi": ({"codec": "mpeg4", "options": {"bf": "2"}}, ()),
    "mjpeg.avi": ({"codec": "mjpeg", "pixel_format": "yuvj420p"}, ()),
    "animated.gif": ({"codec": "gif", "pixel_format": "rgb8", "rate": 10}, ()),
    "flash.flv": ({}, ()),
    "stream.ts": ({}, (flags.SEQUENTIAL,)),
    "h264_b_frames.avi": ({}, (flags.SEQUENTIAL, flags.UNORDERED_TIMESTAMPS)),
    "raw.h264": ({"container_format": "h264"}, (flags.NO_TIMESTAMPS, flags.SEQUENTIAL)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def clip_of(path: Path, sampling: Sampling | None = None, **where: Any) -> Clip:
    return read_clip(VideoRef(str(path), **where), sampling or Sampling())


def expected_times(name: str) -> np.ndarray:
    if name.startswith("vfr"):
        return np.array(VFR_MS) / 1000
    if name == "raw.h264":
        return np.full(COUNT, np.nan)
    return np.arange(COUNT) / (10 if name.endswith(".gif") else 30)


@pytest.mark.parametrize("name", INTACT)
def test_frames_and_times_of_intact_files(folder: Path, name: str) -> None:
    how, expected_flags = INTACT[name]
    path = write_video(folder / name, range(0, STRIDE * COUNT, STRIDE), **how)
    for k in (COUNT, 8, 1):
        clip = clip_of(path, Sampling("uniform", k))
        indices = np.linspace(0, COUNT - 1, k, dtype=int)
        assert numbers_of(clip) == list(STRIDE * indices)
        np.testing.assert_array_equal(clip.indices, indices)
        np.testing.assert_allclose(clip.timestamps, expected_times(name)[indices], atol=1.1e-3)
        assert clip.source_frames == COUNT
        if k > 1:
            assert clip.flags == expected_flags
        assert (clip.frames.dtype, clip.timestamps.dtype) == (np.uint8, np.float64)
    assert clip.frames.shape[1:3] == clip.source_size == how.get("size", (96, 160))
    assert (clip.source, clip.decoder) == (str(path), "pyav")
    if name == "raw.h264":
        assert clip.source_fps is None
    else:
        last = expected_times(name)[-1]
        assert clip.source_fps == pytest.approx((COUNT - 1) / last, rel=1e-3)


def test_av1(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write_video(
        folder / "av1.mp4", range(60), codec="libsvtav1", options={"preset": "12", "g": "20"}
    )
    capfd.readouterr()  # the encoder prints its settings
    assert numbers_of(clip_of(path, Sampling("uniform", 60))) == list(range(60))


def test_a_cut_without_encoding_hides_what_precedes_it(folder: Path) -> None:
    """300 frames cut at frame 93: the edit list leaves 207, as `reference/decoding.md` has it."""
    options = {"preset": "ultrafast", "x264-params": "keyint=60:bframes=2:b-adapt=0"}
    source = write_video(folder / "whole.mp4", range(300), options=options)
    path = cut_without_encoding(source, folder / "cut.mp4", start=93 / 30)
    with av.open(str(path)) as container:
        assert min(p.pts for p in container.demux(video=0) if p.size) < 0
    for k in (8, 207):
        clip = clip_of(path, Sampling("uniform", k))
        assert clip.source_frames == 207
        assert numbers_of(clip) == list(93 + np.linspace(0, 206, k, dtype=int))
        assert clip.timestamps[0] == 0
        assert clip.flags == ()


@pytest.mark.parametrize(("suffix", "first"), [("mp4", 50), ("mkv", 40), ("ts", 40)])
def test_a_cut_of_an_open_gop_stream_skips_what_cannot_be_decoded(
    folder: Path, suffix: str, first: int
) -> None:
    # Matroska packets lack some decoding times, so its copy is made from MP4.
    origin = "ts" if suffix == "ts" else "mp4"
    source = write_video(folder / f"open.{origin}", range(120), options=OPEN_GOP)
    path = cut_without_encoding(source, folder / f"open_cut.{suffix}", start=50 / 30)
    clip = clip_of(path, Sampling("uniform", 200))
    numbers = numbers_of(clip)
    assert (numbers[0], numbers[-1]) == (first, 119)
    steps = np.array(numbers) - clip.timestamps * 30
    np.testing.assert_allclose(steps, steps[0], atol=0.05)


def test_hidden_vp8_reference_frames_are_not_counted(folder: Path) -> None:
    def hide(place: int, packet: av.Packet) -> av.Packet:
        data = bytearray(bytes(packet))
        if place % 10 == 5:
            data[0] &= ~0x10  # RFC 6386, 9.1: show_frame
        return av.Packet(bytes(data))

    source = write_video(folder / "shown.webm", range(60), codec="libvpx", options={"g": "20"})
    path = cut_without_encoding(source, folder / "hidden.webm", 0.0, hide)
    clip = clip_of(path, Sampling("uniform", 54))
    assert numbers_of(clip) == [number for number in range(60) if number % 10 != 5]
    assert (clip.source_frames, clip.flags) == (54, ())


@pytest.mark.parametrize("name", ["one.mp4", "one.gif", "one.webm"])
def test_a_single_frame_is_repeated_and_flagged(folder: Path, name: str) -> None:
    how = {
        "one.mp4": {},
        "one.gif": {"codec": "gif", "pixel_format": "rgb8"},
        "one.webm": {"codec": "libvpx-vp9"},
    }[name]
    clip = clip_of(write_video(folder / name, [321], **how))
    assert numbers_of(clip) == [321] * 8
    assert clip.flags == (flags.REPEATED_FRAMES,)
    assert (clip.source_frames, clip.source_fps, clip.seconds_per_frame) == (1, None, None)


def test_fewer_frames_than_wanted_repeat_as_linspace_says(folder: Path) -> None:
    clip = clip_of(write_video(folder / "five.mp4", range(5)))
    assert numbers_of(clip) == list(np.linspace(0, 4, 8, dtype=int))
    assert clip.flags == (flags.REPEATED_FRAMES,)


def test_start_and_end_trim_by_time(folder: Path) -> None:
    path = write_video(folder / "late_trim.mp4", range(90), first_ms=5000)
    clip = clip_of(path, Sampling("uniform", 4), start=1.0, end=2.0)
    assert numbers_of(clip) == [30, 40, 50, 60]
    np.testing.assert_allclose(clip.timestamps, [1.0, 4 / 3, 5 / 3, 2.0], atol=1e-3)
    assert clip.source_frames == 31
    assert clip.flags == ()
    beyond = clip_of(path, Sampling("uniform", 2), start=2.0, end=9.0)
    assert numbers_of(beyond) == [60, 89]
    assert beyond.flags == (flags.END_CLAMPED,)
    with pytest.raises(BadVideo, match=r"late_trim\.mp4': start=4 s lies outside .* lasts 3.00 s"):
        clip_of(path, start=4.0)
    with pytest.raises(BadVideo, match="end=1 s is not after start=2 s"):
        clip_of(path, start=2.0, end=1.0)


def test_fps_sampling_follows_time_on_a_variable_rate(folder: Path) -> None:
    path = write_video(folder / "vfr_fps.mp4", range(COUNT), milliseconds=VFR_MS)
    clip = clip_of(path, Sampling("fps", 64, fps=4.0))
    times = np.array(VFR_MS) / 1000
    ticks = np.arange(len(clip.frames)) / 4
    assert len(ticks) == int(times[-1] * 4) + 1
    on_screen = [int(np.flatnonzero(times <= tick + 1e-9)[-1]) for tick in ticks]
    assert numbers_of(clip) == on_screen
    assert on_screen != [int(np.argmin(np.abs(times - tick))) for tick in ticks]


def test_segment_sampling(folder: Path) -> None:
    path = write_video(folder / "segment.mp4", range(80))
    clip = clip_of(path, Sampling("segment", 4))
    assert numbers_of(clip) == [9, 29, 49, 68]


@pytest.mark.parametrize("clockwise", [90, 180, 270])
def test_rotation_metadata_is_applied(folder: Path, clockwise: int) -> None:
    turns = clockwise // 90
    upright = (96, 160)
    coded = upright if turns % 2 == 0 else upright[::-1]

    def lying(number: int, height: int, width: int) -> np.ndarray:
        return np.rot90(picture(number, *upright), turns)

    path = write_video(folder / f"turned{clockwise}.mp4", range(30), size=coded, draw=lying)
    raw = clip_of(path)
    assert raw.source_size == coded
    clip = clip_of(rotate_metadata(path, clockwise))
    assert clip.source_size == upright
    assert clip.frames.shape == (8, *upright, 3)
    assert numbers_of(clip) == list(clip.indices)
    small = read_clip(VideoRef(str(path)), Sampling(), resize=to_48_by_64)
    assert small.frames.shape == (8, 48, 64, 3)
    assert numbers_of(small) == list(small.indices)


def to_48_by_64(height: int, width: int, num_frames: int) -> tuple[int, int]:
    return 48, 64


def test_resize_is_told_the_upright_size_and_the_number_of_frames(folder: Path) -> None:
    path = write_video(folder / "resize.mp4", range(30), size=(96, 128))
    seen = []

    def half(height: int, width: int, num_frames: int) -> tuple[int, int]:
        seen.append((height, width, num_frames))
        return height // 2, width // 2

    clip = read_clip(VideoRef(str(path)), Sampling("uniform", 5), resize=half)
    assert seen == [(96, 128, 5)]
    assert clip.frames.shape == (5, 48, 64, 3)
    assert clip.source_size == (96, 128)
    assert numbers_of(clip) == list(clip.indices)
    with pytest.raises(InvalidSetting, match="resize gave 0x5 pixels for a video of 96x128"):
        read_clip(VideoRef(str(path)), Sampling(), resize=lambda *_: (0, 5))


def test_a_downscaled_picture_is_averaged_rather_than_subsampled(folder: Path) -> None:
    def lines(number: int, height: int, width: int) -> np.ndarray:
        return np.tile(np.array([0, 255], np.uint8)[None, :, None], (height, width // 2, 3))

    path = write_video(folder / "lines.mkv", [0], codec="ffv1", pixel_format="bgr0", draw=lines)
    clip = read_clip(VideoRef(str(path)), Sampling("uniform", 1), resize=to_24_by_40)
    assert np.abs(clip.frames[:, 4:-4, 4:-4].astype(int) - 128).max() < 24


def to_24_by_40(height: int, width: int, num_frames: int) -> tuple[int, int]:
    return 24, 40


# Luma coefficients (K_red, K_blue) by FFmpeg's number of the matrix: BT.709, BT.470BG (BT.601).
MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 2: (0.299, 0.114)}


def exact_rgb(luma: int, blue: int, red: int, matrix: int, full_range: bool) -> NDArray[np.float64]:
    """ITU-R BT.709-6, 3.2 to 3.5, and BT.601-7, 2.5: Y'CbCr to R'G'B' on the 0..255 scale."""
    k_red, k_blue = MATRICES[matrix]
    y = luma / 255 if full_range else (luma - 16) / 219
    chroma = 255 if full_range else 224
    c_blue, c_red = (blue - 128) / chroma, (red - 128) / chroma
    r = y + 2 * (1 - k_red) * c_red
    b = y + 2 * (1 - k_blue) * c_blue
    g = (y - k_red * r - k_blue * b) / (1 - k_red - k_blue)
    return np.clip(255 * np.array([r, g, b]), 0, 255)


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colours_follow_the_tagged_matrix(folder: Path, matrix: int, full_range: bool) -> None:
    colours = [(81, 90, 240), (145, 54, 34), (41, 240, 110), (180, 128, 128), (120, 90, 180)]
    path = folder / f"colour{matrix}{full_range}.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.colorspace = matrix
        stream.codec_context.color_range = 2 if full_range else 1
        for colour in colours:
            frame = av.VideoFrame(64, 64, "yuv420p")
            for plane, value in zip(frame.planes, colour, strict=True):
                plane.update(bytes([value]) * plane.buffer_size)
            frame.colorspace, frame.color_range = matrix, 2 if full_range else 1
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    clip = clip_of(path, Sampling("uniform", len(colours)))
    for frame, colour in zip(clip.frames, colours, strict=True):
        error = np.abs(frame - exact_rgb(*colour, matrix, full_range))
        # FFmpeg rounds down by up to 2 of 255; the wrong matrix is off by up to 39.
        assert error.max() <= 3


def test_decoding_is_repeatable_and_timed(folder: Path) -> None:
    path = write_video(folder / "again.mp4", range(30))
    first, second = clip_of(path), clip_of(path)
    np.testing.assert_array_equal(first.frames, second.frames)
    assert first.decode_ms > 0


def test_unknown_decoder_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(UnknownName, match="no decoder 'pyva'; did you mean 'pyav'"):
        read_clip(VideoRef("x.mp4"), Sampling(), decoder="pyva")  # type: ignore[arg-type]


def test_numbers_survive_the_drawing() -> None:
    for number in (0, 1, 4660, 65535):
        assert number_of(picture(number)) == number
    assert number_of(np.zeros((96, 160, 3), np.uint8)) == -1
