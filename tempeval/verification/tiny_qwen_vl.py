"""A tiny random Qwen2-VL or Qwen2.5-VL, from the real config classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

#: The text that the byte-level BPE is trained on; other text falls back to bytes.
CORPUS = (
    "system user assistant You are a helpful assistant. Please answer with the letter only.",
    "Which way does the red square move? Does the blue square move to the left or to the right?",
    "What happens first? What happens last? How fast is it? Is it faster or slower than before?",
    "A. left B. right C. up D. down yes no true false option question video image frame time",
)

#: As Qwen2.5-VL's own: default system turn, one placeholder between vision marks per visual.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> Any:
    """Train a 400-token byte-level BPE on `CORPUS`; any text round-trips through it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, additional_special_tokens=list(SPECIAL_TOKENS[1:]), **named
    )


def save_tiny_qwen_vl(
    folder: Path, model_type: str, *, seed: int = 0, weight_scale: float = 4.0, **text: Any
) -> Path:
    """Save a random Qwen2-VL or Qwen2.5-VL with tokenizer, processors and chat template.

    Args:
        folder: where to save.
        model_type: `qwen2_vl` or `qwen2_5_vl`.
        seed: of the random weights.
        weight_scale: factor on every weight of two or more dimensions, so that logits depend on
            positions and on the video (with the default initialisation they hardly do).
        text: overrides of the text config.
    """
    import torch
    import transformers

    tokenizer = build_tokenizer()
    token_id = tokenizer.convert_tokens_to_ids
    vision: dict[str, Any] = {
        "depth": 2,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    if model_type == "qwen2_5_vl":
        config_class = transformers.Qwen2_5_VLConfig
        model_class = transformers.Qwen2_5_VLForConditionalGeneration
        processor_class = transformers.Qwen2_5_VLProcessor
        vision |= {
            "hidden_size": 64,
            "intermediate_size": 128,
            "out_hidden_size": 128,
            "window_size": 56,  # windows of 2 x 2 merged tokens in block 0
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        }
    else:
        config_class = transformers.Qwen2VLConfig
        model_class = transformers.Qwen2VLForConditionalGeneration
        processor_class = transformers.Qwen2VLProcessor
        vision |= {"embed_dim": 64, "hidden_size": 128, "mlp_ratio": 2}
    text_config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1000.0,
            "mrope_section": [4, 6, 6],
        },
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | text
    config = config_class(
        text_config=text_config,
        vision_config=vision,
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight *= weight_scale
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor = processor_class(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder
