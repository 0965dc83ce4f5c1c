"""Failed questions under a tempeval model: lmms-eval's own tasks, its cache and its log."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
from lmms_eval.api.task import ConfigurableMessagesTask, ConfigurableTask
from lmms_eval.caching.response_cache import ResponseCache
from lmms_eval.evaluator import evaluate

import tempeval.model_wrappers.wrapper as wrapper_module
from tempeval.engine.answer import Answer, Score
from tempeval.engine.inference import Answered
from tempeval.engine.question import Outcome
from tempeval.engine.scores import Scores
from tempeval.engine.usage import Usage
from tempeval.model_wrappers.chain import Tempeval, TempevalSimple
from tempeval.model_wrappers.failures import NotKnown
from tempeval.tasks.failed import scorer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GONE = "/videos/gone.mp4: no such file"
DOCS = [
    {"sample_id": "s0", "video": "a.mp4", "answer": "right", "kind": "x"},
    {"sample_id": "s1", "video": "gone.mp4", "answer": "right", "kind": "x"},
    {"sample_id": "s2", "video": "b.mp4", "answer": "wrong", "kind": "y"},
]
CHOICES = ["right", "wrong"]


def fake_run(work: Any, chains: Any, store: Any = None) -> Iterator[Answered]:
    """Answer "right" as `Inference.run` does; what is gone fails."""
    for video in work:
        for (batch,) in video.prefixes:
            for item in batch.items:
                question = item.question
                answer: Any = Answer("right", (1,), 8)
                if question.kind == "score":
                    scores = [-1.0 if "right" in text else -2.0 for text in question.continuations]
                    answer = Scores.of([Score(total, 2, False, 8) for total in scores])
                outcome = Outcome(answer, Usage(visual_tokens=4))
                if "gone" in repr(question.visuals):
                    outcome = Outcome(None, Usage(error=GONE))
                if store is not None:
                    store.append({question.sample: outcome})
                yield Answered(question, chains[0], outcome, replayed=False)


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    path = tmp_path / "docs.jsonl"
    path.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS), encoding="utf-8")
    return {
        "task": "foreign",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_visual": lambda doc: [f"/videos/{doc['video']}"],
        "doc_to_text": lambda _doc: "What is shown?",
        "doc_to_target": "answer",
        "generation_kwargs": {"max_new_tokens": 4, "temperature": 0, "do_sample": False},
    }


@pytest.fixture(scope="module")
def models(tiny_qwen2_5_vl_folder: Path) -> dict[bool, Any]:
    made = {}
    for cls in (Tempeval, TempevalSimple):
        made[cls.is_simple] = cls(
            str(tiny_qwen2_5_vl_folder), device="cpu", min_pixels=784, max_pixels=9408
        )
        made[cls.is_simple].inference.run = fake_run
    return made


def results_of(model: Any, task: Any, **more: Any) -> Any:
    model.task_dict = {task.config.task: task.dataset}
    model.store = None
    return evaluate(model, {task.config.task: task}, bootstrap_iters=10, log_samples=True, **more)


def official(doc: Any, results: Any) -> dict[str, Any]:
    """Score as a foreign task may: "" is right, each sample is in the metric of its kind."""
    (text,) = results
    assert isinstance(text, str)
    right = float(text in doc["answer"])
    found = {"right": right, "errors": 1 - right, "item": {"said": text, "doc": doc["answer"]}}
    return {**found, f"right_{doc['kind']}": right}


def metric(name: str, aggregation: Any = "mean", higher: bool = True) -> dict[str, Any]:
    return {"metric": name, "aggregation": aggregation, "higher_is_better": higher}


@pytest.mark.parametrize("simple", [False, True])
def test_a_foreign_task_is_never_handed_a_failure(
    models: Any, config: Any, simple: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def share(items: Any) -> float:
        return sum(item["said"] in item["doc"] for item in items) / len(items)

    listed = [metric("right"), metric("errors", higher=False), metric("item", share)]
    listed += [metric("right_x"), metric("right_y")]
    config |= {"process_results": official, "metric_list": listed}
    task = (ConfigurableTask if simple else ConfigurableMessagesTask)(config=config)
    with caplog.at_level(logging.WARNING, logger="tempeval"):
        found = results_of(models[simple], task)
    results = found["results"]["foreign"]
    assert results["right,none"] == pytest.approx(1 / 3)
    assert results["failed,none"] == 1
    for name in ("errors", "item", "right_x", "right_y"):
        assert results[f"{name},none"] == "N/A", name
    said = [record.getMessage() for record in caplog.records]
    (first,) = [line for line in said if line.startswith("1 of 3 samples failed")]
    assert f"foreign/1: {GONE}" in first
    assert any("errors, item, right_x, right_y" in line for line in said)
    samples = {sample["sample_id"]: sample for sample in found["samples"]["foreign"][1:2]}
    assert samples["s1"]["score"] == samples["s1"]["right"] == 0.0
    assert samples["s1"]["failure"] == GONE
    assert [s["failed"] for s in found["samples"]["foreign"]] == [0, 1, 0]


def test_filters_keep_documents_and_answers_together(models: Any, config: Any) -> None:
    steps = [{"function": "regex", "regex_pattern": "(right)"}, {"function": "take_first"}]
    config |= {
        "filter_list": [{"name": "read", "filter": steps}],
        "metric_list": [metric("exact_match")],
    }
    found = results_of(models[True], ConfigurableTask(config=config))
    assert found["results"]["foreign"]["exact_match,read"] == pytest.approx(1 / 3)
    assert found["results"]["foreign"]["failed,read"] == 1


def test_a_failed_question_of_the_hosts_choices_is_wrong_whatever_the_answer(
    models: Any, config: Any
) -> None:
    """All losses are infinite, and the smallest of them is the first: the right answer here."""
    config |= {
        "output_type": "multiple_choice",
        "doc_to_choice": lambda _doc: list(CHOICES),
        "doc_to_target": lambda doc: CHOICES.index(doc["answer"]),
        "metric_list": [metric("acc"), metric("acc_norm")],
    }
    found = results_of(models[True], ConfigurableTask(config=config))
    results = found["results"]["foreign"]
    assert (results["acc,none"], results["failed,none"]) == (pytest.approx(1 / 3), 1)
    assert results["acc_norm,none"] == pytest.approx(1 / 3)


def test_a_task_without_failures_is_untouched(models: Any, config: Any) -> None:
    config |= {"process_results": official, "metric_list": [metric("right"), metric("errors")]}
    config["doc_to_visual"] = lambda _doc: ["/videos/a.mp4"]
    results = results_of(models[True], ConfigurableTask(config=config))["results"]["foreign"]
    assert results["right,none"] == pytest.approx(2 / 3)
    assert results["errors,none"] == pytest.approx(1 / 3)
    assert results["right_stderr,none"] > 0
    assert results["failed,none"] == 0


def test_a_task_that_takes_failures_scores_them_itself(models: Any, config: Any) -> None:
    own = scorer(lambda doc: official(doc, ["x"]))(official)
    config |= {
        "process_results": own,
        "metric_list": [metric("right_x", lambda items: sum(items) / len(items))],
    }
    found = results_of(models[True], ConfigurableTask(config=config))
    assert found["results"]["foreign"]["right_x,none"] == 0.5  # of two samples of this kind


def test_a_mean_over_what_is_not_known_is_not_known() -> None:
    unknown = NotKnown()
    assert sum([0.5 * 3, unknown * 2, 1]) / 5 == "N/A"
    assert json.loads(json.dumps({"mean": unknown})) == {"mean": "N/A"}


# ---------------------------------------------------------------- several ranks


def test_several_ranks_say_it_once(
    models: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = models[True]
    others = [(4, {"foreign/7": "gone too"})]

    def gather(own: Any, into: list[Any] | None, dst: int) -> None:
        assert dst == 0
        if into is not None:
            into[:] = [own, others]

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(wrapper_module.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(wrapper_module.dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(wrapper_module.dist, "gather_object", gather)
    for rank, expected in ((0, 1), (1, 0)):
        caplog.clear()
        monkeypatch.setattr(model, "_rank", rank)
        model._unsaid = [(3, {"foreign/1": GONE})]
        model._say_failures(alone=True)
        assert not caplog.records
        model.clean()
        lines = [record.getMessage() for record in caplog.records]
        assert len(lines) == expected
        assert all(line.startswith("2 of 7 samples failed") for line in lines)
        assert model._unsaid == []


# ---------------------------------------------------------------- --use_cache


@pytest.mark.parametrize("kind", ["generate_until", "multiple_choice"])
def test_the_hosts_cache_is_a_journal_with_usages_and_without_failures(
    models: Any, config: Any, kind: str, tmp_path: Path
) -> None:
    model = models[True]
    config |= {"output_type": kind, "metric_list": [metric("acc")]}
    if kind == "multiple_choice":
        config |= {
            "doc_to_choice": lambda _doc: list(CHOICES),
            "doc_to_target": lambda doc: CHOICES.index(doc["answer"]),
        }
    else:
        config |= {"process_results": lambda _doc, said: {"acc": float(said[0] == "right")}}
    root = tmp_path / "cache"
    for _ in range(2):
        cache = ResponseCache.create(str(root), model="tempeval", model_args="a=1")
        found = results_of(model, ConfigurableTask(config=config), response_cache=cache)
        (folder,) = (root / "tempeval").iterdir()
        assert model.store.folder == folder
        assert len((folder / "rank0.jsonl").read_text().splitlines()) > 0
        model.close_journal()
        assert cache.get_stats()["total_cached_entries"] == 0
        cache.finalize(success=True)
        results = found["results"]["foreign"]
        assert results["failed,none"] == 1
        counts = [sample["token_counts"][0] for sample in found["samples"]["foreign"]]
        assert [each["visual_tokens"] for each in counts] == [4, None, 4]
        assert counts[1]["error"] == GONE
    assert (root / "cache.audit.jsonl").read_text() == ""


def test_a_journal_of_the_user_stays(models: Any, tmp_path: Path) -> None:
    model = models[True]
    model.store = None
    model.open_journal(tmp_path / "own")
    try:
        model.use_cache(tmp_path / "cache")
        assert model.store.folder == tmp_path / "own"
    finally:
        model.close_journal()


def test_a_cache_in_use_is_said_and_costs_no_answer(
    models: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = models[True], models[False]
    first.store = second.store = None
    first.use_cache(tmp_path)
    try:
        second.use_cache(tmp_path)
        assert second.store is None
        assert "--use_cache" in caplog.text
        assert "another process" in caplog.text
    finally:
        first.close_journal()
