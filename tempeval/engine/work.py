"""The plan of a run: questions grouped by video, in batches that never depend on what is left."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tempeval.errors import InvalidSetting, UnusableText

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from tempeval.engine.continuations import Continuations
    from tempeval.engine.question import Picture, Question
    from tempeval.families.base import Family
    from tempeval.video.clip import VideoRef

# Cost of one video relative to one question on its prefix: decode and encode once, prefill once
# per chain (estimates at 8k tokens: D + V = 0.64 s, P = 0.60 s,
# S = 0.06 s). A label more costs about a hundredth of a prefill (27 to 174 labels: 1.1 to 1.6
# prefills become 1.7 to 3.8). Only the balance between ranks depends on it.
_VIDEO_COST, _PREFILL_COST, _QUESTION_COST, _LABEL_COST = 10.6, 10.0, 1.0, 0.1


@dataclass(frozen=True)
class Item:
    """A question with its prompt's ids, placeholders not yet expanded.

    Attributes:
        question: what was asked.
        input_ids: the whole prompt, one placeholder per visual.
        prefix_length: ids through the last placeholder.
        continuations: long `[C_i]` each, the ids to score, shared between questions with the same
            texts; none for generation.
        repeat: how many questions before it in the plan are the same.
    """

    question: Question
    input_ids: tuple[int, ...]
    prefix_length: int
    continuations: tuple[torch.Tensor, ...] = ()
    repeat: int = 0

    @property
    def tail(self) -> torch.Tensor:
        """Ids after the last placeholder, long `[Q]`."""
        return torch.tensor(self.input_ids[self.prefix_length :], dtype=torch.long)

    @property
    def num_rows(self) -> int:
        """Rows that it adds to a batch: one per continuation, or the one that is generated."""
        return max(1, len(self.continuations))


@dataclass(frozen=True, eq=False)
class Batch:
    """Questions answered together: one prefix, one kind, one set of generation arguments."""

    items: tuple[Item, ...]


@dataclass(frozen=True)
class VideoWork:
    """Everything asked about one video (or one tuple of visuals).

    Attributes:
        visuals: what the prompts' placeholders stand for.
        prefixes: batches by shared prompt prefix (ids through the last placeholder).
        refused: questions whose texts the model cannot be given, with the reason; of all prefixes.
    """

    visuals: tuple[VideoRef | Picture, ...]
    prefixes: tuple[tuple[Batch, ...], ...]
    refused: tuple[tuple[Question, str], ...] = ()

    def batches(self) -> Iterator[Batch]:
        """Yield the batches of all prefixes, in order."""
        for batches in self.prefixes:
            yield from batches

    @property
    def num_questions(self) -> int:
        """Number of questions that are answered."""
        return sum(len(batch.items) for batch in self.batches())

    def cost(self, num_chains: int) -> float:
        """Estimate the work, in units of one question."""
        items = [item for batch in self.batches() for item in batch.items]
        labels = sum(item.num_rows - 1 for item in items) * _LABEL_COST
        prefills = len(self.prefixes) * _PREFILL_COST
        return _VIDEO_COST + num_chains * (prefills + len(items) * _QUESTION_COST + labels)


class Prompts:
    """Tokenises the texts of questions, each of them once however often it is asked.

    Args:
        family: tokenises.
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        self._prompts: dict[str, tuple[int, ...]] = {}
        self._labels: dict[Continuations, tuple[torch.Tensor, ...]] = {}

    def of(self, question: Question) -> tuple[int, ...]:
        """Return the ids of a question's whole prompt, one placeholder per visual.

        Raises:
            UnusableText: if one of its texts would be read as a visual.
        """
        key = json.dumps(question.texts())
        if key not in self._prompts:
            self._prompts[key] = tuple(self.family.tokenize(question.messages))
        return self._prompts[key]

    def continuations(self, question: Question) -> tuple[torch.Tensor, ...]:
        """Return the ids of the texts to score, shared by all questions that have the same.

        Raises:
            InvalidSetting: for no choices, or a choice without text, naming the sample.
            UnusableText: if one of them would be read as a visual.
        """
        named = f"sample {question.sample or question.number!r}"
        texts = question.continuations
        if not texts:
            raise InvalidSetting(f"{named} has no choices to score; give it one at least")
        if texts not in self._labels:
            self._labels[texts] = tuple(self._choice(text, named) for text in texts)
        return self._labels[texts]

    def _choice(self, text: str, named: str) -> torch.Tensor:
        self.family.check_text(text)
        ids = self.family.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InvalidSetting(
                f"{named}: the choice {text!r} has no token; every choice needs some text"
            )
        return torch.tensor(ids, dtype=torch.long)


