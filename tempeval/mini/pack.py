"""One clip, all its questions: the packed sequences that training and quick evaluation use.

A sequence is `prefix + tail + tail + ...`: the prefix ends with the video, each tail is the rest of
one question. A tail sees the prefix and itself, and its positions continue from the prefix, so
its logits are those of the question asked alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tempeval.mini.models.base import MiniModel, TokenGrid


@dataclass(frozen=True)
class Pack:
    """A batch of clips of one size, each with the same list of prompts.

    Attributes:
        input_ids: long `[B, S]`.
        position_ids: `[axes, B, S]`; 3 axes for M-RoPE, 1 for positions that count tokens.
        mask: bool `[1, 1, S, S]`, True where a row may see a column.
        pixels: what the vision tower takes, as the processor makes it.
        grid: tokens of each clip.
        answer_at: long `[Q]`, the row whose logits name the answer of each question.
        labels: long `[B, Q]`, the answers' tokens.
        end_at: long `[Q]`, the row after the answer, which must name the end token.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor
    pixels: torch.Tensor
    grid: TokenGrid
    answer_at: torch.Tensor
    labels: torch.Tensor
    end_at: torch.Tensor


class Packer:
    """Turn frames and questions into packs.

    Args:
        kind: the kind of model.
        processor: gives the tokenizer, the chat template and the pixel statistics.
    """

    def __init__(self, kind: MiniModel, processor: Any) -> None:
        self.kind = kind
        self.processor = processor
        self.tokenizer = processor.tokenizer

    def token_ids(self, prompt: str) -> tuple[list[int], list[int]]:
        """Return the ids of a chat before the video's placeholder and after it."""
        content = [{"type": "video"}, {"type": "text", "text": prompt}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split(self.kind.placeholder)
        return self._encode(before), self._encode(after)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def pack(
        self,
        frames: NDArray[np.uint8],
        seconds_per_frame: Sequence[float],
        prompts: Sequence[str],
        answers: Sequence[Sequence[str]],
    ) -> Pack:
        """Build a pack.

        Args:
            frames: uint8 `[B, T, H, W, 3]`.
            seconds_per_frame: time between sampled frames of each clip, in seconds.
            prompts: the questions, the same for every clip.
            answers: for each clip, the answer to each question.

        Returns:
            The pack.
        """
        batch, length, height, width = frames.shape[:4]
        grid = self.kind.grid(length, height, width)
        chats = [self.token_ids(prompt) for prompt in prompts]
        placeholder = self.tokenizer.convert_tokens_to_ids(self.kind.placeholder)
        prefix = [*chats[0][0], *[placeholder] * self.kind.num_placeholders(grid)]
        tails = [[*after, -1] for _, after in chats]  # -1: the answer

        ids = prefix + [token for tail in tails for token in tail]
        slots = [index for index, token in enumerate(ids) if token == -1]
        labels = torch.tensor(
            [self.tokenizer.convert_tokens_to_ids(list(clip)) for clip in answers]
        )
        input_ids = torch.tensor(ids).repeat(batch, 1)
        input_ids[:, slots] = labels

        segment = torch.tensor(
            [0] * len(prefix) + [i for i, tail in enumerate(tails, 1) for _ in tail]
        )
        same = segment[:, None] == segment[None, :]
        mask = (same | (segment[None, :] == 0)).tril()

        rows = []
        for seconds in seconds_per_frame:
            head, start = self.kind.positions(len(chats[0][0]), grid, seconds)
            counts = torch.cat([torch.arange(len(tail)) for tail in tails])
            rows.append(torch.cat([head, (start + counts).expand(len(head), -1)], dim=1))
        end_at = torch.tensor(slots)
        return Pack(
            input_ids=input_ids,
            position_ids=torch.stack(rows, dim=1),
            mask=mask[None, None],
            pixels=self.kind.pixels(self.processor, frames),
            grid=grid,
            answer_at=end_at - 1,
            labels=labels,
            end_at=end_at,
        )


def visual_tokens(kind: MiniModel, model: Any, pack: Pack) -> torch.Tensor:
    """Return the visual tokens of a pack's clips, float `[B, grids, lead + cells, D]`."""
    return kind.visual_tokens(model, pack.pixels, len(pack.input_ids), pack.grid)


def answer_states(
    kind: MiniModel, model: Any, pack: Pack, visual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the text stack over a pack.

    Args:
        kind: the kind of model.
        model: a tiny model.
        pack: the batch.
        visual: its visual tokens, from `visual_tokens`.

    Returns:
        Last hidden states from which the answers, and what follows them, are named; each float
        `[B, Q, D]`.
    """
    text = model.model.language_model
    embeds = text.embed_tokens(pack.input_ids)
    is_video = pack.input_ids == model.config.video_token_id
    tokens = kind.in_prompt(model, visual).to(embeds.dtype)
    embeds = embeds.masked_scatter(is_video[..., None], tokens)
    with kind.placed(model):
        hidden = text(
            inputs_embeds=embeds,
            attention_mask=kind.attention_mask(pack.mask),
            position_ids=kind.position_ids(pack.position_ids),
            use_cache=False,
        ).last_hidden_state
    return hidden[:, pack.answer_at], hidden[:, pack.end_at]


def answer_logits(kind: MiniModel, model: Any, pack: Pack) -> torch.Tensor:
    """Return the logits of the answers of a pack, float `[B, Q, V]`."""
    states, _ = answer_states(kind, model, pack, visual_tokens(kind, model, pack))
    logits: torch.Tensor = model.lm_head(states)
    return logits
