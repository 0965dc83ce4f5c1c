"""A tiny LLaVA-OneVision: SigLIP 2 x 64 at 112 px, Qwen2 4 x 128, one newline per video."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import (
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)

from tempeval.mini.models.base import MiniModel, TokenGrid, scale_up
from tempeval.mini.models.tokens import word_tokenizer
from tempeval.mini.questions import SYSTEM

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE, PATCH = 112, 14
CELLS = SIDE // PATCH // 2
"""Cells of a frame per side after 2 x 2 pooling."""

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")

# As llava-hf/llava-onevision-qwen2-7b-ov-hf: visuals first, then texts.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }} "
    "{% if message['content'] is string %}\n{{ message['content'] }}"
    "{% else %}"
    "{% for content in message['content'] if content['type'] == 'image' %}<image>{% endfor %}"
    "{% for content in message['content'] if content['type'] == 'video' %}<video>{% endfor %}"
    "{% for content in message['content'] if content['type'] == 'text' %}"
    "\n{{ content['text'] }}{% endfor %}"
    "{% endif %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class MiniLlavaOnevision(MiniModel):
    """Frames are resized to 112 x 112 px; each is 4 x 4 tokens."""

    name: ClassVar[str] = "llava_onevision"
    title: ClassVar[str] = "LLaVA-OneVision"
    placeholder: ClassVar[str] = "<video>"
    position_note: ClassVar[str] = (
        "Positions count tokens (1-D rotary); the time between frames is not told to the model."
    )

    def build_processor(self) -> LlavaOnevisionProcessor:
        """Return a processor that resizes frames to the tower's square."""
        size = {"height": SIDE, "width": SIDE}
        return LlavaOnevisionProcessor(
            image_processor=LlavaOnevisionImageProcessor(
                size=size, image_grid_pinpoints=[[SIDE, SIDE]]
            ),
            tokenizer=word_tokenizer(SPECIAL, "<|im_end|>", "<|endoftext|>"),
            video_processor=LlavaOnevisionVideoProcessor(size=size),
            num_image_tokens=(SIDE // PATCH) ** 2,
            vision_feature_select_strategy="full",
            chat_template=CHAT_TEMPLATE,
        )

    def build_config(self, tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
        """Return the configuration: 4 query and 2 key heads of 32 channels."""
        token = tokenizer.convert_tokens_to_ids
        return LlavaOnevisionConfig(
            text_config={
                "model_type": "qwen2",
                "vocab_size": len(tokenizer),
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 4096,
                "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
                "bos_token_id": None,
                "eos_token_id": token("<|im_end|>"),
                "pad_token_id": token("<|endoftext|>"),
                "tie_word_embeddings": True,
            },
            vision_config={
                "model_type": "siglip_vision_model",
                "hidden_size": 64,
                "intermediate_size": 192,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "image_size": SIDE,
                "patch_size": PATCH,
                "vision_use_head": False,
            },
            image_token_index=token("<image>"),
            video_token_index=token("<video>"),
            image_grid_pinpoints=[[SIDE, SIDE]],
            tie_word_embeddings=True,
        )

    def build_model(
        self, tokenizer: PreTrainedTokenizerFast
    ) -> LlavaOnevisionForConditionalGeneration:
        """Return an untrained model in float32; seed torch first."""
        model = LlavaOnevisionForConditionalGeneration(self.build_config(tokenizer))
        scale_up(model)
        model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
        return model

    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        """Return the grid: 4 x 4 tokens per frame, whatever its size."""
        return TokenGrid(num_frames, CELLS, CELLS, 1)

    def pixels(self, processor: Any, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Return float `[B, T, 3, 112, 112]`."""
        clips = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in frames.copy()]
        pixels: torch.Tensor = processor.video_processor(videos=clips, return_tensors="pt")[
            "pixel_values_videos"
        ]
        return pixels

    def num_placeholders(self, grid: TokenGrid) -> int:
        """Return one per cell, and the newline."""
        return grid.grids * grid.rows * grid.columns + 1

    def visual_tokens(
        self, model: Any, pixels: torch.Tensor, batch: int, grid: TokenGrid
    ) -> torch.Tensor:
        """Run vision tower, projector and pooling."""
        tokens: torch.Tensor = model.model.get_video_features(
            pixels, return_dict=True
        ).pooler_output
        # Each video ends with a newline token, which `in_prompt` adds.
        return tokens[:, :-1].reshape(batch, grid.grids, grid.rows * grid.columns, -1)

    def in_prompt(self, model: Any, visual: torch.Tensor) -> torch.Tensor:
        """End each video with the newline token."""
        newline = model.model.image_newline.view(1, 1, -1).expand(len(visual), 1, -1)
        return torch.cat([visual.flatten(1, 2), newline], dim=1)

    def attention_mask(self, mask: torch.Tensor) -> Any:
        """Qwen2 takes ready masks by kind of layer."""
        return {"full_attention": mask}
