"""Checkpoints of a training: everything that it needs to go on exactly where it was."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

FOLDER = "checkpoints"
WEIGHTS, OPTIMISER, FACTS = "weights.safetensors", "optimizer.pt", "state.json"
_NAME = re.compile(r"step-(\d+)")


@dataclass(frozen=True)
class Identity:
    """What must be the same for a checkpoint to be gone on from.

    Attributes:
        config: digest of the configuration.
        base: revision of the base model.
        data: digest of the examples.
        videos: digest of the content of their videos and side channels.
        micro_batches: per step, over all processes.
    """

    config: str
    base: str
    data: str
    videos: str
    micro_batches: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint as it was found.

    Attributes:
        path: its folder.
        step: optimiser steps taken. With the seed it also says where the sampler stands and what
            the random numbers are: both are functions of them.
    """

    path: Path
    step: int


def save_checkpoint(
    out: Path,
    step: int,
    weights: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    identity: Identity,
    keep: int,
) -> Checkpoint:
    """Write a checkpoint whole or not at all, and remove the oldest of more than `keep`.

    Args:
        out: folder of the training.
        step: optimiser steps taken.
        weights: everything that is trained, by name.
        optimiser: its state is written.
        scheduler: its state is written.
        identity: of the training.
        keep: newest checkpoints that stay.
    """
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    final, draft = folder / f"step-{step:07d}", folder / f"step-{step:07d}.draft"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    save_file({n: w.detach().cpu().contiguous() for n, w in weights.items()}, draft / WEIGHTS)
    state = {"optimizer": optimiser.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state, draft / OPTIMISER)
    facts = {"step": step, **asdict(identity)}
    (draft / FACTS).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    shutil.rmtree(final, ignore_errors=True)
    draft.replace(final)
    for old in checkpoints(out)[:-keep]:
        shutil.rmtree(old.path, ignore_errors=True)
    return Checkpoint(final, step)


def checkpoints(out: Path) -> list[Checkpoint]:
    """Return the whole checkpoints of a training, oldest first."""
    found = []
    for path in (out / FOLDER).glob("step-*"):
        match = _NAME.fullmatch(path.name)
        if match and (path / FACTS).is_file():
            found.append(Checkpoint(path, int(match[1])))
    return sorted(found, key=lambda each: each.step)


def load_checkpoint(
    checkpoint: Checkpoint,
    weights: Mapping[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    identity: Identity,
) -> None:
    """Put a checkpoint's state into weights, optimiser and scheduler, in place.

    Raises:
        InvalidSetting: if it is of another training, or damaged.
    """
    path = checkpoint.path
    try:
        facts = json.loads((path / FACTS).read_text("utf-8"))
        _check_identity(path, facts, identity)
        tensors = load_file(path / WEIGHTS)
        state: dict[str, Any] = torch.load(path / OPTIMISER, map_location="cpu", weights_only=True)
        if tensors.keys() != weights.keys():
            raise KeyError(*sorted(tensors.keys() ^ weights.keys())[:1])
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(tensors[name])
        optimiser.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InvalidSetting(
            f"the checkpoint {str(path)!r} cannot be read ({error}); remove it to go on from an "
            "older one"
        ) from error


def _check_identity(path: Path, facts: Mapping[str, Any], identity: Identity) -> None:
    what = {
        "config": "another configuration",
        "base": "another revision of the base model",
        "data": "other examples",
        "videos": "videos or features of other content",
        "micro_batches": "another number of micro-batches per step (accumulation x processes)",
    }
    for name, wanted in asdict(identity).items():
        if (found := facts.get(name)) != wanted:
            raise InvalidSetting(
                f"{str(path)!r} is of a training with {what[name]}: {name} {found!r}, now "
                f"{wanted!r}. Use the settings it was made with, or another `out`"
            )
