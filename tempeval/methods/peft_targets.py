"""Which modules a LoRA configuration names, so that an adapter that lost some is noticed.

Source: peft (`tuners/tuners_utils.py`, `check_target_module_exists`), read for the rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

#: Before `layers.`: the original model; transformers' class, releases 5 and 4; a text model alone.
PREFIXES = ("model.", "model.language_model.", "language_model.model.", "")
PREFIX = r"(?:base_model\.model\.)?(?:model\.language_model\.|language_model\.model\.|model\.)?"
PROJECTIONS = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
PROJECTION = "(?:" + "|".join(re.escape(name) for name in PROJECTIONS) + ")"
#: peft's name for every linear map but the output's.
ALL_LINEAR = "all-linear"
_TARGET = re.compile(rf"{PREFIX}(layers\.\d+\.{PROJECTION})")

#: A pattern over whole names, or names that a module's own ends with.
Names = str | tuple[str, ...]


@dataclass(frozen=True)
class Targets:
    """The modules of a text model that a configuration names.

    Attributes:
        targets: a pattern over whole names of modules, or names; None if nothing says.
        exclude: the same, of what is left out.
        layers: numbers of the layers that are meant; None for all.
    """

    targets: Names | None
    exclude: Names | None = None
    layers: tuple[int, ...] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any], path: Path) -> Targets:
        """Read them from a configuration.

        Raises:
            UnsupportedModel: for values that are of no kind peft writes.
        """
        layers = settings.get("layers_to_transform")
        if isinstance(layers, int) and not isinstance(layers, bool):
            layers = [layers]
        if layers is not None and not (
            isinstance(layers, list) and all(type(number) is int for number in layers)
        ):
            raise UnsupportedModel(
                f"{path} has layers_to_transform={layers!r}; accepted: whole numbers"
            )
        return cls(
            _names(settings, "target_modules", path),
            _names(settings, "exclude_modules", path),
            None if layers is None else tuple(layers),
        )

    def names(self, module: str) -> bool:
        """Say whether a module, such as `layers.3.mlp.up_proj`, is named.

        The model that a pattern was made for is not here, so it may have any of its known names.
        """
        if self.targets is None or (self.exclude and _meets(module, self.exclude)):
            return False
        if self.layers is not None and int(module.split(".")[1]) not in self.layers:
            return False
        return self.targets == ALL_LINEAR or _meets(module, self.targets)

    def check(self, modules: Iterable[str], path: Path) -> None:
        """Compare the weights that there are with the modules that are named.

        Args:
            modules: names of modules that have weights, such as `layers.3.mlp.up_proj`.
            path: of the weights, for errors.

        Raises:
            UnsupportedModel: for a named module without weights, up to the deepest layer that has
                any; or for weights of one that is not named.
        """
        if self.targets is None:
            return
        have = set(modules)
        if not isinstance(self.targets, str):
            # A full name says its own layer, however deep.
            for name in map(_bare, self.targets):
                if not any(_ends(module, name) for module in have):
                    raise UnsupportedModel(f"{path} has no weights for the target module {name!r}")
        for module in sorted(have):
            if not self.names(module):
                raise UnsupportedModel(
                    f"{path} has weights for {module}, which is not in target_modules"
                )
        depth = max((_depth(have), *(number + 1 for number in self.layers or ())))
        for module in _all(depth):
            if module not in have and self.names(module):
                raise UnsupportedModel(
                    f"{path} has no weights for {module!r}, which target_modules names; a part of "
                    "the adapter is lost"
                )

    def deeper(self, modules: Iterable[str]) -> tuple[str, ...]:
        """Return the projections, such as `mlp.up_proj`, that any deeper layer would have too.

        Args:
            modules: names of modules that have weights.
        """
        full: list[str] = []
        if self.targets is not None and not isinstance(self.targets, str):
            full = [m[1] for name in self.targets if (m := _TARGET.fullmatch(name))]
        beyond = max(_depth(modules), _depth(full))  # a layer that no full name speaks of
        return tuple(name for name in PROJECTIONS if self.names(f"layers.{beyond}.{name}"))


def _names(settings: Mapping[str, Any], key: str, path: Path) -> Names | None:
    value = settings.get(key)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return tuple(value)
    if value is not None and not isinstance(value, str):
        raise UnsupportedModel(f"{path} has {key}={value!r}; accepted: a pattern, or names")
    if value is not None and value != ALL_LINEAR:
        try:
            re.compile(value)
        except re.error as error:
            raise UnsupportedModel(f"{path} has {key}={value!r}, no pattern: {error}") from error
    return value


def _meets(module: str, names: Names) -> bool:
    if isinstance(names, str):
        return any(re.fullmatch(names, prefix + module) for prefix in PREFIXES)
    return any(_ends(module, _bare(name)) for name in names)


def _ends(module: str, name: str) -> bool:
    return module == name or module.endswith("." + name)


def _bare(name: str) -> str:
    """Return a full name without what stands before `layers.`; others as they are."""
    match = _TARGET.fullmatch(name)
    return match[1] if match else name


def _depth(modules: Iterable[str]) -> int:
    return 1 + max((int(module.split(".")[1]) for module in modules), default=-1)


def _all(depth: int) -> Iterable[str]:
    return (f"layers.{number}.{name}" for number in range(depth) for name in PROJECTIONS)
