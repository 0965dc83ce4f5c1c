"""What a run was planned with, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tempeval.leaderboard.schema import Plan

#: Sizes of `schema.Plan` and `schema.Setting` -> how a heading says them.
SIZES = {
    "visual_token_budget": "planned for {} visual tokens",
    "min_pixels": "at least {} pixels per frame",
    "max_pixels": "at most {} pixels per frame",
}


def size(field: str, value: int | None) -> str:
    """Put one of SIZES in words, such as 'planned for 72 visual tokens'."""
    if value is None:
        return f"no {field.replace('_', ' ')}"
    return SIZES[field].format(value)


def sizes(plan: Plan) -> str:
    """Put all sizes of a plan in words."""
    return ", ".join(
        [
            size("visual_token_budget", plan["visual_token_budget"]),
            size("min_pixels", plan["min_pixels"]),
            size("max_pixels", plan["max_pixels"]),
        ]
    )
