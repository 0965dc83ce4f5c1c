"""What a person reads in an answer: chosen and denied options, thinking, tags, other scripts."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tempeval.metrics.answer_cleaning import clean_answer
from tempeval.metrics.label_match import match_label
from tempeval.run.rescore import BadPredictions, read_predictions, rescore
from tempeval.tasks.answers import (
    Index,
    final_answer,
    match_choice,
    official_text,
    strict_yes_no,
)
from tempeval.tasks.multiple_choice import LETTERS, parse_option
from tempeval.tasks.mvbench import check_ans, strict_letter
from tempeval.tasks.tempcompass import strict_caption_matching

CASES = Path(__file__).parents[1] / "reference" / "answers"
OPTIONS = ["riding a bike", "washing a car", "time-lapse", "painting a fence"]
EGO = ["C opens the door", "C closes the door", "#O sings", "C waves to O", "no"]


def cases(name: str) -> list[Any]:
    found = json.loads((CASES / f"{name}.json").read_text("utf-8"))
    return [pytest.param(case, id=case["id"]) for case in found]


def letter(index: int | None) -> str | None:
    return None if index is None else LETTERS[index]


@pytest.mark.parametrize("case", cases("options"))
def test_options(case: dict[str, Any]) -> None:
    got = letter(parse_option(case["text"], case["options"]).index)
    assert got not in case["never"]
    assert got == case["right"] or (got is None and case["none_is_acceptable"])


@pytest.mark.parametrize("case", cases("yes_no"))
def test_yes_and_no(case: dict[str, Any]) -> None:
    index = strict_yes_no(case["text"]).index
    assert (None if index is None else ("yes", "no")[index]) == case["right"]


@pytest.mark.parametrize("case", cases("caption_matching"))
def test_captions(case: dict[str, Any]) -> None:
    choices = [line.partition(": ")[2] for line in case["question"].split("\n")[1:]]
    got = letter(strict_caption_matching(case["text"], case["question"], choices).index)
    assert got == case["right"] or (got is None and case["none_is_acceptable"])


@pytest.mark.parametrize(
    ("text", "index"),
    [
        *(
            ("Yes, the answer is no.", None),
            ("No. Wait, yes.", None),
            ("No, I would say yes", None),
        ),
        *(("No one is there.", None), ("Sure, yes", 0), ("Yes, I see no indication of it", 0)),
        *(("No, so no.", 1), ("No. It is not yes that I mean.", 1)),
    ],
)
def test_a_yes_that_is_taken_back_is_neither(text: str, index: int | None) -> None:
    assert strict_yes_no(text).index == index


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("Caption B is the better match. Caption A says the man runs, which is wrong.", "B"),
        ("The first caption is wrong. The second caption is right.", "B"),
        ("\uff23\uff41\uff50\uff54\uff49\uff4f\uff4e\u3000\uff22", "B"),
        ("**Caption** **B**", "B"),
        ("Neither the first caption nor the second caption", None),
    ],
)
def test_captions_by_their_places_and_in_other_letters(text: str, right: str | None) -> None:
    question = "Which caption?\nCaption A: The man runs.\nCaption B: The man walks."
    choices = ["The man runs.", "The man walks."]
    assert letter(strict_caption_matching(text, question, choices).index) == right


@pytest.mark.parametrize(
    "folder",
    [
        "mvbench_first_line",
        "nextqa_index",
        "nextqa_reader",
        "egoschema_thinking",
        "tempcompass_sentences",
    ],
)
def test_through_a_task(folder: str) -> None:
    known = json.loads((CASES / folder / "expected.json").read_text("utf-8"))
    texts = read_predictions(CASES / folder / "predictions.json")
    metrics = rescore(known["task"], texts, CASES / folder / "annotations").metrics
    got = {name: metrics[name] for name in known["metrics"]}
    assert got == pytest.approx(known["metrics"], abs=1e-4)


@pytest.mark.parametrize(
    "text",
    [
        *("B", " b ", "(b)", "B)", "(B", "B:", "B;", "B!", "[B]", '"B"', "'B'", "b. washing a car"),
        *("B, washing a car", "B washing a car", "B \u2014 washing a car", "B\nwashing a car"),
        *("**B**", "**Answer: B**", "### Answer\nB", "> B", "`B`", "- **B**: washing a car"),
        *("$B$", "\\(B\\)", "\\text{B}", "$\\boxed{\\text{(B) washing a car}}$", "So \\boxed{B}."),
        *("\uff08\uff22\uff09", "\u3010B\u3011", "\u300cB\u300d", "\u7b54\u6848\u662fB\u3002"),
        *("B\uff0ewashing a car", "\u24b7", "Antwort: B", "La respuesta es B.", "\u00abB\u00bb"),
        *("Option B", "The right option is: B", "My answer is B.", "Final answer - B", "I pick B"),
        *("I'd go with B.", "It must be B.", "Most likely B.", "Thus the answer is B.", "Yes, B."),
        *("B, because no bike is seen.", "B is the correct answer.", "B fits best.", "No, it's B."),
        *("The option that best describes the clip is B", "(B) is more likely than (A)"),
        *("B, not A", "B. Not A.", "(A) and (C) can be ruled out, so (B).", "The second option"),
        *("(A) shows a bike, (B) a car. The answer is (B).", "It is not A, it is B."),
        *("A) wrong\nB) right", "He is washing a car instead of riding a bike."),
        *("B</s></s>", "<s> B</s>", "B<|im_end|>\n<|im_start|>user\nA?", "B\nUSER: and A?"),
        *(
            "<Thinking>(A)</Thinking>B",
            "\u25c1think\u25b7A\u25c1/think\u25b7B",
            "[THINK]A[/THINK]B",
        ),
        "<|channel|>analysis<|message|>(A)?<|end|><|start|>assistant<|channel|>final<|message|>B",
        "<SUMMARY>(A)</SUMMARY><REASONING>(A)</REASONING><CONCLUSION>B</CONCLUSION>",
        "<think>So <answer>B</answer>",
        "A. riding a bike\nB. washing a car\nC. time-lapse\nD. painting a fence\nAnswer: B",
        *(
            "Result: B",
            "=> B",
            "Answer \u2192 B",
            "\u2705 B",
            "| B |",
            "A is wrong. Only B remains.",
        ),
        *(
            "That leaves B.",
            "\u5e94\u8be5\u9009B",
            "\u6b63\u89e3\u306fB\u3067\u3059\u3002",
            "\uc815\ub2f5\uc740 B\uc785\ub2c8\ub2e4.",
        ),
        "It could be A or B, but I'd go with B.",
        "Out of A, B, C and D, the best is B.",
    ],
)
def test_one_option_is_meant(text: str) -> None:
    assert letter(parse_option(text, OPTIONS).index) == "B"


@pytest.mark.parametrize(
    "text",
    [
        *("A is wrong.", "Not B!", "B isn't it", "The answer can't be (B)", "Incorrect: B"),
        *("All options except B", "Anything but (B)", "I would eliminate B and C.", "Unlike B"),
        *("The least likely option is C.", "I don't think it is B.", "I doubt it's B."),
        *("(A), though plausible, is incorrect.", "(A), which is wrong.", "A - incorrect"),
        *("I considered B. It is wrong.", "\u4e0d\u662fA\u3002", "Pas A.", "Nicht A"),
        *("between A and B", "A/B", "A & D", "A or maybe B", "Both A and B are correct."),
        *("B\u3001C", "A\u548cB", "\\boxed{A} or \\boxed{B}", "not only A but also B"),
        *("<answer>A</answer><answer>B</answer>", "B. That is wrong.", "B... no, D"),
        *("(B) riding a bike", "riding a bike (B)", "Answer: B. riding a bike"),
        *("Is it (B)? I cannot tell.", "If it were (A), he would jump.", "None of the above"),
        *("<think>A</think>", "<think>a</think><think>(A)", "<think>\n<answer>A</answer> or"),
        *(
            "<|channel|>analysis<|message|>(A)?",
            "The answer is not \\boxed{A}",
            "<answer></answer>",
        ),
        *(
            "A man",
            "I see a man",
            "The answer is a",
            "D-Day",
            "(E)",
            "Answer: F",
            "2",
            "the second",
        ),
        *("(A) is implausible", "Worst option: A", "Distractors: A", "Opposite: A", "A: B", "A;B"),
        *("A. Sorry, B.", "A, I mean B", "A... wait, B", "A. Also B.", "A but also B", "A -> B"),
        *("Answer: A. Correction: B", "A as well as B"),
        *("He is not washing a car.", "Nothing like washing a car", "without washing a car"),
        "A. riding a bike\nB. washing a car\nC. time-lapse\nD. painting a fence",
    ],
)
def test_no_option_or_no_single_one_is_meant(text: str) -> None:
    assert parse_option(text, OPTIONS).index is None


@pytest.mark.parametrize(
    ("text", "options", "right"),
    [
        ("C", EGO, "C"),
        ("The answer is C.", EGO, "C"),
        ("C closes the door", EGO, "B"),
        ("D. C waves to O. C does not stop.", EGO, "D"),
        ("C is walking.", EGO, None),
        ("C does not open the door; he waves.", EGO, None),
        ("E. no", EGO, "E"),
        ("No.", ["yes", "no", "maybe"], "B"),
        ("A. no", ["yes", "no"], None),
        ("No, he does not.", ["yes", "no"], "B"),
        ("A", ["B", "A", "C"], None),
        ("B", ["A", "B", "O"], "B"),
        ("It is dark red.", ["red", "dark red"], "B"),
        ("It turns counter-clockwise", ["clockwise", "counterclockwise"], "B"),
        ("It turns counter-clockwise", ["clockwise", "back and forth"], None),
        ("B. It does not move.", ["The ball moves", "The ball does not move"], "B"),
        ("There are 3.", ["2", "3", "4"], "B"),
        ("2.5", ["2", "3", "4"], None),
        ("None of the above.", ["x y", "none of the above"], "B"),
        ("It is faster than the left one. So the answer is C. faster.", ["x", "y", "faster"], "C"),
    ],
)
def test_options_that_hold_letters_numbers_or_denials(
    text: str, options: list[str], right: str | None
) -> None:
    assert letter(parse_option(text, options).index) == right


def test_the_answer_of_a_reasoning_model() -> None:
    assert final_answer("<think>a</think>\n<answer> two </answer>") == "two"
    assert final_answer("\\boxed{\\frac{1}{2}} metres") == "\\frac{1}{2}"
    assert final_answer("<think>no end") == ""
    assert official_text("<think>no end") is None
    assert official_text("<think>a</think> (B)") == "(B)"
    assert official_text(" B</s>") == " B</s>"


def test_thinking_without_an_answer_is_no_hit_of_an_official_rule() -> None:
    doc = {
        **dict.fromkeys(("sample_id", "video_id", "cluster", "content_hash", "category"), "x"),
        "choices": ["a", "b"],
        "answer_index": 1,
        "answers": ["brown"],
    }
    from tempeval.tasks import mvbench, open_ended

    for text, hit in (("<think>brown (B)", 0.0), ("<think>x</think>", 0.0), ("", 1.0)):
        assert mvbench.process_results(doc, [text])["acc_official"] == hit
        assert open_ended.process_cleaned(doc, [text])["em_refined"] == hit


def test_mvbench_reads_the_first_line() -> None:
    assert check_ans("\n B\n\nBecause", "(B) x")
    assert not check_ans(" (A) y", "(B) x")
    assert not check_ans(")", "(B) x")
    assert strict_letter("B\nA", 2).index == 1
    assert strict_letter("\n\n(B) no", 2, ["yes", "no"]).index == 1
    assert strict_letter("the lid\nB", 2).index is None
    assert strict_letter("It is not (A).", 2).index is None


def test_both_forms_of_official_result_files_are_indices() -> None:
    folder = CASES / "nextqa_index"
    texts = read_predictions(folder / "predictions_official_result.json")
    assert texts == read_predictions(folder / "predictions.json")
    task, root = "tempeval_nextqa_mc", folder / "annotations"
    assert rescore(task, texts, root).metrics["acc"] == pytest.approx(62.5)
    digits = rescore(task, {name: "".join(text) for name, text in texts.items()}, root)
    assert (digits.metrics["acc"], digits.unread) == (0, 8)


def test_numbers_of_other_kinds(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"a": 3.0, "b": 2.5, "c": "3", "d": -1}')
    found = read_predictions(path)
    assert found == {"a": "3", "b": "2.5", "c": "3", "d": "-1"}
    assert [isinstance(text, Index) for text in found.values()] == [True, True, False, True]
    path.write_text('{"a": {"prediction": 1, "other": 2}}')
    with pytest.raises(BadPredictions, match="accepted"):
        read_predictions(path)


def test_a_file_that_cannot_be_read_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from tempeval.cli_score import score

    folder = CASES / "nextqa_index"
    score("tempeval_nextqa_mc", folder / "annotations", folder / "predictions.json")
    assert "no answer was read" not in capsys.readouterr().err
    texts = json.loads((folder / "predictions.json").read_text())
    path = tmp_path / "p.json"
    path.write_text(json.dumps({name: str(text) for name, text in texts.items()}))
    score("tempeval_nextqa_mc", folder / "annotations", path)
    assert "in 8 of 8 predictions" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    [
        'doing a "backflip"',
        "doing a backflip",
        "Doing a \u201cbackflip\u201d.",
        '"doing a "backflip""',
    ],
)
def test_quotation_marks_inside_a_label(text: str) -> None:
    labels = ['doing a "backflip"', "tying knot (not on a tie)", "massaging person's head"]
    assert match_label(text, labels).index == 0
    assert match_label('the "A"-team', ["the A-team"]).index == 0
    assert match_label("massaging person\u2019s head", labels).index == 2
    assert match_label("tying knot not on a tie", labels).index is None


def test_cleaning_an_answer_takes_linear_time() -> None:
    began = time.process_time()
    clean_answer(" ".join(["a", " " * 200_000, "b"]))
    assert time.process_time() - began < 2
    assert clean_answer("  a cup  \n") == "cup\n"


@pytest.mark.parametrize("text", ["It does not go left", "left? no, never left", "not left"])
def test_a_denied_word_is_no_choice(text: str) -> None:
    assert match_choice(text, ["left", "right"]) is None


@pytest.mark.parametrize(
    "piece", ["(B) is ", "not (A), ", "((", "<answer>", "\\boxed{", "A or ", "  "]
)
def test_a_model_that_goes_in_circles_is_read_in_time(piece: str) -> None:
    began = time.process_time()
    parse_option(piece * 4000, OPTIONS)
    strict_yes_no(piece * 4000)
    assert time.process_time() - began < 5
