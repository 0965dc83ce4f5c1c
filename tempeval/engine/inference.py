"""Run a plan video by video, every method on each; journal every batch; survive bad samples.

One class in one file: the order of its steps is what makes a killed run resumable.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tempeval.engine.encoder import GIB, DecodeOptions, Encoder
from tempeval.engine.failures import ENCODING, describe, is_out_of_memory
from tempeval.engine.feature_cache import FeatureCache
from tempeval.engine.generation import generation_of
from tempeval.engine.question import Outcome
from tempeval.engine.resolved import ResolvedChain, ResolvedRun, resolve_chain
from tempeval.engine.session import Session, Share
from tempeval.engine.store import Keys, Memory
from tempeval.engine.usage import Usage
from tempeval.engine.work import Prompts, plan_work
from tempeval.errors import BadVideo, BudgetMissed, InfeasibleBudget
from tempeval.families.pixel_budget import MIN_FILL_PERCENT
from tempeval.source_digest import answer_code, chain_code
from tempeval.versions import versions

if TYPE_CHECKING:
    from collections.abc import Generator, Hashable, Iterator, Mapping, Sequence, Set

    from tempeval.engine.generation import Generation
    from tempeval.engine.question import Question
    from tempeval.engine.store import AnswerStore
    from tempeval.engine.work import Batch, VideoWork
    from tempeval.families.base import Family
    from tempeval.methods.base import Chain
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
        self.sampling, self._wanted_frames = sampling, sampling.num_frames
        self.frames_free = frames_free
        self.batch_size, self.seed = batch_size, seed
        cache = feature_cache if feature_cache is not None else FeatureCache(GIB)
        self.encoder = Encoder(family, decoding or DecodeOptions(), cache)
        self.missed: dict[Chain, BudgetMissed] = {}
        self.generation: dict[str, Generation] = {}
        self._resolved: dict[Hashable, ResolvedChain] = {}
        self._prompts = Prompts(family)

    def set_budget(self, visual_token_budget: int | None) -> None:
        """Change the visual-token budget; None for none.

        Where frames are free, chains start from the number nearest to the base policy's that the
        budget can serve. Whether a chain can meet it is known when it is resolved.
        """
        options = replace(self.family.options, visual_token_budget=visual_token_budget)
        self.family.options = options
        if not self.frames_free or self.sampling.rule == "fps":
            return
        frames = self._wanted_frames
        with suppress(InfeasibleBudget):  # of the model alone: a chain that pools may meet it
            frames = self.family.frames_for_budget(frames)
        self.sampling = replace(self.sampling, num_frames=frames)

    def resolve(self, chain: Chain) -> ResolvedChain:
        """Bind a chain to this model and these frames, once; refuse what cannot work.

        Raises:
            TempevalError: naming what does not fit, before any decoding.
        """
        key = (chain, self.sampling, self.frames_free, self.family.options)
        if key not in self._resolved:
            found = resolve_chain(self.family, self.sampling, chain, frames_free=self.frames_free)
            for spec in found.frames.side:
                self.encoder.channel(spec)
            self._resolved[key] = found
        return self._resolved[key]

    def plan(self, questions: Sequence[Question]) -> list[VideoWork]:
        """Group questions by video into batches (see `plan_work`).

        Raises:
            TempevalError: for generation arguments that are not accepted, before anything is
                decoded.
        """
        self._resolve_generation(questions)
        return plan_work(self._prompts, questions, self.batch_size)

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
        kept = Memory() if store is None else store
        resolved = tuple(self.resolve(chain) for chain in dict.fromkeys(chains))
        run = ResolvedRun(resolved, tuple(work), self.keys())
        todo = [(video, _pending(video, run, kept)) for video in work]
        self.missed = {}
        if self.family.options.visual_token_budget is not None:
            for one in run.chains:
                self._look_back(run, one, kept)
        wanted = [
            (video.visuals, list(dict.fromkeys(one.frames for one in left)))
            for video, pending in todo
            if (left := [one for one in pending if one.chain not in self.missed])
        ]
        opened = self.encoder.prefetch(wanted) if wanted else nullcontext()
        with opened:
            for video, pending in todo:
                for one in run.chains:
                    if one.chain in self.missed:
                        continue
                    for question, problem in video.refused:
                        refused = Outcome(None, Usage(error=problem))
                        yield Answered(question, one.chain, refused, replayed=False)
                    answers = self._answer(video, one, pending.get(one, set()), run, kept)
                    with closing(answers):  # the model is attached while a batch is being answered
                        for answered in answers:
                            yield answered
                            if self._misses(one.chain, answered.question, answered.outcome):
                                break
                self.encoder.forget_clips()

    def _look_back(self, run: ResolvedRun, one: ResolvedChain, store: AnswerStore) -> None:
        """Look whether a chain has missed the budget before, in this process or in another."""
        for item in run.items():
            outcome = store.get(run.key(one, item))
            if outcome is not None and self._misses(one.chain, item.question, outcome):
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

    def _answer(
        self,
        video: VideoWork,
        one: ResolvedChain,
        pending: Set[Batch],
        run: ResolvedRun,
        store: AnswerStore,
    ) -> Generator[Answered, None, None]:
        """Answer the questions about a video under a chain: replay batches, or compute them."""
        for batch in video.batches():
            if batch in pending:
                continue
            for item in batch.items:
                key = run.key(one, item)
                outcome = store.get(key)
                if outcome is not None:
                    earlier = not store.is_new(key)
                    yield Answered(item.question, one.chain, outcome, True, earlier)
        if not pending:
            return
        try:
            visuals = self.encoder.encode(video.visuals, one.frames)
            session = Session(self.family, one.bound, visuals, _share(video, one, run), self.seed)
        except (BadVideo, MemoryError, RuntimeError) as error:
            if not isinstance(error, BadVideo) and not is_out_of_memory(error):
                raise
            outcome = Outcome(None, Usage(error=describe(error, ENCODING)))
        else:
            yield from self._compute(session, video, one, pending, run, store)
            return
        for batch in video.batches():
            if batch in pending:
                yield from _kept(batch, [outcome] * len(batch.items), one, run, store)

    @staticmethod
    def _compute(
        session: Session,
        video: VideoWork,
        one: ResolvedChain,
        pending: Set[Batch],
        run: ResolvedRun,
        store: AnswerStore,
    ) -> Generator[Answered, None, None]:
        for batches in video.prefixes:
            left = [batch for batch in batches if batch in pending]
            if not left:
                continue
            questions = sum(len(batch.items) for batch in batches)
            with closing(session.answer(left, questions)) as answered:
                for batch, outcomes in answered:
                    yield from _kept(batch, outcomes, one, run, store)


def _kept(
    batch: Batch,
    outcomes: Sequence[Outcome],
    one: ResolvedChain,
    run: ResolvedRun,
    store: AnswerStore,
) -> Iterator[Answered]:
    """Store the answers of a batch, then yield them."""
    entries = zip(batch.items, outcomes, strict=True)
    store.append({run.key(one, item): outcome for item, outcome in entries})
    for item, outcome in zip(batch.items, outcomes, strict=True):
        yield Answered(item.question, one.chain, outcome, replayed=False)


def _pending(
    video: VideoWork, run: ResolvedRun, store: AnswerStore
) -> dict[ResolvedChain, set[Batch]]:
    """Return what is left to compute about a video: batches of which some answer is missing."""
    found: dict[ResolvedChain, set[Batch]] = {}
    for one in run.chains:
        for batch in video.batches():
            if any(store.get(run.key(one, item)) is None for item in batch.items):
                found.setdefault(one, set()).add(batch)
    return found


def _share(video: VideoWork, one: ResolvedChain, run: ResolvedRun) -> Share:
    """Count the samples that decoding and encoding for a chain serve, of those of all chains."""
    plan, plans = one.frames, [other.frames for other in run.chains]
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
        self._stamps: dict[tuple[Chain, tuple[Hashable, ...]], tuple[str, ...]] = {}

    def __call__(self, chain: Chain, question: Question) -> tuple[str, ...]:
        plan = self._inference.resolve(chain).frames
        if not plan.side:
            return ()
        key = (chain, question.visual_key)
        if key not in self._stamps:
            self._stamps[key] = self._inference.encoder.side_stamps(question.visuals, plan)
        return self._stamps[key]
