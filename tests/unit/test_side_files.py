"""Features from folders: official layouts, our own, and what cannot be used."""

from __future__ import annotations

import io
import json
import os
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tempeval.engine.encoder import DecodeOptions
from tempeval.errors import BadSideChannel
from tempeval.methods.pave_patch import PavePatch
from tempeval.methods.pave_state import PatchSizes
from tempeval.side_channels.align import equal_parts, frame_spans, neighbors
from tempeval.side_channels.content import content_key
from tempeval.side_channels.origin import origin_of
from tempeval.side_channels.registry import build_side_channel, side_spec
from tempeval.side_channels.stored import read_facts, read_features, write_features
from tempeval.stages import SideFeatures
from tempeval.video.clip import Clip
from tempeval.video.stamp import content_stamp

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.side_channels.base import SideChannel

HERE = DecodeOptions(workers=0)


def clip_of(seconds: float = 60.0, count: int = 32) -> Clip:
    return Clip(
        frames=np.zeros((count, 2, 2, 3), np.uint8),
        timestamps=np.linspace(0, seconds - 1 / 30, count),
        indices=np.arange(count),
        source="clip",
        source_frames=count,
        source_size=(2, 2),
        source_fps=30.0,
        span=(0.0, seconds),
    )


def channel(name: str, folder: Path, **settings: Any) -> SideChannel:
    return build_side_channel(side_spec(name, {"folder": str(folder), **settings}), None, HERE)


def doc(name: str = "v", **more: Any) -> dict[str, Any]:
    return {"video": f"/videos/{name}.mp4", "video_id": name, **more}


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_imagebind_has_a_window_of_two_seconds_every_second(tmp_path: Path) -> None:
    raw = numbers(59, 1024).bfloat16()
    torch.save(raw, tmp_path / "v.pt")
    side = channel("imagebind", tmp_path).features(doc(), clip_of(60.3))
    assert side.features.dtype == torch.float32
    torch.testing.assert_close(side.features, raw.float()[:, None, None])
    assert side.source == str(tmp_path / "v.pt")
    # Of the whole video: the official partition, which the released weights were trained with.
    assert side.spans is None
    assert neighbors(frame_spans(clip_of(60.3), 32), side.spans) is None
    part = channel("imagebind", tmp_path).features(doc(start=10.0, end=20.0), clip_of(10.0))
    assert part.spans is not None
    assert part.spans.tolist() == [[float(n), float(n + 2)] for n in range(59)]


