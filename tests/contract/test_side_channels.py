"""Side channels on real families, on real clips, and with the patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d
from video_files import numbers_of, picture, write_video

from tempeval.engine.encoder import DecodeOptions
from tempeval.errors import BadSideChannel
from tempeval.methods.pave_patch import equal_partition
from tempeval.mini.side import side_suite
from tempeval.mini.sound import VOICES
from tempeval.side_channels.align import equal_parts, frame_spans, neighbors
from tempeval.side_channels.audio import FFT, RATE, _filters
from tempeval.side_channels.base import doc_of
from tempeval.side_channels.extract import extract, find_videos
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


@pytest.mark.parametrize("images", [32, 20, 45])
def test_of_a_scene_frame_i_is_view_i(tmp_path: Path, images: int) -> None:
    """Images in ScanNet's layout, with depth and poses beside them, against the 3D features."""
    scene = tmp_path / "posed_images_new" / "scene0011_00"
    scene.mkdir(parents=True)
    for number in range(images):
        place = scene / f"{17 * number + number % 3:05d}.jpg"
        Image.fromarray(picture(number)).save(place, quality=95)
        Image.fromarray(picture(60)[::2, ::2]).save(place.with_suffix(".png"))
        place.with_suffix(".txt").write_text("a pose")
    clip = read_clip(VideoRef(str(scene), fps=1.0), Sampling("uniform", 32))
    views = [*range(min(images, 32)), *[images - 1] * max(0, 32 - images)]
    assert numbers_of(clip) == views
    assert clip.flags == (("repeated_frames",) if images < 32 else ())
    assert (clip.source_frames, clip.span) == (32, (0.0, 32.0))

    raw = torch.arange(32.0).repeat_interleave(576)[None, :, None].expand(1, 18432, 1024)
    (tmp_path / "features" / scene.name).mkdir(parents=True)
    torch.save(raw.half().contiguous(), tmp_path / "features" / scene.name / "video_features.pt")
    spec = parse_side_spec(f"llava_3d[folder={tmp_path / 'features'}]")
    channel = build_side_channel(spec, None, HERE)
    doc = {"video": str(scene), "fps": 1.0}

    def seen(clip: Clip, part: dict[str, float]) -> list[set[float]]:
        side = channel.features({**doc, **part}, clip)
        spans = frame_spans(clip, clip.num_frames)
        own = neighbors(spans, side.spans) or equal_partition(32, clip.num_frames)
        return [set(side.features[list(steps)].unique().tolist()) for steps in own]

    assert seen(clip, {}) == [{float(n)} for n in range(32)]
    # Of 8 frames each is among the 4 views that it stands for.
    few = read_clip(VideoRef(str(scene), fps=1.0), Sampling("uniform", 8))
    for place, own in zip(np.linspace(0, 31, 8, dtype=int), seen(few, {}), strict=True):
        assert place in own
        assert len(own) == 4
    ref = VideoRef(str(scene), start=8.0, end=11.0, fps=1.0)
    part = read_clip(ref, Sampling("uniform", 4))
    assert seen(part, {"start": 8.0, "end": 11.0}) == [{8.0}, {9.0}, {10.0}, {11.0}]


def test_features_of_a_whole_video_serve_its_parts(tmp_path: Path) -> None:
    """Converted official features and direct ones alike; on clips as they are decoded."""
    (tmp_path / "videos").mkdir()
    video = write_video(tmp_path / "videos" / "v.mp4", range(1, 101), rate=10)  # 10 s
    (tmp_path / "official").mkdir()
    torch.save(torch.arange(9.0)[:, None].expand(9, 1024).contiguous(), tmp_path / "official/v.pt")
    spec = parse_side_spec(f"imagebind[folder={tmp_path / 'official'}]")
    direct = build_side_channel(spec, None, HERE)
    extract(find_videos(video.parent, tmp_path / "out"), spec, direct, None, HERE)
    stored = build_side_channel(parse_side_spec(f"features[folder={tmp_path / 'out'}]"), None, HERE)
    for start, end, whole in (
        (None, None, True),
        (0.0, None, True),
        (0.0, 10.0, True),
        (None, 12.5, True),
        (0.0, 5.0, False),
        (4.0, 8.0, False),
    ):
        ref = VideoRef(str(video), start, end)
        clip = read_clip(ref, Sampling("uniform", 4))
        sides = [channel.features(doc_of(ref), clip) for channel in (direct, stored)]
        assert torch.equal(sides[0].features, sides[1].features)
        if whole:
            assert sides[0].spans is sides[1].spans is None
            continue
        torch.testing.assert_close(sides[0].spans, sides[1].spans)
        heard = neighbors(frame_spans(clip, 4), sides[1].spans)
        assert heard == neighbors(frame_spans(clip, 4), sides[0].spans)
        assert heard is not None
        for (first, last), own in zip(frame_spans(clip, 4).tolist(), heard, strict=True):
            # The middle of step n, which lasts from n to n + 2, is n + 1.
            assert all(first <= step + 1 < last for step in own) or len(own) == 1
