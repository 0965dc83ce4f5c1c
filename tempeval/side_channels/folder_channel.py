"""What side channels that read a folder of feature files have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tempeval.side_channels.base import Channel
from tempeval.side_channels.feature_folder import FeatureFolder
from tempeval.side_channels.shuffle import check_shuffle

if TYPE_CHECKING:
    from tempeval.engine.encoder import DecodeOptions
    from tempeval.families.base import Family
    from tempeval.side_channels.base import Doc


@dataclass(frozen=True)
class FolderSettings:
    """Settings of side channels that are read from a folder.

    Attributes:
        folder: holds `<id>.safetensors` or `.pt`, or `<id>/video_features.safetensors` or `.pt`.
        shuffle: seed that gives each video the file of another one in the folder; None for none.
    """

    folder: str
    shuffle: int | None = None

    def __post_init__(self) -> None:
        check_shuffle(self.shuffle)


class FolderChannel(Channel):
    """Features from a folder, by the id of the video or scene.

    Args:
        settings: a `FolderSettings`.
        family: not used.
        decoding: not used.

    Raises:
        InvalidSetting: if the folder is none.
    """

    settings_type: ClassVar[type[Any]] = FolderSettings

    def __init__(self, settings: Any, family: Family | None, decoding: DecodeOptions) -> None:
        self.settings = settings
        self._files = FeatureFolder(settings.folder, settings.shuffle)

    def stamp(self, doc: Doc) -> str:
        """Name the file of a video by size and time."""
        return self._files.stamp(doc)

    def content(self, doc: Doc) -> str:
        """Name the content of the file of a video."""
        return self._files.content(doc)
