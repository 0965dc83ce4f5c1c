"""Build a tiny Qwen2.5-VL: configuration, tokenizer, processor, untrained weights."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from transformers import (
    AutoProcessor,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from tempeval.mini.questions import KINDS, SYSTEM
from tempeval.mini.scene import SIZES

if TYPE_CHECKING:
    from pathlib import Path

PATCH, MERGE, TEMPORAL_PATCH = 14, 2, 2
INIT_SCALE = 4.0
"""Factor on transformers' initial matrices; training stays at chance without it."""

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<unk>",
)
PUNCTUATION = tuple(".,:;?!'\"()-/")

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


def words() -> list[str]:
    """Return the closed vocabulary: the suite's words, letters, digits, yes and no."""
    texts = [SYSTEM, "system user assistant yes no option choices answer"]
    texts += [kind.prompt for kind in KINDS]
    found = {word for text in texts for word in re.findall(r"\w+", text.lower())}
    found |= set("abcdefghijklmnopqrstuvwxyz0123456789")
    return [*PUNCTUATION, *sorted(found)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word-level, lower-casing tokenizer with Qwen2.5-VL's special tokens."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="isolated"),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",  # noqa: S106
        eos_token="<|im_end|>",  # noqa: S106
        pad_token="<|endoftext|>",  # noqa: S106
        additional_special_tokens=[token for token in SPECIAL if token != "<unk>"],  # noqa: S105
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def build_processor() -> Qwen2_5_VLProcessor:
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
        tokenizer=build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(
            **patches, do_sample_frames=False, cap_pixels_per_frame=False
        ),
        chat_template=CHAT_TEMPLATE,
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """Return the configuration: 4 layers of 128, 4 query and 2 key heads of 32, ViT 2 x 64."""
    token = tokenizer.convert_tokens_to_ids
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
            "tokens_per_second": 2,
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
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLForConditionalGeneration:
    """Return an untrained model in float32; seed torch first."""
    model = Qwen2_5_VLForConditionalGeneration(build_config(tokenizer))
    for weight in model.parameters():
        if weight.ndim >= 2:
            weight.data.mul_(INIT_SCALE)
    model.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id],
        pad_token_id=tokenizer.pad_token_id,
    )
    return model


def save_checkpoint(
    folder: Path, model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor
) -> None:
    """Write weights in float16, configuration, tokenizer and processor to a folder."""
    model.half().save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner may read


def load_checkpoint(
    folder: Path,
) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """Return a saved model in float32, in evaluation mode, and its processor."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype="float32")
    return model.eval(), AutoProcessor.from_pretrained(folder)
