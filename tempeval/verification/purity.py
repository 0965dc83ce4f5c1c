"""What a method's functions promise: pure, of the right kind, and changing what they declare."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tempeval.methods.base import STAGES, Method
from tempeval.stages import PrefixTokens
from tempeval.video.clip import FramePlan

if TYPE_CHECKING:
    from tempeval.families.base import Family
    from tempeval.stages import Layout
    from tempeval.verification.exactness import Case

#: Fields of a `RotaryPlan`, by what a method that changes them must say that it modifies.
_ROTARY = {
    "positions": ("positions", "permutation"),
    "step": ("positions", "permutation", "inv_freq"),
    "next_position": ("positions", "permutation"),
    "axis": ("axis",),
    "inv_freq": ("inv_freq",),
    "attention_scaling": ("inv_freq",),
    "query_shift": ("query_shift",),
    "shift_scale": ("query_shift", "positions", "permutation"),
    "shift_scale_after": ("query_shift",),
    "layers": ("layers",),
}


def problems_of(family: Family, case: Case) -> list[str]:
    """Call every stage of a bound chain's methods on copies of its inputs; say what is wrong.

    Args:
        family: the model that the case was made for.
        case: prompts under the chain.
    """
    found: list[str] = []
    for part in case.chain.parts:
        if part.bind(case.facts) != part.bind(case.facts):
            found.append(f"{part.name}: bind gives something else when it is called again")
        for stage, arguments in _calls(family, case):
            if stage in _overridden(part):
                found += _called(part, stage, arguments)
        found += _undeclared(part, family, case)
    return list(dict.fromkeys(found))


def _overridden(part: Method) -> list[str]:
    cls = type(part)
    return [stage for stage in STAGES if getattr(cls, stage) is not getattr(Method, stage)]


def _calls(family: Family, case: Case) -> list[tuple[str, tuple[Any, ...]]]:
    """Return what each stage is called with, in a run of the case."""
    geometry = family.geometry
    depth = geometry.num_layers
    prefix = PrefixTokens.of(case.layout, depth)
    segments = prefix.segments
    placed = _placed(case)
    calls: list[tuple[str, tuple[Any, ...]]] = [
        ("frames", (FramePlan(case.plan.sampling),)),
        ("tokens", (case.encoded,)),
        ("positions", (placed.rotary, placed, geometry)),
    ]
    everything = torch.ones(segments.size, segments.size, dtype=torch.bool)
    whole = torch.ones_like(prefix.is_visual)
    for layer in range(depth):
        calls.append(("attention", (everything, layer, segments)))
        calls.append(("prune", (whole, layer, prefix)))
        calls.append(("kv_cache", (layer, geometry)))
    return calls


def _placed(case: Case) -> Layout:
    """Return the layout that stage `positions` is asked about: of all cells where some are gone."""
    return case.layout if case.layout.whole is None else case.layout.whole


def _called(part: Method, stage: str, arguments: tuple[Any, ...]) -> list[str]:
    function = getattr(part, stage)
    label = f"{part.name}.{stage}"
    found, results = [], []
    for _ in range(3):
        given = copy.deepcopy(arguments)
        results.append(function(*given))
        if not same(given, arguments):
            found.append(f"{label} changes what it is given in place")
            break
    if any(not same(results[0], other) for other in results[1:]):
        found.append(f"{label} gives something else when it is called again with the same")
    return found + [f"{label}: {text}" for text in _kind(stage, arguments, results[0])]


def _kind(stage: str, arguments: tuple[Any, ...], made: Any) -> list[str]:
    """Say where what a stage returned is not of the documented kind."""
    if stage == "tokens":
        given = arguments[0]
        if made.embeddings.dtype != given.embeddings.dtype:
            return [
                f"embeddings become {made.embeddings.dtype}, of {given.embeddings.dtype} "
                "that the model computes in"
            ]
        if not bool(made.embeddings.isfinite().all()):
            return ["embeddings are not finite"]
    if stage == "positions":
        wanted = {"positions": torch.float64, "inv_freq": torch.float32, "query_shift": None}
        found = []
        for plan in (made, *made.layers.values()):
            for name, dtype in wanted.items():
                value = getattr(plan, name)
                if value is None:
                    continue
                if dtype is not None and value.dtype != dtype:
                    found.append(f"{name} is {value.dtype}, not {dtype}")
                if not bool(value.isfinite().all()):
                    found.append(f"{name} is not finite")
            if plan.positions.shape != arguments[0].positions.shape:
                found.append(
                    f"positions are {tuple(plan.positions.shape)}, of "
                    f"{tuple(arguments[0].positions.shape)} given"
                )
        return found
    if stage in ("attention", "prune") and isinstance(made, torch.Tensor):
        given = arguments[0]
        if made.dtype != torch.bool or made.shape != given.shape:
            return [f"returns {made.dtype} {tuple(made.shape)}, not bool {tuple(given.shape)}"]
    return []


def _undeclared(part: Method, family: Family, case: Case) -> list[str]:
    """Say what a method changes and does not say that it modifies."""
    geometry = family.geometry
    changed: list[tuple[str, tuple[str, ...]]] = []
    tokens = part.tokens(copy.deepcopy(case.encoded))
    if not same(tokens, case.encoded) and not part.modifies:
        changed.append(("the visual tokens", ("tokens", "cells")))
    placed = _placed(case)
    rotary = part.positions(copy.deepcopy(placed.rotary), placed, geometry)
    for name, words in _ROTARY.items():
        before, after = getattr(placed.rotary, name), getattr(rotary, name)
        if not same(before, after) and part.modifies.isdisjoint(words):
            changed.append((f"{name} of the rotary plan", words))
    for layer in range(geometry.num_layers):
        held = part.kv_cache(layer, geometry)
        if held is not None and part.modifies.isdisjoint(("kv_cache", "eviction")):
            changed.append(("what the cache holds", ("kv_cache",)))
    if part.low_rank is not None and "low_rank" not in part.modifies:
        changed.append(("the linear maps", ("low_rank",)))
    return [
        f"{part.name} changes {what} and does not say so: put {words[0]!r} in its `modifies`"
        for what, words in changed
    ]


def same(one: Any, other: Any) -> bool:
    """Return True if two values are equal to the last bit, tensors and dataclasses inside them too.

    Functions are equal by their code, since each call may make a new one.
    """
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
            return False
        if one.shape != other.shape or one.dtype != other.dtype:
            return False
        # NaN is where it was: an unknown time stays unknown.
        unknown = torch.isnan(one) & torch.isnan(other) if one.is_floating_point() else one != one
        return bool(((one == other) | unknown).all())
    if type(one) is not type(other):
        return False
    if dataclasses.is_dataclass(one):
        names = [field.name for field in dataclasses.fields(one)]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and not isinstance(one, str):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if inspect.isfunction(one):
        return bool(one.__code__ == other.__code__)
    if hasattr(one, "__dict__") and "__eq__" not in vars(type(one)):
        return same(vars(one), vars(other))
    return bool(one == other)
