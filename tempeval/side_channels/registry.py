"""Names to side channels: strings only, so that listing them imports no tensor library.

A side channel is written `name` or `name[setting=value;other=value]`.
"""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from tempeval.errors import BrokenPlugin, InvalidSetting
from tempeval.extensions import Registry, load_object
from tempeval.settings import read_settings
from tempeval.side_channels.origin import origin_of_spec
from tempeval.video.clip import SideSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.engine.encoder import DecodeOptions
    from tempeval.extensions import Extension
    from tempeval.families.base import Family
    from tempeval.side_channels.base import Channel


@dataclass(frozen=True)
class SideEntry:
    """One line of the table of side channels.

    Attributes:
        name: what the user writes.
        path: `module:Class`.
        summary: one line for listings.
    """

    name: str
    path: str
    summary: str


#: The side channel that reads what `tempeval features` wrote of another.
STORED = "features"

_OWN = (
    SideEntry(
        "audio",
        "tempeval.side_channels.audio:Audio",
        "log-mel spectrum of the video's own sound track",
    ),
    SideEntry(
        STORED,
        "tempeval.side_channels.stored:Stored",
        "what `tempeval features` has written to a folder, of any kind",
    ),
    SideEntry(
        "highfps",
        "tempeval.side_channels.highfps:HighFps",
        "more frames through the base model's own vision tower, few cells each",
    ),
    SideEntry(
        "imagebind",
        "tempeval.side_channels.official:ImageBind",
        "PAVE's audio: ImageBind features [K, 1024] from a folder",
    ),
    SideEntry(
        "languagebind",
        "tempeval.side_channels.official:LanguageBind",
        "PAVE's high frame rate: LanguageBind features [T, 5, 1024] from a folder",
    ),
    SideEntry(
        "llava_3d",
        "tempeval.side_channels.official:Llava3D",
        "PAVE's 3D: LLaVA-3D features [1, 18432, 1024] from a folder, by scene",
    ),
)


def _read_entry(named: Extension, found: object) -> SideEntry:
    from tempeval.side_channels.base import Channel

    if not (isinstance(found, type) and issubclass(found, Channel)):
        raise BrokenPlugin(named.path, f"{named.path} is not a subclass of Channel")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise BrokenPlugin(named.path, f"{found.__name__} lacks {', '.join(missing)}")
    lines = (inspect.getdoc(found) or "").splitlines()
    return SideEntry(named.name, named.path, lines[0].rstrip(".") if lines else "")


SIDE_CHANNELS: Registry[SideEntry] = Registry(
    "side channel",
    "tempeval.side_channels",
    _OWN,
    _read_entry,
    "List them with: tempeval list side-channels",
)

_SPEC = re.compile(r"(?P<name>[A-Za-z0-9_]+)(?:\[(?P<settings>[^\[\]]*)\])?")


def parse_side_spec(text: str) -> SideSpec:
    """Read `audio` or `audio[step=0.05;mels=80]`.

    Raises:
        UnknownName: for a side channel or a setting that does not exist.
        InvalidSetting: for a value that cannot be read, a missing one, or a malformed text.
    """
    return side_spec(*split_side_text(text))


def split_side_text(text: str) -> tuple[str, dict[str, str]]:
    """Split `audio[step=0.05;mels=80]` into its name and its settings, which are not looked at.

    Raises:
        InvalidSetting: for a malformed text.
    """
    match = _SPEC.fullmatch(text.strip())
    if not match:
        raise InvalidSetting(
            f"side channel {text!r} is not of the form 'name' or 'name[setting=value;other=value]'"
        )
    given: dict[str, str] = {}
    for pair in filter(None, (match["settings"] or "").split(";")):
        key, sep, value = (part.strip() for part in pair.partition("="))
        if not sep or key in given:
            problem = "is set twice" if sep else "is not 'name=value'"
            raise InvalidSetting(f"side channel {text!r}: setting {pair.strip()!r} {problem}")
        given[key] = value
    return match["name"], given


def side_spec(name: str, settings: Mapping[str, Any]) -> SideSpec:
    """Return the spec of a side channel: settings read, defaults filled in, sorted by name.

    Args:
        name: registry name.
        settings: strings or values by name.

    Raises:
        UnknownName: for a side channel or a setting that does not exist.
        InvalidSetting: for a value that is not accepted, or a missing one.
    """
    values = read_settings(name, side_channel_class(name).settings_type, settings)
    return SideSpec(name, tuple((f.name, getattr(values, f.name)) for f in _sorted_fields(values)))


def build_side_channel(
    spec: SideSpec, family: Family | None, decoding: DecodeOptions | None = None
) -> Channel:
    """Build a side channel.

    Args:
        spec: its name and settings; those left out have their defaults.
        family: the loaded base model; needed by those that use its vision tower.
        decoding: how videos are decoded; the defaults if None.

    Raises:
        UnknownName: for a side channel or a setting that does not exist.
        InvalidSetting: for a value that is not accepted, a missing one, or a missing family.
    """
    cls = side_channel_class(spec.name)
    settings = read_settings(spec.name, cls.settings_type, dict(spec.settings))
    if decoding is None:
        from tempeval.engine.encoder import DecodeOptions

        decoding = DecodeOptions()
    return cls(settings, family, decoding)


def side_channel_class(name: str) -> type[Channel]:
    """Import the class of a side channel.

    Raises:
        UnknownName: if there is no such side channel.
    """
    return typing.cast("type[Channel]", load_object(SIDE_CHANNELS[name].path))


def reads_folder(name: str) -> bool:
    """Tell whether a side channel reads files from a folder that must be given.

    Raises:
        UnknownName: if there is no such side channel.
    """
    return any(field.name == "folder" for field in fields(side_channel_class(name).settings_type))


def stored_origin(spec: SideSpec) -> str:
    """Return what `features` must be made of to stand for a side channel (see `origin`).

    Args:
        spec: the side channel; settings that are left out have their defaults.

    Raises:
        InvalidSetting: for a setting that is not accepted.
    """
    nowhere = {"folder": "-"} if reads_folder(spec.name) else {}
    return origin_of_spec(side_spec(spec.name, nowhere | dict(spec.settings)))


def _sorted_fields(settings: Any) -> list[Any]:
    return sorted(fields(settings), key=lambda field: field.name)
