"""A metric that this machine cannot compute is named and lost alone."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from tempeval.errors import TempevalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LOG = logging.getLogger(__name__)


class MetricUnavailable(TempevalError):
    """A metric whose program or data are not installed.

    Args:
        metric: its name.
        reason: what is missing, and how to install it.
    """

    def __init__(self, metric: str, reason: str) -> None:
        self.metric, self.reason = metric, reason
        super().__init__(f"{metric} cannot be computed: {reason}")

    def __reduce__(self) -> tuple[type[MetricUnavailable], tuple[str, str]]:
        return type(self), (self.metric, self.reason)


def or_none(
    aggregate: Callable[[Sequence[Any]], float | None], *, log: bool = True
) -> Callable[[Sequence[Any]], float | None]:
    """Give None, and log the error, where a metric is unavailable: the host loses no other metric.

    None, not NaN: the host prints it as N/A, and its results file stays JSON. `tempeval score`
    calls the function below it (`__wrapped__`) and reports the error itself.

    Args:
        aggregate: of samples to a score; raises MetricUnavailable.
        log: whether to log the error; not for metrics that are missing for the same reason.
    """

    @functools.wraps(aggregate)
    def found(items: Sequence[Any]) -> float | None:
        try:
            return aggregate(items)
        except MetricUnavailable as error:
            if log:
                _LOG.error("%s", error)
            return None

    return found
