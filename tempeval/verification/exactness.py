"""The engine against the dense reference: the same prompts, the same chain, both sides in full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tempeval.engine.answer import generate, score
from tempeval.engine.attach import Attachment
from tempeval.engine.inference import Inference
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import finish, prefill
from tempeval.errors import UnsupportedModel
from tempeval.verification.dense import dense_generate
from tempeval.verification.inputs import random_clip, user_message
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.video.clip import Sampling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.engine.cache import SharedPrefix
    from tempeval.families.base import Family
    from tempeval.methods.base import Chain
    from tempeval.stages import Layout, RunFacts, VisualTokens
    from tempeval.video.clip import FramePlan

#: Of different lengths, so that a batch is padded.
QUESTIONS = ("What happens first?", "Is it faster? yes no")
#: The prompt's end, and what follows it; fewer in a chain with another method.
STEPS, STEPS_CHAINED = 6, 3
NUM_FRAMES, HEIGHT, WIDTH = 16, 84, 112
#: Most that a logit may differ in float32 (or float64, where keys and values are quantised).
TOLERANCE = 1e-4
#: Sums of log-probabilities of `_SCORED` tokens.
SCORE_TOLERANCE = 1e-3
_SCORED = 3
#: Less than this between a chain and the baseline is no effect.
FELT = 1e-3


@dataclass(frozen=True)
class Case:
    """Prompts about one video under a bound chain, as both sides are given them.

    Attributes:
        chain: bound to the model.
        facts: that it was bound to.
        plan: after stage `frames`.
        encoded: what the family made of the frames, before stage `tokens`.
        layout: of the prefix.
        embeddings: `[1, P, D]` of the prefix.
        tails: ids of each question.
    """

    chain: Chain
    facts: RunFacts
    plan: FramePlan
    encoded: VisualTokens
    layout: Layout
    embeddings: torch.Tensor
    tails: Sequence[torch.Tensor]


@dataclass(frozen=True)
class Difference:
    """How far two computations of the same are apart.

    Attributes:
        largest: absolute difference.
        mismatches: choices of a token that differ.
        tolerance: that `largest` may have.
    """

    largest: float
    mismatches: int
    tolerance: float = TOLERANCE

    @property
    def ok(self) -> bool:
        """Whether they are the same but for rounding; NaN is not."""
        return self.largest <= self.tolerance and not self.mismatches


def make_case(family: Family, chain: Chain) -> Case:
    """Bind a chain as a run does, and lay out its prompts on a clip of noise.

    Raises:
        TempevalError: if the chain refuses the model.
    """
    inference = Inference(family, Sampling("uniform", NUM_FRAMES))
    resolved = inference.resolve(chain)
    bound, facts, plan = resolved.bound, resolved.facts, resolved.frames
    if plan.side:
        raise UnsupportedModel(
            f"side channel {plan.side[0].name!r} has no features of a clip of noise"
        )
    clip = random_clip(plan.sampling.num_frames, HEIGHT, WIDTH)
    clip = clip.reordered(plan.permutation(clip.num_frames))
    encoded = family.encode(clip, num_groups=plan.num_groups, with_features=plan.features)
    laid = laid_out(family, user_message, [bound.tokens(encoded)], QUESTIONS)
    return Case(bound, facts, plan, encoded, *laid)


def engine_logits(family: Family, case: Case, tokens: Sequence[int]) -> torch.Tensor:
    """Return the engine's logits `[steps, V]` of the first question and of given tokens."""
    with Attachment(family, make_plan(case.chain, case.layout, family.geometry)) as attachment:
        prefix = prefill(attachment, case.embeddings)
        return stepwise_logits(attachment, prefix, case.tails[0], tokens)


@torch.no_grad()
def compare(family: Family, case: Case, steps: int = STEPS) -> dict[str, Difference]:
    """Compare the engine with the dense reference on one model.

    Differences in float32 flip codes at rounding boundaries, so chains that quantise are compared
    in float64.

    Args:
        family: the model that the case was made for.
        case: prompts under a chain.
        steps: tokens that are decoded, the prompt's end among them; at least `_SCORED`.

    Returns:
        By what was compared: `prompt` and `decode` (on a prefix that questions share and on one of
        their own), `batch` (questions together).
    """
    geometry = family.geometry
    wide = any(case.chain.kv_cache(n, geometry) is not None for n in range(geometry.num_layers))
    embeddings = case.embeddings
    if wide:
        family.model.double()
        embeddings = embeddings.double()
    try:
        return _compare(family, case, embeddings, steps)
    finally:
        if wide:
            family.model.float()


def _compare(
    family: Family, case: Case, embeddings: torch.Tensor, steps: int
) -> dict[str, Difference]:
    chain, layout, tails = case.chain, case.layout, case.tails
    wanted = [dense_generate(family, chain, layout, embeddings, tail, steps) for tail in tails]
    plan = make_plan(chain, layout, family.geometry)
    got: list[tuple[torch.Tensor, torch.Tensor]] = []
    with Attachment(family, plan) as attachment:
        shared = prefill(attachment, embeddings)
        for tail, (ids, expected) in zip(tails, wanted, strict=True):
            own = prefill(attachment, embeddings)
            places = (own,) if plan.exact_prefill else (shared, own)
            got += [(stepwise_logits(attachment, prefix, tail, ids), expected) for prefix in places]
        # What depends on the question serves one question.
        alone = plan.exact_prefill or not plan.is_shared
        groups = [[n] for n in range(len(tails))] if alone else [range(len(tails))]
        largest, mismatches = 0.0, 0

        def ready(asked: Sequence[torch.Tensor]) -> SharedPrefix:
            prefix = prefill(attachment, embeddings)
            return finish(attachment, prefix, asked[0]) if alone else prefix

        for group in groups:
            asked = [tails[n] for n in group]
            answers = generate(attachment, ready(asked), asked, {"max_new_tokens": steps})
            continuations = [torch.tensor(wanted[n][0][:_SCORED]) for n in group]
            scores = score(attachment, ready(asked), asked, continuations)
            for n, answer, found in zip(group, answers, scores, strict=True):
                ids, logits = wanted[n]
                mismatches += _different(list(answer.token_ids), _ended(family, ids))
                chances = logits[:_SCORED].double().log_softmax(-1)
                expected_score = chances.gather(1, torch.tensor(ids[:_SCORED]).unsqueeze(1)).sum()
                largest = _larger(largest, abs(found.log_likelihood - float(expected_score)))
    return {
        "prompt": _difference([(mine[:1], theirs[:1]) for mine, theirs in got]),
        "decode": _difference([(mine[1:], theirs[1:]) for mine, theirs in got]),
        "batch": Difference(largest, mismatches, SCORE_TOLERANCE),
    }


def _difference(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> Difference:
    largest, mismatches = 0.0, 0
    for mine, theirs in pairs:
        largest = _larger(largest, float((mine - theirs).abs().max()))
        mismatches += int((mine.argmax(-1) != theirs.argmax(-1)).sum())
    return Difference(largest, mismatches)


def _larger(one: float, other: float) -> float:
    """Return the larger; NaN if either is."""
    return other if other != other or other > one else one


def _ended(family: Family, ids: list[int]) -> list[int]:
    end = family.model.generation_config.eos_token_id
    return ids[: ids.index(end) + 1] if end in ids else ids


def _different(mine: Sequence[int], theirs: Sequence[int]) -> int:
    differ = sum(a != b for a, b in zip(mine, theirs, strict=False))
    return differ + abs(len(mine) - len(theirs))
