"""Stamps of videos: any change to what a model sees changes them, a copy or a touch does not."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tempeval.video import stamp
from tempeval.video.stamp import WHOLE_BYTES, content_stamp, video_digests

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Forget what this process has read, as another process has read nothing."""
    stamp._content.cache_clear()
    stamp._sampled.cache_clear()


def test_a_small_file_is_known_by_its_content(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"abc")
    before = content_stamp(str(video)), video_digests([[str(video)]])
    os.utime(video, (1, 1))
    assert (content_stamp(str(video)), video_digests([[str(video)]])) == before
    stat = video.stat()
    video.write_bytes(b"abd")
    os.utime(video, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    stamp._content.cache_clear()
    assert content_stamp(str(video)) != before[0]
    assert all(a != b for a, b in zip(video_digests([[str(video)]]), before[1], strict=True))


def test_a_large_file_is_known_by_size_and_time_and_compared_by_its_content(
    tmp_path: Path,
) -> None:
    video, copy = tmp_path / "a.mp4", tmp_path / "b.mp4"
    content = bytes(range(256)) * (WHOLE_BYTES // 128)
    video.write_bytes(content)
    os.utime(video, (1, 1))
    copy.write_bytes(content)
    stamps, contents = video_digests([[str(video)]])
    copied_stamps, copied_contents = video_digests([[str(copy)]])
    assert copied_contents == contents
    assert copied_stamps != stamps
    for place in (0, len(content) // 3, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        copy.write_bytes(changed)
        stamp._sampled.cache_clear()
        assert video_digests([[str(copy)]])[1] != contents


@pytest.mark.parametrize("size", [10, WHOLE_BYTES])
def test_a_folder_is_known_by_its_entries(tmp_path: Path, size: int) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.png").write_bytes(name.encode() * size)
    before = content_stamp(str(folder)), video_digests([[str(folder)]])
    (folder / "b.png").write_bytes(b"c" * (size - 1))
    os.utime(folder, (1, 1))
    after = content_stamp(str(folder)), video_digests([[str(folder)]])
    assert after[0] != before[0]
    assert all(a != b for a, b in zip(after[1], before[1], strict=True))


def test_which_document_shows_what_counts_and_where_it_lies_does_not(tmp_path: Path) -> None:
    paths = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        for name in "ab":
            (tmp_path / place / name).write_bytes(name.encode())
        paths.append([str(tmp_path / place / name) for name in "ab"])
    (a, b), there = paths
    assert video_digests([[a], [b]]) == video_digests([[path] for path in there])
    assert video_digests([[a], [b]]) != video_digests([[b], [a]])
    assert video_digests([[a], [b]]) != video_digests([[a, b]])
    assert content_stamp(str(tmp_path / "nowhere")) is None
    assert video_digests([[a], [str(tmp_path / "nowhere")]]) != video_digests([[a], [b]])


@pytest.mark.timeout(20)
def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """Nobody writes to it, so reading would never end."""
    os.mkfifo(tmp_path / "a.mp4")
    assert content_stamp(str(tmp_path / "a.mp4")) is not None
    assert content_stamp(str(tmp_path)) is not None
    video_digests([[str(tmp_path / "a.mp4")]])
