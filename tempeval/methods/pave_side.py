"""Which side channel a run of PAVE reads, from what is asked for and what its adapter says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting
from tempeval.side_channels.registry import STORED, reads_folder, side_spec, stored_origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.video.clip import SideSpec

DEFAULT_CHANNEL = "audio"


def asked_side(
    trained: SideSpec | None,
    name: str | None,
    folder: str | None,
    shuffle: int | None,
    more: Sequence[str],
) -> SideSpec:
    """Return the side channel of a run.

    Files of side channel `features` must have been made as those that the adapter was trained
    with, or as the side channel that it was trained with, unless `origin` says otherwise.

    Args:
        trained: what the adapter was trained with; None if it does not say.
        name: registry name; None for the trained one, else `audio`.
        folder: of feature files.
        shuffle: seed by which each video gets the side channel of another.
        more: further settings, each `name:value`.

    Raises:
        UnknownName: if there is none of that name.
        InvalidSetting: if it does not take one of the settings, or lacks one.
    """
    name = name or (trained.name if trained else DEFAULT_CHANNEL)
    given: dict[str, Any] = dict(trained.settings) if trained and trained.name == name else {}
    if trained and trained.name != name == STORED:
        given["origin"] = stored_origin(trained)
    for text in more:
        key, colon, value = text.partition(":")
        if not colon:
            raise InvalidSetting(
                f"pave.side_settings has {text!r}; accepted: name:value, several joined by /"
            )
        given[key] = value
    given |= {k: v for k, v in (("folder", folder), ("shuffle", shuffle)) if v is not None}
    if reads_folder(name) and "folder" not in given:
        raise InvalidSetting(
            f"pave: side channel {name} is read from files; say where they lie, features=FOLDER"
        )
    return side_spec(name, given)
