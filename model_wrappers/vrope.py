"""lmms-eval model `tempeval_vrope`: VRoPE (see `tempeval.methods.vrope`)."""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalVRoPE(TempevalModel):
    """Chat path."""

    fixed_method = "vrope"


class TempevalVRoPESimple(TempevalVRoPE):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
