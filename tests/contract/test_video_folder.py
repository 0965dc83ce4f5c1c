"""Frame folders: natural order, an explicit rate, and reasons for what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from video_files import numbers_of, picture

from tempeval.errors import BadVideo
from tempeval.video import flags
from tempeval.video.clip import Sampling, VideoPath, VideoRef
from tempeval.video.decode import read_clip
from tempeval.video.folder import natural_key
from tempeval.video.frame_list import FrameList


def fill(folder: Path, names: list[str], first: int = 0) -> Path:
    for number, name in enumerate(names, start=first):
        Image.fromarray(picture(number)).save(folder / name)
    return folder


def test_images_are_in_natural_order_with_times_from_the_rate(tmp_path: Path) -> None:
    fill(tmp_path, [f"frame_{number}.jpg" for number in range(1, 13)], first=1)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._frame_1.jpg").write_bytes(b"macOS leaves these")
    clip = read_clip(VideoRef(str(tmp_path), fps=3.0), Sampling("uniform", 12))
    assert numbers_of(clip) == list(range(1, 13))
    np.testing.assert_allclose(clip.timestamps, np.arange(12) / 3)
    assert (clip.source_frames, clip.source_size, clip.flags) == (12, (96, 160), ())
    assert clip.source_fps == pytest.approx(3.0)
    assert clip.decoder == "images"


@pytest.mark.parametrize("suffix", ["png", "jpeg", "BMP", "webp"])
def test_image_formats(tmp_path: Path, suffix: str) -> None:
    fill(tmp_path, [f"{number:04d}.{suffix}" for number in range(4)])
    clip = read_clip(VideoRef(str(tmp_path), fps=1.0), Sampling("uniform", 4), decoder="decord")
    assert numbers_of(clip) == [0, 1, 2, 3]


def test_png_pixels_are_exact_and_grey_or_transparent_images_become_rgb(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "1.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "2.png")
    Image.fromarray(image).convert("RGBA").save(tmp_path / "3.png")
    clip = read_clip(VideoRef(str(tmp_path), fps=1.0), Sampling("uniform", 3))
    np.testing.assert_array_equal(clip.frames[0], image)
    np.testing.assert_array_equal(clip.frames[1], image[..., :1].repeat(3, axis=2))
    np.testing.assert_array_equal(clip.frames[2], image)


def test_a_part_is_chosen_by_time(tmp_path: Path) -> None:
    fill(tmp_path, [f"{number}.png" for number in range(20)])
    clip = read_clip(VideoRef(str(tmp_path), start=1.0, end=3.0, fps=5.0), Sampling("segment", 5))
    assert numbers_of(clip) == [6, 8, 10, 12, 14]
    assert clip.source_frames == 11


def test_a_part_of_a_tvqa_folder_counts_images_from_one(tmp_path: Path) -> None:
    """MVBench's annotations: 3.9 s is image `round(11.7)`, which is the twelfth."""
    folder = tmp_path / "frames_fps3_hq" / "clip_18_0"
    folder.mkdir(parents=True)
    fill(folder, [f"{number:05d}.jpg" for number in range(1, 61)], first=1)
    ref = VideoRef(str(folder), start=3.9, end=15.1, fps=3.0)
    clip = read_clip(ref, Sampling("segment", 16))
    size = (45 - 12) / 16
    assert numbers_of(clip) == [int(12 + size / 2 + np.round(size * i)) for i in range(16)]
    assert (clip.source_frames, clip.flags) == (34, ())
    images = FrameList(VideoPath(str(folder), start=3.9, end=15.1, fps=3.0))
    assert [Path(images[0]).name, Path(images[-1]).name] == ["00012.jpg", "00045.jpg"]


def test_gaps_in_the_numbers_are_flagged_and_strides_are_not(tmp_path: Path) -> None:
    strided, gappy = tmp_path / "strided", tmp_path / "gappy"
    strided.mkdir()
    gappy.mkdir()
    fill(strided, ["v2_000.png", "v2_010.png", "v2_020.png"])
    fill(gappy, ["1.png", "2.png", "4.png"])
    sampling = Sampling("uniform", 3)
    assert read_clip(VideoRef(str(strided), fps=1.0), sampling).flags == ()
    assert read_clip(VideoRef(str(gappy), fps=1.0), sampling).flags == (flags.NUMBER_GAPS,)


def test_resizing_is_the_same_as_for_files(tmp_path: Path) -> None:
    fill(tmp_path, ["1.png", "2.png"], first=1)
    clip = read_clip(VideoRef(str(tmp_path), fps=1.0), Sampling("uniform", 2), resize=halve)
    assert clip.frames.shape == (2, 48, 80, 3)
    assert clip.source_size == (96, 160)
    assert numbers_of(clip) == [1, 2]


def halve(height: int, width: int, num_frames: int) -> tuple[int, int]:
    return height // 2, width // 2


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(tmp_path: Path, fps: float) -> None:
    fill(tmp_path, ["1.png"])
    with pytest.raises(BadVideo, match=r"fps=.* must be positive"):
        read_clip(VideoRef(str(tmp_path), fps=fps), Sampling())


def test_what_is_refused_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(fps: float | None = 1.0) -> str:
        with pytest.raises(BadVideo) as caught:
            read_clip(VideoRef(str(tmp_path), fps=fps), Sampling("uniform", 2))
        return caught.value.reason

    assert "the folder holds no images (.bmp, .jpeg, .jpg, .png, .webp)" in reason()
    fill(tmp_path, ["1.png", "2.png"])
    assert "needs its frame rate; set fps" in reason(fps=None)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:60])
    assert "image '2.png' cannot be read" in reason()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as lmms-eval's tasks do
    assert "image '2.png' cannot be read" in reason()
    assert ImageFile.LOAD_TRUNCATED_IMAGES
    Image.fromarray(picture(0, 50, 64)).save(tmp_path / "2.png")
    assert "image '2.png' is 64x50, but the first one wanted is 160x96" in reason()
    fill(tmp_path, ["cover.png"])
    assert "image 'cover.png' has no frame number" in reason()


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_natural_order_is_numeric(numbers: list[int]) -> None:
    names = [f"Clip_{number}.png" for number in numbers]
    assert sorted(names, key=natural_key) == [f"Clip_{number}.png" for number in sorted(numbers)]
