"""What is trained: patch and low-rank changes around the frozen text stack, from batch to loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from tempeval.methods.pave_patch import equal_partition, rope_times
from tempeval.pave.batch import IGNORED
from tempeval.pave.lora import add_lora, lora_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.families.base import Family
    from tempeval.methods.pave_patch import PavePatch
    from tempeval.pave.batch import Batch
    from tempeval.pave.config import LoraSettings
    from tempeval.pave.features import Seen


class Student(nn.Module):
    """Patch and text stack as one module, so that one wrapper can spread it over processes.

    The base is frozen, and so are weights of the patch that nothing uses (`v_linear` where values
    come from `k_linear`).

    Args:
        family: the base model; its text stack gets low-rank changes in place.
        patch: the patch.
        lora: their rank and dropout.
    """

    def __init__(self, family: Family, patch: PavePatch, lora: LoraSettings) -> None:
        super().__init__()
        family.model.requires_grad_(False)
        add_lora(family, lora)
        if patch.kv_share:
            for name, weight in patch.named_parameters():
                if ".v_linear." in name:
                    weight.requires_grad_(False)
        self.patch = patch.to(family.device)
        self.text = family.text_model
        self.head = family.model.get_output_embeddings()
        self._low_rank = lora_weights(family)
        for weight in self._low_rank.values():
            weight.data = weight.data.float()  # small steps vanish in half precision

    def forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the mean loss per answer token; and, per question, whether all of it is likeliest.

        Args:
            batch: the micro-batch.

        Returns:
            The loss `[]`; bool `[Q]`, questions in order; their losses `[Q]`.
        """
        embeds = self._heard(batch)
        hidden = self.text(
            inputs_embeds=embeds,
            position_ids=batch.position_ids,
            attention_mask=batch.mask,
            use_cache=False,
        ).last_hidden_state
        named = batch.labels != IGNORED
        logits = self.head(hidden[named]).float()
        labels = batch.labels[named]
        losses = functional.cross_entropy(logits, labels, reduction="none")
        right, per_question = _by_question(batch.labels, logits.argmax(-1) == labels, losses)
        return losses.mean(), right, per_question

    def _heard(self, batch: Batch) -> torch.Tensor:
        """Return the embeddings with what the patch adds."""
        added = patch_outputs(self.patch, batch.seen)
        embeds = batch.embeds
        rows = torch.cat([cells + n * embeds.shape[1] for n, cells in enumerate(batch.cells)])
        flat = embeds.flatten(0, 1)
        new = flat.index_add(0, rows, torch.cat([a.flatten(0, 1) for a in added]).to(flat))
        return new.view_as(embeds)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return everything that is trained, by name: `patch.` and `lora.` before their own."""
        patch = {f"patch.{n}": w for n, w in self.patch.named_parameters() if w.requires_grad}
        return patch | {f"lora.{n}": w for n, w in self._low_rank.items()}


def patch_outputs(patch: PavePatch, seen: Sequence[Seen]) -> list[torch.Tensor]:
    """Return the patch's output for each video, `[T, h * w, D]`.

    Videos whose frames have the same grid of cells go through together: a frame meets its own steps
    alone, so it does not matter whose video they are in (tested).
    """
    groups: dict[Any, list[int]] = {}
    for number, each in enumerate(seen):
        # A side channel shorter than the frames is stretched, which only one alone can be.
        alone = number if each.neighbors is None and len(each.side) < each.tokens.grid[0] else -1
        key = (each.tokens.grid[1:], each.side.shape[1:3], alone)
        groups.setdefault(key, []).append(number)
    device = patch.output_norm.weight.device
    outputs: dict[int, torch.Tensor] = {}
    for (grid, _, alone), numbers in groups.items():
        members = [seen[n] for n in numbers]
        queries = torch.cat([_queries(each) for each in members]).to(device).float()
        side = torch.cat([each.side for each in members]).to(device).float()
        neighbors = times = None
        if alone < 0:
            neighbors = _shifted(members)
            # Each video's positions are its own, wherever it stands among the others.
            own = [rope_times(each.tokens.grid[0], len(each.side)) for each in members]
            times = torch.cat([t for t, _ in own]), torch.cat([t for _, t in own])
        added = patch(side, queries, neighbors, grid=grid, times=times)
        outputs |= zip(numbers, added.split([e.tokens.grid[0] for e in members]), strict=True)
    return [outputs[n] for n in range(len(seen))]


def _queries(seen: Seen) -> torch.Tensor:
    features = seen.tokens.features
    if features is None:
        raise ValueError("a video was encoded without features before the projector")
    return features.flatten(1, 2)


def _shifted(seen: Sequence[Seen]) -> list[range]:
    """Return the neighbours of all frames, numbered through the side channels of all videos."""
    found: list[range] = []
    start = 0
    for each in seen:
        steps = len(each.side)
        own = each.neighbors or equal_partition(steps, each.tokens.grid[0])
        found += [range(r.start + start, r.stop + start) for r in own]
        start += steps
    return found


def _by_question(
    labels: torch.Tensor, right: torch.Tensor, losses: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Join tokens to questions: answers are runs of labels.

    Args:
        labels: long `[B, S]`.
        right: bool `[A]`, of the labelled tokens in order.
        losses: `[A]`.

    Returns:
        Bool `[Q]`, all tokens right; `[Q]`, the sum of their losses.
    """
    named = labels != IGNORED
    before = functional.pad(named, (1, 0))[:, :-1]
    question = (named & ~before).flatten().cumsum(0)[named.flatten()] - 1  # [A]
    count = int(question[-1]) + 1 if len(question) else 0
    wrong = torch.zeros(count, device=labels.device).index_add(0, question, (~right).float())
    sums = torch.zeros(count, device=labels.device).index_add(0, question, losses.detach().float())
    return wrong == 0, sums
