"""A failed question is wrong under every metric of its task, and no rule ever reads it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from tempeval.metrics import captions
from tempeval.metrics.captions import caption_score
from tempeval.run.counting import error_of
from tempeval.run.rescore import read_predictions, rescore
from tempeval.task_config import task_config
from tempeval.tasklist import task_entries
from tempeval.tasks import label_classification, mvbench, nextqa_oe
from tempeval.tasks.failed import Failure, failure_in, scorer, takes_failures, wrong

REFERENCE = Path(__file__).parents[1] / "reference"
CASES = REFERENCE / "missing_answers"
TASKS = [name for name, entry in task_entries().items() if entry.kind == "task"]


@pytest.mark.parametrize("name", sorted(path.name for path in CASES.iterdir()))
def test_what_was_not_answered_is_wrong_under_every_metric(name: str) -> None:
    expected = json.loads((CASES / name / "expected.json").read_text("utf-8"))
    answers = read_predictions(CASES / name / "predictions.json")
    root = CASES / name / "annotations"
    scores = rescore(expected["task"], answers, root, allow_missing=True)
    for metric, value in expected["metrics"].items():
        assert scores.metrics[metric] == pytest.approx(value, abs=1e-4), metric
    assert scores.failed == scores.missing == len(expected["per_item"]) - len(answers)
    # The rules of the benchmark still hold for what a model wrote, an empty text too.
    empty = dict.fromkeys(expected["per_item"], "") | answers
    official = {"mvbench_missing": "acc_official"}.get(name, "em_refined")
    said = rescore(expected["task"], empty, root)
    assert said.failed == 0
    assert said.metrics[official] > scores.metrics[official]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_scores_failures_and_counts_them(task: str) -> None:
    config = task_config(task)
    assert takes_failures(config["process_results"])
    (entry,) = [entry for entry in config["metric_list"] if entry["metric"] == "failed"]
    assert entry["aggregation"]([0, 1, 1]) == 2
    assert entry["higher_is_better"] is False


@pytest.mark.parametrize("name", [n for n, e in task_entries().items() if e.kind == "group"])
def test_a_group_with_means_has_the_total(name: str) -> None:
    listed = task_config(name).get("aggregate_metric_list") or ()
    totals = [entry["aggregation"] for entry in listed if entry["metric"] == "failed"]
    assert len(totals) == bool(listed)
    assert all(total([1, 2], [5, 5], False) == 3 for total in totals)


#: Of each kind of task: files, and arguments of `rescore`.
GOLDEN = {
    "tempeval_avqa": "avqa",
    "tempeval_breakfast_list": "breakfast",
    "tempeval_egoschema_subset": "egoschema",
    "tempeval_music_avqa": "music_avqa",
    "tempeval_mvbench": "mvbench",
    "tempeval_nextqa_mc": "nextqa_mc",
    "tempeval_sqa3d": "sqa3d",
    "tempeval_ssv2_list": "ssv2",
    "tempeval_tempcompass_caption_matching": "tempcompass",
    "tempeval_tempcompass_multi_choice": "tempcompass",
    "tempeval_tempcompass_yes_no": "tempcompass",
}
REQUIRED: dict[str, Any] = json.loads((REFERENCE / "metrics" / "required.json").read_text("utf-8"))


@pytest.mark.parametrize("task", sorted(set(GOLDEN) & set(REQUIRED)))
def test_no_answer_is_worth_no_more_than_any_answer(task: str) -> None:
    folder = REFERENCE / "metrics" / REQUIRED[task]["dir"]
    answers = read_predictions(folder / REQUIRED[task]["predictions"])
    left_out = sorted(answers)[::3]
    kept = {name: text for name, text in answers.items() if name not in left_out}
    scores = rescore(task, kept, folder / "annotations", allow_missing=True)
    assert len(left_out) >= scores.failed == scores.missing > 0  # files may hold more than a task
    for said in (answers, kept | dict.fromkeys(left_out, ""), kept | dict.fromkeys(left_out, "Q!")):
        others = rescore(task, said, folder / "annotations", allow_missing=True)
        assert set(others.metrics) == set(scores.metrics)  # a failed sample stays in its category
        for metric, value in scores.metrics.items():
            if "chance" in metric:
                assert value == others.metrics[metric]
            else:  # of `parse_failure` too: nothing was there to be parsed
                assert value <= others.metrics[metric] + 1e-9, (metric, said == answers)


def test_no_rule_is_called_with_a_failure() -> None:
    def score(_doc: Any, results: Any) -> dict[str, Any]:
        raise AssertionError(results)

    process = scorer(lambda _doc: {"acc": {"score": 1.0, "cluster": "c"}, "part": None})(score)
    for results in ([Failure("gone")], ["A", Failure("gone")], [["A", Failure("gone")]]):
        assert process({}, results) == {
            "acc": {"score": 0.0, "cluster": "c"},
            "part": None,
            "parsed": None,
            "failed": 1,
            "failure": "gone",
        }


def test_the_numbers_of_a_failed_sample_are_zero_whatever_they_were() -> None:
    sample = {"score": 1.0, "right": True, "cluster": "3", "chance": 0.25, "parsed": "A", "n": None}
    found = wrong({**sample, "parse_status": "parsed", "index": 2})
    assert found == {
        "score": 0.0,
        "right": False,
        "cluster": "3",
        "chance": 0.25,
        "parsed": None,
        "n": None,
        "parse_status": "failed",
        "index": 2,
    }


def test_a_failure_is_no_text_and_travels() -> None:
    failure = Failure("no such file: /x.mp4")
    assert not isinstance(failure, str)
    assert failure.strip() is failure
    assert pickle.loads(pickle.dumps(failure)) == failure  # noqa: S301
    assert failure_in(["A", ("B", False)]) is None
    assert failure_in(["A", failure]) is failure


def test_an_empty_answer_is_an_answer() -> None:
    doc = {"answer_index": 0, "choices": ["up", "down"], "cluster": "c"}
    doc |= dict.fromkeys(("sample_id", "video_id", "content_hash", "category"), "x")
    assert mvbench.process_results(doc, [""])["acc_official"] == 1.0
    failed = mvbench.process_results(doc, [Failure("gone")])
    assert (failed["acc_official"], failed["acc_strict"]["score"]) == (0.0, 0.0)
    assert (failed["parse_failure"], failed["chance"]) == (0.0, 0.5)
    assert error_of(failed) == "gone"
    assert error_of(mvbench.process_results(doc, [""])) is None


def test_wups_of_a_failure_needs_no_data_and_is_zero() -> None:
    doc = {"category": "CW", "answers": ["a dog"], "cluster": "c"}
    doc |= dict.fromkeys(("sample_id", "video_id", "content_hash"), "x")
    found = nextqa_oe.process_results(doc, [Failure("gone")])
    assert (found["wups0"]["score"], found["wups9"], found["wups0_c"]) == (0.0, 0.0, 0.0)
    assert found["wups0_t"] is None


def test_a_failed_sample_is_a_miss_of_its_class_and_a_hit_of_none() -> None:
    right = {"gold": 0, "predicted": 0, "classes": 2}
    failed = {"gold": 1, "predicted": None, "classes": 2}
    assert label_classification.macro_f1([right, failed]) == 0.5
    other = {"gold": 0, "predicted": None, "classes": 2}
    assert label_classification.macro_f1([right, other]) == pytest.approx(1 / 3)


# ---------------------------------------------------------------- scores of a corpus

CORPUS = [
    ("a brown wooden chair", ("a brown wooden chair", "chair")),
    ("on the left of the door", ("on the left side of the door",)),
    ("two", ("two", "there are two of them by the wall")),
]


class Words:
    """The PTB tokenizer where there is nothing but words; no Java."""

    def tokenize(self, texts: dict[int, list[dict[str, str]]]) -> dict[int, list[str]]:
        return {number: [each["caption"] for each in of] for number, of in texts.items()}


class Precision:
    """In METEOR's place, whose program takes seconds to start: matching words among all."""

    def compute_score(self, known: Any, said: Any) -> tuple[float, None]:
        pairs = [(set(" ".join(known[n]).split()), said[n][0].split()) for n in known]
        words = [word in ones for ones, all_words in pairs for word in all_words]
        return sum(words) / len(words), None


