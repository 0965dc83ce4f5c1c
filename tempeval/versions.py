"""Versions of the packages that answers depend on."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress

from tempeval import __version__

PACKAGES = ("lmms_eval", "torch", "transformers", "av", "decord", "numpy")


def versions() -> dict[str, str]:
    """Return version by package, our own first; decord is not everywhere."""
    found = {"tempeval": __version__}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
