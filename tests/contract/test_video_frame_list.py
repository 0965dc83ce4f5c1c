"""Frame folders as lists of images, for lmms-eval's own models."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from PIL import Image
from qwen_vl_utils import process_vision_info
from video_files import picture

from tempeval.errors import BadVideo
from tempeval.model_wrappers.requests import visuals_of
from tempeval.tasks.turns import ask
from tempeval.video.clip import VideoPath, VideoRef
from tempeval.video.frame_list import FrameList


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(12):
        Image.fromarray(picture(number)).save(tmp_path / f"frame_{number}.jpg")
    return tmp_path


def numbers(images: list[str] | str) -> list[int]:
    return [int(Path(image).stem.removeprefix("frame_")) for image in images]


def test_images_in_natural_order_and_the_clip_they_are_of(folder: Path) -> None:
    clip = VideoPath(str(folder), fps=3.0)
    found = FrameList(clip)
    assert numbers(found) == list(range(12))
    assert (found[0], len(found)) == (str(folder / "frame_0.jpg"), 12)
    again = pickle.loads(pickle.dumps(found))  # noqa: S301
    assert (list(again), again.clip.ref) == (list(found), clip.ref)
    assert again == found
    assert str(found) == str(folder)
    assert found != FrameList(VideoPath(str(folder), fps=6.0))


def test_only_those_of_the_part(folder: Path) -> None:
    def part(fps: float) -> list[int]:
        return numbers(FrameList(VideoPath(str(folder), start=1.0, end=2.0, fps=fps)))

    assert part(3.0) == [3, 4, 5, 6]
    assert part(6.0) == [6, *range(7, 12)]


def test_the_views_of_a_scene(tmp_path: Path) -> None:
    scene = tmp_path / "posed_images_new" / "scene0000_00"
    scene.mkdir(parents=True)
    for number in range(40):
        Image.fromarray(picture(number)).save(scene / f"{number:05d}.jpg")
    assert [Path(image).stem for image in FrameList(VideoPath(str(scene), fps=1.0))] == [
        f"{number:05d}" for number in range(32)
    ]


def test_a_folder_is_listed_when_its_images_are_read(tmp_path: Path) -> None:
    """Making messages, as for prompt hashes, opens nothing; a bad folder is named when read."""
    (message,) = ask(VideoPath(str(tmp_path / "missing"), fps=3.0), "What happens?")
    images = message["content"][0]["url"]
    with pytest.raises(BadVideo, match="cannot be listed"):
        list(images)


def test_a_file_is_no_list() -> None:
    clip = VideoPath("video.mp4")
    assert ask(clip, "What happens?")[0]["content"][0]["url"] is clip


def test_our_models_read_the_clip_and_the_hosts_the_images(folder: Path) -> None:
    messages = ask(VideoPath(str(folder), start=1.0, fps=3.0), "What happens?")
    assert visuals_of(messages) == (VideoRef(str(folder), 1.0, None, 3.0),)
    part = messages[0]["content"][0]
    shown = [{"role": "user", "content": [{"type": "video", "video": part["url"]}]}]
    _, (frames,) = process_vision_info(shown)
    assert len(frames) == 10, "nine images, filled up to an even number"
