"""Quantised checkpoints: refused by name where they do not load, in the record where they do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tempeval.engine.low_rank import LowRank, linear_maps
from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.quantization import (
    check_quantization,
    dtype_text,
    quantization_config,
    quantization_record,
    refuse_quantized,
)

CPU = torch.device("cpu")
BNB_4 = {
    "quant_method": "bitsandbytes",
    "load_in_4bit": True,
    "load_in_8bit": False,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_compute_dtype": "bfloat16",
    "bnb_4bit_use_double_quant": True,
}
BNB_8 = {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_threshold": 6.0}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
COMPRESSED = {
    "quant_method": "compressed-tensors",
    "format": "pack-quantized",
    "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4}}},
}
HQQ = {"quant_method": "hqq", "quant_config": {}}
QUANTO = {"quant_method": "quanto", "weights": "int8"}


@pytest.mark.parametrize(
    ("config", "method"),
    [
        (BNB_4, "bitsandbytes"),
        (BNB_8, "bitsandbytes"),
        (GPTQ, "gptq"),
        (AWQ, "awq"),
        (COMPRESSED, "compressed-tensors"),
        (HQQ, "hqq"),
        (QUANTO, "quanto"),
        ({"quant_method": "of_tomorrow"}, "of_tomorrow"),
        ({"bits": 4}, "unnamed"),
    ],
)
def test_what_is_not_installed_is_named_before_loading(config, method):
    """None of these packages is a dependency of this one."""
    for place in (
        {"quantization_config": config},
        {"text_config": {"quantization_config": config}},
    ):
        with pytest.raises(UnsupportedModel, match=rf"'m' is quantised \({method}\) and cannot"):
            check_quantization("m", place, CPU)
        with pytest.raises(UnsupportedModel, match=rf"quantised \({method}\), which the original"):
            refuse_quantized("m", place, "the original layout")


def test_plain_weights_are_not_asked():
    for config in ({}, {"quantization_config": None}, {"text_config": {}}):
        assert quantization_config(config) is None
        check_quantization("m", config, CPU)
        refuse_quantized("m", config, "the original layout")


def loaded(config, dtype=torch.float32):
    return SimpleNamespace(
        config=SimpleNamespace(
            quantization_config=config, get_text_config=lambda: SimpleNamespace()
        ),
        dtype=dtype,
    )


@pytest.mark.parametrize(
    ("config", "record", "text"),
    [
        (None, None, "float32"),
        (BNB_4, {"method": "bitsandbytes", "bits": 4}, "4-bit bitsandbytes weights, float32"),
        (BNB_8, {"method": "bitsandbytes", "bits": 8}, "8-bit bitsandbytes weights, float32"),
        (GPTQ, {"method": "gptq", "bits": 4}, "4-bit gptq weights, float32"),
        (FP8, {"method": "fp8", "bits": 8}, "8-bit fp8 weights, float32"),
        (
            {**FP8, "dequantize": True},
            {"method": "fp8", "bits": 8, "dequantised": True},
            "float32",
        ),
        (COMPRESSED, {"method": "compressed-tensors", "bits": 4}, None),
        (QUANTO, {"method": "quanto", "bits": 8}, "8-bit quanto weights, float32"),
        (HQQ, {"method": "hqq", "bits": None}, "hqq weights, float32"),
    ],
)
def test_what_a_record_says(config, record, text):
    assert quantization_record(loaded(config)) == record
    assert text in (None, dtype_text(loaded(config)))


def test_a_record_reads_the_settings_that_transformers_makes():
    from transformers import BitsAndBytesConfig

    made = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
    assert quantization_record(loaded(made)) == {"method": "bitsandbytes", "bits": 4}


class Packed(nn.Module):
    """As gptq and awq hold a map: no weight at all."""


class Narrow(torch.Tensor):
    """As torchao and quanto hold one: a weight that only looks like plain numbers."""


def test_low_rank_changes_of_quantised_weights_are_refused():
    """4 bits in bytes and fp8 under nn.Linear, and modules of other kinds."""
    change = LowRank(1.0, {"layers.0.mlp": (torch.zeros(2, 4), torch.zeros(3, 2))})

    def model(linear):
        return nn.ModuleDict({"layers": nn.ModuleList([nn.ModuleDict({"mlp": linear})])})

    plain = nn.Linear(4, 3, bias=False)
    assert list(linear_maps(model(plain), change)) == ["layers.0.mlp"]
    for weight in (
        torch.zeros(12, 1, dtype=torch.uint8),
        torch.zeros(3, 4, dtype=torch.int8),
        torch.zeros(3, 4).to(torch.float8_e4m3fn),
        torch.zeros(3, 4).as_subclass(Narrow),
    ):
        held = nn.Linear(4, 3, bias=False)
        held.weight = nn.Parameter(weight, requires_grad=False)
        with pytest.raises(InvalidSetting, match=r"'layers.0.mlp' needs plain weights.*lora=none"):
            linear_maps(model(held), change)
    with pytest.raises(InvalidSetting, match=r"this base model is quantised \(Packed\)"):
        linear_maps(model(Packed()), change)
