"""Checkpoints of weights in few bits: whether they load here, and what a record says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Keys of a `config.json` under which formats keep what they are.
_KEYS = ("quantization_config", "compression_config")


def quantization_config(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a `config.json` says of its quantisation; None where the weights are plain."""
    for part in (config, config.get("text_config") or {}):
        for key in _KEYS:
            if found := part.get(key):
                return dict(found)
    return None


def check_quantization(pretrained: str, config: Mapping[str, Any], device: Any) -> None:
    """Refuse a quantised checkpoint that cannot be loaded on this machine, before it is tried.

    Args:
        pretrained: as the user gave it, for errors.
        config: content of `config.json`.
        device: torch device that the model goes to.

    Raises:
        UnsupportedModel: naming the method, and what transformers misses.
    """
    found = quantization_config(config)
    if found is None:
        return
    from transformers.quantizers.auto import AutoHfQuantizer

    method = method_of(found)
    try:
        if not AutoHfQuantizer.supports_quant_method(found):
            raise ValueError(f"the installed transformers has no such method {method!r}")
        quantizer = AutoHfQuantizer.from_config(found, pre_quantized=True)
        where = {} if device.type == "cpu" else {"device_map": {"": str(device)}}
        quantizer.validate_environment(**where)
    except (
        ImportError,
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        NotImplementedError,
    ) as error:
        said = " ".join(str(error).split())
        raise UnsupportedModel(
            f"{pretrained!r} is quantised ({method}) and cannot be loaded here: {said}. Install "
            "what it needs, or use the checkpoint that is not quantised"
        ) from error


def refuse_quantized(pretrained: str, config: Mapping[str, Any], layout: str) -> None:
    """Refuse a quantised checkpoint of a layout that is read without transformers' quantisers.

    Raises:
        UnsupportedModel: naming the method.
    """
    if (found := quantization_config(config)) is not None:
        raise UnsupportedModel(
            f"{pretrained!r} is quantised ({method_of(found)}), which {layout} is not read with; "
            "use the checkpoint that is not quantised"
        )


def method_of(found: Mapping[str, Any]) -> str:
    """Name the method of a quantisation."""
    loads = (name for name in ("load_in_4bit", "load_in_8bit") if found.get(name))
    method = found.get("quant_method") or ("bitsandbytes" if any(loads) else "unnamed")
    return str(getattr(method, "value", method))


def quantization_record(model: Any) -> dict[str, Any] | None:
    """Return how a loaded model's weights are quantised, as JSON values; None where they are plain.

    Args:
        model: as transformers loaded it.

    Returns:
        `method`, `bits` of a weight (None where the format has no one number), and `dequantised`
        where transformers widened the weights again because the device cannot compute with them.
    """
    config = model.config
    for found in (config, config.get_text_config()):
        value = getattr(found, _KEYS[0], None)
        if value:
            said = dict(value if isinstance(value, dict) else value.to_dict())
            own = value if isinstance(value, dict) else vars(value)
            return {
                "method": method_of(said),
                "bits": _bits(said),
                **({"dequantised": True} if own.get("dequantize") else {}),
            }
    return None


def _bits(found: Mapping[str, Any]) -> int | None:
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        return 4 if found.get("load_in_4bit") else 8
    for name in ("bits", "w_bit", "nbits"):
        if isinstance(found.get(name), int):
            return int(found[name])
    if "fp8" in method_of(found):
        return 8
    groups = found.get("config_groups") or {}
    if isinstance(groups, dict):
        bits = {(group.get("weights") or {}).get("num_bits") for group in groups.values()}
        if len(bits) == 1:
            return bits.pop()
    named = {"int8": 8, "int4": 4, "int2": 2, "float8": 8}
    return named.get(str(found.get("weights") or found.get("weight_format")))


def dtype_text(model: Any) -> str:
    """Name the type of a model's weights, and of what it computes in where they are quantised."""
    computed = str(model.dtype).removeprefix("torch.")
    found = quantization_record(model)
    if found is None or found.get("dequantised"):
        return computed
    bits = "" if found["bits"] is None else f"{found['bits']}-bit "
    return f"{bits}{found['method']} weights, {computed}"
