"""Low-rank changes of the text stack's linear maps (LoRA): applied while attached, then undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import nn
from torch.nn.functional import linear

from tempeval.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor


#: Types of weights that are numbers, one each.
PLAIN = frozenset({torch.float64, torch.float32, torch.bfloat16, torch.float16})


class Matrices(dict[str, "tuple[Tensor, Tensor]"]):
    """(A, B) by name; unlike a plain dictionary it can be referred to weakly."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """Low-rank changes of linear maps: `y = W x + b` becomes `y + scale * B (A x)`.

    Source: LoRA, arXiv 2106.09685. `scale` is its alpha / r.

    Attributes:
        scale: factor on the change.
        matrices: (A `[r, in]`, B `[out, r]`) by the linear map's dotted name inside the family's
            text model, such as `layers.0.self_attn.q_proj`.
        merged: compute `(W + scale * B A) x` from weights merged once, which costs a copy of these
            weights but no time, instead of two more products per map. The copy lives as long as
            `matrices` does.
        deeper: maps, such as `mlp.up_proj`, that it was trained in in every layer that is deeper
            than those of `matrices`: a model with such a layer shows that some are lost.
    """

    scale: float
    matrices: Mapping[str, tuple[Tensor, Tensor]]
    merged: bool = False
    deeper: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.matrices, Matrices):
            object.__setattr__(self, "matrices", Matrices(self.matrices))

    def numbers_in(self, layer: int) -> int:
        """Count the numbers of both matrices of all maps in a decoder layer."""
        start = f"layers.{layer}."
        pairs = [pair for name, pair in self.matrices.items() if name.startswith(start)]
        return sum(a.numel() + b.numel() for a, b in pairs)

    def flops_in(self, layer: int) -> float:
        """Count the operations per row that a decoder layer has more of; none when merged."""
        return 0.0 if self.merged else 2.0 * self.numbers_in(layer)


class _Prepared:
    """Matrices or merged weights as one model takes them, and what they were made from."""

    def __init__(self, low_rank: LowRank, maps: Mapping[str, nn.Linear]) -> None:
        self.is_merged = low_rank.merged
        self.made_from = [_identity(m.weight, low_rank.merged) for m in maps.values()]
        pairs = [(low_rank.matrices[name], m.weight) for name, m in maps.items()]
        if low_rank.merged:
            self.merged = [merged_weight(weight, a, b, low_rank.scale) for (a, b), weight in pairs]
        else:
            self.matrices = [(a.to(weight), b.to(weight)) for (a, b), weight in pairs]

    def fits(self, maps: Mapping[str, nn.Linear]) -> bool:
        """Whether the model's weights are still those that this was made from."""
        now = [_identity(m.weight, self.is_merged) for m in maps.values()]
        return now == self.made_from


#: Made once per model and adapter, since methods take turns on every video. An entry goes with its
#: model, or with the adapter's matrices, which only those who use them hold.
_PREPARED: WeakKeyDictionary[nn.Module, dict[int, _Entry]] = WeakKeyDictionary()


class _Entry:
    """What was made of one adapter's matrices, by scale and whether merged.

    Attributes:
        alive: the matrices; their end is the entry's.
        made: the results.
    """

    def __init__(self, alive: ref[Matrices]) -> None:
        self.alive = alive
        self.made: dict[tuple[float, bool], _Prepared] = {}


def linear_maps(model: nn.Module, low_rank: LowRank) -> dict[str, nn.Linear]:
    """Find the linear maps that a low-rank change names.

    Args:
        model: the family's text model.
        low_rank: the change.

    Raises:
        InvalidSetting: naming a map that the model does not have, one of another size or with
            quantised weights, or one that the change must have and has not.
    """
    modules = dict(model.named_modules())
    _check_depth(modules, low_rank)
    found = {}
    for name, (a, b) in low_rank.matrices.items():
        module = modules.get(name)
        if module is not None and not list(module.children()):
            check_plain(name, module)
        if not isinstance(module, nn.Linear):
            has = [n for n, m in modules.items() if isinstance(m, nn.Linear)]
            raise InvalidSetting(
                f"a low-rank change is for {name!r}, and the text model has no linear map of that "
                f"name; it has {len(has)}, such as {has[0] if has else None!r}. Use an adapter "
                "that was trained on this base model"
            )
        out, width = module.weight.shape
        ranks = (a.shape[0], b.shape[-1])
        if a.shape[1:] != (width,) or b.shape[:-1] != (out,) or ranks[0] != ranks[1]:
            raise InvalidSetting(
                f"a low-rank change of {name!r} has shapes A {tuple(a.shape)} and B "
                f"{tuple(b.shape)}; the map takes {width} and gives {out}, so A is [r, {width}] "
                f"and B [{out}, r]. Use an adapter that was trained on this base model"
            )
        found[name] = module
    return found


