"""How a file of features was made, as a short name that can be compared.

`audio-1f2e3d4c` is side channel audio with settings of that digest; where a base model made the
features, a digest of it follows. A name's first parts alone accept every file that begins so.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tempeval.video.clip import SideSpec

#: Settings that say where files lie, not what is in them.
PLACES = ("folder",)
#: What is recorded of a base model and does not make other features of the same meaning.
_NO_MATTER = ("pretrained", "dtype")


def origin_of(facts: Mapping[str, Any]) -> str | None:
    """Name how features were made, from what `tempeval features` wrote beside them.

    Args:
        facts: `side_channel`, `settings` and, where a base model was used, `model`.

    Returns:
        The name; None if the facts do not say.
    """
    name, settings, model = (facts.get(key) for key in ("side_channel", "settings", "model"))
    if not isinstance(name, str) or not isinstance(settings, dict):
        return None
    parts = [name, _digest(settings, PLACES)]
    if isinstance(model, dict):
        parts.append(_digest(model, _NO_MATTER))
    return "-".join(parts)


def origin_of_spec(spec: SideSpec) -> str:
    """Name how features of a side channel are made, whatever the base model."""
    return f"{spec.name}-{_digest(dict(spec.settings), PLACES)}"


def is_accepted(origin: str | None, wanted: str) -> bool:
    """Tell whether features of an origin are of the wanted one."""
    parts = wanted.split("-")
    return origin is not None and origin.split("-")[: len(parts)] == parts


def described(facts: Mapping[str, Any]) -> str:
    """Return how features were made in words, for messages."""
    origin = origin_of(facts)
    if origin is None:
        return "not known (nothing beside them says so)"
    settings = ", ".join(f"{k}={v}" for k, v in facts["settings"].items() if k not in PLACES)
    return f"{origin} ({settings})" if settings else origin


def _digest(values: Mapping[str, Any], leave_out: tuple[str, ...]) -> str:
    kept = {key: value for key, value in values.items() if key not in leave_out}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:8]
