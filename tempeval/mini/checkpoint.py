"""Write and read a tiny checkpoint."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from transformers import AutoModelForImageTextToText, AutoProcessor

from tempeval.mini.models import mini_model

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.mini.models.base import MiniModel


def save_checkpoint(folder: Path, model: Any, processor: Any) -> None:
    """Write weights in float16, configuration, tokenizer and processor to a folder."""
    model.half().save_pretrained(folder, safe_serialization=True)
    processor.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors writes files that only their owner may read


def load_checkpoint(folder: Path) -> tuple[Any, Any]:
    """Return a saved model in float32, in evaluation mode, and its processor."""
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype="float32")
    return model.eval(), AutoProcessor.from_pretrained(folder)


def kind_of(folder: Path) -> MiniModel:
    """Return the kind of a saved checkpoint, by its configuration."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    trained_with = config.get("trained_with")
    name = config["model_type"] + (f"_{trained_with}" if trained_with else "")
    return mini_model(name)
