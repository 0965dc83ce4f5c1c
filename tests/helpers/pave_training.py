"""A small training on rendered clips with sound, for tests that need a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.pave.config import TrainConfig
from tempeval.pave.settings import read_settings

if TYPE_CHECKING:
    from pathlib import Path


def small_config(out: Path, **changed: Any) -> TrainConfig:
    """Return a training of a few steps; sections in `changed` are laid over its own.

    Dropout is on and questions share passes, so that a test meets all that draws random numbers
    and all that packs.
    """
    given: dict[str, Any] = {
        "out": str(out),
        "base": {"pretrained": "mini", "frames": 8, "device": "cpu"},
        "data": {"source": "mini_audio", "clips": 6, "seed": 5, "held_out": 1},
        "side_channel": {"name": "audio", "settings": {"step": 0.1, "mels": 16}},
        "patch": {"hidden": 16, "layers": 1, "heads": 2},
        "lora": {"r": 2, "alpha": 4, "dropout": 0.1},
        "training": {
            "learning_rate": 5e-3,
            "max_grad_norm": 1.0,
            "batch_size": 2,
            "gradient_accumulation": 2,
            "questions_per_video": 2,
            "steps": 4,
        },
        "checkpoints": {"every": 2},
        "feature_cache": str(out.parent / "features"),
    }
    for name, value in changed.items():
        own = given.get(name)
        given[name] = own | value if isinstance(own, dict) and isinstance(value, dict) else value
    return read_settings(TrainConfig, given)
