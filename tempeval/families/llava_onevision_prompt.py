"""Tokenizer, chat template and processor for the original LLaVA-OneVision, which has no processor.

Its prompt is ChatML with Qwen's system turn (`qwen_1_5` in LLaVA-NeXT), and an image or a video is
a token that its tokenizer does not have.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SYSTEM = "You are a helpful assistant."
PLACEHOLDERS = ("<image>", "<video>")

#: Of each turn the visuals first, a space between them, then a line break, then the texts.
CHAT_TEMPLATE = (
    "{% if not messages or messages[0]['role'] != 'system' %}"
    "<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}"
    "{% for message in messages %}"
    "{% set texts = message['content'] | selectattr('type', 'equalto', 'text')"
    " | map(attribute='text') | join %}"
    "{% if message['role'] != 'system' or texts %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] if part['type'] in ['image', 'video'] %}"
    "{{ '<' + part['type'] + '>' + ('\n' if loop.last else ' ') }}{% endfor %}"
    "{{ texts }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def load_tokenizer(folder: Path, config: Mapping[str, Any]) -> Any:
    """Load the Qwen2 tokenizer of a folder and add the placeholder tokens.

    Args:
        folder: checkpoint folder, with `tokenizer.json`, or `vocab.json` and `merges.txt`.
        config: its `config.json`.

    Raises:
        UnsupportedModel: if files are missing or broken, or the tokens do not fit the model.
    """
    import transformers
    from tokenizers import AddedToken

    has = [(folder / n).is_file() for n in ("tokenizer.json", "vocab.json", "merges.txt")]
    if not has[0] and not (has[1] and has[2]):
        raise UnsupportedModel(
            f"checkpoint {str(folder)!r} has no tokenizer (tokenizer.json, or vocab.json with "
            "merges.txt). Download it again"
        )
    _check_json(folder / ("tokenizer.json" if has[0] else "vocab.json"))
    try:
        tokenizer = transformers.Qwen2Tokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnsupportedModel(f"cannot load the tokenizer of {str(folder)!r}: {error}") from error
    for mark in ("<|im_start|>", "<|im_end|>"):
        if len(tokenizer(mark, add_special_tokens=False)["input_ids"]) != 1:
            raise UnsupportedModel(
                f"{str(folder)!r}: its tokenizer has no token {mark}, so it is not the one of "
                "LLaVA-OneVision (Qwen2)"
            )
    size = config.get("vocab_size")
    if isinstance(size, int) and len(tokenizer) > size:
        raise UnsupportedModel(
            f"{str(folder)!r}: its tokenizer has {len(tokenizer)} tokens, the model {size}"
        )
    # Their ids follow the tokenizer's own. They need no embedding: visual tokens take their place.
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in PLACEHOLDERS])
    return tokenizer


def _check_json(path: Path) -> None:
    """Refuse a damaged file by name: tokenizers raises a bare `Exception` for it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON: {error}. Download it again") from error
    if not isinstance(content, dict):
        raise UnsupportedModel(f"{path} is not of a tokenizer. Download it again")


def build_processor(config: Any, tokenizer: Any) -> Any:
    """Return the processor of a `LlavaOnevisionConfig`, with pixels as LLaVA's own has them.

    Every square is resized bicubically, and scaled to -1 to 1.
    """
    import transformers

    vision = config.vision_config
    size = {"height": vision.image_size, "width": vision.image_size}
    pixels = {"size": size, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return transformers.LlavaOnevisionProcessor(
        image_processor=transformers.LlavaOnevisionImageProcessor(
            **pixels, image_grid_pinpoints=config.image_grid_pinpoints
        ),
        tokenizer=tokenizer,
        video_processor=transformers.LlavaOnevisionVideoProcessor(**pixels),
        num_image_tokens=(vision.image_size // vision.patch_size) ** 2,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=config.vision_aspect_ratio,
        chat_template=CHAT_TEMPLATE,
    )
