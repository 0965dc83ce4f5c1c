"""Open-ended NExT-QA: the official numbers, from recorded words and from the real data."""

from __future__ import annotations

import json
import math
from typing import Any

import nltk.data
import pytest
from recorded_words import GOLDEN, RECORDED, RecordedWords, golden_scores, record

from tempeval.metrics import wups_data, wups_words
from tempeval.metrics.unavailable import MetricUnavailable
from tempeval.metrics.wups import clean, stopwords, wups
from tempeval.tasks import nextqa_oe

EXPECTED: dict[str, Any] = json.loads((GOLDEN / "expected.json").read_text("utf-8"))
#: Percent points.
TOLERANCE = 2e-4
needs_data = pytest.mark.skipif(
    bool(wups_data.missing(wups_data.ALWAYS)), reason="needs WordNet and the tagger of NLTK"
)


def doc(category: str, *answers: str) -> dict[str, Any]:
    identity = {"sample_id": "v_1", "video_id": "nextqa/v", "cluster": "nextqa/v"}
    return {**identity, "content_hash": "h", "category": category, "answers": list(answers)}


def expected() -> dict[str, float]:
    """Return every official and strict number by the name of our metric."""
    known = EXPECTED["metrics"]
    found = {
        "wups0_strict": known["strict_unknown_word_scores_zero"]["WUPS_at_0_all_nltk33"],
        "wups0_modern": known["official_code_modern_nltk_WUPS_at_0"]["WUPS_all"],
        "wups9_modern": known["official_code_modern_nltk_WUPS_at_0_9"]["WUPS_all"],
    }
    for base, key in (("wups0", "official_WUPS_at_0"), ("wups9", "official_WUPS_at_0_9")):
        for part, value in known[key].items():
            end = part.removeprefix("WUPS_").lower()
            found[base if end == "all" else f"{base}_{end}"] = value
    return found


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> RecordedWords:
    words = RecordedWords(json.loads(RECORDED.read_text("utf-8")))
    monkeypatch.setattr(nextqa_oe, "nltk_words", lambda: words)
    return words


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("TEMPEVAL_CACHE", str(tmp_path))
    monkeypatch.setattr(nextqa_oe, "nltk_words", wups_words.NltkWords)
    for cached in (wups_data._check, wups_words._wordnet, wups_words._tagger, wups_words._punkt):
        cached.cache_clear()


def check_golden() -> None:
    found = golden_scores()
    assert found.errors == {}
    for name, value in expected().items():
        assert found.metrics[name] == pytest.approx(value, abs=TOLERANCE), name


class TestGolden:
    def test_every_number_from_recorded_words(self, recorded: RecordedWords) -> None:
        check_golden()

    @needs_data
    def test_every_number_from_the_real_data(self) -> None:
        check_golden()

    @needs_data
    def test_the_recorded_words_are_the_real_ones(self) -> None:
        assert json.loads(RECORDED.read_text("utf-8")) == record()

    def test_item_by_item(self, recorded: RecordedWords) -> None:
        from tempeval.benchmarks.nextqa import NEXTQA_OE

        texts = json.loads((GOLDEN / "predictions.json").read_text("utf-8"))
        for item in NEXTQA_OE.read(GOLDEN / "annotations", "test"):
            known, text = EXPECTED["per_item"][item["sample_id"]], texts[item["sample_id"]]
            assert clean(text, recorded) == known["clean_prediction"]
            assert clean(item["answers"][0], recorded) == known["clean_reference"]
            found = nextqa_oe.process_results(item, [text])
            for name, value in (
                ("wups0", found["wups0"]["score"]),
                ("wups9", found["wups9"]),
                ("wups0_modern_nltk", found["wups0_modern"]),
                ("wups9_modern_nltk", found["wups9_modern"]),
            ):
                assert value == pytest.approx(known[name], abs=1e-6), (item["sample_id"], name)
            assert found["score"] == found["wups0"]["score"]

    def test_metrics_are_as_many_as_the_yaml_names(self) -> None:
        from tempeval.task_config import task_config

        for task in ("tempeval_nextqa_oe", "tempeval_nextqa_oe_val"):
            listed = [entry["metric"] for entry in task_config(task)["metric_list"]]
            assert listed == [*nextqa_oe.METRICS, "parse_failure", "failed"]


class Pairs:
    """Similarities that a test makes up; lemmas are the words."""

    def __init__(self, **known: float) -> None:
        self.known = known

    def lemmas(self, text: str) -> list[str]:
        return text.split()

    def tokens(self, text: str) -> list[str]:
        return text.split()

    def similarity(self, word: str, other: str, roots: str) -> float:
        return self.known.get(f"{word}_{other}", 0.0)


class TestRule:
    def test_the_smaller_product_counts(self) -> None:
        words = Pairs(cat_dog=0.8, dog_cat=0.8, run_dog=0.5, dog_run=0.5)
        assert wups("cat run", "dog", 0, words) == pytest.approx(0.4)
        assert wups("dog", "cat run", 0, words) == pytest.approx(0.4)

    def test_below_the_threshold_a_similarity_counts_a_tenth(self) -> None:
        words = Pairs(cat_dog=0.8, dog_cat=0.9)
        assert wups("cat", "dog", 0.9, words) == pytest.approx(0.08)
        assert wups("dog", "dog", 0.9, words) == 1.0

    def test_a_word_like_no_other_is_skipped_unless_strict(self) -> None:
        assert wups("zzqv dog", "dog", 0, Pairs()) == 1.0
        assert wups("zzqv dog", "dog", 0, Pairs(), strict=True) == 0.0
        assert wups("dog", "dog", 0, Pairs(), strict=True) == 1.0

    @pytest.mark.parametrize(("said", "known"), [("", "dog"), ("dog", ""), ("", ""), ("x", "y")])
    def test_nothing_in_common_is_zero(self, said: str, known: str) -> None:
        assert wups(said, known, 0, Pairs()) == 0.0

    def test_stop_words_are_the_official_ones(self) -> None:
        assert len(stopwords()) == 156
        assert {"the", "wouldn't", "is"} <= stopwords()
        assert not {"in", "on", "up", "no", "not", "two"} & stopwords()


