"""One clip, all its questions: the packed sequences that training and quick evaluation use.

A sequence is `prefix + tail + tail + ...`: the prefix holds the system prompt and the video, each
tail one question. A tail sees the prefix and itself, and its positions continue from the prefix, so
its logits are those of the question asked alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from tempeval.families.mrope import TextSpan, VisualSpan, mrope_positions
from tempeval.mini.checkpoint import MERGE, PATCH, TEMPORAL_PATCH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

TOKENS_PER_SECOND = 2


@dataclass(frozen=True)
class Question:
    """A prompt and its answer, as text."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Pack:
    """A batch of clips of one size, each with the same list of prompts.

    Attributes:
        input_ids: long `[B, S]`.
        position_ids: long `[3, B, S]`.
        mask: bool `[1, 1, S, S]`, True where a row may see a column.
        pixels: float `[B x patches, patch values]`, as the processor makes them.
        grid: long `[B, 3]`, temporal grids and patch rows and columns.
        answer_at: long `[Q]`, the row whose logits name the answer of each question.
        labels: long `[B, Q]`, the answers' tokens.
        end_at: long `[Q]`, the row after the answer, which must name the end token.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    mask: torch.Tensor
    pixels: torch.Tensor
    grid: torch.Tensor
    answer_at: torch.Tensor
    labels: torch.Tensor
    end_at: torch.Tensor


class Packer:
    """Turn frames and questions into packs.

    Args:
        processor: gives the tokenizer, the chat template and the pixel statistics.
    """

    def __init__(self, processor: Qwen2_5_VLProcessor) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer
        video = processor.video_processor
        self.mean = torch.tensor(video.image_mean).view(1, 1, 3, 1, 1)
        self.std = torch.tensor(video.image_std).view(1, 1, 3, 1, 1)

    def token_ids(self, prompt: str) -> tuple[list[int], list[int]]:
        """Return the ids of a chat before the video pad token and after it."""
        content = [{"type": "video"}, {"type": "text", "text": prompt}]
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        before, after = text.split("<|video_pad|>")
        return self._encode(before), self._encode(after)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def patches(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Return the pixels of clips as the video processor would.

        Args:
            frames: uint8 `[B, T, H, W, 3]`, T even, H and W multiples of 28.

        Returns:
            float32 `[B x T/2 x H/14 x W/14, 3 x 2 x 14 x 14]`, rows in merge order.
        """
        clips = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 1, 4, 2, 3)
        clips = (clips.float() / 255 - self.mean) / self.std  # [B, T, 3, H, W]
        batch, length, channels, height, width = clips.shape
        t, h, w = length // TEMPORAL_PATCH, height // PATCH, width // PATCH
        blocks = clips.reshape(
            batch, t, TEMPORAL_PATCH, channels, h // MERGE, MERGE, PATCH, w // MERGE, MERGE, PATCH
        )
        blocks = blocks.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
        return blocks.reshape(batch * t * h * w, channels * TEMPORAL_PATCH * PATCH * PATCH)

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
        t, h, w = length // TEMPORAL_PATCH, height // PATCH, width // PATCH
        chats = [self.token_ids(prompt) for prompt in prompts]
        vision_end, *_ = chats[0][1]
        video = [self.processor.video_token_id] * (t * h * w // MERGE**2)
        prefix = [*chats[0][0], *video, vision_end]
        tails = [[*after[1:], -1] for _, after in chats]  # -1: the answer

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
            spans: list[TextSpan | VisualSpan] = [
                TextSpan(len(chats[0][0])),
                VisualSpan(t, h // MERGE, w // MERGE, TOKENS_PER_SECOND * seconds * TEMPORAL_PATCH),
                TextSpan(1),
            ]
            head, start = mrope_positions(spans, "original")
            counts = torch.cat([torch.arange(len(tail)) for tail in tails])
            rows.append(torch.cat([head, (start + counts).expand(3, -1)], dim=1))
        end_at = torch.tensor(slots)
        return Pack(
            input_ids=input_ids,
            position_ids=torch.stack(rows, dim=1),
            mask=mask[None, None],
            pixels=self.patches(frames),
            grid=torch.tensor([[t, h, w]]).repeat(batch, 1),
            answer_at=end_at - 1,
            labels=labels,
            end_at=end_at,
        )


def visual_tokens(model: Qwen2_5_VLForConditionalGeneration, pack: Pack) -> torch.Tensor:
    """Return the visual tokens of a pack's clips, float `[B x tokens, D]`."""
    tokens: torch.Tensor = model.model.visual(pack.pixels, grid_thw=pack.grid).pooler_output
    return tokens


def answer_states(
    model: Qwen2_5_VLForConditionalGeneration, pack: Pack, visual: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the text stack over a pack.

    Args:
        model: a tiny model.
        pack: the batch.
        visual: its visual tokens, from `visual_tokens`.

    Returns:
        Last hidden states from which the answers, and what follows them, are named; each float
        `[B, Q, D]`.
    """
    embeds = model.model.language_model.embed_tokens(pack.input_ids)
    is_video = pack.input_ids == model.config.video_token_id
    embeds = embeds.masked_scatter(is_video[..., None], visual.to(embeds.dtype))
    hidden = model.model.language_model(
        inputs_embeds=embeds,
        attention_mask={"full_attention": pack.mask},
        position_ids=pack.position_ids,
        use_cache=False,
    ).last_hidden_state
    return hidden[:, pack.answer_at], hidden[:, pack.end_at]


def answer_logits(model: Qwen2_5_VLForConditionalGeneration, pack: Pack) -> torch.Tensor:
    """Return the logits of the answers of a pack, float `[B, Q, V]`."""
    logits: torch.Tensor = model.lm_head(answer_states(model, pack, visual_tokens(model, pack))[0])
    return logits
