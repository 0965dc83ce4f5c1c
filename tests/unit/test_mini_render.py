import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tempeval.errors import InvalidSetting, TempevalError, UnknownName
from tempeval.mini import paths, render
from tempeval.mini.encode import write_folder, write_video
from tempeval.mini.paint import paint_background, paint_frames, paint_phase
from tempeval.mini.render import is_complete, render_here, render_suite
from tempeval.mini.suite import suite_clips, suite_records


def decode(path: Path) -> np.ndarray:
    if path.is_dir():
        return np.stack([np.asarray(Image.open(image)) for image in sorted(path.iterdir())])
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_suite(tmp_path_factory.mktemp("mini"))


@pytest.fixture(scope="module")
def frames_of(suite: Path) -> dict[str, np.ndarray]:
    return {clip.name: decode(suite / clip.path) for clip in suite_clips()}


def test_every_clip_decodes_to_its_frames(frames_of: dict[str, np.ndarray]) -> None:
    for clip in suite_clips():
        width, height = clip.scene.size
        assert frames_of[clip.name].shape == (clip.scene.num_frames, height, width, 3)


def test_coding_keeps_what_is_shown(frames_of: dict[str, np.ndarray]) -> None:
    for clip in suite_clips():
        gap = np.abs(frames_of[clip.name].astype(int) - paint_frames(clip.scene)).mean()
        assert gap < 6, clip.name


def test_both_decoded_frames_of_a_grid_show_their_phase(frames_of: dict[str, np.ndarray]) -> None:
    """Each of 8 uniform samples looks most like its own phase, so swapping two changes nothing."""
    for clip in suite_clips():
        ground = paint_background(clip.scene, np.random.default_rng(clip.scene.noise))
        phases = np.stack([paint_phase(clip.scene, phase, ground) for phase in clip.scene.phases])
        frames = frames_of[clip.name]
        sampled = frames[np.linspace(0, len(frames) - 1, 8, dtype=np.int64)]
        gaps = ((sampled[:, None].astype(float) - phases[None]) ** 2).sum((2, 3, 4))
        assert gaps.argmin(1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3], clip.name


def test_annotations_lie_beside_the_files(suite: Path) -> None:
    record = json.loads((suite / "annotations.json").read_text("utf-8"))
    assert record["items"] == suite_records()
    assert all((suite / item["video"]).exists() for item in record["items"])
    assert sorted(path.name for path in suite.iterdir()) == [".lock", "annotations.json", "videos"]


@pytest.fixture
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"mini-000", "mini-003", "mini-007"}
    few = [clip for clip in suite_clips() if clip.name in kept]
    monkeypatch.setattr(render, "suite_clips", lambda: few)


