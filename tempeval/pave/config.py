"""What `tempeval pave train` is told: the base model, the data, the patch, and how it is trained.

Defaults are those of the released checkpoints (PAVE, arXiv 2503.19794, and its training scripts).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, UnknownName
from tempeval.methods.pave_patch import check_rope
from tempeval.pave.settings import Scalar, read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MINI_SOURCES = ("mini_audio", "mini_highfps")
SOURCES = (*MINI_SOURCES, "task", "jsonl")
PRECISIONS = ("auto", "bfloat16", "float32")
DEVICES = ("auto", "cpu", "cuda")
SAVE_DTYPES = ("float32", "bfloat16", "float16")


def _check(
    section: str, settings: object, least: Mapping[str, float], below: Mapping[str, float]
) -> None:
    """Refuse numbers below their least value, and those not below a limit.

    Raises:
        InvalidSetting: naming the setting, its value, and what is accepted.
    """
    for name, low in least.items():
        value = getattr(settings, name)
        if value is not None and value < low:
            raise InvalidSetting(f"{section}.{name}={value} is not accepted; accepted: from {low}")
    for name, high in below.items():
        if getattr(settings, name) >= high:
            value = getattr(settings, name)
            raise InvalidSetting(
                f"{section}.{name}={value} is not accepted; accepted: below {high}"
            )


@dataclass(frozen=True)
class BaseSettings:
    """The frozen model and how videos enter it.

    Attributes:
        pretrained: hub id, folder, `mini`, or `mini:NAME`.
        revision: commit of a hub id.
        frames: sampled per video, uniformly.
        dtype: of its weights; see `LoadOptions`.
        device: `auto` is the process's own GPU, else the CPU; `cpu` or `cuda` is that.
        position_rule, min_pixels, max_pixels, visual_token_budget, system_prompt,
        mm_newline_position: see `LoadOptions`.
    """

    pretrained: str
    revision: str | None = None
    frames: int = 32
    dtype: str = "auto"
    device: str = "auto"
    position_rule: str = "original"
    min_pixels: int | None = None
    max_pixels: int | None = None
    visual_token_budget: int | None = None
    system_prompt: str | None = None
    mm_newline_position: str | None = None

    def __post_init__(self) -> None:
        _check("base", self, {"frames": 1}, {})
        if self.device not in DEVICES:
            raise UnknownName("base.device", self.device, DEVICES)


@dataclass(frozen=True)
class DataSettings:
    """What is learnt from.

    Attributes:
        source: `mini_audio` or `mini_highfps` (rendered training clips), `task` (the training
            split of an lmms-eval task), or `jsonl` (a file of your own).
        clips: of a mini suite: how many are rendered.
        seed: of a mini suite: which clips.
        task: name of the task.
        path: of the JSONL file; each line is `{"video": ..., "question": ..., "answer": ...}`.
        held_out: videos that are not trained on but measured at every checkpoint.
        limit: most videos used, held out ones included; None for all.
        max_failures: most videos that may be unreadable, a number or a ratio below 1.
    """

    source: str
    clips: int = 1000
    seed: int = 0
    task: str | None = None
    path: str | None = None
    held_out: int = 0
    limit: int | None = None
    max_failures: float = 0.0

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise UnknownName("data.source", self.source, SOURCES)
        for name, needed_by in (("task", "task"), ("path", "jsonl")):
            given = getattr(self, name) is not None
            if given != (self.source == needed_by):
                need = "needs" if self.source == needed_by else "takes no"
                raise InvalidSetting(f"data.source={self.source!r} {need} data.{name}")
        least = {"clips": 1, "seed": 0, "held_out": 0, "limit": 1, "max_failures": 0}
        _check("data", self, least, {})


@dataclass(frozen=True)
class SideSettings:
    """The side channel.

    Attributes:
        name: as `tempeval.side_channels` knows it.
        settings: its settings by name.
        neighborhood: steps each side of a frame's middle that it attends to; None is every step in
            the frame's share of the video.
    """

    name: str
    settings: dict[str, Scalar] = field(default_factory=dict)
    neighborhood: int | None = None

    def __post_init__(self) -> None:
        _check("side_channel", self, {"neighborhood": 0}, {})


@dataclass(frozen=True)
class PatchSettings:
    """Sizes of the patch: see `PatchSizes` and `PavePatch`."""

    hidden: int = 512
    layers: int = 2
    heads: int = 4
    kv_share: bool = True
    use_3d_rope: bool = False
    feed_forward: int = 0
    output_hidden: int = 0

    def __post_init__(self) -> None:
        least = {"hidden": 1, "layers": 1, "heads": 1, "feed_forward": 0, "output_hidden": 0}
        _check("patch", self, least, {})
        if self.hidden % self.heads:
            raise InvalidSetting(f"patch.heads={self.heads} does not divide hidden={self.hidden}")
        check_rope(self.hidden, self.heads, use_3d_rope=self.use_3d_rope)


@dataclass(frozen=True)
class LoraSettings:
    """Low-rank changes of every linear map of the text stack's layers; `r: 0` trains none."""

    r: int = 64
    alpha: float = 16.0
    dropout: float = 0.05

    def __post_init__(self) -> None:
        _check("lora", self, {"r": 0, "alpha": 0, "dropout": 0}, {"dropout": 1})


