"""Official files in JSON and CSV: what one reader would take otherwise than another is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tempeval.benchmarks import annotations
from tempeval.benchmarks.annotations import parse_json, read_json, read_table
from tempeval.benchmarks.base import BadData


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' occurs twice"),
        ('[{"x": {"a": 1, "a": 1}}]', "the key 'a' occurs twice"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "1e999 is no number"),
        ("[1,]", "value"),
    ],
)
def test_json_that_readers_take_differently_is_refused(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        parse_json(text)
    path = tmp_path / "questions.json"
    path.write_text(text)
    with pytest.raises(BadData, match=rf"questions\.json is no JSON that can be used: .*{said}"):
        read_json(path)


def test_json_is_read_as_json() -> None:
    text = '{"a": [1, 2.5, -3e2, "NaN", null, true], "b": {"a": 1}}'
    assert parse_json(text) == json.loads(text)


def test_json_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(BadData, match=r"deep\.json"):
        read_json(tmp_path / "deep.json")


def test_official_files_are_read_in_one_way_only() -> None:
    """What reads JSON or CSV by itself would take what is refused here."""
    ours = {"annotations.py", "unpack_state.py"}  # the reader, and a list that tempeval writes
    others = [
        path.name
        for path in Path(annotations.__file__).parent.glob("*.py")
        if path.name not in ours and re.search(r"json\.loads?\(|DictReader", path.read_text())
    ]
    assert others == []


HEAD = "video,question,answer"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["video,question,question,answer", "v,a,b,c"], "the column 'question' twice"),
        (["video,answer", "v,a"], "no column question"),
        ([HEAD, "v,what"], r"line 2 has too few columns"),
        ([HEAD, "v,what is it, then,a cup"], r"line 2 has too many columns"),
        ([HEAD, f"v,q,{'x' * 200_000}"], "line 2"),
    ],
)
def test_a_table_whose_values_would_move_is_refused(
    tmp_path: Path, lines: list[str], said: str
) -> None:
    path = tmp_path / "test.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadData, match=said):
        list(read_table(path, ("video", "question", "answer")))


def test_a_table_has_its_columns_in_any_order_and_more(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text('\ufeffanswer, video,question,more\n\n"a, ""b""",v,"two\nlines"\na,v,q,m,\n')
    rows = dict(read_table(path, ("video", "question", "answer")))
    assert list(rows) == [f"{path}, line 4", f"{path}, line 5"]
    assert rows[f"{path}, line 4"] == {"answer": 'a, "b"', "video": "v", "question": "two\nlines"}
    assert rows[f"{path}, line 5"]["more"] == "m"
