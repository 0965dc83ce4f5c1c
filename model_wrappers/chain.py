"""lmms-eval model `tempeval`: any chain, as `--model_args method=pas+temporal_exit`."""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class Tempeval(TempevalModel):
    """Chat path."""


class TempevalMatrix(Tempeval):
    """For `tempeval run`, which sets one chain after the other: each is checked when it is set.

    Failed samples are on the run's console and in its record.
    """

    checks_at_once = False
    says_failures = False


class TempevalSimple(Tempeval):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
