"""Build what is trained, and what trains it, from a configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import InvalidSetting
from tempeval.methods.pave_patch import PavePatch
from tempeval.methods.pave_state import PatchSizes
from tempeval.pave.order import derived_seed
from tempeval.pave.student import Student

if TYPE_CHECKING:
    from tempeval.pave.config import TrainConfig
    from tempeval.pave.prepare import Prepared


def build_student(config: TrainConfig, prepared: Prepared) -> Student:
    """Build patch and low-rank changes from the seed, and put them on the base model.

    Args:
        config: their sizes.
        prepared: the base model, and a video that tells its widths.

    Raises:
        InvalidSetting: if the base gives no features before the projector.
    """
    sizes = config.patch
    seen = prepared.seen(prepared.training[0].video)
    features = seen.tokens.features
    if features is None:
        raise InvalidSetting("a video was encoded without features before the projector")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.training.seed, "weights"))
        patch = PavePatch(
            PatchSizes(
                side=seen.side.shape[-1],
                query=features.shape[-1],
                output=seen.tokens.embeddings.shape[-1],
                hidden=sizes.hidden,
                layers=sizes.layers,
                feed_forward=sizes.feed_forward,
                output_hidden=sizes.output_hidden,
            ),
            num_heads=sizes.heads,
            kv_share=sizes.kv_share,
            use_3d_rope=sizes.use_3d_rope,
        )
        student = Student(prepared.family, patch, config.lora)
    if config.training.gradient_checkpointing:
        text: Any = prepared.family.text_model
        # transformers 5.24 renamed it.
        enable = text.gradient_checkpointing_enable
        getattr(text, "activation_checkpointing_enable", enable)({"use_reentrant": False})
    return student


def build_optimiser(
    config: TrainConfig, weights: dict[str, torch.nn.Parameter]
) -> torch.optim.AdamW:
    """Build AdamW with the patch's and the low-rank changes' own rates.

    Args:
        config: the rates.
        weights: everything that is trained, by `Student.trainable`'s names.
    """
    settings = config.training
    own = settings.patch_learning_rate
    groups = [
        {"params": [w for n, w in weights.items() if n.startswith(prefix)], "lr": rate}
        for prefix, rate in (
            ("patch.", settings.learning_rate if own is None else own),
            ("lora.", settings.learning_rate),
        )
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        betas=(0.9, settings.adam_beta2),
        weight_decay=settings.weight_decay,
    )
