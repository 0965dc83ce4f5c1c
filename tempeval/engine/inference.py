"""Run a plan video by video, every method on each; journal every batch; survive bad samples.

One class in one file: the order of its steps is what makes a killed run resumable.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tempeval.engine.context import check_planned
from tempeval.engine.encoder import GIB, DecodeOptions, Encoder
from tempeval.engine.failures import ENCODING, describe, is_out_of_memory
from tempeval.engine.feature_cache import FeatureCache
from tempeval.engine.generation import generation_of
from tempeval.engine.low_rank import linear_maps
from tempeval.engine.question import Outcome
from tempeval.engine.session import Session, Share
from tempeval.engine.store import Keys, Memory
from tempeval.engine.usage import Usage
from tempeval.engine.work import Batch, plan_work
from tempeval.errors import BadVideo, BudgetMissed, UnsupportedModel
from tempeval.families.pixel_budget import MIN_FILL_PERCENT
from tempeval.source_digest import answer_code, chain_code
from tempeval.versions import versions
from tempeval.video.clip import FramePlan
from tempeval.video.sampling import nearest_multiple

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence

    from tempeval.engine.generation import Generation
    from tempeval.engine.question import Question
    from tempeval.engine.store import AnswerStore
    from tempeval.engine.work import VideoWork
    from tempeval.families.base import Family
    from tempeval.methods.base import Chain
    from tempeval.stages import RunFacts
    from tempeval.video.clip import Sampling


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """One answer of a run.

    Attributes:
        question: what was asked.
        chain: the methods it was answered under.
        outcome: what became of it.
        replayed: whether it came from the store instead of being computed.
        earlier: whether an earlier run had put it there.
    """

    question: Question
    chain: Chain
    outcome: Outcome
    replayed: bool
    earlier: bool = False


class Inference:
    """Answers questions with one loaded base model under one or more chains.

    Args:
        family: the loaded base model.
        sampling: the base frame policy, before stage `frames`.
        batch_size: questions of one video answered together.
        decoding: how videos are decoded.
        feature_cache: encoded videos shared between methods and calls.
        frames_free: whether a visual-token budget may change the number of frames, for each chain
            as it needs.
        seed: of sampled answers (see `batch_seed`); greedy ones do not depend on it.

    Attributes:
        missed: chains of the last `run` that missed the visual-token budget, each with the first
            prompt that says so.
        generation: settings in force by task, of the questions that were planned.
    """

    def __init__(
        self,
        family: Family,
        sampling: Sampling,
        *,
        batch_size: int = 8,
        decoding: DecodeOptions | None = None,
        feature_cache: FeatureCache | None = None,
        frames_free: bool = False,
        seed: int = 0,
    ) -> None:
        self.family = family
        self.sampling = sampling
        self.frames_free = frames_free
        self.batch_size, self.seed = batch_size, seed
        cache = feature_cache if feature_cache is not None else FeatureCache(GIB)
        self.encoder = Encoder(family, decoding or DecodeOptions(), cache)
        self.missed: dict[Chain, BudgetMissed] = {}
        self.generation: dict[str, Generation] = {}

    def check(self, chain: Chain) -> None:
        """Refuse a chain or a budget that cannot work, before any decoding.

        Raises:
            TempevalError: naming what does not fit.
        """
        self.resolve(chain)
        plan = self.frame_plan(chain)
        self.family.check_sampling(plan.sampling, plan.grid_rules)
        bound = self.bound(chain)
        empty, _ = self.family.layout([], [])
        placed = bound.positions(empty.rotary, empty, self.family.geometry)
        check_planned(bound, self.facts(chain), plan.sampling, placed.context_factor)
        if bound.low_rank is not None:
            linear_maps(self.family.text_model, bound.low_rank)
        if missing := sorted(set(plan.tower) - self.family.tower_inputs):
            raise UnsupportedModel(
                f"{chain.spec} asks for the {' and '.join(missing)} of the vision tower, which "
                f"family {self.family.name} does not give; use the features before the projector, "
                "or another method"
            )
        for spec in plan.side:
            self.encoder.channel(spec)

    def bound(self, chain: Chain) -> Chain:
        """Return the chain bound to this model and these frames."""
        return chain.bind(self.facts(chain))

    def resolve(self, chain: Chain) -> dict[str, dict[str, Any]]:
        """Check a chain against this model and these frames; return what its settings became."""
        facts = self.facts(chain)
        return chain.bind(facts).resolve(facts)

    def facts(self, chain: Chain) -> RunFacts:
        """Return what the methods of a chain may know before the first video."""
        plan = self._fitted(chain)
        facts = self.family.facts(plan.sampling, plan.grid_rules)
        # Bound, because ranges of keys change with what the run makes of a setting (rope_scale).
        around = chain.without_kv_cache().bind(facts)
        return replace(
            facts,
            chain_without_kv_cache=around.fingerprint,
            layers_with_frames=chain.bind(facts).layers_with_frames(facts),
        )

    def frame_plan(self, chain: Chain) -> FramePlan:
        """Return the frames that a chain sees: those of its bound methods, within the budget."""
        sampling = replace(self.sampling, num_frames=self._fitted(chain).sampling.num_frames)
        return self.bound(chain).frames(FramePlan(sampling))

    def _fitted(self, chain: Chain) -> FramePlan:
        """Return the plan after stage `frames` with what the budget chose in it."""
        wanted, budget = self.sampling, self.family.options.visual_token_budget
        if not self.frames_free or wanted.rule == "fps" or budget is None:
            return self.family.fit(chain.frames(FramePlan(wanted)), free_frames=False)
        unit = chain.bind(self.family.facts(wanted)).frames(FramePlan(wanted)).unit
        start = replace(wanted, num_frames=nearest_multiple(wanted.num_frames, unit))
        plan = replace(chain.frames(FramePlan(start)), unit=unit)
        return self.family.fit(plan, free_frames=True)

    def plan(self, questions: Sequence[Question]) -> list[VideoWork]:
        """Group questions by video into batches (see `plan_work`).

        Raises:
            TempevalError: for generation arguments that are not accepted, before anything is
                decoded.
        """
        self._resolve_generation(questions)
        return plan_work(self.family, questions, self.batch_size)

    def _resolve_generation(self, questions: Sequence[Question]) -> None:
        """Check what is asked of generation once per task, and say what will surprise."""
        known: dict[tuple[str, str], Mapping[str, Any]] = {}
        for question in questions:
            if question.kind == "generate":
                task = question.sample.partition("/")[0]
                known.setdefault((task, repr(question.gen_kwargs)), question.gen_kwargs)
        for (task, _), asked in known.items():
            settings = generation_of(self.family, asked)
            if self.generation.get(task) == settings:
                continue
            for warning in settings.warnings:
                _LOG.warning("%s: %s", task, warning)
            self.generation[task] = settings

    def fingerprint(self) -> str:
        """Name everything besides question and chain that an answer depends on."""
        family = self.family
        record = [
            family.revision,
            str(family.model.dtype),
            family.options.position_rule,
            family.options.visual_token_budget,
            family.options.system_prompt,
            sorted(family.pixel_limits().items()),
            sorted(family.settings.items()),
            [self.sampling.rule, self.sampling.num_frames, self.sampling.fps, self.frames_free],
            self.encoder.options.decoder,
            family.device.type,
            versions(),
            sorted(answer_code(self._family_module).items()),
        ]
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()

    def keys(self) -> Keys:
        """Return the keys of answers of this model, these frames and this seed."""
        # Which numbers a question draws depends on the questions that it is answered with.
        drawing = f"seed {self.seed}, batches of {self.batch_size}"
        return Keys(
            self.fingerprint(),
            drawing,
            lambda chain: chain_code(chain, self._family_module),
            _SideStamps(self),
        )

    @property
    def _family_module(self) -> str:
        return type(self.family).__module__

    def run(
        self,
        work: Sequence[VideoWork],
        chains: Sequence[Chain],
        store: AnswerStore | None = None,
    ) -> Iterator[Answered]:
        """Answer everything video by video, every chain on each, batch by batch.

        A batch whose answers are all in the store is replayed; any other is computed whole, and
        stored before its answers are yielded. A chain that makes of a prompt less than 98 % or more
        than 100 % of the visual-token budget ends there, is in `missed`, and the others go on.

        Raises:
            TempevalError: for what is wrong with the settings or the model rather than with one
                video. A bad video, or a batch that does not fit in memory at any size, is an
                outcome with an error.
        """
        for chain in chains:
            self.check(chain)
        kept = Memory() if store is None else store
        keys = self.keys()
        todo = [_Todo(video, chains, keys, kept) for video in work]
        bound = {chain: (self.bound(chain), self.frame_plan(chain)) for chain in chains}
        self.missed = {}
        if self.family.options.visual_token_budget is not None:
            for chain in chains:
                self._look_back(todo, chain, keys, kept)
        wanted = [
            (t.video.visuals, list(dict.fromkeys(bound[chain][1] for chain in pending)))
            for t in todo
            if (pending := [chain for chain in t.pending if chain not in self.missed])
        ]
        opened = self.encoder.prefetch(wanted) if wanted else nullcontext()
        with opened:
            for video in todo:
                for chain in chains:
                    if chain in self.missed:
                        continue
                    for question, problem in video.video.refused:
                        yield Answered(question, chain, _refused(problem), replayed=False)
                    share = _share(
                        video.video, bound[chain][1], [plan for _, plan in bound.values()]
                    )
                    run = self._run_chain(video, chain, *bound[chain], share, keys, kept)
                    with closing(run):  # the model is attached while a batch is being answered
                        for answered in run:
                            yield answered
                            if self._misses(chain, answered.question, answered.outcome):
                                break
                self.encoder.forget_clips()

    def _look_back(
        self, todo: Sequence[_Todo], chain: Chain, keys: Keys, store: AnswerStore
    ) -> None:
        """Look whether a chain has missed the budget before, in this process or in another."""
        for video in todo:
            for batches in video.video.prefixes:
                for item in (item for batch in batches for item in batch.items):
                    outcome = store.get(keys.of(chain, item))
                    if outcome is not None and self._misses(chain, item.question, outcome):
                        return

    def _misses(self, chain: Chain, question: Question, outcome: Outcome) -> bool:
        """Compare the visual tokens of a prompt with the budget; a miss is noted in `missed`."""
        budget, made = self.family.options.visual_token_budget, outcome.usage.visual_tokens
        if budget is None or made is None or not question.visuals:
            return False
        least = -(-budget * MIN_FILL_PERCENT // 100)
        if least <= made <= budget:
            return False
        accepted = f"{least} to {budget}" if least < budget else str(budget)
        self.missed[chain] = BudgetMissed(
            f"{chain.spec} makes {made} of the {budget} visual tokens of its budget (accepted: "
            f"{accepted}) at {question.sample or question.number!r}, and stopped there; say in the "
            "method's grid_rules what stage tokens makes of a video's grids, so that frames can be "
            "sized for it"
        )
        return True

    def _run_chain(
        self,
        todo: _Todo,
        chain: Chain,
        bound: Chain,
        plan: FramePlan,
        share: Share,
        keys: Keys,
        store: AnswerStore,
    ) -> Generator[Answered, None, None]:
        pending = todo.pending.get(chain, set())
        for batches in todo.video.prefixes:
            for batch in batches:
                if batch not in pending:
                    for item in batch.items:
                        key = keys.of(chain, item)
                        outcome = store.get(key)
                        if outcome is not None:
                            earlier = not store.is_new(key)
                            yield Answered(item.question, chain, outcome, True, earlier)
        if not pending:
            return
        try:
            visuals = self.encoder.encode(todo.video.visuals, plan)
            session = Session(self.family, bound, visuals, share, self.seed)
        except (BadVideo, MemoryError, RuntimeError) as error:
            if not isinstance(error, BadVideo) and not is_out_of_memory(error):
                raise
            problem = describe(error, ENCODING)
            yield from self._fail_all(pending, todo, chain, keys, store, problem)
            return
        for batches in todo.video.prefixes:
            left = [batch for batch in batches if batch in pending]
            if not left:
                continue
            questions = sum(len(batch.items) for batch in batches)
            with closing(session.answer(left, questions)) as answered:
                for batch, outcomes in answered:
                    entries = zip(batch.items, outcomes, strict=True)
                    store.append({keys.of(chain, item): outcome for item, outcome in entries})
                    for item, outcome in zip(batch.items, outcomes, strict=True):
                        yield Answered(item.question, chain, outcome, replayed=False)

    @staticmethod
    def _fail_all(
        pending: set[Batch],
        todo: _Todo,
        chain: Chain,
        keys: Keys,
        store: AnswerStore,
        problem: str,
    ) -> Iterator[Answered]:
        outcome = Outcome(None, Usage(error=problem))
        for batches in todo.video.prefixes:
            for batch in batches:
                if batch not in pending:
                    continue
                store.append({keys.of(chain, item): outcome for item in batch.items})
                for item in batch.items:
                    yield Answered(item.question, chain, outcome, replayed=False)


def _refused(problem: str) -> Outcome:
    """Return what becomes of a question whose texts the model cannot be given."""
    return Outcome(None, Usage(error=problem))


def _share(video: VideoWork, plan: FramePlan, plans: Sequence[FramePlan]) -> Share:
    """Count the samples that decoding and encoding under a frame plan serve, of all the plans."""
    frames = [(other.sampling, other.grid_rules) for other in plans]
    # The tower's run serves plans with and without its features and side channels.
    towers = [replace(other, features=False, side=()) for other in plans]
    heard = [replace(other, features=False) for other in plans]
    questions = video.num_questions
    return Share(
        decoding=questions * frames.count((plan.sampling, plan.grid_rules)),
        encoding=questions * towers.count(replace(plan, features=False, side=())),
        hearing=questions * heard.count(replace(plan, features=False)),
        questions=questions,
    )


class _SideStamps:
    """What the answers of a chain depend on beside the videos: the content of side channels."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._plans: dict[Chain, FramePlan] = {}
        self._stamps: dict[tuple[Chain, tuple[Hashable, ...]], tuple[str, ...]] = {}

    def __call__(self, chain: Chain, question: Question) -> tuple[str, ...]:
        if chain not in self._plans:
            self._plans[chain] = self._inference.frame_plan(chain)
        plan = self._plans[chain]
        if not plan.side:
            return ()
        key = (chain, question.visual_key)
        if key not in self._stamps:
            self._stamps[key] = self._inference.encoder.side_stamps(question.visuals, plan)
        return self._stamps[key]


class _Todo:
    """What is left to compute about one video."""

    def __init__(
        self, video: VideoWork, chains: Sequence[Chain], keys: Keys, store: AnswerStore
    ) -> None:
        self.video = video
        self.pending: dict[Chain, set[Batch]] = {}
        for chain in chains:
            for batches in video.prefixes:
                for batch in batches:
                    if any(store.get(keys.of(chain, item)) is None for item in batch.items):
                        self.pending.setdefault(chain, set()).add(batch)
