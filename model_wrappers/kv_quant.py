"""lmms-eval model `tempeval_kv_quant`: the prefix in few bits (`methods.kv_quantization`)."""

from __future__ import annotations

from tempeval.model_wrappers.wrapper import TempevalModel


class TempevalKVQuant(TempevalModel):
    """Chat path."""

    fixed_method = "kv_quant"


class TempevalKVQuantSimple(TempevalKVQuant):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
