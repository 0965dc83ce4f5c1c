"""From examples to what one pass over a video takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tempeval.errors import InvalidSetting
from tempeval.pave.batch import Tail, Unit, make_tail
from tempeval.pave.order import derived_seed
from tempeval.side_channels.base import doc_of, video_id
from tempeval.side_channels.content import content_key

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from tempeval.families.base import Family
    from tempeval.pave.examples import Example
    from tempeval.video.clip import VideoRef


@dataclass(frozen=True)
class Videos:
    """The videos of examples, and which are held out.

    Attributes:
        items: each with its id, in the order first met.
        of_example: number of each example's video.
        held_out: numbers of the videos that are measured, not trained on; all parts of them.
    """

    items: tuple[tuple[VideoRef, str], ...]
    of_example: tuple[int, ...]
    held_out: frozenset[int]


def find_videos(examples: Sequence[Example], limit: int | None, held_out: int, seed: int) -> Videos:
    """List videos and choose those that are held out.

    Parts and copies of one video stay together, in training or out of it: it is known by its
    content, and by an id that is not just the name of its file.

    Args:
        examples: all of them.
        limit: most videos used; drawn from all if there are more.
        held_out: videos that are not trained on, drawn from the used ones.
        seed: of both draws.

    Raises:
        InvalidSetting: if nothing is left to train on.
    """
    numbers: dict[tuple[VideoRef, str], int] = {}
    of_example = [numbers.setdefault((e.video, e.video_id), len(numbers)) for e in examples]
    videos = list(numbers)
    footage = same_footage(videos)
    shuffled = np.random.default_rng(derived_seed(seed, "videos")).permutation(1 + max(footage))
    used = shuffled[:limit].tolist()
    if held_out >= len(used):
        raise InvalidSetting(
            f"data.held_out={held_out} leaves none of the {len(used)} videos to train on; parts "
            "and copies of a video count once"
        )
    kept, out = set(used), set(used[:held_out])
    # Left out ones are dropped here, so that nobody encodes them.
    place = {n: new for new, n in enumerate(n for n in range(len(videos)) if footage[n] in kept)}
    return Videos(
        tuple(videos[n] for n in place),
        tuple(place.get(number, -1) for number in of_example),
        frozenset(new for n, new in place.items() if footage[n] in out),
    )


def same_footage(videos: Sequence[tuple[VideoRef, str]]) -> list[int]:
    """Number videos so that parts and copies of one have the same number.

    Args:
        videos: files or folders, with their ids.

    Returns:
        A number for each, from 0 in the order first met.
    """
    contents: dict[str, str] = {}
    parent = list(range(len(videos)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = number = parent[parent[number]]
        return number

    met: dict[tuple[str, str], int] = {}
    for number, (ref, name) in enumerate(videos):
        if ref.path not in contents:
            contents[ref.path] = content_key(ref.path) or str(Path(ref.path).resolve())
        marks = [("content", contents[ref.path])]
        if name != video_id(doc_of(ref)):
            marks.append(("id", name))
        for mark in marks:
            first, own = sorted((root(met.setdefault(mark, number)), root(number)))
            parent[own] = first
    groups: dict[int, int] = {}
    return [groups.setdefault(root(number), len(groups)) for number in range(len(videos))]


def make_units(
    family: Family,
    examples: Sequence[Example],
    videos: Videos,
    most: int,
    skip: Container[int] = (),
) -> tuple[list[Unit], list[Unit]]:
    """Tokenize examples and group those that share a pass.

    Args:
        family: the base model.
        examples: all of them.
        videos: what `find_videos` made of them.
        most: questions per unit.
        skip: videos that cannot be used.

    Returns:
        Units to train on, and units that are held out.
    """
    groups: dict[tuple[int, tuple[int, ...]], list[Tail]] = {}
    known: dict[str, list[int]] = {}
    for example, video in zip(examples, videos.of_example, strict=True):
        if video < 0 or video in skip:
            continue
        chat = repr([(m["role"], _asked(m["content"])) for m in example.messages])
        if chat not in known:  # many examples ask the same
            known[chat] = family.tokenize(example.messages)
        head, tail = make_tail(family, known[chat], example.answer)
        groups.setdefault((video, head), []).append(tail)
    units: list[Unit] = []
    for (video, head), tails in groups.items():
        parts = [tails[start : start + most] for start in range(0, len(tails), most)]
        units += [Unit(video, head, tuple(part)) for part in parts]
    training = [unit for unit in units if unit.video not in videos.held_out]
    if not training:
        raise InvalidSetting("no example is left to train on: every video of them is unusable")
    return training, [unit for unit in units if unit.video in videos.held_out]


def _asked(content: object) -> object:
    """Return what a message says, visuals as their types alone."""
    if not isinstance(content, list):
        return content
    return [part.get("text", part["type"]) for part in content]
