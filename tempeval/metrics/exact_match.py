"""Exact match of cleaned answers, and the refined one that takes containment for a hit.

Source: facts of embodied-generalist evaluator/scanqa_eval.py @ 477dc44 and of PAVE's
tools/3d/scanqa/scanqa_evaluator.py @ ef6a93f.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def exact_match(prediction: str, references: Sequence[str]) -> bool:
    """Tell whether a cleaned prediction is one of the cleaned references."""
    return prediction in references


def refined_match(prediction: str, references: Sequence[str]) -> bool:
    """Tell whether, blanks aside, a prediction contains a reference or is contained in one.

    As official: an empty prediction is contained in every reference, and `no` in `piano`.
    """
    said = "".join(prediction.split())
    known = ["".join(reference.split()) for reference in references]
    return any(said in one or one in said for one in known)


def refined_match_strict(prediction: str, references: Sequence[str]) -> bool:
    """As `refined_match`, but an empty prediction is wrong (ours)."""
    return bool(prediction.split()) and refined_match(prediction, references)
