"""What answering costs, as columns: which there are, how they are printed, what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

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


def _count(name: Literal["failed", "damaged", "skipped"]) -> Callable[[Costs], float | None]:
    return lambda costs: costs[name]


_FLOPS = "TFLOPs"
# Tokens that differ by at most this, as a fraction, are the same.
_SAME_TOKENS = 0.02
#: Columns that a budget is spent on: where tasks have budgets of their own, so have these.
SPENT = ("tokens", "layers", "KV", _FLOPS)
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
        _FLOPS,
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
# What is there only where it is not 0.
_RARE = (
    CostColumn(
        "failed", _count("failed"), text.count, "questions with an error; they count as wrong"
    ),
    CostColumn("damaged", _count("damaged"), text.count, "questions answered over a damaged video"),
    CostColumn(
        "skipped",
        _count("skipped"),
        text.count,
        "questions left out because their video is not there",
    ),
)


def _save_unseen(known: Sequence[Costs]) -> bool:
    """Return True if rows of the same tokens differ in the operations of their prefill."""
    tokens = [value for each in known if (value := each["measures"]["visual_tokens"]) is not None]
    same = bool(tokens) and max(tokens) - min(tokens) <= _SAME_TOKENS * max(tokens)
    operations = [each["measures"]["prefill_flops"] for each in known]
    return same and len({text.tera(value) for value in operations if value is not None}) > 1


def of(
    costs: Sequence[Costs | None], *, full: bool = False, narrow: bool = False
) -> list[CostColumn]:
    """Give the columns of a table: the usual ones, with `full` all that have a value.

    The operations of the prefill are usual where they are what tells the rows apart: where those
    take the same tokens and not the same operations.
    The columns of failed, damaged and skipped questions are there only where there are some.

    Args:
        costs: of the table's rows, None where a row has none.
        full: whether the unusual ones are wanted.
        narrow: whether there is room for the usual ones only.
    """
    known = [each for each in costs if each is not None]
    chosen = [
        column
        for column in COLUMNS
        if column.usual
        or (full and any(column.value(each) is not None for each in known))
        or (column.name == _FLOPS and not narrow and _save_unseen(known))
    ]
    rare = [column for column in _RARE if any(column.value(each) for each in known)]
    return [*chosen, *rare]
