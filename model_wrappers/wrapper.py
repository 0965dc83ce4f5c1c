"""The lmms-eval model that every tempeval model is: requests in, results with their usage out."""

from __future__ import annotations

import logging
import os
import sys
import time
from functools import cached_property
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
from tempeval.engine.continuations import Continuations
from tempeval.engine.journal import Journal, JournalError, forget_left_over
from tempeval.engine.scores import Scores
from tempeval.engine.store import AnswerStore, Memory
from tempeval.engine.usage import combined
from tempeval.engine.work import assign_ranks
from tempeval.errors import InvalidSetting, TempevalError, UnsupportedModel
from tempeval.methods.registry import BASELINE
from tempeval.model_wrappers import failures, response_cache, sharding
from tempeval.model_wrappers.arguments import (
    chain_with_settings,
    check_results_name,
    make_inference,
)
from tempeval.model_wrappers.facts import Tally, run_facts
from tempeval.model_wrappers.requests import (
    is_padding,
    padding_sources,
    reader,
)
from tempeval.model_wrappers.results import (
    ChoiceResult,
    ChoiceScores,
    failure_of,
    token_counts,
)
from tempeval.run.spec import RunSpec, options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from tempeval.engine.inference import Answered
    from tempeval.engine.question import Outcome, Question
    from tempeval.engine.usage import Usage
    from tempeval.engine.work import VideoWork
    from tempeval.methods.base import Chain
    from tempeval.model_wrappers.requests import Reader
    from tempeval.run.record import ModelFacts

#: Failed samples whose reasons a warning quotes.
MAX_QUOTED = 3
_LOG = logging.getLogger(__name__)


class TempevalModel(lmms):  # type: ignore[misc]  # lmms-eval is untyped here
    """A base model under a chain of methods, as lmms-eval sees it.

    Its arguments are the options of `RunSpec` that have this door, and settings of the methods, as
    `pas.unit=position` or `unit=position`. With `fps`, `num_frames` is the cap; None is 8 (the cap:
    32), or with a visual-token budget the number nearest to 8 that the budget can serve. Of
    lmms-eval's command line `seed` is torch's number of its `--seed`, unless it is given.

    Args:
        pretrained: checkpoint folder, hub id, or a shipped tiny one: `mini`, or `mini:NAME`.
        arguments: all others, by name.

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
    #: When lmms-eval's command began to load it (`time.perf_counter`); None for other callers.
    command_began: float | None = None
    #: Whether failed samples are summed up in a warning; not where the caller says it.
    says_failures: ClassVar[bool] = True

    def __init__(self, pretrained: str = "mini", **arguments: Any) -> None:
        super().__init__()
        known = dict(options("model_args"))
        settings = {name: value for name, value in arguments.items() if name not in known}
        given = {name: value for name, value in arguments.items() if name in known}
        spec = RunSpec.of({"pretrained": pretrained, **given}, "model_args", "model argument")
        if self.fixed_method is not None and spec.method not in (None, self.fixed_method):
            raise InvalidSetting(
                f"this model runs method {self.fixed_method!r}, not {spec.method!r}; "
                "use --model tempeval for other chains"
            )
        chain = chain_with_settings(spec.method or self.fixed_method or BASELINE, settings, known)
        self.spec = spec
        self._rank = int(os.environ.get("RANK", "0"))
        self._world_size = int(os.environ.get("WORLD_SIZE", "1"))
        sharding.install(self._world_size)
        failures.install()
        response_cache.install()
        self.inference = make_inference(spec)
        self.family = self.inference.family
        self.chain = chain
        self.store: AnswerStore | None = None
        self.failures: dict[str, str] = {}
        self.tally = Tally()
        self._unsaid: list[tuple[int, dict[str, str]]] = []
        if self.checks_at_once:
            self.inference.resolve(chain)
        if spec.journal is not None:
            self.open_journal(spec.journal)

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
        self.inference.resolve(chain)
        self.chain = chain
        self.failures = {}
        self.tally = Tally()

    def set_budget(self, visual_token_budget: int | None) -> None:
        """Change the visual-token budget; None for none.

        Whether a chain can meet it is known when the chain is set, or asked for answers.
        """
        self.inference.set_budget(visual_token_budget)

    @classmethod
    def create_from_arg_string(
        cls, arg_string: str, additional_config: dict[str, Any] | None = None
    ) -> TempevalModel:
        """Build the model as lmms-eval's command line does; a bad argument ends the process.

        lmms-eval logs every exception and exits 0. A misspelt argument must not look like a run.

        Raises:
            SystemExit: with status 2, for an argument that is not accepted.
        """
        began = time.perf_counter()
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
        # Here, because the host's command alone comes this way; `tempeval run` has its own records.
        from tempeval.run import host_command

        host_command.install()
        model.command_began = began
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

    def run_facts(self) -> ModelFacts:
        """Return what a record says about model, method and frames."""
        return run_facts(self.spec, self.chain, self.inference, self.tally)

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
        self._join_tallies()

    def _join_tallies(self) -> None:
        """Add up how the answers of all ranks came about, on the first."""
        if self._world_size == 1 or not dist.is_initialized():
            return
        of_ranks: list[Any] | None = [None] * dist.get_world_size() if self._rank == 0 else None
        dist.gather_object(self.tally, of_ranks, dst=0)
        for other in (of_ranks or ())[1:]:
            self.tally.join(other)

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

    def _reader(self, kind: str) -> Reader:
        return reader(kind, simple=self.is_simple, over=self.spec.gen_kwargs)

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


def _all_answered(results: Sequence[Any]) -> list[Any]:
    missing = [i for i, result in enumerate(results) if result is None]
    if missing:
        raise UnsupportedModel(
            f"{len(missing)} of {len(results)} requests got no result, the first is {missing[0]}; "
            "this is a defect of tempeval, please report it"
        )
    return list(results)
