"""Frozen features of training videos: computed once, kept in memory or on disk."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tempeval.stages import VisualTokens
from tempeval.video.stamp import content_stamp

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from tempeval.video.clip import VideoRef

VERSION = 1
"""Changes whenever what is stored does."""


@dataclass(frozen=True)
class Seen:
    """One video as the frozen parts see it.

    Attributes:
        tokens: what the family's tower and projector make of it, with `features`.
        side: the side channel.
        neighbors: steps of the side channel that each temporal grid attends to; None is the
            official equal partition.
    """

    tokens: VisualTokens
    side: torch.Tensor
    neighbors: tuple[range, ...] | None


class Store(Protocol):
    """Where encoded videos are kept.

    Attributes:
        keeps: whether what is put can be got again.
    """

    keeps: bool

    def __contains__(self, key: str) -> bool:
        """Say whether there is an entry; it is not read."""
        ...

    def get(self, key: str) -> Seen | None:
        """Return an entry, None if there is none (or none that can be read)."""
        ...

    def put(self, key: str, seen: Seen) -> None:
        """Keep an entry."""
        ...


class MemoryStore:
    """Entries in this process's memory, on the CPU."""

    keeps = True

    def __init__(self) -> None:
        self._entries: dict[str, Seen] = {}

    def __contains__(self, key: str) -> bool:
        """Say whether there is an entry."""
        return key in self._entries

    def get(self, key: str) -> Seen | None:
        """Return an entry, None if there is none."""
        return self._entries.get(key)

    def put(self, key: str, seen: Seen) -> None:
        """Keep an entry."""
        self._entries[key] = seen


class DiskStore:
    """Entries as safetensors files, written whole or not at all; processes may share a folder.

    Args:
        folder: is made if need be.
    """

    keeps = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __contains__(self, key: str) -> bool:
        """Say whether there is an entry; it is not read."""
        return (self._folder / f"{key}.safetensors").is_file()

    def get(self, key: str) -> Seen | None:
        """Return an entry; None if there is none, or it is damaged: then it is removed."""
        path = self._folder / f"{key}.safetensors"
        try:
            with safe_open(path, "pt") as file:
                facts = json.loads(file.metadata()["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return _joined(facts, tensors)
        except (OSError, SafetensorError, KeyError, ValueError, TypeError):
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, seen: Seen) -> None:
        """Keep an entry."""
        facts, tensors = _split(seen)
        draft = self._folder / f"{key}.{os.getpid()}.draft"
        save_file(tensors, draft, {"facts": json.dumps(facts)})
        draft.replace(self._folder / f"{key}.safetensors")


class NoStore:
    """Nothing but the names of videos that can be used: they are encoded whenever they are needed.

    Args:
        names: file of the names, one a line, so that a training that goes on need not look again.
    """

    keeps = False

    def __init__(self, names: Path) -> None:
        self._path = names
        names.parent.mkdir(parents=True, exist_ok=True)
        self._names = set(names.read_text("utf-8").split()) if names.is_file() else set()

    def __contains__(self, key: str) -> bool:
        """Say whether a video was found usable."""
        return key in self._names

    def get(self, key: str) -> Seen | None:
        """Return None."""
        return None

    def put(self, key: str, seen: Seen | None = None) -> None:
        """Keep the name."""
        self._names.add(key)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{key}\n")


def video_key(ref: VideoRef, settings: Sequence[Any]) -> str:
    """Name what an entry depends on.

    Args:
        ref: the video; a file that was replaced has another key.
        settings: everything else that decides its features, as plain values.
    """
    whole = [VERSION, asdict(ref), content_stamp(ref.path), list(settings)]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def _split(seen: Seen) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    tokens = seen.tokens
    tensors = {"embeddings": tokens.embeddings, "side": seen.side}
    if tokens.features is not None:
        tensors["features"] = tokens.features
    facts = {
        "grid": tokens.grid,
        "seconds_per_grid": tokens.seconds_per_grid,
        "frames": tokens.frames,
        "lead": tokens.lead,
        "neighbors": seen.neighbors and [[own.start, own.stop] for own in seen.neighbors],
    }
    return facts, {name: value.contiguous() for name, value in tensors.items()}


def _joined(facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Seen:
    neighbors = facts["neighbors"]
    rows, columns, depth = facts["grid"]
    return Seen(
        VisualTokens(
            embeddings=tensors["embeddings"],
            grid=(rows, columns, depth),
            seconds_per_grid=facts["seconds_per_grid"],
            frames=facts["frames"],
            features=tensors.get("features"),
            lead=facts["lead"],
        ),
        tensors["side"],
        None if neighbors is None else tuple(range(start, stop) for start, stop in neighbors),
    )
