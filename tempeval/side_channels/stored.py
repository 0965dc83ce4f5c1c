"""Side channel `features`: what `tempeval features` has written, of any kind."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import save_file

from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.side_channels.align import clip_span
from tempeval.side_channels.base import video_id, video_part
from tempeval.side_channels.feature_folder import (
    check_length,
    check_shape,
    read_metadata,
    read_tensors,
    the_features,
)
from tempeval.side_channels.folder_channel import FolderChannel, FolderSettings
from tempeval.stages import SideFeatures

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tempeval.side_channels.base import Doc
    from tempeval.video.clip import Clip

FORMAT = "tempeval side channel 1"
ACCEPTED = "[T, h, w, C]"


@dataclass(frozen=True)
class StoredSettings(FolderSettings):
    """Settings of `features`.

    Attributes:
        width: C that the files must have; None takes any.
    """

    width: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and self.width < 1:
            raise InvalidSetting(f"features.width={self.width} must be at least 1, or none")


class Stored(FolderChannel):
    """Features `[T, h, w, C]` with their times, as they lie in a folder."""

    settings_type: ClassVar[type[Any]] = StoredSettings

    def features(self, doc: Doc, clip: Clip) -> SideFeatures:
        """Return the features of a video.

        Raises:
            BadSideChannel: if there is no file, or it cannot be used for this video.
        """
        path = self._files.find(doc)
        side, facts = read_features(path)
        check_shape(path, side.features, (None, None, None, self.settings.width))
        if self.settings.shuffle is None:
            _check_video(path, facts, doc, clip)
        return side


def write_features(path: Path, side: SideFeatures, facts: Mapping[str, Any]) -> None:
    """Write one video's features; the file is there whole, or as it was before.

    Args:
        path: `<video id>.safetensors`.
        side: what to write.
        facts: JSON values about how it was made; `video_id` and `duration` (seconds) are checked
            when it is read.
    """
    tensors = {"features": side.features.detach().float().cpu().contiguous()}
    if side.spans is not None:
        tensors["spans"] = side.spans.double().cpu().contiguous()
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save_file(tensors, draft, metadata={"format": FORMAT, "facts": json.dumps(dict(facts))})
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_features(path: Path) -> tuple[SideFeatures, dict[str, Any]]:
    """Read features, and the facts about them where there are any.

    Raises:
        BadSideChannel: if the file cannot be used.
    """
    tensors, metadata = read_tensors(path)
    spans = tensors.pop("spans", None)
    features = the_features(path, tensors, ACCEPTED)
    check_shape(path, features, (None, None, None, None))
    if spans is not None:
        _check_spans(path, spans, len(features))
        spans = spans.double()
    return SideFeatures(features, spans, str(path)), _facts(path, metadata)


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts about features, and no features; empty where there are none.

    Raises:
        BadSideChannel: if the file is not readable.
    """
    return _facts(path, read_metadata(path))


def _facts(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        facts = json.loads(metadata.get("facts", "{}"))
    except ValueError as error:
        raise BadSideChannel(str(path), f"its metadata is not JSON: {error}") from error
    return facts if isinstance(facts, dict) else {}


def _check_spans(path: Path, spans: torch.Tensor, steps: int) -> None:
    if tuple(spans.shape) != (steps, 2) or not spans.is_floating_point():
        raise BadSideChannel(
            str(path),
            f"its spans are {spans.dtype} {list(spans.shape)}; accepted: floats [{steps}, 2]",
        )
    middles = spans.double().mean(dim=1)
    backwards = bool((spans[:, 1] < spans[:, 0]).any()) or bool((middles.diff() < 0).any())
    if backwards or not bool(torch.isfinite(spans).all()):
        raise BadSideChannel(str(path), "its spans are not finite seconds in order of time")


def _check_video(path: Path, facts: Mapping[str, Any], doc: Doc, clip: Clip) -> None:
    made_of, wanted = facts.get("video_id"), video_id(doc)
    if made_of is not None and made_of != wanted:
        raise BadSideChannel(
            str(path), f"it was made of video {made_of!r}; accepted: features of {wanted!r}"
        )
    known, whole = facts.get("duration"), clip_span(clip)
    if isinstance(known, int | float) and whole and video_part(doc) == (None, None):
        check_length(path, "seconds", float(known), whole[1], max(0.5, 0.02 * whole[1]))
