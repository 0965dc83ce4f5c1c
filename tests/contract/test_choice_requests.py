"""One request per document for tasks that score choices: built, asked, answered, written."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
from lmms_eval.api.instance import unwrap_generation_output
from lmms_eval.evaluator import _process_document_results
from lmms_eval.utils import handle_non_serializable, sanitize_list
from loguru import logger

from tempeval.engine.answer import Score
from tempeval.engine.continuations import Continuations
from tempeval.engine.inference import Answered
from tempeval.engine.question import Outcome
from tempeval.engine.scores import Scores
from tempeval.engine.usage import Usage
from tempeval.errors import UnsupportedModel
from tempeval.model_wrappers.baseline import TempevalBaseline
from tempeval.model_wrappers.results import ChoiceLoss, ChoiceScores
from tempeval.tasks.choice_task import ChoiceTask, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SCORES = Scores.of([Score(-1.5, 2, False, 8), Score(-0.1, 3, True, 12), Score(-4.0, 1, False, 4)])
PAIRS = [(0.75, False), (0.1 / 3, True), (4.0, False)]


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., ChoiceTask]:
    def make(documents: int = 3, labels: int = 3, **more: Any) -> ChoiceTask:
        texts = [f"label {number}" for number in range(labels)]
        lines = [
            json.dumps({"sample_id": f"s{number}", "answer": number % labels}) + "\n"
            for number in range(documents)
        ]
        path = tmp_path / f"{documents}-{labels}.jsonl"
        path.write_text("".join(lines), encoding="utf-8")
        config = {
            "class": "as the YAML names it",
            "task": "task",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(path)}},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_visual": lambda doc: [f"/videos/{doc['sample_id']}.mp4"],
            "doc_to_text": lambda _doc: "What is shown?",
            "doc_to_choice": lambda _doc: list(texts),
            "doc_to_target": "answer",
            "target_delimiter": "",
            "process_results": lambda doc, results: {
                "accuracy": float(choose(results, texts)[0] == texts[doc["answer"]])
            },
            "metric_list": [
                {"metric": "accuracy", "aggregation": "mean", "higher_is_better": True}
            ],
        }
        task = ChoiceTask({**config, **more})
        task.build_all_requests(rank=0, world_size=1)
        return task

    return make


def test_a_document_is_one_request_and_its_choices_are_one_object(
    build: Callable[..., ChoiceTask],
) -> None:
    requests = build(documents=5).instances
    assert [request.doc_id for request in requests] == list(range(5))
    assert {request.request_type for request in requests} == {"loglikelihood"}
    choices = [request.args[1] for request in requests]
    assert choices[0] == Continuations(("label 0", "label 1", "label 2"))
    assert all(one is choices[0] for one in choices)
    spaced = build(target_delimiter=" ").instances[0].args[1]
    assert list(spaced) == [" label 0", " label 1", " label 2"]


def test_the_host_has_nothing_to_warn_of(build: Callable[..., ChoiceTask]) -> None:
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING")
    try:
        task = build()
    finally:
        logger.remove(sink)
    assert said == []
    assert task.config.target_delimiter == ""
    assert task.doc_to_choice({}) == ["label 0", "label 1", "label 2"]


def test_the_identity_of_choices_does_not_grow_with_them() -> None:
    many = Continuations(tuple(f"label {number}" for number in range(700)))
    assert many.identity == [700, many.digest]
    assert many.identity != Continuations((*many.texts[1:], many.texts[0])).identity
    # As it was when each text was a question: journals of such questions stay good.
    assert Continuations(("up",)).identity == "up"


# ---------------------------------------------------------------- what the host does with a result


def test_a_result_gives_pairs() -> None:
    found = ChoiceScores.of(SCORES)
    assert list(found) == PAIRS
    assert len(found) == 3
    assert found[1] == PAIRS[1]
    assert found[-1] == (4.0, False)
    loss, _ = found[1]
    assert isinstance(loss, ChoiceLoss)
    assert (loss.log_likelihood, loss.num_tokens) == (-0.1, 3)


def test_the_samples_file_has_the_pairs_as_it_has_the_hosts_own() -> None:
    losses = [str(-total / count) for total, count in ((-1.5, 2), (-0.1, 3), (-4.0, 1))]
    expected = [[losses[0], "False"], [losses[1], "True"], [losses[2], "False"]]
    text = json.dumps(sanitize_list([ChoiceScores.of(SCORES)]), default=handle_non_serializable)
    assert json.loads(text) == [expected]
    (numbers,) = json.loads(json.dumps([ChoiceScores.of(SCORES)], default=handle_non_serializable))
    assert [(str(loss), str(greedy)) for loss, greedy in numbers] == [tuple(e) for e in expected]


@pytest.mark.parametrize("copied", [deepcopy, lambda value: pickle.loads(pickle.dumps(value))])  # noqa: S301
def test_a_result_survives_the_gather_between_ranks(copied: Callable[[Any], Any]) -> None:
    copy = copied(ChoiceScores.of(SCORES))
    assert type(copy) is ChoiceScores
    assert copy == ChoiceScores.of(SCORES)
    assert list(copy) == PAIRS
    assert [loss.log_likelihood for loss, _ in copy] == [-1.5, -0.1, -4.0]


def test_the_host_filters_scores_and_logs_it(build: Callable[..., ChoiceTask]) -> None:
    task = build(documents=1)
    (request,) = task.instances
    request.resps.append(ChoiceScores.of(SCORES))
    task.apply_filters()
    found = _process_document_results(
        (0, task.test_docs()[0], [request]),
        task=task,
        filter_key="none",
        reasoning_tags=[["<think>", "</think>"]],
        log_samples=True,
    )
    sample = found.logged_sample
    assert sample["filtered_resps"] == sample["resps"] == [ChoiceScores.of(SCORES)]
    assert (sample["accuracy"], sample["answer_index"]) == (0.0, 0)
    assert sample["p_c"] == pytest.approx(2.718281828**-1.5)
    assert sum(sample["choice_probabilities"]) == pytest.approx(1)
    assert sample["arguments"][0] == "What is shown?"


# ---------------------------------------------------------------- models that cannot do it


def test_a_stock_model_is_refused_by_name(build: Callable[..., ChoiceTask]) -> None:
    """The host's models call a continuation that is no text, or answer without looking at it."""
    task = build(documents=1)
    doc = task.test_docs()[0]
    with pytest.raises(UnsupportedModel, match=r"3 choices.*need a tempeval model.*_list or _mcq"):
        task.instances[0].args[1](doc)
    answered, _ = unwrap_generation_output((0.0, False))
    with pytest.raises(UnsupportedModel, match=r"task: .*'\(0.0, False\)'.*a tempeval model"):
        task.process_results(doc, [answered])