class TestTask:
    def test_yes_and_numbers_have_to_be_equal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nextqa_oe, "nltk_words", lambda: Pairs(four_five=0.9, five_four=0.9))
        for kind in ("DC", "DB"):
            found = nextqa_oe.process_results(doc(kind, "five"), ["four"])
            assert found["score"] == found["wups9"] == 0.0
        assert nextqa_oe.process_results(doc("DO", "five"), ["four"])["score"] == 0.9

    def test_the_better_of_two_references_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nextqa_oe, "nltk_words", lambda: Pairs(cat_dog=0.8, dog_cat=0.8))
        found = nextqa_oe.process_results(doc("CW", "sofa", "dog"), ["cat"])
        assert found["score"] == 0.8
        assert found["wups9"] == pytest.approx(0.08)  # 0.9 for the second reference too
        assert nextqa_oe.process_results(doc("DB", "no", "yes"), ["yes"])["score"] == 1.0

    def test_tp_counts_with_tn(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nextqa_oe, "nltk_words", Pairs)
        found = nextqa_oe.process_results(doc("TP", "dog"), ["dog"])
        assert (found["wups0_tn"], found["wups0_t"], found["wups9_t"]) == (1.0, 1.0, 1.0)
        assert "wups0_tp" not in found
        assert found["wups0_c"] is found["wups0_cw"] is None

    def test_the_question_comes_before_the_instruction(self) -> None:
        text = nextqa_oe.doc_to_text({"question": "what is it "})
        assert text == "what is it\nAnswer a question using a short phrase or sentence."


@pytest.mark.usefixtures("no_data")
class TestWithoutData:
    def test_only_the_metrics_are_missing_and_named(self) -> None:
        found = golden_scores()
        assert set(found.errors) == set(expected()) | {"wups9_strict", *parts_at_9()}
        for error in found.errors.values():
            assert "wordnet, averaged_perceptron_tagger_eng" in error
            assert "tempeval data prepare nextqa_oe" in error
        assert list(found.metrics) == ["parse_failure"]

    def test_a_run_goes_on(self) -> None:
        items = [nextqa_oe.process_results(doc("CW", "dog"), ["dog"]) for _ in range(2)]
        assert items[0]["score"] is None
        assert items[0]["parse_status"] == "parsed"
        for name in ("wups0", "wups0_cw", "wups9_strict"):
            assert "score" not in items[0][name]  # the host takes no mean of it
            assert nextqa_oe.mean([item[name] for item in items]) is None
        assert nextqa_oe.mean([item["wups0_ch"] for item in items]) is None

    def test_the_reason_is_logged_once_for_all_metrics(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        from tempeval.task_config import task_config

        item = nextqa_oe.process_results(doc("CW", "dog"), ["dog"])
        for entry in task_config("tempeval_nextqa_oe")["metric_list"][:-2]:
            assert entry["aggregation"]([item[entry["metric"]]]) is None
        assert [record.getMessage() for record in caplog.records] == [
            "WUPS cannot be computed: NLTK data are missing: wordnet, "
            "averaged_perceptron_tagger_eng; get them with: "
            "tempeval data prepare nextqa_oe --data-root DIR"
        ]

    def test_data_that_come_later_are_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(MetricUnavailable):
            wups_data.check("wups0")
        monkeypatch.setattr(wups_data, "missing", lambda packages: [])
        wups_data.check("wups0")

    def test_punkt_is_wanted_only_inside_a_text(self) -> None:
        words = wups_words.NltkWords()
        assert words.tokens("stand up.") == ("stand", "up", ".")
        assert words.tokens("3.5 cars") == ("3.5", "cars")
        with pytest.raises(MetricUnavailable, match="punkt_tab"):
            words.tokens("He runs. He stops.")


def parts_at_9() -> set[str]:
    return {"wups9_c", "wups9_t", "wups9_d"}  # the official code does not compute them


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("the man's dog", ["the", "man", "'s", "dog"]),
        ("they don't", ["they", "do", "n't"]),
        ("cannot", ["can", "not"]),
        ("ball, bat", ["ball", ",", "bat"]),
        ("(a ball)", ["(", "a", "ball", ")"]),
        ("he said “hello”", ["he", "said", "“", "hello", "”"]),
        ("“yes.”", ["“", "yes", ".", "”"]),
        ("end...", ["end", "..."]),
        ("yes.", ["yes", "."]),
    ],
)
def test_tokens_are_those_of_the_official_versions(text: str, tokens: list[str]) -> None:
    """As pywsd 1.2.4 and nltk 3.3 give them."""
    assert wups_words._tokenizer().tokenize(text) == tokens


def test_a_mean_over_nothing_is_none() -> None:
    assert nextqa_oe.mean([None, None]) is None
    assert math.isclose(nextqa_oe.mean([None, 0.5, {"score": 1.0}]) or 0, 0.75)