def test_a_question_without_an_answer_scores_no_more_in_a_corpus_than_any_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pycocoevalcap.tokenizer.ptbtokenizer.PTBTokenizer", Words)
    monkeypatch.setattr("pycocoevalcap.meteor.meteor.Meteor", Precision)
    monkeypatch.setattr(captions.shutil, "which", lambda _name: "java")
    monkeypatch.setattr(captions, "_scores", captions._scores.__wrapped__)
    references = ("the red table", "table")
    for corpus in (CORPUS, CORPUS[1:], [("a", ("a long sentence about a chair by the wall",))]):
        none = [*corpus, (None, references)]
        for said in ("", "banana", "the wrong one", "a cat " * 10, "wrong " * 64):
            pairs = [*corpus, (said, references)]
            for metric in captions.METRICS:
                least = caption_score(metric, none)
                assert least <= caption_score(metric, pairs) + 1e-9, (metric, said)
    # A zero among the questions, in the means over them.
    for metric in ("rouge_l", "cider"):
        none = [*CORPUS, (None, references)]
        assert caption_score(metric, none) == caption_score(metric, [*CORPUS, ("", references)]) > 0


def test_a_corpus_without_an_answer_scores_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert caption_score("bleu_1", [(None, ("a", "b"))] * 2) == 0.0
