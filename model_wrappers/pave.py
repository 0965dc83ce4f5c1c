"""lmms-eval model `tempeval_pave`: PAVE (see `tempeval.methods.pave`).

`--model_args adapter=FOLDER` says which patch; its other settings are arguments too.
"""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalPAVE(TempevalModel):
    """Chat path."""

    fixed_method = "pave"


class TempevalPAVESimple(TempevalPAVE):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