def check_plain(name: str, module: nn.Module) -> None:
    """Refuse a map whose weights are not plain numbers, to which nothing can be added.

    Raises:
        InvalidSetting: naming the map and how its weights are held.
    """
    weight = getattr(module, "weight", None)
    plain = isinstance(weight, torch.Tensor) and type(weight.data) is torch.Tensor
    if plain and weight is not None and weight.dtype in PLAIN:
        return
    held = type(module).__name__ if weight is None else f"{type(module).__name__} of {weight.dtype}"
    raise InvalidSetting(
        f"a low-rank change of {name!r} needs plain weights, and this base model is quantised "
        f"({held}); use the base model that is not quantised, or pave with lora=none"
    )


def _check_depth(modules: Mapping[str, nn.Module], low_rank: LowRank) -> None:
    layers, changed = (
        {int(name.split(".")[1]) for name in names if name.startswith("layers.")}
        for names in (modules, low_rank.matrices)
    )
    deepest = max(changed, default=-1)
    if low_rank.deeper and max(layers, default=-1) > deepest:
        raise InvalidSetting(
            f"a low-rank change was trained in every {low_rank.deeper[0]}, and has none below "
            f"layer {deepest}; the text model has {len(layers)} layers. A part of the adapter is "
            "lost, or it was trained on another base model"
        )


@torch.no_grad()
def apply_low_rank(model: nn.Module, low_rank: LowRank) -> Callable[[], None]:
    """Apply a low-rank change to a text model.

    The model's own weights are not written to: kept matrices act in hooks, merged weights take the
    place of the module's tensors.

    Args:
        model: the family's text model.
        low_rank: the change.

    Returns:
        What undoes it: every tensor in its place again, no hook left.

    Raises:
        InvalidSetting: see `linear_maps`; nothing has changed then.
    """
    maps = linear_maps(model, low_rank)
    ready = _prepared(model, low_rank, maps)
    undo: list[Callable[[], None]] = []

    def undo_all() -> None:
        while undo:
            undo.pop()()

    try:
        for number, module in enumerate(maps.values()):
            if low_rank.merged:
                undo.append(_restore(module, module.weight))
                module.weight = ready.merged[number]
            else:
                hook = _Hook(*ready.matrices[number], low_rank.scale)
                undo.append(module.register_forward_hook(hook).remove)
    except BaseException:
        undo_all()
        raise
    return undo_all


class _Hook:
    def __init__(self, a: Tensor, b: Tensor, scale: float) -> None:
        self.a, self.b, self.scale = a, b, scale

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = linear(linear(args[0], self.a), self.b)
        return torch.add(output, change, alpha=self.scale)


def _restore(module: nn.Linear, weight: Tensor) -> Callable[[], None]:
    def restore() -> None:
        module.weight = weight

    return restore


def _prepared(model: nn.Module, low_rank: LowRank, maps: Mapping[str, nn.Linear]) -> _Prepared:
    known = _PREPARED.setdefault(model, {})
    matrices: Any = low_rank.matrices  # `Matrices`, made sure of when it was made
    number = id(matrices)  # nobody else's while they live, and gone from here when they do not
    if number not in known:
        known[number] = _Entry(ref(matrices, lambda _: known.pop(number, None)))
    made = known[number].made
    key = (low_rank.scale, low_rank.merged)
    if key not in made or not made[key].fits(maps):
        made[key] = _Prepared(low_rank, maps)
    return made[key]


def _identity(weight: Tensor, content: bool) -> tuple[Any, ...]:
    """Name a weight's kind and place, and where its content matters, that too."""
    kind = (weight.dtype, weight.device)
    return (*kind, weight.data_ptr(), weight._version) if content else kind


def merged_weight(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> nn.Parameter:
    """Return `W + scale * B A`, added in float32 at least and rounded once."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    a, b = (m.to(weight.device, wide) for m in (a, b))
    change = (b @ a) * scale
    return nn.Parameter((weight.to(wide) + change).to(weight.dtype), requires_grad=False)
