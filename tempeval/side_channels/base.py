"""What a side channel must offer, and what is known of a video."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from tempeval.errors import BadSideChannel

if TYPE_CHECKING:
    import torch

    from tempeval.engine.encoder import DecodeOptions
    from tempeval.families.base import Family
    from tempeval.stages import SideFeatures
    from tempeval.video.clip import Clip, VideoRef

#: Seconds that are no time at all: rounding.
_SAME = 1e-6

#: What is known of a video beside its frames: `video` (path), `video_id` (its stem, or the name of
#: a folder of frames), `fps` (1/s, of a folder of frames), and `start`, `end` in seconds where
#: only a part is meant. All but `video` may be left out.
Doc = Mapping[str, Any]


class SideChannel(Protocol):
    """A source of features beside the sampled frames."""

    def features(self, doc: Doc, clip: Clip) -> SideFeatures:
        """Return what the side channel says about a video, in time.

        Args:
            doc: the video's path and id.
            clip: its decoded frames with their times.

        Raises:
            BadSideChannel: if this video has none, or one that cannot be used.
        """
        ...

    def stamp(self, doc: Doc) -> str:
        """Name the content that the features of a video come from, besides the video itself.

        Part of the key of every answer, so that a replaced file is not answered from a journal.
        Never raises: what is missing is named as missing.
        """
        ...


class Channel(ABC):
    """A side channel that `tempeval.side_channels.registry` can build.

    Args:
        settings: an instance of `settings_type`.
        family: the loaded base model, or None.
        decoding: how videos are decoded.

    Attributes:
        settings_type: frozen dataclass of its settings: numbers, strings, booleans or None. It
            checks its values, and raises `InvalidSetting`.
    """

    settings_type: ClassVar[type[Any]]

    @abstractmethod
    def __init__(self, settings: Any, family: Family | None, decoding: DecodeOptions) -> None: ...

    @abstractmethod
    def features(self, doc: Doc, clip: Clip) -> SideFeatures:
        """Return what the side channel says about a video; see `SideChannel`."""

    @abstractmethod
    def stamp(self, doc: Doc) -> str:
        """Name the content that the features come from; see `SideChannel`."""

    def part_spans(self, doc: Doc, steps: int) -> torch.Tensor | None:
        """Return when steps are, for a part of a video, where features of the whole have no times.

        Args:
            doc: the video.
            steps: T_k.

        Returns:
            float64 `[steps, 2]` in seconds; None if that is not known.
        """
        return None

    def content(self, doc: Doc) -> str:
        """Name what `stamp` does, the same for a copy in another place, of another time."""
        return self.stamp(doc)

    def origin(self, doc: Doc) -> str | None:
        """Return how the file of a video's features was made (see `origin`); None if unknown.

        Raises:
            BadSideChannel: if there is no such file, or it is not readable.
        """
        return None


def doc_of(ref: VideoRef, name: str | None = None) -> Doc:
    """Return what a side channel is told of a video.

    Args:
        ref: the video.
        name: its id; None for the stem of a file or the name of a folder of frames.
    """
    known = {"video": ref.path, "video_id": name or _name_of(ref.path), "fps": ref.fps}
    known |= {"start": ref.start, "end": ref.end}
    return {key: value for key, value in known.items() if value is not None}


def video_path(doc: Doc) -> str:
    """Return the path of the video.

    Raises:
        BadSideChannel: if it is not known.
    """
    path = doc.get("video")
    if not path:
        raise BadSideChannel(
            str(doc.get("video_id", "")), "its path is not known; the sample has no 'video'"
        )
    return str(path)


def video_id(doc: Doc) -> str:
    """Return the id of the video: as given, else the stem of the file or the name of the folder.

    Raises:
        BadSideChannel: if it is not known, or is no plain name: a path could leave the folder.
    """
    name = str(doc.get("video_id") or "")
    if not name:
        name = _name_of(video_path(doc))
    if Path(name).name != name or name in ("..", ".") or "\\" in name or "\0" in name:
        raise BadSideChannel(name, "the video's id is not a plain name without slashes")
    return name


def is_whole(doc: Doc, clip: Clip) -> bool:
    """Tell whether a clip is the whole video: no part is meant, or one from end to end.

    The last frame's end is the clip's only where no frame follows, so an `end` that is not before
    it is the video's.
    """
    start, end = video_part(doc)
    if start is None and end is None:
        return True
    if clip.span is None:
        return False
    first, last = clip.span
    begins = first <= _SAME and (start is None or start <= _SAME)
    return begins and (end is None or end >= last - _SAME)


def _name_of(path: str) -> str:
    place = Path(path)
    return place.name if place.is_dir() else place.stem


def video_part(doc: Doc) -> tuple[float | None, float | None]:
    """Return start and end in seconds of the part that is meant; None where it is the video's."""
    start, end = doc.get("start"), doc.get("end")
    return (None if start is None else float(start)), (None if end is None else float(end))
