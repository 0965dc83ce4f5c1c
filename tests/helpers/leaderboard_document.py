"""Check a leaderboard document against its schema: every key, every type, and no other."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

from tempeval.leaderboard import schema


def problems(value: Any, kind: Any = schema.Document, where: str = "document") -> list[str]:
    """Name everything in a value that is not of a type of the schema."""
    if kind is Any:
        return []
    origin, parts = get_origin(kind), get_args(kind)
    if is_typeddict(kind):
        hints = get_type_hints(kind, vars(schema))
        if not isinstance(value, dict):
            return [f"{where} is no {kind.__name__}: {value!r}"]
        odd = [f"{where} has keys {sorted(value.keys() ^ hints.keys())} too many or too few"]
        found = [] if value.keys() == hints.keys() else odd
        shared = value.keys() & hints.keys()
        return found + [p for k in shared for p in problems(value[k], hints[k], f"{where}.{k}")]
    if origin in (Union, types.UnionType):
        tried = [problems(value, part, where) for part in parts]
        return [] if any(not p for p in tried) else max(tried, key=len)
    if origin is Literal:
        return [] if value in parts else [f"{where} is {value!r}, none of {parts}"]
    if origin is list:
        items = value if isinstance(value, list) else None
        if items is None:
            return [f"{where} is no list: {value!r}"]
        return [p for i, x in enumerate(items) for p in problems(x, parts[0], f"{where}[{i}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{where} is no object: {value!r}"]
        return [p for k, x in value.items() for p in problems(x, parts[1], f"{where}.{k}")]
    whole = kind is int or kind is float
    fits = isinstance(value, (int, float) if kind is float else kind)
    fits &= not (whole and isinstance(value, bool))
    return [] if fits else [f"{where} is {value!r}, not {kind.__name__}"]
