"""A run made ready once: chains bound to the model and its frames, prompts tokenised and keyed.

What is here travels down; nothing below binds a chain, plans frames or tokenises again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tempeval.engine.context import check_planned
from tempeval.engine.low_rank import linear_maps
from tempeval.errors import UnsupportedModel
from tempeval.video.clip import FramePlan
from tempeval.video.sampling import nearest_multiple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tempeval.engine.store import Keys
    from tempeval.engine.work import Item, VideoWork
    from tempeval.families.base import Family
    from tempeval.methods.base import Chain
    from tempeval.stages import RunFacts
    from tempeval.video.clip import Sampling


@dataclass(frozen=True, eq=False)
class ResolvedChain:
    """A chain under one model, frame policy and visual-token budget.

    Attributes:
        chain: as it is written; it names answers.
        bound: bound to the run; it makes answers.
        facts: what its methods may know before the first video.
        frames: the frames that it sees: those of its bound methods, within the budget.
        settings: what the settings of its methods became.
    """

    chain: Chain
    bound: Chain
    facts: RunFacts
    frames: FramePlan
    settings: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class ResolvedRun:
    """Questions under chains.

    Attributes:
        chains: in the order in which each video meets them.
        work: tokenised questions by video.
        keys: of their answers.
    """

    chains: tuple[ResolvedChain, ...]
    work: tuple[VideoWork, ...]
    keys: Keys

    def key(self, chain: ResolvedChain, item: Item) -> str:
        """Return the key of the answer to a question under a chain."""
        return self.keys.of(chain.chain, item)

    def items(self) -> Iterator[Item]:
        """Yield the questions that can be asked, in order."""
        for video in self.work:
            for batches in video.prefixes:
                for batch in batches:
                    yield from batch.items


def resolve_chain(
    family: Family, sampling: Sampling, chain: Chain, *, frames_free: bool
) -> ResolvedChain:
    """Bind a chain to a model and its frames, and refuse what cannot work, before any decoding.

    Args:
        family: the loaded base model.
        sampling: the base frame policy, before stage `frames`.
        chain: the methods.
        frames_free: whether a visual-token budget may change the number of frames.

    Raises:
        TempevalError: naming what does not fit.
    """
    fitted = _fitted(family, sampling, chain, frames_free=frames_free)
    facts = family.facts(fitted.sampling, fitted.grid_rules)
    first = chain.bind(facts)
    around = chain.without_kv_cache()
    # Bound, because ranges of keys change with what the run makes of a setting (rope_scale).
    without = first if around.methods == chain.parts else around.bind(facts)
    facts = replace(
        facts,
        chain_without_kv_cache=without.fingerprint,
        layers_with_frames=first.layers_with_frames(facts),
    )
    bound = chain.bind(facts)
    settings = bound.resolve(facts)
    frames = bound.frames(FramePlan(replace(sampling, num_frames=fitted.sampling.num_frames)))
    family.check_sampling(frames.sampling, frames.grid_rules)
    empty, _ = family.layout([], [])
    placed = bound.positions(empty.rotary, empty, family.geometry)
    check_planned(bound, facts, frames.sampling, placed.context_factor)
    if bound.low_rank is not None:
        linear_maps(family.text_model, bound.low_rank)
    if missing := sorted(set(frames.tower) - family.tower_inputs):
        raise UnsupportedModel(
            f"{chain.spec} asks for the {' and '.join(missing)} of the vision tower, which "
            f"family {family.name} does not give; use the features before the projector, "
            "or another method"
        )
    return ResolvedChain(chain, bound, facts, frames, settings)


def _fitted(family: Family, sampling: Sampling, chain: Chain, *, frames_free: bool) -> FramePlan:
    """Return the plan after stage `frames` with what the budget chose in it."""
    if not frames_free or sampling.rule == "fps" or family.options.visual_token_budget is None:
        return family.fit(chain.frames(FramePlan(sampling)), free_frames=False)
    unit = chain.bind(family.facts(sampling)).frames(FramePlan(sampling)).unit
    start = replace(sampling, num_frames=nearest_multiple(sampling.num_frames, unit))
    plan = replace(chain.frames(FramePlan(start)), unit=unit)
    return family.fit(plan, free_frames=True)
