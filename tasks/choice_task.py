"""A multiple-choice task that every tempeval model can score, on the chat and the simple path.

lmms-eval's chat task refuses anything but generation, so `_choice` YAMLs name this class; it makes
one request per document, whatever path the model takes. The host makes one per choice: 24 million
for the 700 labels of Kinetics-700.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance
from lmms_eval.api.task import ConfigurableTask

from tempeval.engine.continuations import Continuations
from tempeval.errors import UnsupportedModel
from tempeval.model_wrappers.results import ChoiceScores
from tempeval.tasks.failed import Failure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ChoiceTask(ConfigurableTask):  # type: ignore[misc]  # lmms-eval is untyped here
    """lmms-eval's `ConfigurableTask` with `output_type: multiple_choice`, loaded by class.

    Whatever the YAML's `process_results` gives, every sample also has the probabilities of
    `probabilities`.

    Args:
        config: the YAML, `class` included.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        given = {k: v for k, v in config.items() if k != "class"}
        choices = given.pop("doc_to_choice", None)
        # Without the choices: the host's constructor reads them only to warn of each that follows
        # its prompt without a space, and here an answer begins a chat turn of its own.
        super().__init__(config=given)
        self.config.doc_to_choice = choices

    def construct_requests(self, doc_id: int, ctx: str, **kwargs: Any) -> Instance:
        """Return one request for all choices of a document.

        Args:
            doc_id: its place in the split.
            ctx: the prompt.
            kwargs: `metadata`, as the host gives it.
        """
        split = kwargs["metadata"]["split"]
        texts = tuple(self.doc_to_choice(self.dataset[split][doc_id]))
        asked = _continuations(self.config.target_delimiter, texts)
        return Instance(
            request_type="loglikelihood",
            arguments=(ctx, asked, self.doc_to_visual, doc_id, self.config.task, split),
            idx=0,
            task_name=self.config.task,
            doc_id=doc_id,
            **kwargs,
        )

    def process_results(self, doc: Any, results: Any, full_docs: Any = None) -> dict[str, Any]:
        """Score one document, and add the probabilities of its choices.

        Args:
            doc: the document.
            results: the one result of its request; a `Failure` goes to the YAML's function, which
                `tempeval.tasks.failed.scorer` made.
            full_docs: as the host gives it.

        Raises:
            UnsupportedModel: if the model did not score all choices of one request.
        """
        (scores,) = results
        answer = answer_index(self.doc_to_target(doc), self.doc_to_choice(doc))
        if isinstance(scores, Failure):
            return {**probabilities((), answer), **super().process_results(doc, [scores])}
        if not isinstance(scores, ChoiceScores):
            raise UnsupportedModel(
                f"{self.config.task}: the model answered {scores!r:.80} to a request with "
                f"{len(self.doc_to_choice(doc))} choices, not a score for each; tasks that end in "
                "_choice need a tempeval model (--model tempeval)"
            )
        pairs = list(scores)
        found = super().process_results(doc, pairs, full_docs)
        return {**probabilities(pairs, answer), **found}


@lru_cache(maxsize=16)
def _continuations(delimiter: str, texts: tuple[str, ...]) -> Continuations:
    """Return one object for all documents that have the same choices."""
    return Continuations(tuple(f"{delimiter}{text}" for text in texts))


def answer_index(target: Any, choices: Sequence[str]) -> int | None:
    """Return which choice is the answer, None where it is not one of them.

    Args:
        target: as `doc_to_target` gives it: an index, or the text of a choice.
        choices: the texts.
    """
    if isinstance(target, str):
        return list(choices).index(target) if target in choices else None
    if isinstance(target, int) and 0 <= target < len(choices):
        return target
    return None


def probabilities(results: Sequence[tuple[Any, bool]], answer: int | None) -> dict[str, Any]:
    """Return the probabilities that a model gives to the choices of one question.

    Source: "Causality Matters", arXiv 2508.11576, whose metric is the change of the answer's
    probability, P~(t_gt) - P(t_gt), with and without an intervention; its answers are one token.

    Args:
        results: `(loss, is_greedy)` per choice, as for `choose`.
        answer: index of the right choice, if known.

    Returns:
        `choice_probabilities`: softmax over the choices' summed log-likelihoods, one each, so that
        they add up to 1. `answer_index`: the right choice. `p_c`: the model's probability of the
        right choice among all texts, the product over its tokens, not normalised. None where a
        sample failed (a choice whose score is not a finite number), or a model gives no sums.
    """
    sums = [getattr(loss, "log_likelihood", None) for loss, _ in results]
    known = [value for value in sums if value is not None and math.isfinite(value)]
    shares: list[float] | None = None
    p_c: float | None = None
    if known and len(known) == len(sums):
        top = max(known)
        weights = [math.exp(value - top) for value in known]
        shares = [weight / sum(weights) for weight in weights]
        p_c = None if answer is None else math.exp(known[answer])
    return {"choice_probabilities": shares, "answer_index": answer, "p_c": p_c}


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
        would write. A failed sample has no choice, and one failed choice (infinite loss, or NaN)
        fails its sample: the others are no fair comparison.
    """
    losses = [float(loss) for loss, _ in results]
    if not losses or not all(math.isfinite(loss) for loss in losses):
        return None, None, False
    best = losses.index(min(losses))
    found = [getattr(loss, "log_likelihood", None) for loss, _ in results]
    sums = [value for value in found if value is not None]
    by_sum = choices[sums.index(max(sums))] if len(sums) == len(found) else None
    return choices[best], by_sum, bool(results[best][1])
