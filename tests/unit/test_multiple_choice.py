"""The careful reader of multiple-choice answers: what it takes, and what it refuses to guess."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tempeval.tasks.multiple_choice import LETTERS, Parsed, doc_to_text, parse_option

METRICS = Path(__file__).parents[1] / "reference" / "metrics"
OPTIONS = ["a kite", "a dog", "C waters the plants", "no", "a cup of tea"]


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("B", 1),
        (" b \n", 1),
        ("(b)", 1),
        ("B.", 1),
        ("B) a dog", 1),
        ("B: a dog", 1),
        ("**B**", 1),
        ('"B"', 1),
        ("B\nThe clip shows it clearly.", 1),
        ("The answer is B", 1),
        ("The answer is (B).", 1),
        ("Answer: B", 1),
        ("Best option: (B)", 1),
        ("Option B", 1),
        ("The correct answer is B because a dog runs.", 1),
        ("A dog", 1),
        ("a dog.", 1),
        ("The answer is a dog.", 1),
        ("a dog. It runs to the left.", 1),
        ("C waters the plants", 2),
        ("C waters a few things, so the best choice is (A).", 0),
        ("(a) It flies.", 0),
        ("The best choice is (a) here.", 0),
        ("I would say (a) because it flies.", 0),
        ("I would say (a).", 0),
        ("no", 3),
    ],
)
def test_an_answer_that_means_one_option(text: str, index: int) -> None:
    assert parse_option(text, OPTIONS) == Parsed(index, "parsed")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("D or A", "ambiguous"),
        ("(E) or (C)", "ambiguous"),
        ("A, B", "ambiguous"),
        ("A. a kite\nB. a dog", "ambiguous"),
        ("D) a dog", "ambiguous"),  # the letter says no, the text a dog
        ("A man throws something", "unparsed"),
        ("I'm not sure", "unparsed"),
        ("There is no way to tell", "unparsed"),
        ("None of the options.", "unparsed"),
        ("(F) other", "unparsed"),
        ("C's hand moves", "unparsed"),
        ("4", "unparsed"),
        ("The man is holding (a) cup", "unparsed"),
        ("(a man sits)", "unparsed"),
    ],
)
def test_nothing_is_guessed(text: str, status: str) -> None:
    assert parse_option(text, OPTIONS) == Parsed(None, status)


def test_a_bare_digit_is_an_index_where_that_is_agreed() -> None:
    assert parse_option("4", OPTIONS, digits=True) == Parsed(4, "parsed")
    assert parse_option("5", OPTIONS, digits=True) == Parsed(None, "unparsed")


def test_options_of_one_text_are_never_told_apart_by_it() -> None:
    assert parse_option("yes", ["yes", "yes", "no"]).index is None
    assert parse_option("B. yes", ["yes", "yes", "no"]) == Parsed(1, "parsed")


@settings(deadline=None)
@given(st.text(), st.lists(st.text(min_size=1), min_size=2, max_size=6))
def test_any_text_is_read_without_an_error(text: str, options: list[str]) -> None:
    parsed = parse_option(text, options)
    assert (parsed.index is not None) == (parsed.status == "parsed")
    assert parsed.index is None or 0 <= parsed.index < len(options)


@given(st.integers(0, 4), st.sampled_from(["{}", "({})", "{}.", "{}) ", "Answer: {}", "Option {}"]))
def test_every_form_of_every_letter(index: int, form: str) -> None:
    assert parse_option(form.format(LETTERS[index]), OPTIONS).index == index


def golden(folder: str) -> tuple[dict[str, str], dict[str, Any]]:
    texts = json.loads((METRICS / folder / "predictions.json").read_text("utf-8"))
    return texts, json.loads((METRICS / folder / "expected.json").read_text("utf-8"))["per_item"]


def test_it_reads_nextqa_as_intended() -> None:
    with (METRICS / "nextqa_mc/annotations/nextqa/test.csv").open(newline="") as file:
        rows = {f"{row['video']}_{row['qid']}": row for row in csv.DictReader(file)}
    texts, items = golden("nextqa_mc")
    for name, known in items.items():
        parsed = parse_option(texts[name], [rows[name][f"a{i}"] for i in range(5)])
        assert (-1 if parsed.index is None else parsed.index) == known["intended"], texts[name]


def test_it_reads_egoschema_as_intended() -> None:
    rows = json.loads((METRICS / "egoschema/annotations/questions.json").read_text("utf-8"))
    by_name = {row["q_uid"]: [row[f"option {i}"] for i in range(5)] for row in rows}
    texts, items = golden("egoschema")
    for name, known in items.items():
        parsed = parse_option(texts[name], by_name[name], digits=True)
        assert (-1 if parsed.index is None else parsed.index) == known["intended"], texts[name]


def test_the_prompt() -> None:
    doc = {"question": "What is it?", "choices": ["a kite", "a dog"]}
    assert doc_to_text(doc).splitlines() == [
        "What is it?",
        "A. a kite",
        "B. a dog",
        "Answer with the option's letter from the given choices directly.",
    ]
