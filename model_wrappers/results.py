"""What goes back to lmms-eval: texts and scores that carry the ledger into its samples file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from tempeval.engine.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.engine.answer import Score


@dataclass
class LedgerTokenCounts(TokenCounts):  # type: ignore[misc]  # lmms-eval is untyped here
    """lmms-eval's token counts with the ledger's fields, as the samples file stores them."""

    ledger: Ledger = field(default_factory=Ledger)

    def to_dict(self) -> dict[str, Any]:
        """Return the ledger's fields; input and output tokens are among them."""
        return self.ledger.to_dict()


def token_counts(ledger: Ledger) -> LedgerTokenCounts:
    """Wrap a ledger."""
    return LedgerTokenCounts(
        input_tokens=ledger.input_tokens, output_tokens=ledger.output_tokens, ledger=ledger
    )


def combined(ledgers: Sequence[Ledger]) -> Ledger:
    """Combine the ledgers of one question's choices.

    Tokens and times of answering add up; so do the amortised times, because each choice carries its
    own share of what the choices share.
    """
    first = next((ledger for ledger in ledgers if ledger.error is not None), ledgers[0])
    if first.error is not None:
        return first
    return replace(
        first,
        output_tokens=sum(ledger.output_tokens or 0 for ledger in ledgers),
        kv_bytes=max(ledger.kv_bytes or 0 for ledger in ledgers),
        answer_ms=sum(ledger.answer_ms or 0.0 for ledger in ledgers),
        amortised_ms=sum(ledger.amortised_ms or 0.0 for ledger in ledgers),
    )


class ChoiceLoss(float):
    """Mean negative log-likelihood per token, in nats: lower is better.

    lmms-eval documents `loglikelihood` as returning log-probabilities, but its wrappers return
    this loss and its `multiple_choice` tasks take the smallest value. A log-likelihood would turn
    their accuracy upside down without a word, so the loss is what we return; the log-likelihood
    is an attribute.

    Attributes:
        log_likelihood: sum over the continuation's tokens, in nats; None if unknown.
        num_tokens: tokens of the continuation; None if unknown.
    """

    log_likelihood: float | None
    num_tokens: int | None

    def __new__(cls, score: Score) -> ChoiceLoss:
        """Build from the engine's score."""
        self = super().__new__(cls, -score.log_likelihood / score.num_tokens)
        self.log_likelihood, self.num_tokens = score.log_likelihood, score.num_tokens
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between ranks: the host gathers samples by pickling them."""
        return _choice_loss, (float(self), self.log_likelihood, self.num_tokens)


def _choice_loss(value: float, log_likelihood: float | None, num_tokens: int | None) -> ChoiceLoss:
    self = float.__new__(ChoiceLoss, value)
    self.log_likelihood, self.num_tokens = log_likelihood, num_tokens
    return self


class ChoiceResult(GenerationResult):  # type: ignore[misc]  # lmms-eval is untyped here
    """`(loss, is_greedy)` that also carries token counts.

    lmms-eval 0.7.3 turns a plain tuple into its string before scoring; a `GenerationResult` gets
    through. Iterating gives the pair that `loglikelihood` is documented to return.
    """

    def __iter__(self) -> Iterator[Any]:
        return iter(self.text)

    def __len__(self) -> int:
        return len(self.text)

    def __getitem__(self, index: int) -> Any:
        return self.text[index]


def failed_choice() -> tuple[float, bool]:
    """Return the pair for a failed sample: it can win no comparison."""
    return float("inf"), False
