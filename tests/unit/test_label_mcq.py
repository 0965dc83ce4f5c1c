"""The `_mcq` protocol of the label sets: options, letters, and what their content hash covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from label_golden import jester_docs, write_jester

from tempeval.benchmarks.roots import using_root
from tempeval.errors import InvalidSetting
from tempeval.tasks import label_mcq

if TYPE_CHECKING:
    from pathlib import Path


def mcq_docs(root: Path, **row: Any) -> list[dict[str, Any]]:
    source = {"benchmark": "jester", "split": "validation", "options": 4, "seed": 0, **row}
    with using_root(root):
        return [dict(doc) for doc in label_mcq.load_mcq([source])]  # type: ignore[arg-type]


def test_mcq_shows_its_options_and_reads_the_letter(tmp_path: Path) -> None:
    doc = mcq_docs(write_jester(tmp_path))[0]
    place = doc["answer_index"]
    assert doc["choices"][place] == "Gesture 1"
    assert label_mcq.letter_target(doc) == "ABCD"[place]
    text = label_mcq.mcq_text(doc)
    for letter, choice in zip("ABCD", doc["choices"], strict=True):
        assert f"{letter}. {choice}\n" in text
    assert label_mcq.mcq_messages(doc)[0]["content"][1]["text"] == text
    right = label_mcq.process_mcq(doc, [f"{'ABCD'[place]}."])
    assert (right["score"], right["parsed"]) == (1.0, "Gesture 1")
    assert right["macro_f1"] == {"gold": 1, "predicted": 1, "classes": 6}
    assert right["chance"] == 0.25
    other = (place + 1) % 4
    wrong = label_mcq.process_mcq(doc, [f"({'ABCD'[other]})"])
    assert (wrong["score"], wrong["parsed"]) == (0.0, doc["choices"][other])
    assert wrong["macro_f1"]["predicted"] == doc["option_labels"][other]
    none = label_mcq.process_mcq(doc, ["no idea"])
    assert (none["parsed"], none["parse_failure"]) == (None, 1.0)


def test_mcq_options_do_not_depend_on_the_other_samples(tmp_path: Path) -> None:
    few = {d["sample_id"]: d for d in mcq_docs(write_jester(tmp_path / "few", clips=3))}
    many = {d["sample_id"]: d for d in mcq_docs(write_jester(tmp_path / "many", clips=20))}
    for name, doc in few.items():
        for column in ("choices", "option_labels", "answer_index", "content_hash"):
            assert doc[column] == many[name][column]


def test_mcq_with_other_options_is_other_content(tmp_path: Path) -> None:
    root = write_jester(tmp_path)
    first, reseeded, wider = (mcq_docs(root, **row)[0] for row in ({}, {"seed": 5}, {"options": 6}))
    plain = jester_docs(root)[0]
    hashes = {doc["content_hash"] for doc in (first, reseeded, wider, plain)}
    assert len(hashes) == 4
    assert {len(value) for value in hashes} == {16}
    with pytest.raises(InvalidSetting, match="options=9"):
        mcq_docs(root, options=9)
