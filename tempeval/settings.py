"""Settings as they are written, into a dataclass with the types of its fields."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping

Settings = typing.TypeVar("Settings")


def read_settings(name: str, kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Build a dataclass of settings from strings or values.

    Args:
        name: whose settings they are, as it is written.
        kind: the dataclass; fields without a default are needed.
        given: by the names of its fields.

    Raises:
        UnknownName: for a name that is no field.
        InvalidSetting: for a value that cannot be read, or one that is missing.
    """
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]  # any dataclass
    values: dict[str, Any] = {}
    for key, value in given.items():
        if key not in known:
            raise UnknownName(f"setting of {name}", key, known)
        values[key] = read_value(f"{name}.{key}", value, hints[key])
    for f in known.values():
        if f.default is MISSING and f.default_factory is MISSING and f.name not in values:
            raise InvalidSetting(f"{name} needs {f.name!r}; write {name}[{f.name}=...]")
    return kind(**values)


def read_value(label: str, value: Any, hint: Any) -> Any:
    """Turn a command-line string into a field's type.

    Raises:
        InvalidSetting: if it does not fit.
    """
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() == "none"):
            if type(None) in args:
                return None
            raise InvalidSetting(f"{label}={value!r} may not be none")
        problems = []
        for option in args:
            if option is type(None):
                continue
            try:
                return read_value(label, value, option)
            except InvalidSetting as error:
                problems.append(str(error))
        raise InvalidSetting(problems[0])
    if origin is typing.Literal:
        if value in args:
            return value
        raise InvalidSetting(f"{label}={value!r} is not one of {', '.join(map(repr, args))}")
    if origin is tuple:
        parts = value.split("/") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            parts = [parts]
        return tuple(read_value(label, part, args[0]) for part in parts)
    if hint is bool:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "1", "yes"):
            return True
        if str(value).lower() in ("false", "0", "no"):
            return False
        raise InvalidSetting(f"{label}={value!r} is not true or false")
    if hint in (int, float):
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise InvalidSetting(f"{label}={value!r} is not a number") from None
        if hint is float:
            if not math.isfinite(number):
                raise InvalidSetting(f"{label}={value!r} is not a finite number")
            return number
        if not number.is_integer() or (isinstance(value, float) and hint is int):
            raise InvalidSetting(f"{label}={value!r} is not a whole number")
        return int(number)
    return str(value)
