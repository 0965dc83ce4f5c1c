"""A multiple-choice task that every tempeval model can score, on the chat and the simple path.

lmms-eval's chat task refuses anything but generation, so `_choice` YAMLs name this class; it
builds the host's own `multiple_choice` requests whatever path the model takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmms_eval.api.task import ConfigurableTask

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ChoiceTask(ConfigurableTask):  # type: ignore[misc]  # lmms-eval is untyped here
    """lmms-eval's `ConfigurableTask` with `output_type: multiple_choice`, loaded by class.

    Args:
        config: the YAML, `class` included.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config={k: v for k, v in config.items() if k != "class"})


def choose(
    results: Sequence[tuple[Any, bool]], choices: Sequence[str]
) -> tuple[str | None, str | None, bool]:
    """Pick the most likely choice by mean and by summed log-likelihood.

    Args:
        results: `(loss, is_greedy)` per choice, as `loglikelihood` returned them: the mean
            negative log-likelihood per token, with the sum as an attribute where it is known.
        choices: the texts.

    Returns:
        The choice of the highest mean log-likelihood per token (the main one), the choice of the
        highest sum (None if a model gives no sums), and whether the first is what greedy decoding
        would write. A failed sample has no choice.
    """
    losses = [float(loss) for loss, _ in results]
    if not losses or min(losses) == float("inf"):
        return None, None, False
    best = losses.index(min(losses))
    found = [getattr(loss, "log_likelihood", None) for loss, _ in results]
    sums = [value for value in found if value is not None]
    by_sum = choices[sums.index(max(sums))] if len(sums) == len(found) else None
    return choices[best], by_sum, bool(results[best][1])
