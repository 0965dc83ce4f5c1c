"""Random-weight Qwen2.5-VL checkpoints of any size, with a tokenizer that knows the prompts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from tempeval.bench.inputs import corpus

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
#: As Qwen2.5-VL's own: default system turn, one placeholder between vision marks per video.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a random model; the vision tower does about 0.4 of the text stack's work per token.

    Attributes:
        name: folder name.
        layers: decoder layers.
        hidden: hidden size of the text stack; heads of 64.
        vision_depth: blocks of the vision tower.
        vision_hidden: its hidden size.
        vocabulary: rows of the embedding, tied to the output head.
    """

    name: str
    layers: int
    hidden: int = 512
    vision_depth: int = 6
    vision_hidden: int = 256
    vocabulary: int = 8192


#: For the questions and the labels: 53 M parameters.
HALF_DEPTH = Shape("random-14", layers=14)
#: For the methods, whose settings are for 28 layers: 95 M parameters.
FULL_DEPTH = Shape("random-28", layers=28)
TINY = Shape("random-2", 2, hidden=128, vision_depth=2, vision_hidden=64, vocabulary=1024)
TINY_DEEP = replace(TINY, name="random-28-tiny", layers=28)


def save_random(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Save a random Qwen2.5-VL with tokenizer, processors and chat template.

    Args:
        folder: parent of the new folder.
        shape: sizes.
        seed: of the weights.

    Returns:
        The checkpoint's folder.
    """
    import transformers

    tokenizer = _tokenizer(shape.vocabulary)
    config = _config(shape, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
    model.generation_config = transformers.GenerationConfig(
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    target = folder / shape.name
    model.save_pretrained(target)
    # Frames are rendered at their final size; a processor of this range leaves them as they are.
    pixels = {"shortest_edge": 28 * 28, "longest_edge": 1 << 30}
    transformers.Qwen2_5_VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(cap_pixels_per_frame=False, size=pixels),
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(target)
    return target


def _config(shape: Shape, tokenizer: Any) -> Any:
    import transformers

    token = tokenizer.convert_tokens_to_ids
    return transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": shape.vocabulary,
            "hidden_size": shape.hidden,
            "intermediate_size": 3 * shape.hidden,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.hidden // 64,
            "num_key_value_heads": max(shape.hidden // 256, 1),
            "max_position_embeddings": 32768,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": [8, 12, 12],
            },
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": shape.vision_depth,
            "hidden_size": shape.vision_hidden,
            "intermediate_size": 8 * shape.vision_hidden // 3 // 4 * 4,
            "num_heads": shape.vision_hidden // 64,
            "out_hidden_size": shape.hidden,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [shape.vision_depth - 1],
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )


def _tokenizer(vocabulary: int) -> Any:
    """Train a byte-level BPE on the prompts, so that a common word is one token, as in Qwen's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        additional_special_tokens=list(SPECIAL[1:]),
        eos_token="<|im_end|>",  # noqa: S106 - a token of text, not a password
        pad_token="<|endoftext|>",  # noqa: S106
    )