@pytest.mark.usefixtures("few_clips")
class TestRenderHere:
    def files(self, folder: Path) -> dict[str, str]:
        return dict(json.loads((folder / "annotations.json").read_text("utf-8"))["files"])

    def render(self, folder: Path) -> dict[str, str]:
        render_here(folder)
        return self.files(folder)

    def test_same_bytes_twice(self, tmp_path: Path) -> None:
        first = self.render(tmp_path / "a")
        assert first == self.render(tmp_path / "b")
        assert {Path(name).suffix for name in first} == {".mp4", ".webm", ".png"}

    def test_a_whole_folder_is_reused(self, tmp_path: Path) -> None:
        render_here(tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}
        calls: list[tuple[int, int]] = []
        render_here(tmp_path, lambda done, total: calls.append((done, total)))
        assert calls == []
        assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.mp4")}

    def test_progress_counts_clips(self, tmp_path: Path) -> None:
        calls: list[tuple[int, int]] = []
        render_here(tmp_path, lambda done, total: calls.append((done, total)))
        assert calls == [(1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize("damage", ["cut", "lost", "lost image", "other suite", "no json"])
    def test_a_damaged_folder_is_made_whole(self, tmp_path: Path, damage: str) -> None:
        good = self.render(tmp_path)
        video = tmp_path / "videos" / "mini-000.mp4"
        listing = tmp_path / "annotations.json"
        if damage == "cut":
            video.write_bytes(video.read_bytes()[:100])
        elif damage == "lost":
            video.unlink()
        elif damage == "lost image":
            next((tmp_path / "videos" / "mini-007").iterdir()).unlink()
        elif damage == "other suite":
            listing.write_text(json.dumps({"digest": "other", "files": {}}), "utf-8")
        else:
            listing.write_text("{", "utf-8")
        assert not is_complete(tmp_path)
        render_here(tmp_path)
        assert is_complete(tmp_path)
        assert self.files(tmp_path) == good

    def test_a_run_that_was_killed_is_not_trusted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(render, "write_folder", fail)
            with pytest.raises(KeyboardInterrupt):
                render_here(tmp_path)
        assert not is_complete(tmp_path)
        render_here(tmp_path)
        assert is_complete(tmp_path)

    def test_two_at_once_render_once(self, tmp_path: Path) -> None:
        calls: list[int] = []
        with ThreadPoolExecutor(2) as pool:
            jobs = [
                pool.submit(render_here, tmp_path, lambda done, _: calls.append(done))
                for _ in range(2)
            ]
            for job in jobs:
                job.result()
        assert calls == [1, 2, 3]

    def test_files_of_others_are_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine", "utf-8")
        render_here(tmp_path)
        assert (tmp_path / "notes.txt").read_text("utf-8") == "mine"


def test_the_cache_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEMPEVAL_CACHE", str(tmp_path))
    paths.suite_dir.cache_clear()
    folder = paths.suite_dir()
    paths.suite_dir.cache_clear()
    assert folder == paths.default_suite_dir()
    assert folder.is_relative_to(tmp_path)
    assert is_complete(folder)


def test_rendering_works_where_decord_was_imported_and_says_how_far_it_is(tmp_path: Path) -> None:
    """decord's libvpx, loaded first, would break PyAV's in the same process."""
    pytest.importorskip("decord")
    calls: list[tuple[int, int]] = []
    render_suite(tmp_path, lambda done, total: calls.append((done, total)))
    assert calls == [(done, 120) for done in range(1, 121)]
    assert is_complete(tmp_path)


def test_a_renderer_that_fails_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(TempevalError, match=r"(?s)rendering .* failed: .*Error"):
        render_suite(tmp_path / "file")


@pytest.mark.parametrize("container", ["mp4", "webm"])
@pytest.mark.parametrize("name", ["mini-114", "mini-012"])  # sides that are no multiple of 16
def test_encoders_give_the_same_bytes_every_time(tmp_path: Path, container: str, name: str) -> None:
    (clip,) = [clip for clip in suite_clips() if clip.name == name]
    frames = paint_frames(clip.scene)
    found = set()
    for run in range(8):
        write_video(tmp_path / f"{run}", frames, clip.scene.fps, container)
        found.add((tmp_path / f"{run}").read_bytes())
    assert len(found) == 1


def test_an_unknown_container_is_refused(tmp_path: Path) -> None:
    frames = np.zeros((2, 28, 28, 3), np.uint8)
    with pytest.raises(InvalidSetting, match="mp4, webm"):
        write_video(tmp_path / "x", frames, 8, "avi")


def test_a_frame_folder_holds_the_exact_frames(tmp_path: Path) -> None:
    frames = paint_frames(suite_clips()[7].scene)
    write_folder(tmp_path / "x", frames)
    assert np.array_equal(decode(tmp_path / "x"), frames)


def test_an_unknown_checkpoint_is_named() -> None:
    with pytest.raises(UnknownName, match="qwen9"):
        paths.checkpoint("qwen9")


def test_rendering_needs_no_torch() -> None:
    code = "import sys, tempeval.mini.render, tempeval.mini.paths; sys.exit('torch' in sys.modules)"
    assert shutil.which(sys.executable)
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
