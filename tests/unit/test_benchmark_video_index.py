"""The index of a benchmark's videos: official places and endings, nothing outside the folder."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tempeval.benchmarks.base import BadData
from tempeval.benchmarks.check import check
from tempeval.benchmarks.registry import benchmark
from tempeval.benchmarks.video_index import FRAME_FOLDERS, VideoIndex, safe_name

METRICS = Path(__file__).parents[1] / "reference" / "metrics"


def test_videos_are_found_by_name_stem_and_relative_path(tmp_path: Path) -> None:
    for name in (
        "a/1.webm",
        "a/deep/2.MP4",
        "b/1.mp4",
        "b/3.avi",
        "b/notes.txt",
        "a/deep/er/4.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    index = VideoIndex(tmp_path, "missing", "a", "b", depth=2)
    assert index.path_of("1") == tmp_path / "b/1.mp4"  # the first extension, then the first folder
    assert index.path_of("1.webm") == tmp_path / "a/1.webm"
    assert index.path_of("2") == index.path_of("deep/2.mp4") == tmp_path / "a/deep/2.MP4"
    assert index.path_of("3.mp4") == tmp_path / "b/3.avi"
    assert index.find("4") is None
    assert index.find("notes") is None
    assert index.path_of("5") == tmp_path / "a/5.mp4"
    assert index.path_of("x/5.webm") == tmp_path / "a/x/5.webm"
    assert len(index) == 4


def test_the_first_folder_wins_and_a_missing_one_is_expected(tmp_path: Path) -> None:
    for name in ("one/7.mp4", "two/7.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert VideoIndex(tmp_path, "one", "two").path_of("7") == tmp_path / "one/7.mp4"
    assert VideoIndex(tmp_path, "two", "one").path_of("7") == tmp_path / "two/7.mp4"
    assert VideoIndex(tmp_path, "no", "none").path_of("7") == tmp_path / "no/7.mp4"


def test_a_missing_video_is_expected_where_the_others_lie(tmp_path: Path) -> None:
    def home() -> Path:
        return VideoIndex(tmp_path, "videos", "videos/videos", "").path_of("x").parent

    assert home() == tmp_path / "videos", "the root, which is always there, is no place by itself"
    (tmp_path / "videos" / "videos").mkdir(parents=True)
    assert home() == tmp_path / "videos"
    (tmp_path / "1.mp4").touch()
    assert home() == tmp_path
    (tmp_path / "videos" / "videos" / "2.mp4").touch()
    assert home() == tmp_path / "videos" / "videos"
    (tmp_path / "videos" / "3.mp4").touch()
    assert home() == tmp_path / "videos"


@pytest.mark.parametrize(
    ("name", "split", "expected"),
    [
        ("egoschema", "full", "videos"),
        ("nextqa_mc", "test", "NExTVideo"),
        ("tempcompass", "yes_no", "videos"),
        ("avqa", "val", "videos"),
    ],
)
def test_missing_videos_are_named_in_the_folder_of_the_tree(
    tmp_path: Path, name: str, split: str, expected: str
) -> None:
    shutil.copytree(METRICS / name / "annotations", tmp_path / name)
    chosen = benchmark(name)
    assert f"  {expected}/" in chosen.tree
    missing = check(name, tmp_path, [split]).videos.missing
    assert missing
    assert all(path.startswith(str(tmp_path / name / expected)) for path in missing)


def test_frame_folders_are_entries(tmp_path: Path) -> None:
    (tmp_path / "frames/12").mkdir(parents=True)
    (tmp_path / "frames/12/00001.jpg").touch()
    index = VideoIndex(tmp_path, "frames", extensions=FRAME_FOLDERS)
    assert index.find("12") == tmp_path / "frames/12"
    assert index.find("13") is None
    assert index.path_of("13") == tmp_path / "frames/13"


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../b", "", "a\\b", "a\0b", None, 3, "."]
)
def test_names_may_not_leave_the_folder(tmp_path: Path, name: Any) -> None:
    with pytest.raises(BadData, match=r"list\.csv, line 3"):
        safe_name(name, "list.csv, line 3")
    if isinstance(name, str):
        with pytest.raises(BadData):
            VideoIndex(tmp_path, "videos").path_of(name)
