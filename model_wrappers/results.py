"""What goes back to lmms-eval: texts, scores and failures, with the usage for its samples file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import GenerationResult, TokenCounts

from tempeval.engine.usage import Usage
from tempeval.tasks.failed import Failure

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterator

    from tempeval.engine.question import Outcome
    from tempeval.engine.scores import Scores


@dataclass
class UsageTokenCounts(TokenCounts):  # type: ignore[misc]  # lmms-eval is untyped here
    """lmms-eval's token counts with the fields of its usage, as the samples file stores them."""

    usage: Usage = field(default_factory=Usage)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the usage; input and output tokens are among them."""
        return self.usage.to_dict()


def token_counts(usage: Usage) -> UsageTokenCounts:
    """Wrap the usage of one question for lmms-eval."""
    return UsageTokenCounts(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, usage=usage
    )


class ChoiceLoss(float):
    """Mean negative log-likelihood per token, in nats: lower is better.

    lmms-eval documents `loglikelihood` as returning log-probabilities, but its wrappers return
    this loss and its `multiple_choice` tasks take the smallest value. A log-likelihood would turn
    their accuracy upside down without a word, so the loss is what we return; the log-likelihood
    is an attribute.

    Attributes:
        log_likelihood: sum over the continuation's tokens, in nats.
        num_tokens: tokens of the continuation.
    """

    log_likelihood: float
    num_tokens: int

    def __new__(cls, log_likelihood: float, num_tokens: int) -> ChoiceLoss:
        """Build from the sum and the tokens that it is over."""
        self = super().__new__(cls, -log_likelihood / num_tokens)
        self.log_likelihood, self.num_tokens = log_likelihood, num_tokens
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between ranks: the host gathers samples by pickling them."""
        return ChoiceLoss, (self.log_likelihood, self.num_tokens)


class ChoiceScores(tuple):  # type: ignore[type-arg]  # what it holds is not what it gives
    """The `(loss, is_greedy)` pairs of all choices of one question; what its items and `len` are.

    It holds columns of numbers, and makes a pair when one is read: a run may have millions. It is a
    tuple because lmms-eval writes the items of lists and tuples into its samples file, and of
    anything else one string. Pickled, as ranks gather samples, it is its columns.
    """

    __slots__ = ()

    def __new__(
        cls, log_likelihoods: array[float], lengths: array[int], greedy: bytes
    ) -> ChoiceScores:
        """Build from the columns of `Scores`; a choice without tokens has failed."""
        return super().__new__(cls, (log_likelihoods, lengths, greedy))

    @classmethod
    def of(cls, scores: Scores) -> ChoiceScores:
        """Build from the engine's scores, whose columns are shared."""
        return cls(scores.log_likelihoods, scores.lengths, scores.greedy)

    def __iter__(self) -> Iterator[tuple[float, bool]]:
        for total, count, greedy in zip(*super().__iter__(), strict=True):
            yield (ChoiceLoss(total, count), bool(greedy)) if count else failed_choice()

    def __len__(self) -> int:
        return len(super().__getitem__(2))

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(super().__iter__())


class ChoiceResult(GenerationResult):  # type: ignore[misc]  # lmms-eval is untyped here
    """`(loss, is_greedy)` that also carries token counts.

    lmms-eval 0.7.3 turns a plain tuple into its string before scoring; a `GenerationResult` gets
    through. Iterating gives the pair that `loglikelihood` is documented to return, `failed_choice`
    of a failed sample. The result of `Continuations` holds the pairs of all choices, as
    `ChoiceScores`. What lmms-eval reads is `text`, a `Failure` where there are no scores.
    """

    def __iter__(self) -> Iterator[Any]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)

    def __getitem__(self, index: int) -> Any:
        return self._given[index]

    @property
    def _given(self) -> Any:
        return failed_choice() if isinstance(self.text, Failure) else self.text


def failure_of(outcome: Outcome) -> Failure:
    """Return what stands in the place of the answer of a failed question."""
    return Failure(outcome.usage.error or "no reason was recorded")


def failed_choice() -> tuple[float, bool]:
    """Return the pair for a failed sample: it can win no comparison."""
    return float("inf"), False
