"""Read nested settings from plain values: unknown keys and wrong types are refused by name."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any, TypeVar

from tempeval.errors import InvalidSetting, UnknownName

Settings = TypeVar("Settings")
Scalar = str | int | float | bool | None


def read_settings(kind: type[Settings], given: Any, where: str = "") -> Settings:
    """Build a frozen dataclass of settings.

    Sections are dataclasses themselves; their own checks run as they are built.

    Args:
        kind: the dataclass; its fields are the accepted keys.
        given: a mapping, as `yaml.safe_load` gives it.
        where: dotted path of the section, for messages; empty at the top.

    Raises:
        UnknownName: for a key that is no field, with the nearest that is.
        InvalidSetting: for a value of another type, or a missing key that has no default.
    """
    title = where or "the configuration"
    if not isinstance(given, dict):
        raise InvalidSetting(f"{title} is {given!r}; it must be a mapping of settings")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in given:
        if key not in fields:
            raise UnknownName(f"setting in {title}", str(key), fields)
    missing = [name for name, field in fields.items() if _required(field) and name not in given]
    if missing:
        raise InvalidSetting(f"{title} lacks {', '.join(missing)}; it must be given")
    hints = typing.get_type_hints(kind)
    values = {
        key: _value(hints[key], value, f"{where}.{key}" if where else key)
        for key, value in given.items()
    }
    return kind(**values)


def _required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _value(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return read_settings(typing.cast("type[Any]", hint), value, where)
    if typing.get_origin(hint) is dict:
        return _mapping(value, where)
    accepted = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for kind in accepted:
        found = _scalar(kind, value)
        if found is not _REFUSED:
            return found
    names = " or ".join(_NAMES[kind] for kind in accepted)
    raise InvalidSetting(f"{where}={value!r} is of the wrong type; accepted: {names}")


def _mapping(value: Any, where: str) -> dict[str, Scalar]:
    """Return a mapping of names to single values."""
    if not isinstance(value, dict):
        raise InvalidSetting(f"{where}={value!r} must be a mapping of names to values")
    for key, entry in value.items():
        if not isinstance(key, str) or not isinstance(entry, str | int | float | bool | None):
            raise InvalidSetting(f"{where}.{key}={entry!r}; accepted: a text, a number, yes or no")
    return value


_REFUSED = object()
_NAMES: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _scalar(kind: Any, value: Any) -> Any:
    """Return a value as `kind`, or `_REFUSED`."""
    if kind is float and not isinstance(value, bool):
        # YAML 1.1 reads 2e-5, which has no point, as a text.
        try:
            number = float(value)
        except (TypeError, ValueError):
            return _REFUSED
        return number if math.isfinite(number) else _REFUSED
    if kind is int and isinstance(value, bool):
        return _REFUSED
    return value if isinstance(value, kind) else _REFUSED
