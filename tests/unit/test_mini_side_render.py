"""Splits of the side-channel suites on disk: whole, the same every time, found by name."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tempeval.errors import InvalidSetting, TempevalError, UnknownName
from tempeval.mini import side_render
from tempeval.mini.side import SIDE_SUITES, SideClip, Split, side_suite
from tempeval.mini.side_render import (
    is_complete,
    render_here,
    render_split,
    rendered_test_split,
    split_dir,
)
from tempeval.run.calibration_clips import CalibrationClip, refuse_test_data
from tempeval.video.clip import VideoRef


@pytest.fixture(params=sorted(SIDE_SUITES))
def few(request: pytest.FixtureRequest) -> Split:
    whole = side_suite(request.param).test
    return replace(whole, clips=whole.clips[:3])


def files(folder: Path) -> dict[str, str]:
    return dict(json.loads((folder / "annotations.json").read_text("utf-8"))["files"])


def test_same_bytes_twice(few: Split, tmp_path: Path) -> None:
    for name in "ab":
        render_here(few, tmp_path / name)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert len(set(files(tmp_path / "a").values())) == 3
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        ".lock",
        "annotations.json",
        "videos",
    ]
    record = json.loads((tmp_path / "a" / "annotations.json").read_text("utf-8"))
    assert record["items"] == few.records()
    assert all((tmp_path / "a" / item["video"]).is_file() for item in record["items"])


def test_a_whole_folder_is_reused(few: Split, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        render_here(few, tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("damage", ["cut", "lost", "other split", "no json", "a list"])
def test_a_damaged_folder_is_made_whole(few: Split, tmp_path: Path, damage: str) -> None:
    render_here(few, tmp_path)
    good = files(tmp_path)
    video, listing = tmp_path / few.clips[1].path, tmp_path / "annotations.json"
    if damage == "cut":
        video.write_bytes(video.read_bytes()[:100])
    elif damage == "lost":
        video.unlink()
    elif damage == "other split":
        listing.write_text(json.dumps({"digest": "other", "files": {}}), "utf-8")
    else:
        listing.write_text("{" if damage == "no json" else "[]", "utf-8")
    assert not is_complete(few, tmp_path)
    render_here(few, tmp_path)
    assert is_complete(few, tmp_path)
    assert files(tmp_path) == good


def test_a_run_that_was_killed_is_not_trusted(
    few: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SideClip, "write", fail)
        with pytest.raises(KeyboardInterrupt):
            render_here(few, tmp_path)
    assert not is_complete(few, tmp_path)
    render_here(few, tmp_path)
    assert is_complete(few, tmp_path)
    assert not (tmp_path / "partial").exists()


def test_two_at_once_render_once(few: Split, tmp_path: Path) -> None:
    calls: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(render_here, few, tmp_path, lambda done, _: calls.append(done))
            for _ in range(2)
        ]
        for job in jobs:
            job.result()
    assert calls == [1, 2, 3]


def test_a_training_split_is_rendered_in_another_process_and_says_how_far_it_is(
    tmp_path: Path,
) -> None:
    for name in SIDE_SUITES:
        split, calls = side_suite(name).train(4, seed=6), []  # type: ignore[var-annotated]
        folder = render_split(split, tmp_path / name, lambda done, _, c=calls: c.append(done))
        assert calls == [1, 2, 3, 4]
        assert is_complete(split, folder)
        render_here(split, tmp_path / f"{name}-here")
        assert files(folder) == files(tmp_path / f"{name}-here")


def test_a_renderer_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    said = r"(?s)rendering the train split of mini audio .* failed: .*Error"
    with pytest.raises(TempevalError, match=said):
        render_split(side_suite("audio").train(1), tmp_path / "file")


def test_test_clips_are_rendered_to_the_cache_on_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEMPEVAL_CACHE", str(tmp_path))
    asked: list[Split] = []

    def render(split: Split) -> Path:
        asked.append(split)
        return split_dir(split)

    monkeypatch.setattr(side_render, "render_split", render)
    rendered_test_split.cache_clear()
    found = [rendered_test_split("highfps") for _ in range(3)]
    rendered_test_split.cache_clear()
    test = side_suite("highfps").test
    assert asked == [test]
    assert set(found) == {tmp_path / "mini-highfps" / "test" / f"1-{test.digest}"}
    with pytest.raises(UnknownName, match="side-channel suite 'high'"):
        rendered_test_split("high")


def test_calibration_refuses_test_clips_and_takes_training_clips() -> None:
    suite = side_suite("audio")

    def clips(split: Split) -> list[CalibrationClip]:
        path = split_dir(split) / split.clips[0].path
        return [CalibrationClip(VideoRef(str(path)), path.name, "")]

    refuse_test_data(clips(suite.train(1)))
    with pytest.raises(InvalidSetting, match="folder called 'test'"):
        refuse_test_data(clips(suite.test))


def test_rendering_needs_no_torch() -> None:
    code = (
        "import sys, tempeval.mini.side_render as r; from tempeval.mini.side import side_suite;"
        "[side_suite(name).test.digest for name in ('audio', 'highfps')];"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
