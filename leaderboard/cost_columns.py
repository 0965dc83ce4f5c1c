"""What answering costs, as columns: which there are, how they are printed, what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.leaderboard import text
from tempeval.leaderboard.grid import Cell

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.leaderboard.schema import Costs


@dataclass(frozen=True, slots=True)
class CostColumn:
    """A column: its name, where its value is, how it is printed, and what it is.

    `usual` ones stand beside scores; the others only among the costs, and where measured.
    """

    name: str
    value: Callable[[Costs], float | None]
    text: Callable[[float | None], str]
    about: str
    usual: bool = True

    def cell(self, costs: Costs | None) -> Cell:
        """Print a method's value of this column."""
        value = None if costs is None else self.value(costs)
        return Cell(self.text(value), value)


def _measure(name: str) -> Callable[[Costs], float | None]:
    return lambda costs: costs["measures"].get(name)


def _failed(costs: Costs) -> float | None:
    return costs["failed"]


COLUMNS = (
    CostColumn("tokens", _measure("visual_tokens"), text.count, "visual tokens per question"),
    CostColumn(
        "layers",
        _measure("token_layers"),
        text.count,
        "token-layers: visual tokens present, averaged over the layers",
    ),
    CostColumn("KV", _measure("kv_bytes"), text.size, "bytes of keys and values held"),
    CostColumn(
        "TFLOPs",
        _measure("prefill_flops"),
        text.tera,
        "operations of the prefill, 10^12 per question",
        usual=False,
    ),
    CostColumn(
        "s/q",
        _measure("seconds"),
        text.seconds,
        "seconds per question standing alone: decode + encode + prefill + answer",
    ),
    CostColumn(
        "s/q shared",
        _measure("amortised_seconds"),
        text.seconds,
        "seconds per question as run, what is shared divided by who shares it",
        usual=False,
    ),
    CostColumn(
        "memory", _measure("peak_memory_bytes"), text.size, "peak device memory", usual=False
    ),
    CostColumn(
        "unparsed",
        lambda costs: costs["parse_failure_rate"],
        text.share,
        "answers that could not be parsed; they count as wrong",
    ),
)
_FAILED = CostColumn("failed", _failed, text.count, "questions with an error; they count as wrong")


def of(costs: Sequence[Costs | None], *, full: bool = False) -> list[CostColumn]:
    """Give the columns of a table: the usual ones, with `full` all that have a value.

    The column of failures is there only where there are some.

    Args:
        costs: of the table's rows, None where a row has none.
        full: whether the unusual ones are wanted.
    """
    known = [each for each in costs if each is not None]
    chosen = [
        column
        for column in COLUMNS
        if column.usual or (full and any(column.value(each) is not None for each in known))
    ]
    return [*chosen, _FAILED] if any(each["failed"] for each in known) else chosen
