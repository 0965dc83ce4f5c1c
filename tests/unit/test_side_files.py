"""Features from folders: official layouts, our own, and what cannot be used."""

from __future__ import annotations

import io
import json
import os
import pickle
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
from tempeval.side_channels.registry import build_side_channel, side_spec
from tempeval.side_channels.stored import read_facts, read_features, write_features
from tempeval.stages import SideFeatures
from tempeval.video.clip import Clip

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
    save_file(tensors, tmp_path / "v.safetensors")
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
