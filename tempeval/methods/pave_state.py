"""The official names and shapes of PAVE's patch, in checkpoints and out of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What the patch is called in the official model.
AGGREGATOR = "temporal_aggregator."
#: As the released `non_lora_trainables.bin` has it.
RELEASED_PREFIX = f"base_model.model.model.{AGGREGATOR}"
_FIRST = "input_mapping.weight"
_LAYER = re.compile(r"cross_attn_layers\.(\d+)\.")


@dataclass(frozen=True)
class PatchSizes:
    """Sizes of a patch.

    Attributes:
        side: channels of the side channel C.
        query: channels of the query tokens C_q.
        output: channels of the projected visual tokens D.
        hidden: width of the cross-attention.
        layers: cross-attention layers.
        feed_forward: width inside a layer's feed-forward; 0 is twice `hidden`.
        output_hidden: width inside the output map; 0 is twice `hidden`.
    """

    side: int
    query: int
    output: int
    hidden: int = 512
    layers: int = 2
    feed_forward: int = 0
    output_hidden: int = 0

    def __post_init__(self) -> None:
        for name in ("side", "query", "output", "hidden", "layers"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"a patch with {name}={getattr(self, name)}; accepted: from 1")
        for name in ("feed_forward", "output_hidden"):
            object.__setattr__(self, name, getattr(self, name) or 2 * self.hidden)


def checked_state(
    state: Mapping[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], PatchSizes]:
    """Return a patch's tensors under their bare official names, and the sizes that they have.

    Keys outside the patch's prefix are somebody else's and left out. Without a prefix every key is
    the patch's.

    Raises:
        InvalidSetting: naming a missing or unexpected key, one of another shape, or a value that is
            no dense tensor of finite floats.
    """
    prefix = _prefix(state)
    named = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
    for key, value in named.items():
        _check_value(prefix + key, value)
    sizes = _sizes(named)
    expected = expected_shapes(sizes)
    if missing := sorted(expected.keys() - named.keys()):
        raise InvalidSetting(f"the patch's weights lack {prefix}{missing[0]} ({len(missing)} keys)")
    if extra := sorted(named.keys() - expected.keys()):
        raise InvalidSetting(
            f"the patch's weights have a key that it does not know: {prefix}{extra[0]} "
            f"({len(extra)} keys)"
        )
    for key, shape in expected.items():
        if tuple(named[key].shape) != shape:
            raise InvalidSetting(
                f"{prefix}{key} has shape {tuple(named[key].shape)}; with the other weights it "
                f"should be {shape}"
            )
    return named, sizes


def official_state(state: Mapping[str, torch.Tensor], prefix: str = "") -> dict[str, torch.Tensor]:
    """Return a patch's tensors with `prefix` before each name, on the CPU."""
    return {prefix + key: value.detach().cpu().contiguous() for key, value in state.items()}


def expected_shapes(sizes: PatchSizes) -> dict[str, tuple[int, ...]]:
    """Return every key of a patch of these sizes with its shape."""
    hidden = sizes.hidden
    shapes: dict[str, tuple[int, ...]] = {
        "input_mapping.weight": (hidden, sizes.side),
        "input_mapping.bias": (hidden,),
        "query_input_mapping.weight": (hidden, sizes.query),
        "query_input_mapping.bias": (hidden,),
        "output_mapping.0.weight": (sizes.output_hidden, hidden),
        "output_mapping.0.bias": (sizes.output_hidden,),
        "output_mapping.2.weight": (sizes.output, sizes.output_hidden),
        "output_mapping.2.bias": (sizes.output,),
        "output_norm.weight": (sizes.output,),
        "output_norm.bias": (sizes.output,),
    }
    for number in range(sizes.layers):
        layer = f"cross_attn_layers.{number}."
        for name in ("q_linear", "k_linear", "v_linear"):
            shapes[f"{layer}attn.{name}.weight"] = (hidden, hidden)
            shapes[f"{layer}attn.{name}.bias"] = (hidden,)
        shapes[f"{layer}ffn.0.weight"] = shapes[f"{layer}ffn.0.bias"] = (hidden,)
        shapes[f"{layer}ffn.1.weight"] = (sizes.feed_forward, hidden)
        shapes[f"{layer}ffn.3.weight"] = (hidden, sizes.feed_forward)
    return shapes


def _check_value(key: str, value: object) -> None:
    if not isinstance(value, torch.Tensor):
        raise InvalidSetting(f"{key} is a {type(value).__name__}; accepted: a tensor of floats")
    if not value.is_floating_point() or value.layout != torch.strided or value.is_meta:
        raise InvalidSetting(
            f"{key} is of {value.dtype}, {value.layout}, on {value.device}; accepted: a dense "
            "tensor of floats"
        )
    wrong = int((~torch.isfinite(value)).sum())
    if wrong:
        raise InvalidSetting(
            f"{key} has numbers that are not finite floats ({wrong} of {value.numel()})"
        )


def _prefix(state: Mapping[str, torch.Tensor]) -> str:
    """Find what stands before the patch's names.

    `query_input_mapping.weight` ends like `input_mapping.weight`, so whole names are compared.
    """
    for key in state:
        if not isinstance(key, str):
            raise InvalidSetting(f"the patch's weights have the key {key!r}; accepted: names")
    found = {
        key[: -len(_FIRST)]
        for key in state
        if key.endswith(_FIRST) and (key == _FIRST or key[: -len(_FIRST)].endswith("."))
    }
    if len(found) == 1:
        return found.pop()
    if not found:
        raise InvalidSetting(
            f"no patch among {len(state)} weights: none is named {_FIRST!r}, alone or after a "
            f"prefix such as {RELEASED_PREFIX!r}"
        )
    raise InvalidSetting(f"several patches among the weights: {', '.join(sorted(found))}")


def _sizes(named: Mapping[str, torch.Tensor]) -> PatchSizes:
    layers = {int(match[1]) for key in named if (match := _LAYER.match(key))}
    if gaps := set(range(len(layers))) - layers:
        raise InvalidSetting(f"the patch's weights lack cross_attn_layers.{min(gaps)}")

    def shape(key: str, dims: int) -> tuple[int, ...]:
        if key not in named:
            raise InvalidSetting(f"the patch's weights lack {key}")
        found = tuple(named[key].shape)
        if len(found) != dims:
            raise InvalidSetting(f"{key} has shape {found}; accepted: {dims} dimensions")
        return found

    hidden, side = shape("input_mapping.weight", 2)
    output, output_hidden = shape("output_mapping.2.weight", 2)
    return PatchSizes(
        side=side,
        query=shape("query_input_mapping.weight", 2)[1],
        output=output,
        hidden=hidden,
        layers=len(layers),
        feed_forward=shape("cross_attn_layers.0.ffn.1.weight", 2)[0],
        output_hidden=output_hidden,
    )
