"""The model card of a tiny checkpoint, written by the run that trained and measured it."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import torch
import transformers

from tempeval.mini.evaluate import format_table
from tempeval.mini.suite import NUM_CLIPS, VERSION, digest

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.mini.evaluate import Accuracy
    from tempeval.mini.models.base import MiniModel

CARD = """\
---
license: mit
library_name: transformers
pipeline_tag: video-text-to-text
---

# tempeval mini: a tiny {title}

A {parameters:.2f} M parameter model of the class `{model_class}`, trained from
scratch on rendered clips. It exists so that tempeval can be tried and tested on a laptop CPU,
offline. It answers only the questions of the mini suite, and what it scores says nothing about 7B
models or real videos.

## Training

`tempeval mini train --family {family}` made it: {steps} steps of {batch_size} fresh clips
with {questions} questions each, seed {seed}, in {minutes:.0f} minutes on {threads} CPU thread(s)
(torch {torch}, transformers {transformers}, {machine}). Training clips are drawn from other seeds
than the {num_clips} test clips. Linear probes, on the visual tokens and on the states that answer
about motion, added losses in training and are not part of the checkpoint. {position_note}
Weights are float16.

## Measured accuracy

On the test clips as decoded from their files (suite version {version}, digest `{digest}`), 8 frames
per clip, float32, likeliest first token, in percent:

{table}

Test answers are balanced, so always giving one answer scores the same as chance. Answers are
compared with those of the clip played forwards. Played backwards, a clip has other answers to the
questions about direction, order and attribute change (and to growing and shrinking), so a model
that sees time well falls below chance there; the speed of the ball stays the same.
"""


def write_card(
    kind: MiniModel,
    folder: Path,
    steps: int,
    batch_size: int,
    seed: int,
    seconds: float,
    threads: int,
    results: dict[str, Accuracy],
) -> None:
    """Write `README.md` into a checkpoint's folder.

    Args:
        kind: the kind of model.
        folder: the checkpoint.
        steps: optimiser steps taken.
        batch_size: clips per step.
        seed: of weights and training clips.
        seconds: wall time of the steps.
        threads: CPU threads used.
        results: accuracy on the test clips, for each order of frames.
    """
    total = next(iter(results.values())).total
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    card = CARD.format(
        title=kind.title,
        family=kind.name,
        model_class=type(model).__name__,
        position_note=kind.position_note,
        parameters=sum(weight.numel() for weight in model.parameters()) / 1e6,
        steps=steps,
        batch_size=batch_size,
        questions=len(total),
        seed=seed,
        minutes=seconds / 60,
        threads=threads,
        torch=torch.__version__,
        transformers=transformers.__version__,
        machine=platform.machine(),
        num_clips=NUM_CLIPS,
        version=VERSION,
        digest=digest(),
        table=format_table(results),
    )
    (folder / "README.md").write_text(card, "utf-8")
