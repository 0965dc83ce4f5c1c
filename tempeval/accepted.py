"""Load the model of a matrix, and refuse the whole request when it takes no run of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.errors import InvalidSetting, TempevalError
from tempeval.run.matrix import plan_matrix

if TYPE_CHECKING:
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
    refused: dict[str, TempevalError] = {}
    for plan in plan_matrix(options):
        try:
            model.set_budget(plan.budget)
            model.set_method(plan.chain.spec)
        except TempevalError as error:
            refused.setdefault(str(error), error)
        else:
            return model
    if len(refused) == 1:
        raise next(iter(refused.values()))
    raise InvalidSetting("no run can be made: " + "; ".join(refused))
