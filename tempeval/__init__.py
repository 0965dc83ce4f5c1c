"""Compare inference-time methods for temporal understanding at a matched visual-token budget."""

from pathlib import Path

__version__ = "0.1.0"

# In a source checkout the sub-packages lie beside this folder instead of inside it. Without this,
# `python -m ...` run from the checkout finds this folder first and no `tempeval.tasks`.
_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "model_wrappers").is_dir():
    __path__.append(str(_CHECKOUT))