def plan_work(prompts: Prompts, questions: Sequence[Question], batch_size: int) -> list[VideoWork]:
    """Group questions by video and prefix, and cut them into batches.

    Videos, prefixes and questions keep the order in which they first appear. A question whose
    texts hold a token that marks visuals is set apart: it fails alone.

    Args:
        prompts: tokenises.
        questions: any order, any tasks.
        batch_size: most questions in one batch; all choices of one question stay together.

    Raises:
        InvalidSetting: for a question without choices or a choice without text, naming its sample.
    """
    videos: dict[tuple[Hashable, ...], _Asked] = {}
    seen: dict[Hashable, int] = {}
    visual_ids = prompts.family.placeholder_ids
    for question in questions:
        asked = videos.setdefault(question.visual_key, _Asked(question.visuals))
        try:
            ids = prompts.continuations(question) if question.kind == "score" else ()
            prompt = prompts.of(question)
        except UnusableText as error:
            asked.refused.append((question, str(error)))
            continue
        last = max((i for i, t in enumerate(prompt) if t in visual_ids), default=-1)
        same = (question.visual_key, json.dumps(question.identity()))
        repeat = seen[same] = seen.get(same, -1) + 1
        asked.items.append(Item(question, prompt, last + 1, ids, repeat))
    return [
        VideoWork(asked.visuals, _prefixes(asked.items, batch_size), tuple(asked.refused))
        for asked in videos.values()
    ]


@dataclass
class _Asked:
    """What is asked about one video, while it is collected."""

    visuals: tuple[VideoRef | Picture, ...]
    items: list[Item] = field(default_factory=list)
    refused: list[tuple[Question, str]] = field(default_factory=list)


def assign_ranks(costs: Sequence[float], world_size: int) -> list[int]:
    """Give whole videos to ranks, balanced by cost: the dearest first, to the least loaded rank.

    Args:
        costs: of each video.
        world_size: number of ranks.

    Returns:
        The rank of each video. Ties go to the earlier video and the lower rank, so that every
        rank computes the same assignment.
    """
    load = [0.0] * world_size
    ranks = [0] * len(costs)
    for number in sorted(range(len(costs)), key=lambda n: (-costs[n], n)):
        rank = min(range(world_size), key=lambda r: (load[r], r))
        ranks[number] = rank
        load[rank] += costs[number]
    return ranks


def _prefixes(items: Sequence[Item], batch_size: int) -> tuple[tuple[Batch, ...], ...]:
    groups: dict[tuple[int, ...], list[Item]] = {}
    for item in items:
        groups.setdefault(item.input_ids[: item.prefix_length], []).append(item)
    return tuple(tuple(_batches(members, batch_size)) for members in groups.values())


def _batches(items: Sequence[Item], batch_size: int) -> list[Batch]:
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        if item.question.kind == "score":
            key: Hashable = ("score", item.input_ids)
        else:
            key = ("generate", str(sorted(item.question.gen_kwargs.items())))
        groups.setdefault(key, []).append(item)
    batches = []
    for members in groups.values():
        step = len(members) if members[0].question.kind == "score" else batch_size
        batches += [
            Batch(tuple(members[start : start + step])) for start in range(0, len(members), step)
        ]
    return batches
