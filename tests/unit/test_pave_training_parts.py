"""Parts of training, each against a slow obvious reference: order, schedule, batches, patches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.errors import InvalidSetting
from tempeval.methods.pave_patch import PavePatch
from tempeval.methods.pave_state import PatchSizes
from tempeval.pave.batch import IGNORED, packed_mask
from tempeval.pave.config import DataSettings
from tempeval.pave.encode import open_store
from tempeval.pave.examples import find_examples, jsonl_examples
from tempeval.pave.features import DiskStore, MemoryStore, Seen, video_key
from tempeval.pave.order import Order
from tempeval.pave.schedule import Schedule
from tempeval.pave.student import _by_question, patch_outputs
from tempeval.pave.units import find_videos, same_footage
from tempeval.stages import VisualTokens
from tempeval.video.clip import VideoRef

if TYPE_CHECKING:
    from pathlib import Path


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_every_pass_meets_every_unit_once(
    size: int, batch_size: int, accumulation: int, processes: int
) -> None:
    order = Order(size, batch_size, accumulation * processes, seed=7)
    count = -(-2 * size // batch_size)
    met = [unit for number in range(count) for unit in order.units(number)][: 2 * size]
    assert sorted(met[:size]) == sorted(met[size:]) == list(range(size))


@given(st.integers(0, 50), st.integers(1, 6), st.integers(1, 4))
def test_processes_share_the_micro_batches_of_one_process(
    step: int, accumulation: int, processes: int
) -> None:
    order = Order(10, 2, accumulation * processes, seed=0)
    alone = order.micro_batches(step, 0, 1)
    shared = [order.micro_batches(step, rank, processes) for rank in range(processes)]
    assert sorted(number for own in shared for number in own) == alone
    assert {len(own) for own in shared} == {accumulation}
    assert order.micro_batches(step + 1, 0, 1)[0] == alone[-1] + 1


def test_passes_differ_and_seeds_differ() -> None:
    order = Order(50, 50, 1, seed=0)
    assert order.units(0) != order.units(1)
    assert order.units(0) != Order(50, 50, 1, seed=1).units(0)
    assert order.units(0) == Order(50, 50, 1, seed=0).units(0)
    assert order.steps(3) == 3
    assert Order(50, 8, 2, seed=0).steps(1) == 4


@given(st.integers(1, 200), st.integers(0, 90).map(lambda percent: percent / 100))
def test_the_rate_rises_in_a_line_and_falls_in_a_cosine(steps: int, ratio: float) -> None:
    schedule = Schedule.of_ratio(steps, ratio)
    warmup = schedule.warmup
    assert steps * ratio <= warmup < steps * ratio + 1
    rates = [schedule(step) for step in range(steps)]
    for step, rate in enumerate(rates):
        if step < warmup:
            assert rate == step / warmup
        else:
            share = (step - warmup) / (steps - warmup)
            assert rate == pytest.approx((1 + np.cos(np.pi * share)) / 2)


def test_a_question_sees_the_prefix_and_itself() -> None:
    group = torch.tensor([[0, 0, 1, 1, 2, 2]])
    mask = packed_mask(group)[0, 0]
    for row in range(6):
        for column in range(6):
            own = int(group[0, row]) == int(group[0, column]) or int(group[0, column]) == 0
            assert bool(mask[row, column]) == (own and column <= row)


def test_answers_are_joined_to_questions() -> None:
    labels = torch.full((2, 8), IGNORED)
    labels[0, 2:4] = 5  # two tokens
    labels[0, 6:7] = 6
    labels[1, 0:2] = 7  # begins where the row above ended, and is another question all the same
    right = torch.tensor([True, False, True, True, True])
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    found, sums = _by_question(labels, right, losses)
    assert found.tolist() == [False, True, True]
    assert sums.tolist() == [3.0, 4.0, 24.0]


def _seen(rng: torch.Generator, grid: tuple[int, int, int], steps: int, matched: bool) -> Seen:
    t, h, w = grid
    tokens = VisualTokens(
        torch.randn(t * h * w, 6, generator=rng),
        grid,
        features=torch.randn(t, h, w, 5, generator=rng),
    )
    neighbors = (
        tuple(range(max(0, i - 1), min(steps, i + 2)) for i in range(t)) if matched else None
    )
    return Seen(tokens, torch.randn(steps, 1, 2, 4, generator=rng), neighbors)


@pytest.mark.parametrize("rope", [False, True])
def test_videos_go_through_the_patch_together_as_alone(rope: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    sizes = PatchSizes(side=4, query=5, output=6, hidden=128 if rope else 8)
    patch = PavePatch(sizes, num_heads=1 if rope else 2, use_3d_rope=rope)
    for weight in patch.parameters():
        torch.nn.init.normal_(weight, std=0.5, generator=rng)
    seen = [
        _seen(rng, (4, 2, 3), 9, matched=False),
        _seen(rng, (4, 3, 3), 5, matched=True),
        _seen(rng, (4, 2, 3), 3, matched=False),  # shorter than the frames: stretched
        _seen(rng, (2, 3, 2), 7, matched=True),
        _seen(rng, (4, 2, 3), 8, matched=True),
    ]
    together = patch_outputs(patch, seen)
    for each, found in zip(seen, together, strict=True):
        features = each.tokens.features
        assert features is not None
        alone = patch(each.side, features.flatten(1, 2), each.neighbors, grid=each.tokens.grid[1:])
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)


def test_features_come_back_from_disk_as_they_were(tmp_path: Path) -> None:
    seen = _seen(torch.Generator().manual_seed(1), (2, 2, 2), 5, matched=True)
    for store in (MemoryStore(), DiskStore(tmp_path)):
        assert store.get("a") is None
        store.put("a", seen)
        found = store.get("a")
        assert found is not None
        assert torch.equal(found.side, seen.side)
        assert torch.equal(found.tokens.embeddings, seen.tokens.embeddings)
        assert torch.equal(found.tokens.features, seen.tokens.features)  # type: ignore[arg-type]
        assert (found.tokens.grid, found.neighbors) == (seen.tokens.grid, seen.neighbors)
    (tmp_path / "a.safetensors").write_bytes(b"damaged")
    assert DiskStore(tmp_path).get("a") is None


def test_a_replaced_video_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    first = video_key(VideoRef(str(path)), ["x"])
    assert video_key(VideoRef(str(path)), ["x"]) == first
    assert video_key(VideoRef(str(path)), ["y"]) != first
    assert video_key(VideoRef(str(path), start=1.0), ["x"]) != first
    path.write_bytes(b"other")
    assert video_key(VideoRef(str(path)), ["x"]) != first


def _write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


LINE = {"video": "clips/a.mp4", "question": "What?", "answer": "that"}


def test_a_jsonl_file_gives_examples(tmp_path: Path) -> None:
    path = _write(tmp_path / "x.jsonl", LINE, {**LINE, "video_id": "other", "start": 1.5})
    found = jsonl_examples(path)
    one, two = found.items
    assert one.video == VideoRef(str(tmp_path / "clips" / "a.mp4"))
    assert (one.video_id, one.answer) == ("a", "that")
    assert one.messages[0]["content"][1] == {"type": "text", "text": "What?"}
    assert (two.video_id, two.video.start) == ("other", 1.5)
    moved = tmp_path / "moved"
    moved.mkdir()
    assert jsonl_examples(_write(moved / "x.jsonl", LINE)).digest != found.digest
    both = _write(moved / "y.jsonl", LINE, {**LINE, "video_id": "other", "start": 1.5})
    assert jsonl_examples(both).digest == found.digest


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({**LINE, "answer": ""}, "answer"),
        ({**LINE, "question": 3}, "question"),
        ({"video": "a.mp4"}, "question"),
        ({**LINE, "anwser": "x"}, "anwser"),
        ({**LINE, "start": "1"}, "start"),
        ({**LINE, "video": "../a.mp4"}, "leaves the folder"),
        ({**LINE, "video": "/etc/passwd"}, "leaves the folder"),
        ([1], "not an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, record: Any, said: str) -> None:
    path = _write(tmp_path / "x.jsonl", LINE, record)
    with pytest.raises(InvalidSetting, match=said) as caught:
        jsonl_examples(path)
    assert "line 2" in str(caught.value)


def test_an_empty_or_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n")
    with pytest.raises(InvalidSetting, match="no example"):
        find_examples(DataSettings("jsonl", path=str(path)))
    path.write_text("{")
    with pytest.raises(InvalidSetting, match="line 1 is not valid JSON"):
        jsonl_examples(path)
    with pytest.raises(InvalidSetting, match="cannot read"):
        jsonl_examples(tmp_path / "absent.jsonl")


def test_videos_are_listed_once_and_some_are_held_out(tmp_path: Path) -> None:
    lines = [{**LINE, "video": f"{n % 5}.mp4", "question": f"{n}?"} for n in range(20)]
    items = jsonl_examples(_write(tmp_path / "x.jsonl", *lines)).items
    videos = find_videos(items, limit=None, held_out=2, seed=1)
    assert len(videos.items) == 5
    assert len(videos.held_out) == 2
    for example, video in zip(items, videos.of_example, strict=True):
        assert videos.items[video] == (example.video, example.video_id)
    assert find_videos(items, limit=None, held_out=2, seed=1) == videos
    few = find_videos(items, limit=3, held_out=1, seed=1)
    assert len(few.items) == 3
    assert few.held_out <= set(range(3))
    assert sum(video < 0 for video in few.of_example) == 8
    with pytest.raises(InvalidSetting, match="leaves none"):
        find_videos(items, limit=None, held_out=5, seed=1)


def test_parts_and_copies_of_a_video_are_held_out_together(tmp_path: Path) -> None:
    """By content and by an explicit id; of files of one name in two folders each is its own."""
    (tmp_path / "more").mkdir()
    for name, content in (("a.mp4", b"one"), ("b.mp4", b"two"), ("more/a.mp4", b"three")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "copy.mp4").write_bytes(b"one")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "b.mp4")
    lines = [
        {"video": "a.mp4"},
        {"video": "a.mp4", "start": 1.0, "end": 2.0},
        {"video": "copy.mp4"},
        {"video": "b.mp4"},
        {"video": "more/a.mp4"},
        {"video": "link.mp4", "start": 0.5},
        {"video": "more/a.mp4", "video_id": "scene"},
        {"video": "other.mp4", "video_id": "scene"},
        {"video": "alone.mp4"},
    ]
    items = jsonl_examples(
        _write(tmp_path / "x.jsonl", *({**LINE, **line} for line in lines))
    ).items
    alike = [0, 0, 0, 1, 2, 1, 2, 2, 3]
    assert same_footage([(item.video, item.video_id) for item in items]) == alike
    for seed in range(20):
        videos = find_videos(items, limit=None, held_out=2, seed=seed)
        out = {alike[n] for n, v in enumerate(videos.of_example) if v in videos.held_out}
        left = {alike[n] for n, v in enumerate(videos.of_example) if v not in videos.held_out}
        assert len(out) == 2
        assert not out & left
        few = find_videos(items, limit=2, held_out=1, seed=seed)
        used = {alike[n] for n, v in enumerate(few.of_example) if v >= 0}
        assert len(used) == 2
        for example, video in zip(items, few.of_example, strict=True):
            assert video < 0 or few.items[video] == (example.video, example.video_id)
    with pytest.raises(InvalidSetting, match=r"leaves none of the 4 videos.*copies"):
        find_videos(items, limit=None, held_out=4, seed=0)


def test_another_id_is_another_example(tmp_path: Path) -> None:
    digests = {
        jsonl_examples(_write(tmp_path / "x.jsonl", {**LINE, **changed})).digest
        for changed in ({}, {"video_id": "b"}, {"start": 1.0}, {"question": "Why?"})
    }
    assert len(digests) == 4


def test_without_a_cache_only_names_are_kept(tmp_path: Path) -> None:
    seen = _seen(torch.Generator().manual_seed(1), (2, 2, 2), 5, matched=True)
    store = open_store("none", tmp_path / "cache")
    assert not store.keeps
    store.put("a", seen)
    assert "a" in store
    assert "b" not in store
    assert store.get("a") is None
    assert "a" in open_store("none", tmp_path / "cache")
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) == 2
