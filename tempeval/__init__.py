"""Compare inference-time methods for temporal understanding at a matched visual-token budget.

`evaluate`, `rank`, `verify`, `load_method` and `Method` are imported when they are first used, so
that `import tempeval` brings neither torch nor lmms-eval.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tempeval.api import evaluate, rank, verify
    from tempeval.methods.base import Method
    from tempeval.methods.registry import load_method

__version__ = "0.1.0"
__all__ = ["Method", "evaluate", "load_method", "rank", "verify"]

#: Names of this package to the modules that have them. None is the name of a submodule, which
#: would take its place once it is imported.
_PLACES = {
    "Method": "tempeval.methods.base",
    "evaluate": "tempeval.api",
    "load_method": "tempeval.methods.registry",
    "rank": "tempeval.api",
    "verify": "tempeval.api",
}

# In a source checkout the sub-packages lie beside this folder instead of inside it. Without this,
# `python -m ...` run from the checkout finds this folder first and no `tempeval.tasks`.
_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "model_wrappers").is_dir():
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
