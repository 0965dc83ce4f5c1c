"""A tiny random adapter of PAVE in the released layout, and a side channel made of its seed."""

from __future__ import annotations

import json
import time
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import save_file

from tempeval.errors import BadSideChannel
from tempeval.methods.pave_patch import PavePatch
from tempeval.methods.pave_state import RELEASED_PREFIX, PatchSizes
from tempeval.side_channels.align import equal_parts, frame_spans
from tempeval.side_channels.registry import SIDE_CHANNELS, SideEntry, build_side_channel
from tempeval.stages import SideFeatures

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tempeval.families.base import Family
    from tempeval.stages import VisualTokens
    from tempeval.video.clip import Clip, FramePlan

SIDE_WIDTH = 6
LORA_PREFIX = "base_model.model.model."


def save_tiny_pave(
    folder: Path,
    family: Family,
    *,
    seed: int = 0,
    trained: bool = True,
    rank: int = 2,
    alpha: float = 3.0,
    **sizes: int,
) -> Path:
    """Save a random adapter for a family.

    Args:
        folder: where to save.
        family: the base model.
        seed: of the random weights.
        trained: whether the patch and the low-rank changes add anything.
        rank: of the low-rank changes; 0 for none.
        alpha: of the low-rank changes.
        sizes: overrides of the patch's sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * scale

    widths = {
        "side": SIDE_WIDTH,
        "query": family.feature_width,
        "output": family.geometry.hidden_size,
        "hidden": 16,
    } | sizes
    patch = PavePatch(PatchSizes(**widths))
    if trained:
        for name, weight in patch.named_parameters():
            fan_in = weight.shape[-1] if weight.ndim == 2 else 4
            weight.data = draw(*weight.shape, scale=2 * fan_in**-0.5)
            if name == "output_norm.weight":
                weight.data += 2
    torch.save(patch.official_state(RELEASED_PREFIX), folder / "non_lora_trainables.bin")
    if not rank:
        return folder
    maps = {
        name: module
        for name, module in family.text_model.named_modules()
        if isinstance(module, torch.nn.Linear) and name.startswith("layers.")
    }
    tensors = {}
    for name, module in maps.items():
        out, width = module.weight.shape
        b = draw(out, rank, scale=0.1) if trained else torch.zeros(out, rank)
        tensors[f"{LORA_PREFIX}{name}.lora_A.weight"] = draw(rank, width, scale=width**-0.5)
        tensors[f"{LORA_PREFIX}{name}.lora_B.weight"] = b
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": [f"model.{name}" for name in maps],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


@dataclass(frozen=True)
class TinySettings:
    """Settings of `TinyChannel`."""

    steps: int = 11
    rows: int = 1
    timed: bool = True
    shuffle: int | None = None


class TinyChannel:
    """Random features, the same for the same video id, content and settings.

    Attributes:
        content: by video id: what its features come from, `missing`, or `wide` (of another width).
        calls: video ids in the order in which features were asked for.
        sleep_s: how long each takes.
    """

    settings_type: ClassVar[type[Any]] = TinySettings
    content: ClassVar[dict[str, str]] = {}
    calls: ClassVar[list[str]] = []
    sleep_s: ClassVar[float] = 0.0

    def __init__(self, settings: TinySettings, family: Any, decoding: Any) -> None:
        self.settings = settings

    def features(self, doc: Any, clip: Clip) -> SideFeatures:
        name, own = doc["video_id"], self.settings
        self.calls.append(name)
        time.sleep(self.sleep_s)
        content = self.content.get(name, "")
        if content == "missing":
            raise BadSideChannel(doc["video"], "its features are not there")
        seed = zlib.crc32(f"{name} {content} {own.shuffle}".encode())
        generator = torch.Generator().manual_seed(seed)
        width = SIDE_WIDTH + (content == "wide")
        features = torch.randn(own.steps, own.rows, 1, width, generator=generator)
        if content == "nan":
            features[-1] = torch.nan
        spans = equal_parts(*clip.span, own.steps) if own.timed and clip.span else None
        return SideFeatures(features, spans)

    def stamp(self, doc: Any) -> str:
        return self.content.get(doc["video_id"], "")


def register_tiny_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `side_channel=tiny` be found for the length of a test."""
    entry = SideEntry("tiny", "tiny_pave:TinyChannel", "of the tests")
    monkeypatch.setitem(SIDE_CHANNELS.own, "tiny", entry)
    monkeypatch.setattr(TinyChannel, "content", {})
    monkeypatch.setattr(TinyChannel, "calls", [])


def encoded_for(family: Family, clip: Clip, plan: FramePlan, video_id: str = "v") -> VisualTokens:
    """Encode a clip with everything that a frame plan asks for, without the engine."""
    clip = clip.reordered(plan.permutation(clip.num_frames))
    tokens = family.encode(clip, num_groups=plan.num_groups, with_features=plan.features)
    doc = {"video": f"{video_id}.mp4", "video_id": video_id}
    side = {spec: build_side_channel(spec, family).features(doc, clip) for spec in plan.side}
    if not side:
        return tokens
    spans = frame_spans(clip, tokens.grid[0], num_groups=plan.num_groups)
    return replace(tokens, spans=spans, side=side)
