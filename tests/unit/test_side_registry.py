"""Names, settings and shuffling of side channels."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempeval.errors import BadSideChannel, InvalidSetting, UnknownName
from tempeval.side_channels.base import Channel, video_id, video_path
from tempeval.side_channels.registry import (
    SIDE_CHANNELS,
    build_side_channel,
    parse_side_spec,
    side_channel_class,
    side_spec,
)
from tempeval.side_channels.shuffle import VideoSiblings, cyclic_derangement, pairs
from tempeval.video.clip import SideSpec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", SIDE_CHANNELS)
def test_every_name_is_a_channel(name: str) -> None:
    cls = side_channel_class(name)
    assert issubclass(cls, Channel)
    assert cls.__doc__


def test_a_spec_holds_every_setting_sorted() -> None:
    spec = parse_side_spec("audio[step=0.05]")
    assert spec == SideSpec("audio", (("mels", 64), ("shuffle", None), ("step", 0.05)))
    assert side_spec("audio", {"step": 0.05}) == spec
    assert parse_side_spec(" audio ") == side_spec("audio", {})
    assert hash(spec)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("audoi", "did you mean 'audio'"),
        ("audio[stpe=1]", "did you mean 'step'"),
        ("audio[step]", "'step' is not 'name=value'"),
        ("audio[step=1;step=2]", "set twice"),
        ("audio[step=soon]", "audio.step='soon' is not a number"),
        ("audio step", "not of the form"),
        ("imagebind", "imagebind needs 'folder'"),
        ("imagebind[folder=/nowhere/at/all]", None),
    ],
)
def test_bad_specs_name_what_is_wrong(text: str, problem: str | None) -> None:
    if problem is None:
        spec = parse_side_spec(text)
        with pytest.raises(InvalidSetting, match="is not a folder"):
            build_side_channel(spec, None)
        return
    with pytest.raises((UnknownName, InvalidSetting), match=problem):
        parse_side_spec(text)


def test_a_tower_needs_a_model() -> None:
    with pytest.raises(InvalidSetting, match="highfps runs the vision tower"):
        build_side_channel(SideSpec("highfps"), None)


def test_names_import_no_tensor_library() -> None:
    code = (
        "import sys, tempeval.side_channels.registry, tempeval.cli_features\n"
        "sys.exit(' '.join({'torch', 'transformers', 'av'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@given(st.integers(2, 60), st.integers(0, 2**32))
def test_a_derangement_moves_everything_once(count: int, seed: int) -> None:
    moved = cyclic_derangement(count, seed)
    assert sorted(moved) == list(range(count))
    assert all(place != n for n, place in enumerate(moved))


def test_derangements_of_three_are_drawn_evenly() -> None:
    drawn = Counter(tuple(cyclic_derangement(3, seed)) for seed in range(400))
    assert set(drawn) == {(1, 2, 0), (2, 0, 1)}
    assert min(drawn.values()) > 150


def test_another_depends_on_names_and_seed_alone() -> None:
    names = [f"{n}.mp4" for n in range(20)]
    given_to = pairs(names, 3)
    assert given_to == pairs(reversed(names), 3)
    assert given_to != pairs(names, 4)
    assert sorted(given_to.values()) == sorted(names)


def test_siblings_are_of_one_kind(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.MKV", "notes.txt", ".hidden.mp4", "x.flv"):
        (tmp_path / name).touch()
    for name in ("one", "two", "empty"):
        (tmp_path / name).mkdir()
    for name in ("one", "two"):
        (tmp_path / name / "001.jpg").touch()
    siblings = VideoSiblings()
    assert siblings.another(str(tmp_path / "a.mp4"), 0) == str(tmp_path / "b.MKV")
    assert siblings.another(str(tmp_path / "one"), 0) == str(tmp_path / "two")
    # A file of a kind that is not listed is still its own kind.
    assert siblings.another(str(tmp_path / "x.flv"), 0) != str(tmp_path / "x.flv")
    (tmp_path / "b.MKV").unlink()
    with pytest.raises(BadSideChannel, match="needs another one beside it"):
        siblings.another(str(tmp_path / "a.mp4"), 0)
    with pytest.raises(BadSideChannel, match=r"'gone\.mp4' is not among"):
        siblings.another(str(tmp_path / "gone.mp4"), 0)
    with pytest.raises(BadSideChannel, match="cannot be listed"):
        siblings.another(str(tmp_path / "nowhere" / "a.mp4"), 0)


def test_ids_of_videos(tmp_path: Path) -> None:
    scene = tmp_path / "scene0000_00"
    scene.mkdir()
    assert video_id({"video": "/x/clip.a.mp4"}) == "clip.a"
    assert video_id({"video": str(scene)}) == "scene0000_00"
    assert video_id({"video": "/x/clip.mp4", "video_id": "other"}) == "other"
    for bad in ("../up", "a/b", "..", "a\\b"):
        with pytest.raises(BadSideChannel, match="not a plain name"):
            video_id({"video": "x.mp4", "video_id": bad})
    with pytest.raises(BadSideChannel, match="no 'video'"):
        video_path({"video_id": "x"})
