"""A tiny random LLaVA-OneVision in the Hugging Face format, from the real config classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.families.llava_onevision import LlavaOnevision

#: Pixels per side of a tile: 5 x 5 patches, pooled to 3 x 3 tokens per frame.
TILE = 70

#: As the published ones: of each turn the images first, then the videos, then the texts.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] + ' ' }}"
    "{% for kind in ['image', 'video'] %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', kind) %}"
    "{{ '<' + kind + '>' }}{% endfor %}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}"
    "{{ '\n' + part['text'] }}{% endfor %}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def save_tiny_llava_onevision(
    folder: Path,
    tokenizer: Any,
    *,
    seed: int = 0,
    weight_scale: float = 4.0,
    tile: int = TILE,
    **changes: Any,
) -> Path:
    """Save a random LLaVA-OneVision with tokenizer, processors and chat template.

    Args:
        folder: where to save.
        tokenizer: gets the tokens `<image>` and `<video>` added.
        seed: of the random weights.
        weight_scale: factor on every weight of two or more dimensions, and on the newline token,
            so that logits depend on positions, on the video and on newlines.
        tile: pixels per side of a tile, in patches of 14 pixels (published: 384).
        changes: overrides of the configuration (`text_config` replaces single entries).
    """
    import torch
    import transformers

    # Sizes (height, width) that an image is padded to.
    pinpoints = [[tile * rows, tile * columns] for rows in (1, 2, 3) for columns in (1, 2, 3)]

    tokenizer.add_tokens(["<image>", "<video>"], special_tokens=True)
    text = {
        "model_type": "qwen2",
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | changes.pop("text_config", {})
    vision = {
        "model_type": "siglip_vision_model",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "patch_size": 14,
        "image_size": tile,
        "vision_use_head": False,
    }
    config = transformers.LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_4",
        **changes,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.LlavaOnevisionForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim >= 2 or name.endswith("image_newline"):
                weight *= weight_scale
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    size = {"height": tile, "width": tile}
    processor = transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(
            size=size, image_grid_pinpoints=pinpoints
        ),
        tokenizer=tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(size=size),
        num_image_tokens=(tile // 14) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_4",
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


def load_llava_onevision(folder: Path, **options: Any) -> LlavaOnevision:
    """Load a folder in float32 on the CPU."""
    from tempeval.families.base import LoadOptions
    from tempeval.families.llava_onevision import LlavaOnevision

    return LlavaOnevision.load(str(folder), LoadOptions(**{"dtype": "float32", **options}))
