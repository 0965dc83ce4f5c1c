"""The log-likelihoods of all continuations of one question."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tempeval.engine.answer import Score


@dataclass(frozen=True)
class Scores:
    """One entry per continuation in each column; columns, because a run may hold millions.

    Attributes:
        log_likelihoods: sum over a continuation's tokens, in nats.
        lengths: tokens of a continuation.
        greedy: 1 where greedy decoding would produce it, else 0.
        tail_tokens: own tokens whose keys and values are held, the most of any row.
    """

    log_likelihoods: array[float]
    lengths: array[int]
    greedy: bytes
    tail_tokens: int

    @classmethod
    def of(cls, scores: Sequence[Score]) -> Scores:
        """Build from one score per continuation."""
        return cls(
            array("d", [score.log_likelihood for score in scores]),
            array("I", [score.num_tokens for score in scores]),
            bytes(score.is_greedy for score in scores),
            max(score.tail_tokens for score in scores),
        )

    def __len__(self) -> int:
        return len(self.log_likelihoods)

    def __add__(self, other: Scores) -> Scores:
        """Return the scores of both, in order."""
        return Scores(
            self.log_likelihoods + other.log_likelihoods,
            self.lengths + other.lengths,
            self.greedy + other.greedy,
            max(self.tail_tokens, other.tail_tokens),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens of all continuations."""
        return sum(self.lengths)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; `from_dict` gives the same numbers, bit by bit."""
        return {
            "log_likelihoods": self.log_likelihoods.tolist(),
            "lengths": self.lengths.tolist(),
            "greedy": [number for number, greedy in enumerate(self.greedy) if greedy],
            "tail_tokens": self.tail_tokens,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Scores:
        """Read what `to_dict` returned."""
        counts = array("I", record["lengths"])
        greedy = bytearray(len(counts))
        for number in record["greedy"]:
            greedy[number] = 1
        return cls(
            array("d", record["log_likelihoods"]), counts, bytes(greedy), int(record["tail_tokens"])
        )