@dataclass(frozen=True)
class OptimiserSettings:
    """How the weights move.

    Attributes:
        learning_rate: peak of AdamW's rate.
        patch_learning_rate: the patch's own peak; None is the same.
        warmup_ratio: share of the steps in which the rate rises linearly; a cosine to 0 follows.
        weight_decay: of AdamW.
        adam_beta2: of AdamW; lower forgets old gradients sooner.
        max_grad_norm: the gradient is scaled down to this norm.
        batch_size: videos per process and micro-batch.
        gradient_accumulation: micro-batches per step and process.
        questions_per_video: most questions of a video that share one pass over it.
        epochs: passes over the data; used where `steps` is None.
        steps: optimiser steps.
        seed: of the weights, the order and the dropout.
        precision: `bfloat16` runs the passes in it, `float32` does not, `auto` does on a GPU that
            can.
        gradient_checkpointing: compute activations twice rather than hold them.
    """

    learning_rate: float = 2e-5
    patch_learning_rate: float | None = None
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    adam_beta2: float = 0.999
    max_grad_norm: float = 0.1
    batch_size: int = 4
    gradient_accumulation: int = 4
    questions_per_video: int = 1
    epochs: int = 1
    steps: int | None = None
    seed: int = 42
    precision: str = "auto"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        ones = ("batch_size", "gradient_accumulation", "questions_per_video", "epochs", "steps")
        zeros = ("learning_rate", "patch_learning_rate", "warmup_ratio", "weight_decay", "seed")
        least = {**dict.fromkeys(ones, 1), **dict.fromkeys((*zeros, "adam_beta2"), 0)}
        _check("training", self, least, {"warmup_ratio": 1, "adam_beta2": 1})
        if self.max_grad_norm <= 0:
            raise InvalidSetting(
                f"training.max_grad_norm={self.max_grad_norm} is not accepted; accepted: above 0"
            )
        if self.precision not in PRECISIONS:
            raise UnknownName("training.precision", self.precision, PRECISIONS)


@dataclass(frozen=True)
class CheckpointSettings:
    """When the state of training is written.

    Attributes:
        every: steps between checkpoints; the last step always has one.
        keep: newest checkpoints that are kept.
    """

    every: int = 200
    keep: int = 2

    def __post_init__(self) -> None:
        _check("checkpoints", self, {"every": 1, "keep": 1}, {})


@dataclass(frozen=True)
class TrainConfig:
    """A whole configuration.

    Attributes:
        base, data, side_channel, patch, lora, training, checkpoints: its sections.
        out: folder that is written.
        feature_cache: where encoded videos are kept: `memory`, `disk` (in the user's cache), or a
            folder; `none` encodes each whenever it is needed, for data that fit nowhere (a 7B base
            with 32 frames makes about 60 MB of a video).
        save_dtype: of the adapter's weights; checkpoints are exact whatever it is.
    """

    base: BaseSettings
    data: DataSettings
    side_channel: SideSettings
    out: str
    patch: PatchSettings = field(default_factory=PatchSettings)
    lora: LoraSettings = field(default_factory=LoraSettings)
    training: OptimiserSettings = field(default_factory=OptimiserSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
    feature_cache: str = "disk"
    save_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.save_dtype not in SAVE_DTYPES:
            raise UnknownName("save_dtype", self.save_dtype, SAVE_DTYPES)

    def record(self) -> dict[str, Any]:
        """Return everything as plain JSON values."""
        return asdict(self)

    def digest(self) -> str:
        """Name all that decides the trained weights."""
        record = self.record()
        for free in ("out", "checkpoints", "feature_cache", "save_dtype"):
            del record[free]
        if not self.patch.use_3d_rope:  # which checkpoints trained before it do not know
            del record["patch"]["use_3d_rope"]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]


def read_config(path: Path) -> TrainConfig:
    """Read a YAML file.

    Raises:
        UnknownName: for a key that does not exist, with the nearest that does.
        InvalidSetting: if there is no such file, it is not YAML, or a value is not accepted.
    """
    import yaml

    try:
        given = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"cannot read the configuration {str(path)!r}: {error}") from error
    except yaml.YAMLError as error:
        raise InvalidSetting(f"{str(path)!r} is not valid YAML: {error}") from error
    return read_settings(TrainConfig, given)
