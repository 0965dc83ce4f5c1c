"""Train a tiny model on freshly drawn clips, on CPU, in a fixed number of steps."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from tempeval.errors import InvalidSetting
from tempeval.mini.card import write_card
from tempeval.mini.checkpoint import load_checkpoint, save_checkpoint
from tempeval.mini.evaluate import evaluate_orders, read_test_clips
from tempeval.mini.models import mini_model
from tempeval.mini.pack import Packer, answer_states, visual_tokens
from tempeval.mini.paint import paint_frames
from tempeval.mini.probes import Probes
from tempeval.mini.questions import KINDS, answer
from tempeval.mini.render import render_suite
from tempeval.mini.scene import SIZES, make_scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from tempeval.mini.evaluate import Accuracy
    from tempeval.mini.models.base import MiniModel
    from tempeval.mini.pack import Pack
    from tempeval.mini.scene import Scene

NUM_FRAMES = 8


@dataclass(frozen=True)
class Recipe:
    """How the shipped checkpoint is trained.

    Attributes:
        steps: optimiser steps; fixed, so that a run can be repeated.
        batch_size: clips per step; every clip brings one question of each kind.
        learning_rate: peak of AdamW's rate.
        warmup: steps of linear warm-up; a cosine to a twentieth of the peak follows.
        weight_decay: of AdamW.
        clip_norm: largest norm of the gradient.
        end_weight: weight of the loss on the end token beside the loss on the answer.
        probe_weight: weight of the probes' losses beside the loss on the answer.
        easy: fractions of the steps until which things are opaque, and from which on they are as
            faint as in the test clips.
    """

    steps: int = 2000
    batch_size: int = 12
    learning_rate: float = 1e-3
    warmup: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    end_weight: float = 0.1
    probe_weight: float = 0.3
    easy: tuple[float, float] = (0.3, 0.7)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step as a fraction of the peak."""
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        return min(1.0, (step + 1) / self.warmup) * max(0.05, cosine)

    def ease(self, step: int) -> float:
        """Return how far opacities are moved towards 1 at a step, 1 to 0."""
        start, end = self.easy
        return min(1.0, max(0.0, (end - step / self.steps) / (end - start)))


@dataclass(frozen=True)
class Progress:
    """What is reported after every step: the step, of how many, and its loss."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Trained:
    """What `train` did.

    Attributes:
        folder: the checkpoint.
        steps: optimiser steps taken.
        seconds: wall time of the steps.
        results: accuracy on the test clips, for each order of frames.
    """

    folder: Path
    steps: int
    seconds: float
    results: dict[str, Accuracy]


def train(
    family: str = "qwen2_5_vl",
    out: Path | str = "mini-checkpoint",
    *,
    steps: int | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train a tiny model, measure it on the test clips, and write its checkpoint and card.

    Args:
        family: which kind of model; one of `MINI_MODELS`.
        out: folder to write; must be empty or not exist.
        steps: optimiser steps; the recipe's number if not given.
        seed: of the weights and of the training clips; test clips come from another seed.
        threads: CPU threads. The same seed and threads repeat a run on one machine; sums are
            rounded differently elsewhere.
        progress: called after every step.

    Returns:
        The folder and what was measured.

    Raises:
        UnknownName: if the family has no recipe.
        InvalidSetting: if `out` holds files already, or a number is not positive.
    """
    kind = mini_model(family)
    recipe = Recipe() if steps is None else Recipe(steps=steps)
    if recipe.steps < 1 or threads < 1:
        raise InvalidSetting(f"steps={recipe.steps} and threads={threads} must be at least 1")
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise InvalidSetting(f"out={str(folder)!r} is not empty; give a new folder")
    clips = read_test_clips(render_suite())

    processor = kind.build_processor()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = kind.build_model(processor.tokenizer)
            probes = Probes(model.config.text_config.hidden_size)
        began = time.perf_counter()
        _fit(kind, model, probes, Packer(kind, processor), recipe, seed, progress)
        seconds = time.perf_counter() - began
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(folder, model, processor)
        results = evaluate_orders(kind, *load_checkpoint(folder), clips)
    finally:
        torch.set_num_threads(before)
    write_card(kind, folder, recipe.steps, recipe.batch_size, seed, seconds, threads, results)
    return Trained(folder, recipe.steps, seconds, results)


def _fit(
    kind: MiniModel,
    model: Any,
    probes: Probes,
    packer: Packer,
    recipe: Recipe,
    seed: int,
    progress: Callable[[Progress], None] | None,
) -> None:
    """Take the recipe's steps."""
    optimiser = torch.optim.AdamW(
        [*model.parameters(), *probes.parameters()],
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, recipe.rate)
    rng = np.random.default_rng([seed, 1])  # test scenes use other keys
    end = packer.tokenizer.eos_token_id
    model.train()
    for step in range(recipe.steps):
        scenes, pack = training_pack(packer, rng, recipe.batch_size, recipe.ease(step))
        visual = visual_tokens(kind, model, pack)
        states, after = answer_states(kind, model, pack, visual)
        answers, ends = model.lm_head(states), model.lm_head(after)
        loss = functional.cross_entropy(answers.flatten(0, 1), pack.labels.flatten())
        end_labels = torch.full_like(pack.labels, end).flatten()
        end_loss = functional.cross_entropy(ends.flatten(0, 1), end_labels)
        cells = visual[:, :, kind.lead() :]
        probe_loss = probes.place_loss(cells, pack.grid, scenes)
        probe_loss = probe_loss + probes.motion_loss(states, scenes)
        optimiser.zero_grad()
        total = loss + recipe.end_weight * end_loss + recipe.probe_weight * probe_loss
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(Progress(step + 1, recipe.steps, loss.item()))


def _easier(scene: Scene, ease: float) -> Scene:
    ball, box, lamp = (opacity + (1 - opacity) * ease for opacity in scene.opacity)
    return replace(scene, opacity=(ball, box, lamp))


def training_pack(
    packer: Packer, rng: np.random.Generator, batch_size: int, ease: float = 0.0
) -> tuple[list[Scene], Pack]:
    """Draw clips of one size and pack every kind of question about them.

    Args:
        packer: of the model's processor.
        rng: source of all randomness.
        batch_size: number of clips.
        ease: how far opacities are moved towards 1, 0 to 1.

    Returns:
        The scenes and their pack.
    """
    size = SIZES[int(rng.integers(len(SIZES)))]
    scenes = [make_scene(rng, size=size) for _ in range(batch_size)]
    if ease > 0:
        scenes = [_easier(scene, ease) for scene in scenes]
    frames, seconds = [], []
    for scene in scenes:
        indices = np.linspace(0, scene.num_frames - 1, NUM_FRAMES, dtype=np.int64)
        frames.append(paint_frames(scene, indices.tolist()))
        seconds.append((scene.num_frames - 1) / scene.fps / (NUM_FRAMES - 1))
    pack = packer.pack(
        np.stack(frames),
        seconds,
        [kind.prompt for kind in KINDS],
        [[answer(kind, scene.facts) for kind in KINDS] for scene in scenes],
    )
    return scenes, pack
