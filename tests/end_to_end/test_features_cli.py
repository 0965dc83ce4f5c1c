"""`tempeval features`: writes, resumes, lists what failed, refuses what it cannot do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sound_files import tone, write_sounding
from video_files import write_video

from tempeval.cli import main
from tempeval.engine.encoder import DecodeOptions
from tempeval.side_channels.registry import build_side_channel, parse_side_spec
from tempeval.side_channels.stored import read_facts, read_features
from tempeval.video.clip import Sampling, VideoRef
from tempeval.video.decode import read_clip

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

USAGE_ERROR, RUN_FAILED = 2, 1


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    write_sounding(folder / "a.mkv", [(0.0, tone(1.0, 0.5))], seconds=1.0)
    write_sounding(folder / "more" / "b.mkv", [(0.0, tone(1.0, 0.2))], seconds=1.0)
    return folder


@pytest.fixture
def call(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    def run(*options: object, code: int = 0) -> tuple[str, str]:
        arguments = ["features", "--data", data, "-o", tmp_path / "out", "--workers", 1, *options]
        got: Any = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            got = stop.code or 0
        said = capfd.readouterr()
        assert got == code, said.err
        assert "Traceback" not in said.err
        return said.out, said.err

    return run


def test_writes_once_and_goes_on_where_it_was(call: Any, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said, _ = call("--side-channel", "audio[step=0.2]")
    assert "written: 2" in said
    assert "features[folder=" in said
    assert sorted(path.name for path in out.iterdir()) == ["a.safetensors", "b.safetensors"]
    facts = read_facts(out / "a.safetensors")
    assert facts["settings"] == {"mels": 64, "shuffle": None, "step": 0.2}
    assert facts["duration"] == pytest.approx(1.0, abs=0.01)
    # What is read is what the side channel itself says.
    clip = read_clip(VideoRef(str(data / "a.mkv")), Sampling(num_frames=4))
    doc = {"video": str(data / "a.mkv")}
    direct = build_side_channel(
        parse_side_spec("audio[step=0.2]"), None, DecodeOptions(workers=0)
    ).features(doc, clip)
    read = build_side_channel(parse_side_spec(f"features[folder={out}]"), None).features(doc, clip)
    np.testing.assert_array_equal(read.features, direct.features)
    np.testing.assert_array_equal(read.spans, direct.spans)

    before = (out / "a.safetensors").stat().st_mtime_ns
    (out / "b.safetensors").unlink()
    (out / ".b.safetensors.1.partial").touch()  # as a killed run leaves it
    said, _ = call("--side-channel", "audio[step=0.2]")
    assert "written: 1" in said
    assert "kept: 1" in said
    assert (out / "a.safetensors").stat().st_mtime_ns == before
    # A video that was replaced is read again.
    write_sounding(data / "a.mkv", [(0.0, tone(2.0, 0.5))], seconds=2.0)
    said, _ = call("--side-channel", "audio[step=0.2]")
    assert "written: 1" in said
    assert read_facts(out / "a.safetensors")["duration"] == pytest.approx(2.0, abs=0.01)


def test_a_conversion_follows_its_source(call: Any, data: Path, tmp_path: Path) -> None:
    """Of official files, the one that changed is converted again, and no other."""
    source = tmp_path / "official"
    source.mkdir()
    spec = f"imagebind[folder={source}]"
    for name in ("a", "b"):
        torch.save(torch.zeros(2, 1024), source / f"{name}.pt")
    said, _ = call("--side-channel", spec)
    assert "written: 2" in said
    said, _ = call("--side-channel", spec)
    assert "kept: 2" in said
    torch.save(torch.ones(2, 1024), source / "b.pt")
    said, _ = call("--side-channel", spec)
    assert "written: 1" in said
    assert "kept: 1" in said
    side, facts = read_features(tmp_path / "out" / "b.safetensors")
    assert side.features.unique().tolist() == [1.0]
    assert side.spans is None
    assert "official" not in facts["source_stamp"]
    clip = read_clip(VideoRef(str(data / "a.mkv"), 0.5), Sampling(num_frames=2))
    part = build_side_channel(parse_side_spec(f"features[folder={tmp_path / 'out'}]"), None)
    heard = part.features({"video": str(data / "a.mkv"), "start": 0.5}, clip)
    assert heard.spans.tolist() == [[0.0, 2.0], [1.0, 3.0]]


def test_other_settings_need_another_folder(call: Any, tmp_path: Path) -> None:
    call("--side-channel", "audio")
    _, said = call("--side-channel", "audio[mels=32]", code=USAGE_ERROR)
    assert "was made with settings" in said
    assert "--overwrite" in said
    call("--side-channel", "audio[mels=32]", "--overwrite")
    assert read_facts(tmp_path / "out" / "a.safetensors")["settings"]["mels"] == 32


def test_failures_are_listed_and_the_rest_is_written(call: Any, data: Path, tmp_path: Path) -> None:
    write_video(data / "silent.mp4", range(10))
    (data / "broken.mp4").write_bytes(b"no video")
    said, errors = call("--side-channel", "audio", code=RUN_FAILED)
    assert "written: 2" in said
    assert "error: 2 of 4 videos gave no features" in errors
    listed = json.loads((tmp_path / "out" / "failures.json").read_text())
    assert {name.rpartition("/")[2] for name in listed} == {"silent.mp4", "broken.mp4"}
    assert "the file has no sound track" in listed[str(data / "silent.mp4")]
    assert all(reason in errors for reason in listed.values())
    for name in ("silent.mp4", "broken.mp4"):
        (data / name).unlink()
    call("--side-channel", "audio")
    assert not (tmp_path / "out" / "failures.json").exists()


def test_high_fps_by_a_mini_checkpoint(call: Any, tmp_path: Path) -> None:
    call("--side-channel", "highfps[fps=10]", "--dtype", "float32")
    facts = read_facts(tmp_path / "out" / "b.safetensors")
    assert facts["flops"] > 0
    assert facts["model"]["pretrained"].endswith("qwen2_5_vl")
    _, said = call("--side-channel", "highfps[fps=10]", "--num-frames", 4, code=USAGE_ERROR)
    assert "was made with model" in said


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--side-channel", "audoi"), "did you mean 'audio'"),
        (("--side-channel", "audio[step=0]"), "audio.step=0"),
        (("--side-channel", "features[folder=x]"), "reads what this command writes"),
        (("--side-channel", "imagebind"), "needs 'folder'"),
        (("--side-channel", "audio", "--fps", "2"), "accepted: folders of images"),
        (("--side-channel", "audio", "--decode-timeout", "0"), "timeout_s=0.0"),
        (("--side-channel", "highfps", "--pretrained", "mini:nothing"), "mini checkpoint"),
    ],
)
def test_bad_options_are_refused(call: Any, options: tuple[str, ...], problem: str) -> None:
    _, said = call(*options, code=USAGE_ERROR)
    assert problem in said


def test_two_videos_of_one_name(call: Any, data: Path) -> None:
    write_video(data / "more" / "a.mp4", range(3))
    _, said = call("--side-channel", "audio", code=USAGE_ERROR)
    assert "the same video id 'a'" in said
