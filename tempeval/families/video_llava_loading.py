"""Load Video-LLaVA of either layout into the parts that the family drives."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.loading import load_checkpoint
from tempeval.families.mrope import POSITION_RULES
from tempeval.families.registry import is_original_video_llava
from tempeval.families.revision import local_folder, revision_of
from tempeval.families.video_llava_original import load_original
from tempeval.families.video_llava_prompt import OriginalPrompt, PortPrompt
from tempeval.families.video_llava_vision import PortVision

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tempeval.families.base import LoadOptions
    from tempeval.families.chat import Chat
    from tempeval.families.video_llava_vision import Vision

MODEL_CLASSES = {"video_llava": "VideoLlavaForConditionalGeneration"}


@dataclass(frozen=True)
class Parts:
    """A loaded Video-LLaVA of either layout.

    Attributes:
        model: generates; transformers' `VideoLlavaForConditionalGeneration`, or `LlamaForCausalLM`
            for the original layout.
        text_model: its decoder.
        tokenizer: of the checkpoint.
        vision: tower, projector and preprocessing.
        prompt: how chats become token ids.
        revision: commit sha, or `sha256:` content digest.
    """

    model: Any
    text_model: Any
    tokenizer: Any
    vision: Vision
    prompt: Chat
    revision: str


def load_parts(pretrained: str, options: LoadOptions) -> Parts:
    """Load a folder or hub id.

    Raises:
        UnsupportedModel: if files or weights are missing, unexpected or of another kind.
        InvalidSetting: if an option's value is not accepted.
    """
    _check_options(options)
    folder = local_folder(pretrained, options.revision)
    config = _read_config(folder)
    if is_original_video_llava(config):
        return _original_parts(pretrained, folder, config, options)
    return _port_parts(pretrained, options)


def _check_options(options: LoadOptions) -> None:
    if options.position_rule not in POSITION_RULES:
        raise InvalidSetting(
            f"position_rule={options.position_rule!r} is not one of {', '.join(POSITION_RULES)}"
        )
    for name in ("min_pixels", "max_pixels"):
        if getattr(options, name) is not None:
            raise InvalidSetting(
                f"{name}={getattr(options, name)}: Video-LLaVA's frames have one size, which its "
                f"vision tower sets; leave {name} out"
            )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnsupportedModel(f"checkpoint {str(folder)!r} has no config.json") from error
    except ValueError as error:
        raise UnsupportedModel(f"{path} is not valid JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _original_parts(
    pretrained: str, folder: Path, config: Mapping[str, Any], options: LoadOptions
) -> Parts:
    model, tokenizer, vision = load_original(folder, config, options)
    return Parts(
        model=model,
        text_model=model.model,
        tokenizer=tokenizer,
        vision=vision,
        prompt=OriginalPrompt.of(tokenizer, pretrained),
        revision=revision_of(folder),
    )


def _port_parts(pretrained: str, options: LoadOptions) -> Parts:
    loaded = load_checkpoint(
        pretrained,
        options,
        family="video_llava",
        model_classes=MODEL_CLASSES,
        needs_template=False,
    )
    config = loaded.model.config
    placeholders = {"video": config.video_token_id, "image": config.image_token_id}
    return Parts(
        model=loaded.model,
        text_model=loaded.model.model.language_model,
        tokenizer=loaded.processor.tokenizer,
        vision=PortVision(loaded.model, loaded.processor),
        prompt=PortPrompt(loaded.processor, placeholders, pretrained),
        revision=loaded.revision,
    )
