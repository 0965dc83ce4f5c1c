"""A tiny Qwen2.5-VL: 4 layers of 128, ViT 2 x 64, M-RoPE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from tempeval.families.mrope import TextSpan, VisualSpan, mrope_positions
from tempeval.mini.models.base import MiniModel, TokenGrid, scale_up
from tempeval.mini.models.tokens import word_tokenizer
from tempeval.mini.questions import SYSTEM
from tempeval.mini.scene import SIZES

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATCH, MERGE, TEMPORAL_PATCH = 14, 2, 2
TOKENS_PER_SECOND = 2

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

# ChatML as in Qwen2.5-VL: a default system prompt, videos and images as one pad token each.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class MiniQwen(MiniModel):
    """The kind that ships as `mini`."""

    name: ClassVar[str] = "qwen2_5_vl"
    title: ClassVar[str] = "Qwen2.5-VL"
    placeholder: ClassVar[str] = "<|video_pad|>"
    position_note: ClassVar[str] = (
        "Text after a video continues after the largest position of any axis "
        "(`position_rule=original`); temporal positions follow the true time between frames."
    )

    def build_processor(self) -> Qwen2_5_VLProcessor:
        """Return a processor that leaves frames of the suite's sizes as they are."""
        pixels = {
            "shortest_edge": min(w * h for w, h in SIZES) // 4,
            "longest_edge": max(w * h for w, h in SIZES) * 4,
        }
        patches = {
            "patch_size": PATCH,
            "merge_size": MERGE,
            "temporal_patch_size": TEMPORAL_PATCH,
            "size": pixels,
        }
        return Qwen2_5_VLProcessor(
            image_processor=Qwen2VLImageProcessor(**patches),
            tokenizer=word_tokenizer(SPECIAL, "<|im_end|>", "<|endoftext|>"),
            video_processor=Qwen2VLVideoProcessor(
                **patches, do_sample_frames=False, cap_pixels_per_frame=False
            ),
            chat_template=CHAT_TEMPLATE,
        )

    def build_config(self, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
        """Return the configuration: 4 query and 2 key heads of 32 channels."""
        token = tokenizer.convert_tokens_to_ids
        extra = {"trained_with": self.trained_with} if self.trained_with else {}
        return Qwen2_5_VLConfig(
            text_config={
                "vocab_size": len(tokenizer),
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 20.0,
                    "mrope_section": [6, 5, 5],
                },
                "bos_token_id": None,
                "eos_token_id": token("<|im_end|>"),
                "pad_token_id": token("<|endoftext|>"),
                "tie_word_embeddings": True,
            },
            vision_config={
                "depth": 2,
                "hidden_size": 64,
                "intermediate_size": 192,
                "num_heads": 4,
                "out_hidden_size": 128,
                "patch_size": PATCH,
                "spatial_merge_size": MERGE,
                "temporal_patch_size": TEMPORAL_PATCH,
                "tokens_per_second": TOKENS_PER_SECOND,
                "window_size": 112,
                "fullatt_block_indexes": [1],
            },
            image_token_id=token("<|image_pad|>"),
            video_token_id=token("<|video_pad|>"),
            vision_start_token_id=token("<|vision_start|>"),
            vision_end_token_id=token("<|vision_end|>"),
            tie_word_embeddings=True,
            # Clips keep their own size (84 to 112 px); see `QwenVL.pixel_limits`.
            tempeval={"min_pixels": 28 * 28, "max_pixels": 112 * 112},
            **extra,
        )

    def build_model(self, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
        """Return an untrained model in float32; seed torch first."""
        model = Qwen2_5_VLForConditionalGeneration(self.build_config(tokenizer))
        scale_up(model)
        model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
        return model

    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        """Return the grid: one token per 28 x 28 px and two frames."""
        side = PATCH * MERGE
        return TokenGrid(
            num_frames // TEMPORAL_PATCH, height // side, width // side, TEMPORAL_PATCH
        )

    def pixels(self, processor: Any, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Return patches as the video processor would, in one batch.

        Args:
            processor: gives the pixel statistics.
            frames: uint8 `[B, T, H, W, 3]`, T even, H and W multiples of 28.

        Returns:
            float32 `[B x T/2 x H/14 x W/14, 3 x 2 x 14 x 14]`, rows in merge order.
        """
        mean = torch.tensor(processor.video_processor.image_mean).view(1, 1, 3, 1, 1)
        std = torch.tensor(processor.video_processor.image_std).view(1, 1, 3, 1, 1)
        clips = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 1, 4, 2, 3)
        clips = (clips.float() / 255 - mean) / std  # [B, T, 3, H, W]
        batch, length, channels, height, width = clips.shape
        t, h, w = length // TEMPORAL_PATCH, height // PATCH, width // PATCH
        blocks = clips.reshape(
            batch, t, TEMPORAL_PATCH, channels, h // MERGE, MERGE, PATCH, w // MERGE, MERGE, PATCH
        )
        blocks = blocks.permute(0, 1, 4, 7, 5, 8, 3, 2, 6, 9)
        return blocks.reshape(batch * t * h * w, channels * TEMPORAL_PATCH * PATCH * PATCH)

    def num_placeholders(self, grid: TokenGrid) -> int:
        """Return one per cell."""
        return grid.grids * grid.rows * grid.columns

    def visual_tokens(
        self, model: Any, pixels: torch.Tensor, batch: int, grid: TokenGrid
    ) -> torch.Tensor:
        """Run vision tower and merger."""
        patches = torch.tensor([[grid.grids, grid.rows * MERGE, grid.columns * MERGE]])
        tokens: torch.Tensor = model.model.visual(
            pixels, grid_thw=patches.repeat(batch, 1)
        ).pooler_output
        return tokens.view(batch, grid.grids, grid.rows * grid.columns, -1)

    def positions(
        self, before: int, grid: TokenGrid, seconds_per_frame: float
    ) -> tuple[torch.Tensor, int]:
        """Return M-RoPE positions, `[3, n]`."""
        interval = TOKENS_PER_SECOND * seconds_per_frame * TEMPORAL_PATCH
        spans: list[TextSpan | VisualSpan] = [
            TextSpan(before),
            VisualSpan(grid.grids, grid.rows, grid.columns, interval),
        ]
        return mrope_positions(spans, "original")

    def position_ids(self, rows: torch.Tensor) -> torch.Tensor:
        """M-RoPE takes `[3, B, S]`."""
        return rows

    def attention_mask(self, mask: torch.Tensor) -> Any:
        """Qwen2.5-VL takes ready masks by kind of layer."""
        return {"full_attention": mask}
