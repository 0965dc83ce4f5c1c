"""The keyword under which this transformers hands a cache on: renamed in 5.24."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from torch import nn

#: Names by age, the present one first.
CACHE_KEYWORDS = ("cache", "past_key_values")


def with_cache(module: nn.Module, cache: Any) -> dict[str, Any]:
    """Return the keyword argument that gives `cache` to a module's forward, or to `generate`.

    Raises:
        UnsupportedModel: if its forward takes no cache.
    """
    parameters = inspect.signature(type(module).forward).parameters
    for name in CACHE_KEYWORDS:
        if name in parameters:
            return {name: cache}
    raise UnsupportedModel(
        f"{type(module).__name__}.forward takes none of {', '.join(CACHE_KEYWORDS)}; this version "
        "of transformers is not supported"
    )


def given_cache(kwargs: dict[str, Any]) -> Any:
    """Return the cache among the keyword arguments of a forward; None where there is none."""
    return next((kwargs[name] for name in CACHE_KEYWORDS if kwargs.get(name) is not None), None)