def test_languagebind_loses_its_cls(tmp_path: Path) -> None:
    raw = numbers(120, 5, 1024)
    save_file({"anything": raw}, tmp_path / "v.safetensors")
    made = channel("languagebind", tmp_path)
    side = made.features(doc(), clip_of(60.5))
    assert side.features.shape == (120, 2, 2, 1024)
    for cell in range(4):
        torch.testing.assert_close(side.features[:, cell // 2, cell % 2], raw[:, 1 + cell])
    assert side.spans is None
    # Of a part, steps keep their rate of 2 per second.
    part = made.features(doc(start=10.0, end=20.0), clip_of(10.0))
    torch.testing.assert_close(part.spans, equal_parts(0, 60, 120))


OFFICIAL = {
    "imagebind": (59, 1024),
    "languagebind": (120, 5, 1024),
    "llava_3d": (1, 18432, 1024),
}
WHOLE = ({}, {"start": 0.0}, {"end": 60.0}, {"start": 0.0, "end": 60.0}, {"end": 1e9})


@pytest.mark.parametrize("part", WHOLE, ids=str)
@pytest.mark.parametrize("kind", OFFICIAL)
def test_a_part_from_end_to_end_is_the_whole_video(
    tmp_path: Path, kind: str, part: dict[str, float]
) -> None:
    torch.save(numbers(*OFFICIAL[kind]), tmp_path / "v.pt")
    side = channel(kind, tmp_path).features(doc(**part), clip_of(60.0))
    assert side.spans is None
    assert neighbors(frame_spans(clip_of(60.0), 32), side.spans) is None
    if kind != "llava_3d":
        with pytest.raises(BadSideChannel, match="another video's"):
            channel(kind, tmp_path).features(doc(**part), clip_of(20.0))


@pytest.mark.parametrize(
    ("part", "span"),
    [
        ({"start": 0.02}, (0.0, 60.0)),
        ({"end": 59.9}, (0.0, 60.0)),
        ({"start": 30.0}, (30.0, 60.0)),
        # A part's last frame lasts until the next one: past the end that was asked for.
        ({"start": 0.0, "end": 60.0}, (0.0, 60.02)),
    ],
)
def test_any_other_part_goes_by_time(
    tmp_path: Path, part: dict[str, float], span: tuple[float, float]
) -> None:
    torch.save(numbers(59, 1024), tmp_path / "v.pt")
    clip = replace(clip_of(span[1] - span[0]), span=span)
    assert channel("imagebind", tmp_path).features(doc(**part), clip).spans is not None


@pytest.mark.parametrize("kind", OFFICIAL)
def test_the_official_partition_needs_no_timestamps(tmp_path: Path, kind: str) -> None:
    torch.save(numbers(*OFFICIAL[kind]), tmp_path / "v.pt")
    clip = replace(clip_of(), span=None, timestamps=np.full(32, np.nan))
    side = channel(kind, tmp_path).features(doc(), clip)
    assert side.spans is None
    assert neighbors(frame_spans(clip, 32), side.spans) is None


def test_views_of_a_scene_have_times_in_its_own_folder_alone(tmp_path: Path) -> None:
    torch.save(numbers(1, 18432, 1024).half(), tmp_path / "s.pt")
    made = channel("llava_3d", tmp_path)
    part = {"video_id": "s", "start": 4.0, "end": 8.0, "fps": 2.0}
    clip = replace(clip_of(4.5), span=(4.0, 8.5))
    side = made.features({"video": "/data/posed_images_new/s", **part}, clip)
    torch.testing.assert_close(side.spans, equal_parts(0, 16, 32))
    with pytest.raises(BadSideChannel, match=r"steps have no times.*part \(4\.0, 8\.0\)"):
        made.features({"video": "/data/frames/s", **part}, clip)


@pytest.mark.parametrize("layout", ["flat", "nested"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_frame_sees_its_own_view_of_a_scene(tmp_path: Path, layout: str, suffix: str) -> None:
    """32 views, 32 frames: changing a token of view i changes what is added to frame i alone."""
    scene = "scene0011_00"
    frames = tmp_path / "posed_images_new" / scene
    frames.mkdir(parents=True)
    (frames / "00000.jpg").touch()
    folder = tmp_path / "features"
    folder.mkdir()
    path = folder / f"{scene}{suffix}"
    if layout == "nested":
        (folder / scene).mkdir()
        path = folder / scene / f"video_features{suffix}"
    raw = numbers(1, 18432, 1024).half()
    if suffix == ".pt":
        torch.save(raw, path)
    else:
        save_file({"features": raw}, path)
    clip = clip_of(32.0)
    side = channel("llava_3d", folder).features({"video": str(frames)}, clip)
    assert side.features.shape == (32, 24, 24, 1024)
    near = neighbors(frame_spans(clip, 32), side.spans)
    assert near is None
    if (layout, suffix) != ("flat", ".pt"):
        return
    patch = PavePatch(PatchSizes(side=1024, query=6, output=5, hidden=8, layers=1)).eval()
    torch.nn.init.normal_(patch.output_norm.weight, generator=torch.Generator().manual_seed(0))
    query = numbers(32, 4, 6)
    with torch.no_grad():
        before = patch(side.features, query, near)
        for view, row, column in ((0, 0, 0), (7, 23, 23), (31, 5, 11)):
            changed = raw[0].float().clone()
            changed[view * 576 + row * 24 + column] += 50
            after = patch(changed.view(32, 24, 24, 1024), query, near)
            moved = (after - before).abs().amax(dim=(1, 2)) > 1e-6
            assert moved.nonzero().flatten().tolist() == [view]


def test_safetensors_come_before_pickles(tmp_path: Path) -> None:
    torch.save(numbers(5, 1024), tmp_path / "v.pt")
    save_file({"features": numbers(59, 1024)}, tmp_path / "v.safetensors")
    assert len(channel("imagebind", tmp_path).features(doc(), clip_of()).features) == 59


class _Shell:
    """Runs a command when it is unpickled by an ordinary `torch.load`."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def _saved(value: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


def _with_nan(*shape: int) -> torch.Tensor:
    values = numbers(*shape)
    values.view(-1)[7] = float("nan")
    return values


def _cut(path: Path) -> None:
    torch.save(numbers(59, 1024), path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _old_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"features": [1.0, 2.0]}))


BAD: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    "missing": ("imagebind", lambda path: None, r"no such file; accepted: v\.safetensors, v\.pt"),
    "width": (
        "imagebind",
        _saved(numbers(59, 768)),
        r"shape \[59, 768\]; accepted: \[any, 1024\]",
    ),
    "rank": (
        "imagebind",
        _saved(numbers(1, 59, 1024)),
        r"shape \[1, 59, 1024\]; accepted: \[any, 1024\]",
    ),
    "zero steps": ("imagebind", _saved(numbers(0, 1024)), r"are empty: shape \(0, 1024\)"),
    "nan": ("imagebind", _saved(_with_nan(59, 1024)), "1 of its 60416 numbers are not finite"),
    "another video's": (
        "imagebind",
        _saved(numbers(29, 1024)),
        "it has 29 steps of one second, but this video calls for 59 .*another video's",
    ),
    "whole numbers": ("imagebind", _saved(torch.ones(59, 1024, dtype=torch.int64)), "torch.int64"),
    "two tensors": (
        "imagebind",
        _saved({"a": numbers(2), "b": numbers(2)}),
        r"tensors \['a', 'b'\]; accepted: one",
    ),
    "no tensor": ("imagebind", _saved({"features": [1.0]}), "'features' is a list"),
    "cut": ("imagebind", _cut, "the file cannot be read"),
    "empty": ("imagebind", Path.touch, "the file cannot be read"),
    "text": ("imagebind", lambda p: p.write_text("no tensors"), "not a file of tensors|be read"),
    "old pickle": ("imagebind", _old_pickle, "not a file of tensors|cannot be read|is a list"),
    "no cls": ("languagebind", _saved(numbers(120, 4, 1024)), r"accepted: \[any, 5, 1024\]"),
    "another rate": ("languagebind", _saved(numbers(60, 5, 1024)), "calls for 120"),
    "few views": ("llava_3d", _saved(numbers(1, 576, 1024)), r"accepted: \[1, 18432, 1024\]"),
    "not ours": ("features", _saved(numbers(5, 1024)), r"accepted: \[any, any, any, any\]"),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    kind, make, problem = BAD[name]
    make(tmp_path / "v.pt")
    with pytest.raises(BadSideChannel, match=problem) as caught:
        channel(kind, tmp_path).features(doc(), clip_of())
    assert str(tmp_path / "v") in str(caught.value)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", ["torch", "bare"])
def test_a_pickle_that_is_not_weights_is_never_run(tmp_path: Path, protocol: str) -> None:
    mark = tmp_path / "was_run"
    shell = _Shell(mark)
    if protocol == "torch":
        torch.save({"features": shell}, tmp_path / "v.pt")
    else:
        (tmp_path / "v.pt").write_bytes(pickle.dumps(shell))
    if protocol == "torch":
        torch.load(tmp_path / "v.pt", weights_only=False)
    else:
        pickle.loads((tmp_path / "v.pt").read_bytes())  # noqa: S301
    assert mark.exists(), "the file is harmless, the test is not worth anything"
    mark.unlink()
    with pytest.raises(BadSideChannel, match="not a file of tensors"):
        channel("imagebind", tmp_path).features(doc(), clip_of())
    assert not mark.exists()


def test_damaged_safetensors_are_named(tmp_path: Path) -> None:
    for content in (b"", b"\xff" * 100, io.BytesIO(b"{}").getvalue()):
        (tmp_path / "v.safetensors").write_bytes(content)
        with pytest.raises(BadSideChannel, match="the file cannot be read"):
            channel("imagebind", tmp_path).features(doc(), clip_of())


def test_every_way_of_cutting_a_pickle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "v.pt"
    torch.save(torch.ones(2, 1024)[:, :3], path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for end in range(min(len(whole) - 1, 800)):
        path.write_bytes(whole[:end])
        with pytest.raises(BadSideChannel):
            channel("imagebind", tmp_path).features(doc(), clip_of())


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "v.pt")
    with pytest.raises(BadSideChannel, match="no such file"):
        channel("imagebind", tmp_path).features(doc(), clip_of())


def test_ids_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    torch.save(numbers(59, 1024), tmp_path / "out.pt")
    with pytest.raises(BadSideChannel, match="not a plain name"):
        channel("imagebind", tmp_path / "in").features(doc("../out"), clip_of())


@pytest.mark.parametrize("layout", ["flat", "nested"])
def test_shuffled_files_are_those_of_other_videos(tmp_path: Path, layout: str) -> None:
    lengths = {f"v{n}": 10 + n for n in range(5)}
    for name, steps in lengths.items():
        if layout == "nested":
            (tmp_path / name).mkdir()
        place = f"{name}/video_features.pt" if layout == "nested" else f"{name}.pt"
        torch.save(numbers(steps, 1024), tmp_path / place)
    (tmp_path / "notes.txt").touch()
    shuffled = channel("imagebind", tmp_path, shuffle=1)
    found = {name: len(shuffled.features(doc(name), clip_of()).features) for name in lengths}
    assert sorted(found.values()) == sorted(lengths.values())
    assert all(found[name] != lengths[name] for name in lengths)
    assert found == {
        name: len(shuffled.features(doc(name), clip_of()).features) for name in lengths
    }
    with pytest.raises(BadSideChannel, match="no such file"):
        shuffled.features(doc("stranger"), clip_of())


def test_a_stamp_names_what_is_read(tmp_path: Path) -> None:
    made = channel("imagebind", tmp_path)
    assert made.stamp(doc()).startswith("missing: ")
    torch.save(numbers(59, 1024), tmp_path / "v.pt")
    before = made.stamp(doc())
    assert before.startswith("v.pt: ")
    assert made.stamp(doc()) == before
    torch.save(numbers(58, 1024), tmp_path / "v.pt")
    assert made.stamp(doc()) != before
    torch.save(numbers(58, 1024), tmp_path / "w.pt")
    assert channel("imagebind", tmp_path, shuffle=0).stamp(doc()).startswith("w.pt: ")


def stored(path: Path, **facts: Any) -> SideFeatures:
    side = SideFeatures(numbers(6, 2, 3, 5), equal_parts(0.5, 3.5, 6))
    write_features(path, side, {"video_id": "v", "duration": 4.0, **facts})
    return side


def test_our_own_files_keep_features_and_times(tmp_path: Path) -> None:
    side = stored(tmp_path / "v.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["v.safetensors"]
    got = channel("features", tmp_path, width=5).features(doc(), clip_of(4.0))
    torch.testing.assert_close(got.features, side.features)
    torch.testing.assert_close(got.spans, side.spans)
    assert read_facts(tmp_path / "v.safetensors") == {"video_id": "v", "duration": 4.0}
    write_features(tmp_path / "w.safetensors", SideFeatures(side.features), {})
    assert read_features(tmp_path / "w.safetensors")[0].spans is None


def test_our_own_files_know_their_video(tmp_path: Path) -> None:
    stored(tmp_path / "v.safetensors")
    stored(tmp_path / "other.safetensors")
    made = channel("features", tmp_path)
    with pytest.raises(BadSideChannel, match="made of video 'v'; accepted: features of 'other'"):
        made.features(doc("other"), clip_of(4.0))
    with pytest.raises(BadSideChannel, match=r"4 seconds, but this video calls for 9 .*another"):
        made.features(doc(), clip_of(9.0))
    made.features(doc(start=1.0), clip_of(9.0))  # of a part the video's duration is not known
    channel("features", tmp_path, shuffle=0).features(doc(), clip_of(9.0))
    with pytest.raises(BadSideChannel, match=r"accepted: \[any, any, any, 7\]"):
        channel("features", tmp_path, width=7).features(doc(), clip_of(4.0))


def test_our_own_files_of_a_whole_video_serve_its_parts_by_time(tmp_path: Path) -> None:
    side = SideFeatures(numbers(60, 1, 1, 5))
    write_features(tmp_path / "v.safetensors", side, {}, equal_parts(0, 60, 60))
    made = channel("features", tmp_path)
    assert made.features(doc(), clip_of()).spans is None
    assert made.features(doc(start=0.0, end=60.0), clip_of()).spans is None
    clip = replace(clip_of(10.0, 10), timestamps=30 + np.arange(10.0), span=(30.0, 40.0))
    part = made.features(doc(start=30.0, end=39.5), clip)
    assert neighbors(frame_spans(clip, 10), part.spans) == [range(n, n + 1) for n in range(30, 40)]
    write_features(tmp_path / "v.safetensors", side, {})
    assert made.features(doc(), clip_of()).spans is None
    with pytest.raises(BadSideChannel, match=r"steps have no times.*part \(30\.0, 39\.5\)"):
        made.features(doc(start=30.0, end=39.5), clip)


HOW: dict[str, Any] = {
    "side_channel": "highfps",
    "settings": {"fps": 8.0, "factor": None, "folder": "/somewhere"},
    "model": {"pretrained": "/m", "revision": "r1", "num_frames": 8, "dtype": "float32"},
}


def how(**changed: Any) -> dict[str, Any]:
    """`HOW` with some of it changed, by dotted path with `__`."""
    facts: dict[str, Any] = json.loads(json.dumps(HOW))
    for path, value in changed.items():
        section, _, name = path.partition("__")
        place = facts if not name else facts[section]
        place[name or section] = value
    return facts


OTHERWISE: list[dict[str, Any]] = [
    {"side_channel": "audio"},
    {"settings__fps": 4.0},
    {"model__revision": "r2"},
    {"model": None},
]
ALIKE: list[dict[str, Any]] = [
    {"settings__folder": "/elsewhere"},
    {"model__dtype": "bfloat16"},
    {"model__pretrained": "/moved"},
]


@pytest.mark.parametrize("changed", OTHERWISE, ids=str)
def test_files_that_were_made_otherwise_are_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    stored(tmp_path / "v.safetensors", **how())
    stored(tmp_path / "w.safetensors", **how(**changed), video_id="w")
    wanted = origin_of(how())
    assert wanted is not None
    own, other = channel("features", tmp_path), channel("features", tmp_path, origin=wanted)
    for made in (own, other):
        made.features(doc(), clip_of(4.0))
        with pytest.raises(BadSideChannel, match=r"w\.safetensors.* made as (audio|highfps)-"):
            made.features(doc("w"), clip_of(4.0))
    theirs = str(origin_of(how(**changed)))
    channel("features", tmp_path, origin=theirs).features(doc("w"), clip_of(4.0))
    # Its first part alone is any that begins so.
    with pytest.raises(BadSideChannel, match="accepted: imagebind"):
        channel("features", tmp_path, origin="imagebind").features(doc(), clip_of(4.0))
    channel("features", tmp_path, origin="highfps").features(doc(), clip_of(4.0))


@pytest.mark.parametrize("changed", ALIKE, ids=str)
def test_where_files_were_made_does_not_matter(tmp_path: Path, changed: dict[str, Any]) -> None:
    stored(tmp_path / "v.safetensors", **how())
    stored(tmp_path / "w.safetensors", **how(**changed), video_id="w")
    channel("features", tmp_path).features(doc("w"), clip_of(4.0))


def test_files_that_say_nothing_are_no_others(tmp_path: Path) -> None:
    for name in ("v", "w"):
        stored(tmp_path / f"{name}.safetensors", video_id=name)
        channel("features", tmp_path).features(doc(name), clip_of(4.0))
    with pytest.raises(BadSideChannel, match=r"made as not known.*accepted: audio"):
        channel("features", tmp_path, origin="audio").features(doc(), clip_of(4.0))
    stored(tmp_path / "x.safetensors", **how(), video_id="x")
    with pytest.raises(BadSideChannel, match=r"x\.safetensors.*made as highfps-.*file .* as None"):
        channel("features", tmp_path).features(doc("x"), clip_of(4.0))


def test_a_damaged_first_file_costs_its_own_video_alone(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"damaged")
    stored(tmp_path / "v.safetensors", **how())
    made = channel("features", tmp_path)
    made.features(doc(), clip_of(4.0))
    with pytest.raises(BadSideChannel, match="cannot be read"):
        made.features(doc("a"), clip_of(4.0))


@dataclass
class Base:
    """What is asked of a base model."""

    revision: str = "r1"
    pixels: int = 50

    def pixel_limits(self) -> dict[str, int]:
        return {"max_pixels": self.pixels}


def test_files_of_another_base_model_are_refused(tmp_path: Path) -> None:
    facts = how(model__max_pixels=50)
    stored(tmp_path / "v.safetensors", **facts)

    def heard(base: Base, **settings: Any) -> SideFeatures:
        spec = side_spec("features", {"folder": str(tmp_path), **settings})
        return build_side_channel(spec, base, HERE).features(doc(), clip_of(4.0))  # type: ignore[arg-type]

    heard(Base())
    for base, problem in (
        (Base("r2"), "with revision r1 made it, this one has r2"),
        (Base(pixels=60), "with max_pixels 50 made it, this one has 60"),
    ):
        for origin in (None, "highfps", origin_of({**facts, "model": None})):
            with pytest.raises(BadSideChannel, match=problem):
                heard(base, origin=origin)
        heard(base, origin=origin_of(facts))  # what it was trained with, whoever made it
    facts["settings"]["factor"] = 4
    stored(tmp_path / "v.safetensors", **facts)
    with pytest.raises(BadSideChannel, match="with num_frames 8 made it, this one has 32"):
        heard(Base())


def test_files_of_a_video_that_changed_are_refused(tmp_path: Path) -> None:
    video, copy = tmp_path / "v.mp4", tmp_path / "copy" / "v.mp4"
    video.write_bytes(b"frames")
    (tmp_path / "features").mkdir()
    stamp = list(content_stamp(str(video)) or ())
    known = {"video_stamp": stamp, "video_content": content_key(video)}
    stored(tmp_path / "features" / "v.safetensors", **known)
    made = channel("features", tmp_path / "features")

    def heard(path: Path) -> None:
        made.features({"video": str(path), "video_id": "v"}, clip_of(4.0))

    heard(video)
    copy.parent.mkdir()
    copy.write_bytes(b"frames")
    os.utime(copy, (1, 1))
    heard(copy)
    for content in (b"others", b"more frames"):
        copy.write_bytes(content)
        with pytest.raises(BadSideChannel, match=r"v\.safetensors.*the video has changed"):
            heard(copy)
    shuffled = channel("features", tmp_path / "features", shuffle=0)
    stored(tmp_path / "features" / "w.safetensors", **known)
    shuffled.features({"video": str(copy), "video_id": "w"}, clip_of(4.0))
    # Files from before contents were written say the size.
    stored(tmp_path / "features" / "v.safetensors", video_stamp=stamp)
    copy.write_bytes(b"others")
    heard(copy)
    copy.write_bytes(b"more frames")
    with pytest.raises(BadSideChannel, match="the video has changed"):
        heard(copy)


@pytest.mark.parametrize("size", [1, 64 << 10, 256 << 10, 300 << 10, 1 << 20])
def test_contents_are_told_apart_wherever_they_lie(tmp_path: Path, size: int) -> None:
    content = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(content.tobytes())
    second.write_bytes(content.tobytes())
    os.utime(second, (1, 1))
    key = content_key(first)
    assert key == content_key(second)
    for place in (0, size - 1):
        content[place] ^= 1
        second.write_bytes(content.tobytes())
        assert content_key(second) != key
        content[place] ^= 1
    second.write_bytes(content.tobytes() + b"1")
    assert content_key(second) != key
    assert content_key(tmp_path / "none") is None
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for number in range(6):
            (tmp_path / name / f"{number}.jpg").write_bytes(bytes([number] * 10))
    assert content_key(tmp_path / "one") == content_key(tmp_path / "two") != key
    (tmp_path / "two" / "5.jpg").write_bytes(bytes(10))
    assert content_key(tmp_path / "one") != content_key(tmp_path / "two")


@pytest.mark.parametrize(
    ("spans", "problem"),
    [
        (equal_parts(0, 1, 5), r"\[5, 2\]; accepted: floats \[6, 2\]"),
        (equal_parts(0, 1, 6).flip(0), "not finite seconds in order"),
        (equal_parts(0, 1, 6) * torch.nan, "not finite seconds in order"),
        (torch.zeros(6, 2, dtype=torch.int64), "torch.int64"),
    ],
)
def test_our_own_files_with_bad_times_are_named(
    tmp_path: Path, spans: torch.Tensor, problem: str
) -> None:
    tensors = {"features": numbers(6, 1, 1, 5), "spans": spans.contiguous()}
    for name in ("spans", "part_spans"):
        own = {"features": tensors["features"], name: tensors["spans"]}
        save_file(own, tmp_path / "v.safetensors")
        with pytest.raises(BadSideChannel, match=problem):
            channel("features", tmp_path).features(doc(), clip_of())
    save_file({"features": tensors["features"]}, tmp_path / "v.safetensors", {"facts": "{"})
    with pytest.raises(BadSideChannel, match="metadata is not JSON"):
        channel("features", tmp_path).features(doc(), clip_of())


def test_a_write_that_fails_leaves_the_file_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path / "v.safetensors")
    before = (tmp_path / "v.safetensors").read_bytes()

    def fail(tensors: Any, path: Path, metadata: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("tempeval.side_channels.stored.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        stored(tmp_path / "v.safetensors")
    assert (tmp_path / "v.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["v.safetensors"]
    assert json.loads(json.dumps(read_facts(tmp_path / "v.safetensors")))["video_id"] == "v"
