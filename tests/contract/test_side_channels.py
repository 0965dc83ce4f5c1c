"""Side channels on real families, on real clips, and with the patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d
from video_files import write_video

from tempeval.engine.encoder import DecodeOptions
from tempeval.errors import BadSideChannel
from tempeval.mini.side import side_suite
from tempeval.mini.sound import VOICES
from tempeval.side_channels.align import equal_parts, frame_spans, neighbors
from tempeval.side_channels.audio import FFT, RATE, _filters
from tempeval.side_channels.registry import build_side_channel, parse_side_spec
from tempeval.video.clip import Clip, Sampling, VideoRef
from tempeval.video.decode import read_clip

if TYPE_CHECKING:
    from pathlib import Path

HERE = DecodeOptions(workers=0)
FAMILIES = (
    "tiny_qwen2_5_vl",
    "tiny_qwen2_vl",
    "tiny_llava_onevision",
    "tiny_video_llava",
    "tiny_video_llava_original",
)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s at 10 frames per second, every frame another."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "other.mp4", range(500, 530), rate=10)
    return write_video(folder / "clip.mp4", range(1, 21), rate=10)


def decoded(path: Path, family: Any, sampling: Sampling, **part: Any) -> Clip:
    return read_clip(VideoRef(str(path), **part), sampling, resize=family.resize())


def test_high_fps_is_the_tower_on_more_frames(family: Any, video: Path) -> None:
    few = decoded(video, family, Sampling(num_frames=8))
    channel = build_side_channel(parse_side_spec("highfps[fps=10]"), family, HERE)
    side = channel.features({"video": str(video)}, few)
    grids = 20 // family.frames_per_grid
    assert side.features.shape == (grids, 2, 2, family.feature_width)
    assert side.features.dtype == torch.float32
    assert side.flops > 0
    torch.testing.assert_close(side.spans, equal_parts(0, 2, grids))
    # The obvious way: all frames at once, blocks filled with the last frame.
    all_frames = read_clip(
        VideoRef(str(video)),
        Sampling(num_frames=20),
        resize=lambda *_: few.frames.shape[1:3],
    )
    block = max(family.frames_per_block, family.frames_per_grid)
    filled = all_frames.reordered(np.minimum(np.arange(-(-20 // block) * block), 19))
    features = family.encode(filled, with_features=True).features
    pooled = adaptive_avg_pool2d(features.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)[:grids]
    torch.testing.assert_close(side.features, pooled, atol=1e-4, rtol=1e-4)
    assert features.std() > 0


def test_batches_of_frames_change_nothing(
    tiny_qwen2_5_vl: Any, video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = decoded(video, tiny_qwen2_5_vl, Sampling(num_frames=8))
    spec = parse_side_spec("highfps[fps=10;pool=1]")
    made = []
    for batch in (3, 32):
        monkeypatch.setattr("tempeval.side_channels.highfps._BATCH", batch)
        channel = build_side_channel(spec, tiny_qwen2_5_vl, HERE)
        made.append(channel.features({"video": str(video)}, clip))
    torch.testing.assert_close(made[0].features, made[1].features, atol=1e-4, rtol=1e-4)
    assert made[0].features.shape[:3] == (10, 1, 1)


@pytest.mark.parametrize(
    ("settings", "steps"), [("fps=5", 10), ("factor=2", 16), ("fps=10;max_frames=12", 12)]
)
def test_how_many_frames(tiny_llava_onevision: Any, video: Path, settings: str, steps: int) -> None:
    clip = decoded(video, tiny_llava_onevision, Sampling(num_frames=8))
    channel = build_side_channel(parse_side_spec(f"highfps[{settings}]"), tiny_llava_onevision)
    side = channel.features({"video": str(video)}, clip)
    assert len(side.features) == steps
    # The official partition where steps divide among the frames, else by time.
    assert (neighbors(frame_spans(clip, 8), side.spans) is None) == (steps % 8 == 0)


def test_a_part_and_a_folder_of_images(
    tiny_llava_onevision: Any, video: Path, tmp_path: Path
) -> None:
    from tempeval.mini.encode import write_folder

    channel = build_side_channel(parse_side_spec("highfps[fps=10]"), tiny_llava_onevision, HERE)
    part = decoded(video, tiny_llava_onevision, Sampling(num_frames=4), start=0.5, end=1.0)
    side = channel.features({"video": str(video), "start": 0.5, "end": 1.0}, part)
    torch.testing.assert_close(side.spans, equal_parts(0.5, 1.1, 6))
    whole = read_clip(VideoRef(str(video)), Sampling(num_frames=20))
    write_folder(tmp_path / "frames", whole.frames)
    images = decoded(tmp_path / "frames", tiny_llava_onevision, Sampling(num_frames=4), fps=10.0)
    from_images = channel.features({"video": str(tmp_path / "frames")}, images)
    direct = channel.features({"video": str(video)}, whole)
    torch.testing.assert_close(from_images.features, direct.features)


def test_shuffled_frames_are_the_other_videos(tiny_llava_onevision: Any, video: Path) -> None:
    family = tiny_llava_onevision
    clip = decoded(video, family, Sampling(num_frames=8))
    other = video.with_name("other.mp4")
    plain = build_side_channel(parse_side_spec("highfps[fps=10]"), family, HERE)
    shuffled = build_side_channel(parse_side_spec("highfps[fps=10;shuffle=3]"), family, HERE)
    got = shuffled.features({"video": str(video)}, clip)
    its_own = plain.features({"video": str(other)}, decoded(other, family, Sampling(num_frames=8)))
    torch.testing.assert_close(got.features, its_own.features)
    assert "other.mp4" in shuffled.stamp({"video": str(video)})


def test_frames_that_cannot_be_decoded(tiny_llava_onevision: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    clip = read_clip(
        VideoRef(str(write_video(tmp_path / "good.mp4", range(9)))), Sampling(num_frames=2)
    )
    channel = build_side_channel(parse_side_spec("highfps"), tiny_llava_onevision)
    with pytest.raises(BadSideChannel, match="not a readable video"):
        channel.features({"video": str(tmp_path / "bad.mp4")}, clip)


def test_a_budget_of_the_clip_does_not_bind_more_frames(
    load_family: Any, tiny_qwen2_5_vl_folder: Path, video: Path
) -> None:
    family = load_family(tiny_qwen2_5_vl_folder, visual_token_budget=64)
    clip = decoded(video, family, Sampling(num_frames=8))
    channel = build_side_channel(parse_side_spec("highfps[fps=10]"), family, HERE)
    assert len(channel.features({"video": str(video)}, clip).features) == 10


def test_sounds_of_the_mini_suite_are_heard_in_their_frames(tmp_path: Path) -> None:
    """Each beep of a rendered clip is loudest, in its band, in the frame that it sounds in."""
    suite = side_suite("audio")
    low, high = VOICES["beep"].pitch
    centres = _filters(64).argmax(axis=0) * RATE / FFT
    bands = torch.from_numpy((centres >= low) & (centres <= high))
    channel = build_side_channel(parse_side_spec("audio"), None, HERE)
    for clip in suite.test.clips[:4]:
        path = tmp_path / f"{clip.name}.mp4"
        clip.write(path)
        frames = read_clip(VideoRef(str(path)), Sampling(num_frames=8))
        side = channel.features({"video": str(path)}, frames)
        # By time also where steps divide among the frames: a shift of nothing much asks for it.
        found = neighbors(frame_spans(frames, 8), side.spans, shift=1e-6)
        assert found is not None
        level = side.features[:, 0, 0, bands].amax(dim=1)
        by_frame = torch.stack([level[list(own)].amax() for own in found])
        scene: Any = clip.scene
        seconds = scene.num_frames / scene.fps
        beeps = [tone for tone in scene.track.tones if tone.voice == "beep"]
        expected = {int(8 * tone.start / seconds) for tone in beeps}
        loudest = set(by_frame.topk(len(expected)).indices.tolist())
        assert loudest == expected
