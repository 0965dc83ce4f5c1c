"""Load the model of a matrix, and refuse the whole request when it takes no run of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.errors import InvalidSetting, TempevalError
from tempeval.run.matrix import plan_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tempeval.run.matrix import Plan
    from tempeval.run.scoring import ChainModel
    from tempeval.run.spec import RunSpec


def load_accepting(options: RunSpec) -> ChainModel:
    """Load the model as `run_matrix` does, and ask it for every budget and method.

    Runs that are refused while others are not are recorded as failed, one by one, by `run_matrix`;
    here nothing has been written yet.

    Args:
        options: of the matrix.

    Raises:
        TempevalError: if the model refuses every run, with the reasons.
    """
    from tempeval.run.runner import load_model

    model = load_model(options)
    plans = plan_matrix(options)
    refused: dict[Path, TempevalError] = {}
    for plan in plans:
        try:
            model.set_budget(plan.budget)
            model.set_method(plan.chain.spec)
        except TempevalError as error:
            refused[plan.folder] = error
        else:
            break
    refuse_all(refused, plans)
    return model


def refuse_all(refused: Mapping[Path, TempevalError], plans: Sequence[Plan]) -> None:
    """Raise what keeps every run of a matrix from being made; return if one can be.

    Args:
        refused: why, by folder of the run.
        plans: all runs.
    """
    if len(refused) < len(plans):
        return
    reasons = {str(error): error for error in refused.values()}
    if len(reasons) == 1:
        raise next(iter(reasons.values()))
    raise InvalidSetting("no run can be made: " + "; ".join(reasons))
