"""What a training leaves behind: the adapter, and a record of how it was made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tempeval.methods.pave_checkpoint import save_pave
from tempeval.methods.pave_patch import PavePatch
from tempeval.pave.lora import trained_lora
from tempeval.side_channels.origin import PLACES
from tempeval.side_channels.registry import STORED
from tempeval.versions import versions
from tempeval.video.clip import SideSpec

if TYPE_CHECKING:
    from tempeval.engine.low_rank import LowRank
    from tempeval.pave.config import TrainConfig
    from tempeval.pave.prepare import Prepared
    from tempeval.pave.student import Student

RECORD = "training.json"
NEWLINES = "mm_newline_position"


def write_adapter(
    out: Path,
    config: TrainConfig,
    prepared: Prepared,
    student: Student,
    steps: int,
    measured: dict[str, float],
) -> None:
    """Write the adapter in the released layout and as safetensors, and `training.json` beside it.

    Args:
        out: folder.
        config: of the training.
        prepared: what it was made from.
        student: as it was trained.
        steps: optimiser steps taken.
        measured: last measurement on held out videos.
    """
    dtype = getattr(torch, config.save_dtype)
    record = training_record(config, prepared, steps, measured)
    known = {name: value for name, value in record.items() if isinstance(value, str | int | float)}
    metadata = {name: str(value) for name, value in known.items()}
    metadata["config"] = json.dumps(record["config"], sort_keys=True)
    metadata["side_channel"] = record["side_channel"]
    metadata["neighborhood"] = str(config.side_channel.neighborhood).lower()
    if (newlines := prepared.family.settings.get(NEWLINES)) is not None:
        metadata[NEWLINES] = newlines
    save_pave(
        out,
        _as(student.patch, dtype),
        _lora(prepared, config, dtype),
        rank=config.lora.r,
        alpha=config.lora.alpha,
        metadata=metadata,
    )
    for path in out.iterdir():
        if path.is_file():
            path.chmod(0o644)  # safetensors writes files that only their owner may read
    (out / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", "utf-8")


def training_record(
    config: TrainConfig, prepared: Prepared, steps: int, measured: dict[str, float]
) -> dict[str, Any]:
    """Return what made the adapter, as JSON values; places of this machine are left out."""
    settings = public_settings(config)
    return {
        "base_model": settings["base"]["pretrained"],
        "base_revision": prepared.family.revision,
        "family": prepared.family.name,
        "config_digest": config.digest(),
        "config": settings,
        "side_channel": spelled(trained_side(prepared)),
        "data": prepared.examples.origin,
        "data_digest": prepared.examples.digest,
        "videos_digest": prepared.content,
        "videos": len(prepared.videos.items) - len(prepared.bad),
        "videos_held_out": len(prepared.videos.held_out),
        "videos_unusable": len(prepared.bad),
        "steps": steps,
        **{f"held_out_{name}": value for name, value in measured.items()},
        "packages": versions(),
    }


def public_settings(config: TrainConfig) -> dict[str, Any]:
    """Return a configuration without what names places of this machine.

    Of a base model in a local folder and of a file of examples the own name is left.
    """
    settings = config.record()
    for name in ("out", "feature_cache"):
        del settings[name]
    base, data, side = settings["base"], settings["data"], settings["side_channel"]
    if _is_local(base["pretrained"]):
        base["pretrained"] = Path(base["pretrained"]).name
    if data["path"] is not None:
        data["path"] = Path(data["path"]).name
    side["settings"] = {k: v for k, v in side["settings"].items() if k not in PLACES}
    return settings


def trained_side(prepared: Prepared) -> SideSpec:
    """Return the side channel without where its files lie, but with how they were made."""
    spec = prepared.eyes.spec
    settings = {name: value for name, value in spec.settings if name not in PLACES}
    if spec.name == STORED and settings.get("origin") is None:
        first = prepared.videos.items[prepared.training[0].video]
        settings["origin"] = prepared.eyes.origin(*first)
    return SideSpec(spec.name, tuple(sorted(settings.items())))


def _is_local(pretrained: str) -> bool:
    place = Path(pretrained).expanduser()
    return place.is_absolute() or pretrained.startswith(".") or place.exists()


def spelled(spec: SideSpec) -> str:
    """Return a side channel as `parse_side_spec` reads it; unset settings are left out."""
    parts = [f"{name}={_text(value)}" for name, value in spec.settings if value is not None]
    return f"{spec.name}[{';'.join(parts)}]" if parts else spec.name


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _as(patch: PavePatch, dtype: torch.dtype) -> PavePatch:
    """Return a copy in a dtype: training may go on with the original."""
    state = {name: w.detach().cpu().to(dtype) for name, w in patch.state_dict().items()}
    return PavePatch.from_state_dict(
        state,
        num_heads=patch.num_heads,
        kv_share=patch.kv_share,
        use_3d_rope=patch.use_3d_rope,
    )


def _lora(prepared: Prepared, config: TrainConfig, dtype: torch.dtype) -> LowRank | None:
    trained = trained_lora(prepared.family, config.lora)
    if trained is None:
        return None
    from tempeval.engine.low_rank import LowRank

    return LowRank(
        trained.scale,
        {name: (a.to(dtype), b.to(dtype)) for name, (a, b) in trained.matrices.items()},
    )
