"""Measure a tiny checkpoint on the test clips, without the host: plain forward passes.

Used by training and by the model card; the host's own runs must agree with it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tempeval.errors import BadVideo
from tempeval.mini.pack import Packer, answer_logits
from tempeval.mini.questions import ASPECTS, KINDS, answer
from tempeval.mini.suite import suite_clips
from tempeval.video.clip import Order, Sampling, VideoRef
from tempeval.video.decode import read_clip

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.mini.models.base import MiniModel
    from tempeval.mini.suite import MiniClip
    from tempeval.video.clip import Clip

FRAME_ORDERS: dict[str, Order | None] = {
    "normal": None,
    "reversed": Order("reversed"),
    "shuffled": Order("shuffled", seed=0),
}


@dataclass
class Accuracy:
    """Counts of right answers by kind of question.

    Attributes:
        right: for each kind, the number of right answers.
        total: for each kind, the number of questions.
    """

    right: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def of_kind(self, name: str) -> float:
        """Return the accuracy for one kind, 0 to 1."""
        return self.right[name] / self.total[name]

    def of_aspect(self, aspect: str) -> float:
        """Return the accuracy over all questions of an aspect, 0 to 1."""
        kinds = [kind.name for kind in KINDS if kind.aspect == aspect]
        return sum(self.right[k] for k in kinds) / sum(self.total[k] for k in kinds)

    @property
    def overall(self) -> float:
        """The accuracy over all questions, 0 to 1."""
        return sum(self.right.values()) / sum(self.total.values())


def chance_of_aspect(aspect: str) -> float:
    """Return the expected accuracy of guessing, 0 to 1."""
    chances = [kind.chance for kind in KINDS if kind.aspect == aspect]
    return sum(chances) / len(chances)


def chance_overall() -> float:
    """Return the expected accuracy of guessing over all questions, 0 to 1."""
    return sum(kind.chance for kind in KINDS) / len(KINDS)


def read_test_clips(folder: Path, num_frames: int = 8) -> list[tuple[MiniClip, Clip]]:
    """Decode the rendered test clips.

    Args:
        folder: what `render_suite` returned.
        num_frames: frames to sample uniformly from each clip.

    Returns:
        Every test clip with its frames.
    """
    sampling = Sampling("uniform", num_frames)
    return [
        (clip, read_clip(VideoRef(str(folder / clip.path), fps=clip.folder_fps), sampling))
        for clip in suite_clips()
    ]


@torch.inference_mode()
def evaluate(
    kind: MiniModel,
    model: Any,
    processor: Any,
    clips: list[tuple[MiniClip, Clip]],
    order: Order | None = None,
    batch_size: int = 12,
) -> Accuracy:
    """Ask every question about every clip, and compare the likeliest first token with the answer.

    Args:
        kind: the kind of model.
        model: a tiny model in float32.
        processor: its processor.
        clips: what `read_test_clips` returned.
        order: a re-ordering of the sampled frames; times stay with the slots.
        batch_size: clips of one size per forward pass.

    Returns:
        Counts of right answers.

    Raises:
        BadVideo: if a clip has no usable timestamps.
    """
    model.eval()
    packer = Packer(kind, processor)
    accuracy = Accuracy()
    by_shape: dict[tuple[int, ...], list[tuple[MiniClip, Clip]]] = defaultdict(list)
    for mini, clip in clips:
        by_shape[clip.frames.shape].append((mini, clip))
    for group in by_shape.values():
        for start in range(0, len(group), batch_size):
            batch = group[start : start + batch_size]
            seconds = []
            for _, clip in batch:
                if (gap := clip.seconds_per_frame) is None:
                    raise BadVideo(clip.source, "no usable timestamps")
                seconds.append(gap)
            slots = np.arange(batch[0][1].num_frames)
            if order is not None:
                slots = order.permutation(len(slots))
            pack = packer.pack(
                np.stack([clip.frames[slots] for _, clip in batch]),
                seconds,
                [asked.prompt for asked in KINDS],
                [[answer(asked, mini.scene.facts) for asked in KINDS] for mini, _ in batch],
            )
            hits = answer_logits(kind, model, pack).argmax(-1) == pack.labels  # [B, Q]
            for column, asked in enumerate(KINDS):
                accuracy.right[asked.name] += int(hits[:, column].sum())
                accuracy.total[asked.name] += len(batch)
    return accuracy


def evaluate_orders(
    kind: MiniModel,
    model: Any,
    processor: Any,
    clips: list[tuple[MiniClip, Clip]],
) -> dict[str, Accuracy]:
    """Evaluate with frames as they are, reversed, and shuffled."""
    return {
        name: evaluate(kind, model, processor, clips, order) for name, order in FRAME_ORDERS.items()
    }


def format_table(results: dict[str, Accuracy]) -> str:
    """Return a markdown table of accuracy in percent by aspect and frame order."""
    total = next(iter(results.values())).total
    lines = [
        "| aspect | questions | chance | " + " | ".join(results) + " |",
        "|---|---:|---:|" + "---:|" * len(results),
    ]
    for aspect in ASPECTS:
        count = sum(total[kind.name] for kind in KINDS if kind.aspect == aspect)
        cells = [f"{100 * result.of_aspect(aspect):.1f}" for result in results.values()]
        chance = f"{100 * chance_of_aspect(aspect):.1f}"
        lines.append(f"| {aspect} | {count} | {chance} | " + " | ".join(cells) + " |")
    cells = [f"{100 * result.overall:.1f}" for result in results.values()]
    chance = f"{100 * chance_overall():.1f}"
    lines.append(f"| all | {sum(total.values())} | {chance} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
