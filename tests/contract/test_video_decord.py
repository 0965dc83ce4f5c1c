"""decord is never believed: what it returns is right, or the file is refused in its name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from video_files import QUIET_X265, numbers_of, picture, rotate_metadata, write_video

from tempeval.errors import BadVideo, DecoderUnavailable
from tempeval.video.clip import Clip, Sampling, VideoRef
from tempeval.video.decode import read_clip

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 90
pytest.importorskip("decord")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def clip_of(path: Path, k: int = COUNT, **options: Any) -> Clip:
    return read_clip(VideoRef(str(path)), Sampling("uniform", k), decoder="decord", **options)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("h264.mp4", {}),
        ("mpeg4.avi", {"codec": "mpeg4"}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "30"}}),
        ("deep.mp4", {"pixel_format": "yuv420p10le"}),
    ],
)
def test_the_files_it_reads_rightly(folder: Path, name: str, how: dict[str, Any]) -> None:
    path = write_video(folder / name, range(COUNT), **how)
    clip = clip_of(path)
    assert numbers_of(clip) == list(range(COUNT))
    np.testing.assert_allclose(clip.timestamps, np.arange(COUNT) / 30, atol=1.1e-3)
    assert clip.decoder == "decord"
    half = clip_of(path, 8, resize=halve)
    assert half.frames.shape == (8, 48, 80, 3)
    assert numbers_of(half) == list(half.indices)


def halve(height: int, width: int, num_frames: int) -> tuple[int, int]:
    return height // 2, width // 2


def test_rotation(folder: Path) -> None:
    def lying(number: int, height: int, width: int) -> np.ndarray:
        return np.rot90(picture(number), 1)

    path = write_video(folder / "turned.mp4", range(30), size=(160, 96), draw=lying)
    clip = clip_of(rotate_metadata(path, 90), 8)
    assert clip.frames.shape == (8, 96, 160, 3)
    assert numbers_of(clip) == list(clip.indices)


def test_wrong_pictures_under_right_timestamps_are_refused(folder: Path) -> None:
    path = write_video(folder / "stream.ts", range(COUNT))
    with pytest.raises(BadVideo, match=r"decord returns another picture than frame \d+.*pyav"):
        clip_of(path)


def test_open_groups_are_read_rightly_or_refused(folder: Path) -> None:
    options = {"x265-params": f"{QUIET_X265}:keyint=30:bframes=4:open-gop=1"}
    path = write_video(folder / "open.mp4", range(300), codec="libx265", options=options)
    reasons = []
    for k in (8, 32, 60):
        try:
            clip = clip_of(path, k)
        except BadVideo as error:
            reasons.append(error.reason)
        else:
            assert numbers_of(clip) == list(clip.indices)
    assert reasons
    assert all("decord returns another picture" in reason for reason in reasons)


def test_files_it_cannot_open_are_refused_in_its_name(folder: Path) -> None:
    path = write_video(folder / "a.gif", range(9), codec="gif", pixel_format="rgb8", rate=10)
    with pytest.raises(BadVideo, match=r"decord .*; use decoder='pyav'"):
        clip_of(path)


def test_wrong_timestamps_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import decord

    path = write_video(folder / "times.mp4", range(COUNT))
    honest = decord.VideoReader.get_frame_timestamp
    monkeypatch.setattr(
        decord.VideoReader,
        "get_frame_timestamp",
        lambda self, indices: honest(self, indices) * 1.01,
    )
    with pytest.raises(BadVideo, match=r"decord gives frame \d+ the time .* its packet says"):
        clip_of(path)


def test_a_missing_decord_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(DecoderUnavailable, match="pip install decord"):
        clip_of(folder / "h264.mp4")
