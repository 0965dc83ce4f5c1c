"""One line of a samples file as a row of numbers: what a leaderboard needs, and nothing else.

The usual line takes a short way; whatever is unusual in it takes a long one that gives the same
row, or the reason why there is none.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tempeval.leaderboard.errors import LeaderboardError
from tempeval.leaderboard.records import MEASURES
from tempeval.run.record import USAGE_KEY

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence

    from tempeval.leaderboard.records import Floats

#: The score by the sum of log-likelihoods in a line of a choice task.
SUM_KEY = "accuracy_sum"
#: Why a sample failed, in a line of a tempeval task; in others of no meaning that is known here.
FAILURE = "failure"
_TIMES = ("decode_ms", "encode_ms", "prefill_ms", "answer_ms")
_AMORTISED = "amortised_ms"
_DIRECT = tuple(name for name in MEASURES if not name.endswith("seconds"))
_FIELDS = (*_DIRECT, *_TIMES, _AMORTISED)
# Several requests of one question have these added; of the others, the largest counts.
_ADDED = ("answer_ms", _AMORTISED)
#: Numbers in a row: score, score by sum, parse failure, then _FIELDS.
WIDTH = 3 + len(_FIELDS)
# A longer right answer is kept as a digest, which is as long.
_LONGEST_TARGET = 64
_NAN = math.nan
# Numbers beyond this count as infinite: their squares are.
_MOST = 1e100
_DECODE = json.JSONDecoder().raw_decode


class BadLine(LeaderboardError):
    """A line that cannot be used; who reads the file knows where it stands."""


def parse(line: bytes) -> dict[str, Any]:
    """Parse a line.

    Raises:
        BadLine: not a JSON object.
    """
    try:
        text = line.decode()
        raw, end = _DECODE(text)
        if text[end:].strip(" \t\n\r"):
            raw = json.loads(line)
    except (ValueError, RecursionError):
        raw = _parse_again(line)
    if not isinstance(raw, dict):
        raise BadLine(f"a {type(raw).__name__}, not an object")
    return raw


def _parse_again(line: bytes) -> object:
    """Parse what the quick way does not: leading spaces, a byte order mark, half surrogates."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise BadLine("not JSON; the file may be cut off") from None


def name(raw: dict[str, Any], key: str) -> str:
    """Give an identifying value, from the top level or the `sample` metric, as text.

    Raises:
        BadLine: there is none, or it is neither text nor a whole number.
    """
    value = raw.get(key)
    if type(value) is str:
        return value
    if value is None:
        sample = raw.get("sample")
        value = sample.get(key) if isinstance(sample, dict) else None
    if isinstance(value, str):
        return value
    if type(value) is not int:
        raise BadLine(f"no {key!r} at the top level or inside 'sample'")
    return str(value)


def target(raw: dict[str, Any]) -> str:
    """Give the right answer as text that is equal for equal answers, empty where not stated."""
    value = raw.get("target")
    if type(value) is not str:
        if value is None:
            return ""
        value = json.dumps(value, sort_keys=True)
    if len(value) <= _LONGEST_TARGET:
        return value
    return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()


def append_row(rows: array[float], raw: dict[str, Any], score_key: str) -> bool:
    """Append the numbers of a line to a flat array.

    A failed sample (an `error` in its usage, or a `failure`) has score 0. A question with
    several requests (one per label) has one usage for all, in first place, or one for
    each: they share the video, so tokens, bytes and the decode, encode and prefill times are taken
    once (the largest), and the answer and amortised times are added.

    Args:
        rows: gets WIDTH numbers; NaN or infinite where not measured.
        raw: the line.
        score_key: of the score.

    Returns:
        True when the sample failed.

    Raises:
        BadLine: no finite score, or something that should be a number is not; `rows` is as it was.
    """
    entries = raw.get(USAGE_KEY)
    size = len(rows)
    score = raw.get(score_key)
    usual = isinstance(score, (float, int)) and -_MOST < score < _MOST and FAILURE not in raw
    if usual and type(entries) is list and len(entries) == 1:
        (entry,) = entries
        if type(entry) is dict and entry.get("error") is None:
            values = [score, raw.get(SUM_KEY), raw.get("parse_failure")]
            values += map(entry.get, _FIELDS)
            try:
                rows.extend([_NAN if value is None else value for value in values])
            except (TypeError, OverflowError):
                del rows[size:]
            else:
                return False
    failed, row = _slow_row(raw, score_key)
    rows.extend(row)
    return failed


def columns(rows: array[float]) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Cut a flat array of rows into columns.

    Returns:
        Of `score`, `by_sum` and `unparsed`, and of MEASURES; [n] each, NaN where not measured.
    """
    table = np.frombuffer(rows, dtype=np.float64) if len(rows) else np.empty(0)
    table = table.reshape(-1, WIDTH).T.copy()
    table[~(np.abs(table) < _MOST)] = _NAN
    fields = dict(zip(_FIELDS, table[3:], strict=True))
    fields["seconds"] = _seconds([fields.pop(key) for key in _TIMES])
    fields["amortised_seconds"] = fields.pop(_AMORTISED) / 1000
    measures = {key: fields[key] for key in MEASURES}
    return {"score": table[0], "by_sum": table[1], "unparsed": table[2]}, measures


def _seconds(times: Sequence[Floats]) -> Floats:
    total: Floats = np.sum(times, axis=0) / 1000
    return total


def _slow_row(raw: dict[str, Any], score_key: str) -> tuple[bool, list[float]]:
    entries = raw.get(USAGE_KEY) or []
    if not isinstance(entries, list):
        raise BadLine(f"{USAGE_KEY!r} is {_short(entries)}, not a list")
    counts = [entry for entry in entries if isinstance(entry, dict)]
    failed = any(entry.get("error") is not None for entry in (*counts, {"error": raw.get(FAILURE)}))
    if not counts or not isinstance(entries[0], dict):
        measured = [_NAN] * len(_FIELDS)
    else:
        measured = [_joined([_number(e, key) for e in counts], key) for key in _FIELDS]
    by_sum = _number(raw, SUM_KEY)
    if failed and not math.isnan(by_sum):
        by_sum = 0.0
    score = 0.0 if failed else _score(raw, score_key)
    return failed, [score, by_sum, _number(raw, "parse_failure"), *measured]


def _joined(values: list[float], key: str) -> float:
    """Join one field of several requests; NaN when any is NaN."""
    if not all(-_MOST < value < _MOST for value in values):
        return _NAN
    return math.fsum(values) if key in _ADDED else max(values)


def _score(raw: dict[str, Any], key: str) -> float:
    """Give the score; a missing, null or non-finite one is an error, never a zero."""
    value = raw.get(key)
    number = _float(value)
    if number is None or not -_MOST < number < _MOST:
        _refuse(f"score {key!r} is {_short(value)}, not a finite number")
    return number


def _number(fields: dict[str, Any], key: str) -> float:
    """Give a measure, NaN when it is missing or null."""
    value = fields.get(key)
    if value is None:
        return _NAN
    number = _float(value)
    if number is None:
        _refuse(f"{key!r} is {_short(value)}, not a number")
    return number


def _refuse(reason: str) -> NoReturn:
    raise BadLine(reason)


def _float(value: object) -> float | None:
    """Give a JSON number or boolean as float, None for anything else."""
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:
        return math.inf


def _short(value: object) -> str:
    return repr(value)[:60]
