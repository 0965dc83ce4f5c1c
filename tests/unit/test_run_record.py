"""The schema of a run's record: one place, whole, light, and the way that imports run."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import recorded

from tempeval.engine.usage import Usage
from tempeval.run import record
from tempeval.run.record import BadRecord, RunRecord, StartedRecord, read_record, write_record

if TYPE_CHECKING:
    from pydantic import BaseModel

ROOT = Path(__file__).resolve().parents[2]
PARTS: list[type[BaseModel]] = [
    *(RunRecord, StartedRecord, record.TaskRecord, record.VideoCounts, record.FramePolicy),
    *(record.FileFacts, record.GitState, record.Request, record.ModelFacts),
]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    whole = recorded.record({"a": recorded.task()}, request={"seed": 3, "settings": {"pas": {}}})
    found = RunRecord.model_validate(whole)
    path = write_record(tmp_path, found)
    assert read_record(tmp_path) == found
    text = json.loads(path.read_text())
    assert next(iter(text)) == "schema"
    assert text == whole | {"request": {**whole["request"], "annotations": {}}}
    begun = {name: whole[name] for name in whole if name in StartedRecord.model_fields}
    begun |= {"schema": record.SCHEMA, "tasks": {}, "status": "failed"}
    write_record(tmp_path, StartedRecord.model_validate(begun))
    assert type(read_record(tmp_path)) is StartedRecord


@pytest.mark.parametrize("part", PARTS)
def test_every_field_says_what_it_is(part: type[BaseModel]) -> None:
    for name, field in part.model_fields.items():
        assert field.description, name


def test_the_usage_of_a_sample_is_typed_and_said() -> None:
    assert list(Usage().to_dict()) == [field.name for field in fields(Usage)]
    assert all(field.metadata["description"] for field in fields(Usage))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": 2, "schema": 2}', 'key "schema" stands twice'),
        ('{"schema": 2, "request": {"a": 1, "a": 2}}', 'key "a" stands twice'),
        ('{"schema": 2, "a": ' + "[" * 60 + "]" * 60 + "}", "nested more than 50 levels deep"),
        ('{"schema": 1' + "0" * 400 + "}", "is not known; this version reads schema 2"),
        ('{"schema": NaN}', 'schema "NaN" is not known'),
    ],
)
def test_hostile_records_are_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadRecord) as raised:
        read_record(tmp_path)
    assert said in raised.value.reason
    assert raised.value.action == "Remove it, or pass --overwrite"


@pytest.mark.parametrize("module", ["tempeval.run.record", "tempeval.leaderboard", "tempeval.run"])
def test_reading_records_needs_neither_torch_nor_the_host(module: str) -> None:
    heavy = "{'torch', 'lmms_eval', 'transformers'}"
    line = f"import sys, {module}; found = {heavy} & set(sys.modules); sys.exit(len(found))"
    subprocess.run([sys.executable, "-c", line], check=True)


def test_the_leaderboard_imports_the_schema_and_nothing_else_of_the_runs() -> None:
    allowed = {"tempeval", "tempeval.console", "tempeval.errors", "tempeval.run.record"}
    found: set[Any] = set()
    for path in (ROOT / "leaderboard").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in getattr(node, "names", [])] if not names else []
            found |= {n for n in names if isinstance(node, (ast.Import, ast.ImportFrom)) and n}
    ours = {name for name in found if name.partition(".")[0] == "tempeval"}
    assert {name for name in ours if not name.startswith("tempeval.leaderboard")} == allowed
