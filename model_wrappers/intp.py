"""lmms-eval model `tempeval_intp`: many frames (see `tempeval.methods.intp`).

`--model_args pretrained=...,num_frames=32,kv_bits=16` is the paper's accuracy setting.
"""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalINTP(TempevalModel):
    """Chat path."""

    fixed_method = "intp"


class TempevalINTPSimple(TempevalINTP):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