# ---------------------------------------------------------------- how much it takes


def fake_run(work: Any, chains: Any, _store: Any = None) -> Iterator[Answered]:
    """Answer as `Inference.run` does, with made-up numbers."""
    for video in work:
        for (batch,) in video.prefixes:
            for item in batch.items:
                scores = [Score(-float(n), 2, False, 8) for n in range(item.num_rows)]
                outcome = Outcome(Scores.of(scores), Usage(visual_tokens=4))
                yield Answered(item.question, chains[0], outcome, replayed=False)


def bytes_of(task: ChoiceTask, model: TempevalBaseline) -> int:
    """Return the most bytes in use while a task's requests are built and answered."""
    model.task_dict = {"task": task.dataset}
    tracemalloc.start()
    try:
        task.build_all_requests(rank=0, world_size=1)
        for answer, request in zip(
            model.loglikelihood(task.instances), task.instances, strict=True
        ):
            scores, counts = unwrap_generation_output(answer)
            request.resps.append(scores)
            request.token_counts.append(counts)
        task.apply_filters()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_labels_times_documents(
    build: Callable[..., ChoiceTask], tiny_qwen2_5_vl_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """13 bytes of numbers each; a request, a question and an outcome of their own took 4,000."""
    model = TempevalBaseline(str(tiny_qwen2_5_vl_folder), device="cpu")
    monkeypatch.setattr(model.inference, "run", fake_run)
    documents, few, many = 40, 20, 220
    bytes_of(build(documents, few), model)  # what is made once
    grown = bytes_of(build(documents, many), model) - bytes_of(build(documents, few), model)
    assert grown / (documents * (many - few)) < 50
