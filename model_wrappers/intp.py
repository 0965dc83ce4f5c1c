"""lmms-eval model `tempeval_intp`: many frames (see `tempeval.methods.intp`).

`--model_args pretrained=...,num_frames=32` is the paper's accuracy setting; `kv_bits=2` with
`calibration=FILE` is its setting for memory.
"""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalINTP(TempevalModel):
    """Chat path."""

    fixed_method = "intp"


class TempevalINTPSimple(TempevalINTP):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
