"""The lmms-eval model that every tempeval model is: requests in, results with their usage out."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from lmms_eval.api.instance import GenerationResult
from lmms_eval.api.model import lmms
from lmms_eval.utils import simple_parse_args_string
from tqdm import tqdm

from tempeval.console import clean, visible
from tempeval.engine.answer import Answer
from tempeval.engine.base_model import load_family
from tempeval.engine.continuations import Continuations
from tempeval.engine.encoder import GIB, DecodeOptions
from tempeval.engine.feature_cache import FeatureCache
from tempeval.engine.inference import Inference
from tempeval.engine.journal import Journal, JournalError, forget_left_over
from tempeval.engine.scores import Scores
from tempeval.engine.store import AnswerStore, Memory
from tempeval.engine.usage import combined
from tempeval.engine.work import assign_ranks
from tempeval.errors import InfeasibleBudget, InvalidSetting, TempevalError, UnsupportedModel
from tempeval.families.base import LoadOptions
from tempeval.methods.registry import BASELINE
from tempeval.mini.paths import located
from tempeval.model_wrappers import failures, response_cache, sharding
from tempeval.model_wrappers.arguments import (
    chain_with_settings,
    check_results_name,
    device_of_rank,
    read_batch_size,
)
from tempeval.model_wrappers.facts import Tally, run_facts
from tempeval.model_wrappers.requests import (
    chat_question,
    is_padding,
    padding_sources,
    score_question,
    simple_question,
)
from tempeval.model_wrappers.results import (
    ChoiceResult,
    ChoiceScores,
    failure_of,
    token_counts,
)
from tempeval.video.clip import Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tempeval.engine.inference import Answered
    from tempeval.engine.question import Outcome, Question
    from tempeval.engine.usage import Usage
    from tempeval.engine.work import VideoWork
    from tempeval.methods.base import Chain
    from tempeval.video.clip import SamplingRule
    from tempeval.video.decode import Decoder

DEFAULT_FRAMES = 8
#: Failed samples whose reasons a warning quotes.
MAX_QUOTED = 3
_LOG = logging.getLogger(__name__)
#: Most frames of a clip sampled at a fixed rate, as lmms-eval's own Qwen wrappers.
DEFAULT_CAP = 32


class TempevalModel(lmms):  # type: ignore[misc]  # lmms-eval is untyped here
    """A base model under a chain of methods, as lmms-eval sees it.

    Args:
        pretrained: checkpoint folder, hub id, or a shipped tiny one: `mini`, or `mini:NAME`.
        method: chain such as `pas+temporal_exit`; fixed in the one-method models.
        num_frames: frames per video; the cap with `fps`. None is 8 (the cap: 32), or with a
            visual-token budget the number nearest to 8 that the budget can serve.
        fps: frames per second (1/s); makes the sampling rule `fps`.
        sampling: `uniform` (linspace, ends included) or `segment` (segment centres).
        min_pixels: fewest pixels per frame; None for the family's default.
        max_pixels: most pixels per frame; None for the family's default.
        visual_token_budget: visual tokens per prompt to plan for; None for no budget.
        position_rule: `original` (as the checkpoints were trained) or `native` (as the installed
            transformers).
        device: torch device; None takes this rank's GPU, else the CPU.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        batch_size: questions of one video answered together.
        max_batch_size: accepted because lmms-eval passes it; it may only repeat `batch_size`.
        decoder: `auto` (PyAV), `pyav` or `decord`.
        decode_workers: decoding processes; 0 decodes here (debugging only).
        decode_timeout: seconds per clip; more for many frames or a large file.
        journal: folder in which every answer is kept as soon as it is there; the same command
            then goes on where it was interrupted.
        revision: commit of a hub checkpoint.
        system_prompt: replaces the chat template's own.
        mm_newline_position: `one_token` or `grid`, for LLaVA-OneVision; None takes the
            checkpoint's own.
        feature_cache_gib: memory for encoded videos shared between methods.
        family: family name; None reads it from the checkpoint.
        seed: of sampled answers (`do_sample`, `temperature > 0`). lmms-eval's command line gives
            torch's number of its `--seed`, unless this says otherwise.
        settings: settings of the methods, as `pas.unit=position` or `unit=position`.

    Raises:
        UnknownName: for an argument that does not exist.
        InvalidSetting: for a value that is not accepted.
        UnsupportedModel: for a checkpoint that no family loads.
    """

    is_simple = False
    #: Chain of the one-method models; None where the user chooses.
    fixed_method: ClassVar[str | None] = None
    #: Whether the first chain is checked before it is asked for anything.
    checks_at_once: ClassVar[bool] = True
    #: Whether failed samples are summed up in a warning; not where the caller says it.
    says_failures: ClassVar[bool] = True

    def __init__(
        self,
        pretrained: str = "mini",
        *,
        method: str | None = None,
        num_frames: int | None = None,
        fps: float | None = None,
        sampling: SamplingRule = "uniform",
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        visual_token_budget: int | None = None,
        position_rule: str = "original",
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str = 8,
        max_batch_size: int | str | None = None,
        decoder: Decoder = "auto",
        decode_workers: int | None = None,
        decode_timeout: float = 30.0,
        journal: str | Path | None = None,
        revision: str | None = None,
        system_prompt: str | None = None,
        mm_newline_position: str | None = None,
        feature_cache_gib: float = 1.0,
        family: str | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__()
        if self.fixed_method is not None and method not in (None, self.fixed_method):
            raise InvalidSetting(
                f"this model runs method {self.fixed_method!r}, not {method!r}; "
                "use --model tempeval for other chains"
            )
        chain = chain_with_settings(
            method or self.fixed_method or BASELINE, settings, argument_names()
        )
        if not isinstance(seed, int):
            raise InvalidSetting(f"seed={seed!r} is not a whole number")
        rows = read_batch_size(batch_size, max_batch_size)
        rule: SamplingRule = sampling if fps is None else "fps"
        default = DEFAULT_FRAMES if fps is None else DEFAULT_CAP
        frames = Sampling(rule, default if num_frames is None else num_frames, fps)
        self._rank = int(os.environ.get("RANK", "0"))
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))
        sharding.install(self._world_size)
        failures.install()
        response_cache.install()
        self._name = pretrained
        folder = located(pretrained)
        self.family = load_family(
            folder,
            LoadOptions(
                device=device_of_rank(device),
                dtype=dtype,
                position_rule=position_rule,
                revision=revision,
                min_pixels=min_pixels,
                max_pixels=max_pixels,
                visual_token_budget=visual_token_budget,
                system_prompt=system_prompt,
                mm_newline_position=mm_newline_position,
            ),
            family,
        )
        self.family.check_newline_position()
        self.chain = chain
        self.inference = Inference(
            self.family,
            frames,
            batch_size=rows,
            decoding=DecodeOptions(decoder, decode_workers, decode_timeout),
            feature_cache=FeatureCache(int(feature_cache_gib * GIB)),
            frames_free=num_frames is None,
            seed=seed,
        )
        self.store: AnswerStore | None = None
        self.failures: dict[str, str] = {}
        self.tally = Tally()
        self._unsaid: list[tuple[int, dict[str, str]]] = []
        self._frames_given = num_frames is not None
        self._plan_frames()
        if self.checks_at_once:
            self.inference.check(chain)
        if journal is not None:
            self.open_journal(Path(journal))

    @cached_property
    def accelerator(self) -> Accelerator:
        """What the host gathers and waits with; made when it first asks.

        Making it opens a process group on several ranks. `tempeval run` needs none, and the host
        waits in places for every rank once there is one.
        """
        return Accelerator()

    @property
    def device(self) -> torch.device:
        """Device of the model, which the host uses for its collectives."""
        return self.family.device

    def set_method(self, method: str) -> None:
        """Change the chain; weights and encoded videos stay.

        Raises:
            TempevalError: for a chain that cannot be read or does not fit the model.
        """
        chain = chain_with_settings(method, {}, ())
        self.inference.check(chain)
        self.chain = chain
        self.failures = {}
        self.tally = Tally()

    def set_budget(self, visual_token_budget: int | None) -> None:
        """Change the visual-token budget; None for none.

        Whether a chain can meet it is known when the chain is set, or asked for answers.
        """
        self.family.options = replace(self.family.options, visual_token_budget=visual_token_budget)
        self._plan_frames()

    def _plan_frames(self) -> None:
        """Choose the frames that chains start from, where the user left them to the budget."""
        if self._frames_given or self.inference.sampling.rule == "fps":
            return
        frames = DEFAULT_FRAMES
        with suppress(InfeasibleBudget):  # of the model alone: a chain that pools may meet it
            frames = self.family.frames_for_budget(DEFAULT_FRAMES)
        self.inference.sampling = replace(self.inference.sampling, num_frames=frames)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> TempevalModel:
        """Build the model as lmms-eval's command line does; a bad argument ends the process.

        lmms-eval logs every exception and exits 0. A misspelt argument must not look like a run.

        Raises:
            SystemExit: with status 2, for an argument that is not accepted.
        """
        given = simple_parse_args_string(arg_string)
        if "seed" not in given:
            # lmms-eval hands its --seed to nobody; it has just seeded torch with it.
            additional_config = {**(additional_config or {}), "seed": torch.initial_seed()}
        try:
            check_results_name(str(given.get("pretrained", "")))
            model: TempevalModel = super().create_from_arg_string(arg_string, additional_config)
        except TempevalError as error:
            sys.stderr.write(f"error: {visible(str(error))}\n")
            raise SystemExit(2) from error
        return model

    def open_journal(self, folder: Path) -> None:
        """Keep every answer in a folder, and find earlier ones there.

        Raises:
            JournalError: if it cannot be written, or another process writes it.
        """
        self.store = Journal(folder, self._rank)

    def use_cache(self, folder: Path) -> None:
        """Keep answers where lmms-eval's `--use_cache` says, unless a journal is open.

        Where another process has it, which costs time and changes no answer, a warning says so.
        """
        if self.store is not None:
            return
        try:
            self.open_journal(folder)
        except JournalError as error:
            _LOG.warning("--use_cache: answers are neither looked up nor kept: %s", error)

    def close_journal(self) -> None:
        """Let go of the journal; answers are found no more."""
        if isinstance(self.store, Journal):
            self.store.close()
        self.store = None

    def reload_journal(self) -> None:
        """Read what other ranks have written."""
        if isinstance(self.store, Journal):
            self.store.reload()

    def forget_answers(self, requests: Mapping[str, Sequence[Any]], methods: Sequence[str]) -> None:
        """Forget earlier answers to requests under several chains; on every rank, before any runs.

        Args:
            requests: instances by request type.
            methods: the chains; answers of others stay in the journal.

        Raises:
            JournalError: if the journal cannot be written.
        """
        if not isinstance(self.store, Journal):
            return
        chains, work = self._planned(requests, methods)
        named = self.inference.keys().of_all(chains, work)
        self.store.forget(named)
        if self._rank == 0:
            forget_left_over(self.store.folder, self._world_size, named)

    def answer_all(
        self, requests: Mapping[str, Sequence[Any]], methods: Sequence[str]
    ) -> Iterator[Answered]:
        """Answer requests under several chains, video by video, into the store.

        Afterwards `generate_until` and `loglikelihood` find the answers there. Of several ranks,
        each takes whole videos.

        Args:
            requests: instances by request type.
            methods: the chains.

        Raises:
            TempevalError: for a chain that cannot be read or does not fit the model.
        """
        if self.store is None:
            self.store = Memory()
        chains, work = self._planned(requests, methods)
        ranks = assign_ranks([video.cost(len(chains)) for video in work], self._world_size)
        mine = [video for video, rank in zip(work, ranks, strict=True) if rank == self._rank]
        asked = sum(video.num_questions + len(video.refused) for video in mine)
        total = len(chains) * asked
        with self._bar(total, f"{len(chains)} methods") as bar:
            for answered in self.inference.run(mine, chains, self.store):
                bar.update(1)
                yield answered

    def _planned(
        self, requests: Mapping[str, Sequence[Any]], methods: Sequence[str]
    ) -> tuple[list[Chain], list[VideoWork]]:
        questions: list[Question] = []
        for kind, instances in requests.items():
            read = self._reader(kind)
            questions += [
                read(len(questions) + i, request, self.task_dict)
                for i, request in enumerate(instances)
            ]
        chains = [chain_with_settings(method, {}, ()) for method in methods]
        return chains, self.inference.plan(questions)

    def run_facts(self) -> dict[str, Any]:
        """Return what a record says about model, method and frames."""
        return run_facts(self._name, self.chain, self.inference, self._world_size, self.tally)

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """Answer generation requests, video by video; results in the order of the requests."""
        results: list[GenerationResult | None] = [None] * len(requests)
        for number, outcome in self._run("generate_until", requests):
            answer = outcome.answer
            said = answer.text if isinstance(answer, Answer) else failure_of(outcome)
            results[number] = GenerationResult(said, token_counts(outcome.usage))
        self._say_failures(alone=True)
        return _all_answered(results)

    def loglikelihood(self, requests: Sequence[Any]) -> list[ChoiceResult]:
        """Score continuations; each result is `(ChoiceLoss, is_greedy)`.

        A request with `Continuations` has such a pair for each of them, in one result. Where the
        choices of a question are requests of their own, the first carries the token counts of all.
        """
        results: list[ChoiceResult | None] = [None] * len(requests)
        usages: dict[tuple[str, Any], list[tuple[int, Usage]]] = {}
        for number, outcome in self._run("loglikelihood", requests):
            request = requests[number]
            asked = request.args[1]
            together = isinstance(asked, Continuations)
            answer = outcome.answer
            scores = ChoiceScores.of(answer) if isinstance(answer, Scores) else failure_of(outcome)
            if together:
                results[number] = ChoiceResult(scores, token_counts(outcome.usage))
                continue
            results[number] = ChoiceResult(scores[0] if isinstance(scores, tuple) else scores)
            if not is_padding(request):
                key = (request.task_name, request.doc_id)
                usages.setdefault(key, []).append((number, outcome.usage))
        answered = _all_answered(results)
        # One usage per question: 174 labels would repeat it 174 times in the samples file.
        for of_question in usages.values():
            first = min(number for number, _ in of_question)
            whole = combined([usage for _, usage in of_question])
            answered[first].token_counts = token_counts(whole)
        self._say_failures(alone=True)
        return answered

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Refuse: no tempeval task has several rounds.

        Raises:
            UnsupportedModel: always.
        """
        raise UnsupportedModel(
            "tempeval models answer single-round tasks; output_type generate_until_multi_round is "
            "not supported. Use a generate_until or multiple_choice task"
        )

    def clean(self) -> None:
        """Keep the weights: one model serves many methods. The host would delete them.

        It calls this on every rank when all requests have run: of several ranks, the first says
        here how many samples failed on any of them.
        """
        self._say_failures(alone=False)

    def _say_failures(self, *, alone: bool) -> None:
        """Warn once of the samples that failed since the last time: how many, and why.

        Args:
            alone: whether no other rank takes part; then several ranks wait for `clean`.
        """
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and dist.is_initialized()
        if several and alone:
            return
        found, self._unsaid = self._unsaid, []
        if several and self.says_failures:
            first = self._rank == 0
            of_ranks: list[Any] | None = [None] * dist.get_world_size() if first else None
            dist.gather_object(found, of_ranks, dst=0)
            found = [one for of_rank in of_ranks or () for one in of_rank]
        failed = {name: error for _, errors in found for name, error in errors.items()}
        if failed and self.says_failures:
            _LOG.warning("%s", visible(summary(failed, sum(samples for samples, _ in found))))

    def _reader(self, kind: str) -> Callable[[int, Any, Mapping[str, Any]], Question]:
        if kind == "loglikelihood":
            return score_question
        return simple_question if self.is_simple else chat_question

    def _bar(self, total: int, label: str) -> tqdm[Any]:
        """Return a progress bar; of several ranks the first has one, and only on a terminal."""
        return tqdm(total=total, desc=label, disable=None if self._rank == 0 else True)

    def _run(self, kind: str, requests: Sequence[Any]) -> Iterator[tuple[int, Outcome]]:
        read = self._reader(kind)
        for request in requests:
            failures.guard(request)
        sources = padding_sources(requests)
        questions = [
            read(i, request, self.task_dict)
            for i, request in enumerate(requests)
            if i not in sources
        ]
        padding: dict[int, list[int]] = {}
        for i, source in sources.items():
            padding.setdefault(source, []).append(i)
        work = self.inference.plan(questions)
        failed: dict[str, str] = {}
        asked = {(one.task_name, one.doc_id) for one in requests if not is_padding(one)}
        self._unsaid.append((len(asked), failed))
        with self._bar(len(questions), self.chain.spec) as bar:
            for answered in self.inference.run(work, [self.chain], self.store):
                number, outcome = answered.question.number, answered.outcome
                self.tally.add(answered)
                request = requests[number]
                if outcome.usage.error is not None and not is_padding(request):
                    name = f"{request.task_name}/{request.doc_id}"
                    failed[name] = self.failures[name] = outcome.usage.error
                bar.update(1)
                yield number, outcome
                yield from ((i, outcome) for i in padding.get(number, ()))
        if self.chain in self.inference.missed:
            raise self.inference.missed[self.chain]


def summary(failed: Mapping[str, str], samples: int) -> str:
    """Say how many samples failed, and the first reasons.

    Args:
        failed: reasons by sample.
        samples: all that were asked for.
    """
    quoted = list(failed.items())[:MAX_QUOTED]
    reasons = "".join(f"\n  {clean(name)}: {clean(reason)}" for name, reason in quoted)
    more = len(failed) - len(quoted)
    return (
        f"{len(failed)} of {samples} samples failed; each is wrong under every metric, and the "
        f"metric `failed` counts them:{reasons}" + (f"\n  and {more} more" if more else "")
    )


def argument_names() -> list[str]:
    """List the ordinary model arguments."""
    parameters = inspect.signature(TempevalModel.__init__).parameters.values()
    return [p.name for p in parameters if p.name not in ("self", "settings")]


def _all_answered(results: Sequence[Any]) -> list[Any]:
    missing = [i for i, result in enumerate(results) if result is None]
    if missing:
        raise UnsupportedModel(
            f"{len(missing)} of {len(results)} requests got no result, the first is {missing[0]}; "
            "this is a defect of tempeval, please report it"
        )
    return list(results)
