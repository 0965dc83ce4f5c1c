"""Side channel `features`: what `tempeval features` has written, of any kind.

What was written beside the features is compared with what is asked for: how they were made, of
which video, and by which base model.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from safetensors.torch import save_file

from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.side_channels.align import clip_span
from tempeval.side_channels.base import is_whole, video_id, video_part
from tempeval.side_channels.content import content_key
from tempeval.side_channels.feature_folder import (
    check_length,
    check_shape,
    read_metadata,
    read_tensors,
    the_features,
)
from tempeval.side_channels.folder_channel import FolderChannel, FolderSettings
from tempeval.side_channels.origin import described, is_accepted, origin_of
from tempeval.stages import SideFeatures
from tempeval.video.stamp import content_stamp

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tempeval.engine.encoder import DecodeOptions
    from tempeval.families.base import Family
    from tempeval.side_channels.base import Doc
    from tempeval.video.clip import Clip

FORMAT = "tempeval side channel 1"
ACCEPTED = "[T, h, w, C]"


@dataclass(frozen=True)
class StoredSettings(FolderSettings):
    """Settings of `features`.

    Attributes:
        width: C that the files must have; None takes any.
        origin: how they must have been made, as `audio` or `audio-1f2e3d4c` (see `origin`); None
            for all alike.
    """

    width: int | None = None
    origin: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and self.width < 1:
            raise InvalidSetting(f"features.width={self.width} must be at least 1, or none")


class Stored(FolderChannel):
    """Features `[T, h, w, C]` with their times, as they lie in a folder.

    Args:
        settings: a `StoredSettings`.
        family: the base model; features that another one made are refused, unless `origin` names
            that one.
        decoding: not used.
    """

    settings_type: ClassVar[type[Any]] = StoredSettings

    def __init__(self, settings: Any, family: Family | None, decoding: DecodeOptions) -> None:
        super().__init__(settings, family, decoding)
        self._family = family

    def features(self, doc: Doc, clip: Clip) -> SideFeatures:
        """Return the features of a video.

        Raises:
            BadSideChannel: if there is no file, or it cannot be used for this video.
        """
        path = self._files.find(doc)
        side, part_spans, facts = _read(path)
        check_shape(path, side.features, (None, None, None, self.settings.width))
        self._check_origin(path, facts, clip)
        if self.settings.shuffle is None:
            _check_video(path, facts, doc, clip)
        if side.spans is None and not is_whole(doc, clip):
            if part_spans is None:
                raise BadSideChannel(
                    str(path),
                    f"its steps have no times, so the part {video_part(doc)} s of a video cannot "
                    "be found among them; write it again with tempeval features, or use whole "
                    "videos",
                )
            return replace(side, spans=part_spans)
        return side

    def origin(self, doc: Doc) -> str | None:
        """Return how the file of a video's features was made; None if it does not say."""
        return _origin(self._files.find(doc))

    def _check_origin(self, path: Path, facts: Mapping[str, Any], clip: Clip) -> None:
        origin, wanted, model = origin_of(facts), self.settings.origin, facts.get("model")
        if wanted is not None and not is_accepted(origin, wanted):
            raise BadSideChannel(
                str(path), f"it was made as {described(facts)}; accepted: {wanted}"
            )
        if wanted is None and origin != (usual := self._usual):
            raise BadSideChannel(
                str(path),
                f"it was made as {described(facts)}, and the first file of its folder as {usual}; "
                "keep them in folders of their own, or say which with origin",
            )
        if isinstance(model, dict) and (wanted is None or wanted.count("-") < 2):
            self._check_model(path, facts, model, clip)

    @cached_property
    def _usual(self) -> str | None:
        """How the first file of the folder was made; of those that can be read."""
        for path in self._files.files():
            with contextlib.suppress(BadSideChannel):
                return _origin(path)
        return None

    def _check_model(
        self, path: Path, facts: Mapping[str, Any], model: Mapping[str, Any], clip: Clip
    ) -> None:
        """Compare the base model that made features with that of the run."""
        here: dict[str, Any] = {}
        if self._family is not None:
            here = {"revision": self._family.revision, **self._family.pixel_limits()}
        settings = facts.get("settings")
        if isinstance(settings, dict) and settings.get("factor") is not None:
            here["num_frames"] = clip.num_frames  # the features are a multiple of them
        for key, value in here.items():
            if key in model and model[key] != value:
                raise BadSideChannel(
                    str(path),
                    f"a base model with {key} {model[key]} made it, this one has {value}; extract "
                    "the features again with this one",
                )


def write_features(
    path: Path,
    side: SideFeatures,
    facts: Mapping[str, Any],
    part_spans: torch.Tensor | None = None,
) -> None:
    """Write one video's features; the file is there whole, or as it was before.

    Args:
        path: `<video id>.safetensors`.
        side: what to write.
        facts: JSON values about how it was made; compared when it is read: `side_channel`,
            `settings`, `model`, `video_id`, `video_stamp`, `video_content`, `duration` (seconds).
        part_spans: float64 `[T_k, 2]`, when steps are for a part of the video, where `side` has no
            times (see `Channel.part_spans`).
    """
    tensors = {"features": side.features.detach().float().cpu().contiguous()}
    for name, spans in (("spans", side.spans), ("part_spans", part_spans)):
        if spans is not None:
            tensors[name] = spans.double().cpu().contiguous()
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
    side, _, facts = _read(path)
    return side, facts


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts about features, and no features; empty where there are none.

    Raises:
        BadSideChannel: if the file is not readable.
    """
    return _facts(path, read_metadata(path))


def _origin(path: Path) -> str | None:
    return origin_of(read_facts(path)) if path.suffix == ".safetensors" else None


def _read(path: Path) -> tuple[SideFeatures, torch.Tensor | None, dict[str, Any]]:
    """Read features, their times for a part of the video if they are told apart, and the facts."""
    tensors, metadata = read_tensors(path)
    spans: dict[str, torch.Tensor | None] = {}
    for name in ("spans", "part_spans"):
        spans[name] = tensors.pop(name, None)
    features = the_features(path, tensors, ACCEPTED)
    check_shape(path, features, (None, None, None, None))
    for name, found in spans.items():
        if found is not None:
            _check_spans(path, found, len(features))
            spans[name] = found.double()
    side = SideFeatures(features, spans["spans"], str(path))
    return side, spans["part_spans"], _facts(path, metadata)


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
    if isinstance(known, int | float) and whole and is_whole(doc, clip):
        check_length(path, "seconds", float(known), whole[1], max(0.5, 0.02 * whole[1]))
    if not _is_same_video(facts, str(doc.get("video") or "")):
        raise BadSideChannel(
            str(path), "the video has changed since it was made; extract the features again"
        )


def _is_same_video(facts: Mapping[str, Any], video: str) -> bool:
    """Compare a video with the one that features were made of: a copy may have another time."""
    stamp, made_of = content_stamp(video), facts.get("video_stamp")
    if stamp is None or made_of is None or list(stamp) == made_of:
        return True
    content = facts.get("video_content")
    if content is not None:
        return bool(content_key(video) == content)
    return bool(stamp[0] == made_of[0])  # of older files: the size, or the number of images
