"""A tiny Video-LLaVA (the Hugging Face port): CLIP 3 x 64 at 112 px, Llama 4 x 128, CLS kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)

from tempeval.mini.models.base import MiniModel, TokenGrid, scale_up
from tempeval.mini.models.tokens import word_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE, PATCH = 112, 28
CELLS = SIDE // PATCH

SPECIAL = ("<pad>", "<s>", "</s>", "<image>", "<video>")

CHAT_TEMPLATE = (
    "<s>{% for message in messages %}"
    "{{ 'ASSISTANT: ' if message['role'] == 'assistant' else "
    "('USER: ' if message['role'] == 'user' else '') }}"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<image>\n"
    "{% elif content['type'] == 'video' %}<video>\n"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}"
    "{% endif %}{% endfor %}{% endif %} "
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


class MiniVideoLlava(MiniModel):
    """Frames are resized to 112 x 112 px; each is a CLS token and 4 x 4 patches of 28 px."""

    name: ClassVar[str] = "video_llava"
    title: ClassVar[str] = "Video-LLaVA (Hugging Face port)"
    placeholder: ClassVar[str] = "<video>"
    position_note: ClassVar[str] = (
        "Positions count tokens (1-D rotary); the time between frames is not told to the model."
    )

    def build_processor(self) -> VideoLlavaProcessor:
        """Return a processor that resizes frames to the tower's square, without cropping."""
        size = {
            "size": {"height": SIDE, "width": SIDE},
            "default_to_square": True,
            "do_center_crop": False,
        }
        return VideoLlavaProcessor(
            image_processor=VideoLlavaImageProcessor(**size),
            video_processor=VideoLlavaVideoProcessor(**size),
            tokenizer=word_tokenizer(SPECIAL, "</s>", "<pad>"),
            patch_size=PATCH,
            vision_feature_select_strategy="default",
            chat_template=CHAT_TEMPLATE,
        )

    def build_config(self, tokenizer: PreTrainedTokenizerFast) -> VideoLlavaConfig:
        """Return the configuration: 4 heads of 32 channels."""
        token = tokenizer.convert_tokens_to_ids
        return VideoLlavaConfig(
            text_config={
                "model_type": "llama",
                "vocab_size": len(tokenizer),
                "hidden_size": 128,
                "intermediate_size": 384,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "max_position_embeddings": 4096,
                "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
                "bos_token_id": token("<s>"),
                "eos_token_id": token("</s>"),
                "pad_token_id": token("<pad>"),
                "tie_word_embeddings": True,
            },
            vision_config={
                "model_type": "clip_vision_model",
                "hidden_size": 64,
                "intermediate_size": 192,
                "num_hidden_layers": 3,  # the last one is not used (vision_feature_layer -2)
                "num_attention_heads": 4,
                "image_size": SIDE,
                "patch_size": PATCH,
                "projection_dim": 64,
            },
            image_token_index=token("<image>"),
            video_token_index=token("<video>"),
            image_seq_length=CELLS**2,
            video_seq_length=8 * (CELLS**2 + 1),
            tie_word_embeddings=True,
        )

    def build_model(self, tokenizer: PreTrainedTokenizerFast) -> VideoLlavaForConditionalGeneration:
        """Return an untrained model in float32; seed torch first."""
        model = VideoLlavaForConditionalGeneration(self.build_config(tokenizer))
        scale_up(model)
        model.generation_config = GenerationConfig(
            do_sample=False,
            bos_token_id=tokenizer.convert_tokens_to_ids("<s>"),
            eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
            pad_token_id=tokenizer.pad_token_id,
        )
        return model

    def lead(self) -> int:
        """The CLS token."""
        return 1

    def grid(self, num_frames: int, height: int, width: int) -> TokenGrid:
        """Return the grid: 4 x 4 patches per frame, whatever its size."""
        return TokenGrid(num_frames, CELLS, CELLS, 1)

    def pixels(self, processor: Any, frames: NDArray[np.uint8]) -> torch.Tensor:
        """Return float `[B, T, 3, 112, 112]`."""
        clips = [torch.from_numpy(clip).permute(0, 3, 1, 2) for clip in frames.copy()]
        pixels: torch.Tensor = processor.video_processor(videos=clips, return_tensors="pt")[
            "pixel_values_videos"
        ]
        return pixels

    def num_placeholders(self, grid: TokenGrid) -> int:
        """Return one per patch and one CLS per frame."""
        return grid.grids * (grid.rows * grid.columns + 1)

    def visual_tokens(
        self, model: Any, pixels: torch.Tensor, batch: int, grid: TokenGrid
    ) -> torch.Tensor:
        """Run vision tower and projector."""
        tokens: torch.Tensor = model.model.get_video_features(
            pixels, return_dict=True
        ).pooler_output
        return tokens.reshape(batch, grid.grids, grid.rows * grid.columns + 1, -1)
