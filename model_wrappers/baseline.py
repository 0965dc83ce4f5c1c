"""lmms-eval model `tempeval_baseline`: the base model alone, through the same engine."""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalBaseline(TempevalModel):
    """Chat path."""

    fixed_method = "baseline"


class TempevalBaselineSimple(TempevalBaseline):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
