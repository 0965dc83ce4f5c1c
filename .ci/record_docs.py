"""Write docs/records.md: every field of a run's record, of a sample's usage, and of the journal."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.engine import journal
from tempeval.engine.answer import Answer
from tempeval.engine.scores import Scores
from tempeval.engine.usage import Usage
from tempeval.run import record
from tempeval.run.spec import options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

PAGE = Path(__file__).resolve().parent.parent / "docs" / "records.md"

INTRODUCTION = f"""<!-- written by .ci/record_docs.py -->

# The records of a run

| file | what it is |
| --- | --- |
| `{record.FILE_NAME}` | one run: what was asked for, what it went through, counts, how it ended |
| `*_{record.FILE_NAME}` | the same, beside results that lmms-eval's own command wrote |
| `*_samples_<task>.jsonl` | lmms-eval's samples; what a question cost is in `{record.USAGE_KEY}` |
| `journal/rank*.jsonl` | every answer as soon as it is there, from which a run goes on |

A record is written whole or not at all, for the first time when the run begins: a run that was
killed says `failed` and "the run did not finish". A record of another schema, with a key that is
missing, unknown or of another type, or with a key that stands twice, is refused by name: the
message has the key, its value, and what is accepted.

In Python: `tempeval.run.record.read_record(folder)` returns these types.
"""

REQUEST = """
What was asked for, under the names of [the options of a run](options.md): {names}; and
"""

JOURNAL = """
## The journal

Format {format}. A line is the CRC-32 of its text in eight hexadecimal digits, a space, and a JSON
object. Lines that are cut, damaged or of another format are dropped, and what they held is answered
again.

| field | type | meaning |
| --- | --- | --- |
| `v` | whole number | format of the line |
| `batch` | object of entries, by key | answers that came together; a key is a digest of all that an answer depends on |
| `forget` | list of texts | keys whose earlier answers count no more |

An entry has `usage`, as above, and `answer`: null for a failed question, else {answer} of a generated
text, or {scores} of scored continuations, one number of each for every continuation (`greedy` has the
numbers of those that greedy decoding would produce).
"""  # noqa: E501  # rows of a table


def page() -> str:
    """Return the text of the page."""
    started = set(record.StartedRecord.model_fields)
    whole = record.RunRecord.model_fields
    names = {"started": [n for n in whole if n in started]}
    names["scored"] = [n for n in whole if n not in started]
    asked = ", ".join(f"`{name}`" for name, option in options() if option.recorded)
    parts = [
        INTRODUCTION,
        f"## {record.FILE_NAME}",
        f"Schema {record.SCHEMA}. In every record:",
        _table(record.RunRecord, names["started"]),
        "Beside these, in the record of a run with scores:",
        _table(record.RunRecord, names["scored"]),
    ]
    for part in (record.TaskRecord, record.VideoCounts, record.FramePolicy, record.FileFacts):
        parts += [f"### {part.__name__}", inspect.cleandoc(part.__doc__ or ""), _table(part)]
    parts += ["### GitState", inspect.cleandoc(record.GitState.__doc__ or "")]
    parts += [_table(record.GitState), "### Request", REQUEST.format(names=asked).strip()]
    parts += [_table(record.Request)]
    parts += ["## The usage of a sample", inspect.cleandoc(Usage.__doc__ or ""), _usage()]
    parts += [
        JOURNAL.format(
            format=journal.FORMAT, answer=_names(Answer, "finite"), scores=_names(Scores)
        )
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _table(model: type[BaseModel], names: Iterable[str] = ()) -> str:
    rows = []
    for name in names or model.model_fields:
        found = model.model_fields[name]
        extra: Any = found.json_schema_extra or {}
        said = _said(found.annotation)
        rows.append((found.alias or name, said, extra.get("unit", ""), found.description))
    return _rows(rows)


def _usage() -> str:
    hints = typing.get_type_hints(Usage)
    return _rows(
        (f.name, _said(hints[f.name]), f.metadata["unit"] or "", f.metadata["description"])
        for f in fields(Usage)
    )


def _rows(rows: Iterable[tuple[Any, ...]]) -> str:
    lines = [f"| `{name}` | {kind} | {unit} | {about} |" for name, kind, unit, about in rows]
    return "\n".join(["| field | type | unit | meaning |", "| --- | --- | --- | --- |", *lines])


def _names(kind: Any, *without: str) -> str:
    return ", ".join(f"`{f.name}`" for f in fields(kind) if f.name not in without)


_PLAIN = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    type(None): "null",
    Any: "any",
}


def _said(kind: Any) -> str:
    """Say what a type accepts, in words of JSON."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _said(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_said(part) for part in inner)
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin is dict:
        held = _said(inner[1])
        return "object" if held == "any" else f"object of {held}"
    if origin in (list, tuple):
        return f"list of {_said(inner[0])}"
    return _PLAIN.get(kind) or f"[{kind.__name__}](#{kind.__name__.lower()})"


def main() -> None:
    """Write the page, or with --check say whether it is up to date."""
    if "--check" in sys.argv:
        stale = not PAGE.is_file() or PAGE.read_text("utf-8") != page()
        sys.exit("docs/records.md is out of date; run: make readme" if stale else 0)
    PAGE.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
