"""lmms-eval model `tempeval_pas`: PAS (see `tempeval.methods.pas`)."""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalPAS(TempevalModel):
    """Chat path."""

    fixed_method = "pas"


class TempevalPASSimple(TempevalPAS):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
