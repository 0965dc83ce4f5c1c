"""Calibration files: the range of every key and value channel on clips that are no test data."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from tempeval.errors import InvalidSetting, TempevalError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from tempeval.stages import Geometry

FORMAT = 1
NAMES = ("keys_low", "keys_high", "values_low", "values_high")
HOW = "make one with: tempeval calibrate -o FILE"


@dataclass(frozen=True)
class Bounds:
    """Smallest and largest key and value seen.

    Attributes:
        keys_low, keys_high, values_low, values_high: float32 `[L, h_kv, d]`, or `[h_kv, d]` of one
            layer; keys are after rotary.
    """

    keys_low: Tensor
    keys_high: Tensor
    values_low: Tensor
    values_high: Tensor

    def layer(self, number: int) -> Bounds:
        """Return those of one layer."""
        return Bounds(*(getattr(self, name)[number] for name in NAMES))

    def joined(self, other: Bounds) -> Bounds:
        """Return the bounds of both."""
        return Bounds(
            torch.minimum(self.keys_low, other.keys_low),
            torch.maximum(self.keys_high, other.keys_high),
            torch.minimum(self.values_low, other.values_low),
            torch.maximum(self.values_high, other.values_high),
        )


@dataclass(frozen=True)
class Calibration:
    """What `tempeval calibrate` wrote.

    Attributes:
        bounds: of all layers.
        facts: how they were measured: `model_revision`, `chain`, `chain_fingerprint`, `num_frames`,
            `clips` and more.
        digest: `sha256:` and the hex digest of the file.
    """

    bounds: Bounds
    facts: Mapping[str, Any]
    digest: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, key/value heads, channels per head."""
        layers, heads, dim = self.bounds.keys_low.shape
        return layers, heads, dim

    def check(self, path: str, geometry: Geometry, revision: str, chain: str) -> None:
        """Refuse another model, or another chain around the store.

        Args:
            path: of the file, for messages.
            geometry: of the model.
            revision: of the model.
            chain: fingerprint of the chain apart from stage `kv_cache`.

        Raises:
            InvalidSetting: naming what differs and the command that makes a fitting file.
        """
        wanted = (geometry.num_layers, geometry.num_kv_heads, geometry.head_dim)
        differs = ""
        if self.shape != wanted:
            differs = (
                f"has (layers, key/value heads, channels) {self.shape}, the model has {wanted}"
            )
        elif self.facts["model_revision"] != revision:
            differs = (
                f"was made with model revision {self.facts['model_revision']}, the model loaded is "
                f"{revision or 'unknown'}"
            )
        elif self.facts["chain_fingerprint"] != chain:
            differs = (
                f"was made under method {self.facts['chain']!r}, which differs from the methods "
                "that surround the store here"
            )
        if differs:
            raise InvalidSetting(
                f"calibration file {path!r} {differs}; keys and values would not lie in its "
                f"ranges. For this model and these methods, {HOW} --pretrained MODEL "
                "--method METHODS"
            )


def read_calibration(path: str) -> Calibration:
    """Read a calibration file.

    Raises:
        InvalidSetting: if there is none, or it is not one that `tempeval calibrate` wrote.
    """
    file = Path(path).expanduser()
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        with safe_open(file, framework="pt") as opened:
            facts = json.loads((opened.metadata() or {})["tempeval_calibration"])
            bounds = Bounds(*(opened.get_tensor(name) for name in NAMES))
    except OSError as error:
        raise InvalidSetting(
            f"no calibration file {path!r} ({error.strerror or error}); {HOW}"
        ) from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise InvalidSetting(f"{path!r} is not a calibration file ({error}); {HOW}") from error
    if facts.get("format") != FORMAT:
        raise InvalidSetting(
            f"calibration file {path!r} has format {facts.get('format')}, this version reads "
            f"{FORMAT}; {HOW}"
        )
    return Calibration(bounds, facts, f"sha256:{digest}")


def write_calibration(path: Path, bounds: Bounds, facts: Mapping[str, Any]) -> None:
    """Write a calibration file, whole or not at all.

    Args:
        path: file to write.
        bounds: of all layers.
        facts: how they were measured, as JSON values.

    Raises:
        TempevalError: if it cannot be written.
    """
    tensors = {name: getattr(bounds, name).float().contiguous() for name in NAMES}
    text = json.dumps({**facts, "format": FORMAT}, sort_keys=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as out:
            out.write(save(tensors, {"tempeval_calibration": text}))
            out.flush()
            os.fsync(out.fileno())
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise TempevalError(
            f"cannot write the calibration file {str(path)!r}: {error.strerror or error}"
        ) from error
