"""Read lmms-eval's samples JSONL into columns, one line at a time."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from array import array
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from tempeval.leaderboard.errors import BadRecord
from tempeval.leaderboard.records import MEASURES, Floats, Samples

if TYPE_CHECKING:
    from pathlib import Path

    from tempeval.leaderboard.records import TaskRecord

_TIMES = ("decode_ms", "encode_ms", "prefill_ms", "answer_ms")
_DIRECT = tuple(name for name in MEASURES if name != "seconds")
#: The score by the sum of log-likelihoods in a line of a choice task.
SUM_KEY = "accuracy_sum"
_NAN = math.nan
_RERUN = "Rerun this task"


def read_samples(path: Path, task: TaskRecord) -> Samples:
    """Read one samples file.

    Failed samples (an `error` in token_counts) get score 0. A question with several requests
    (one per label) has one token_counts entry for all, in first place, or one for each: they
    share the video, so tokens, bytes and the decode, encode and prefill times are taken once (the
    largest), and the answer times are added.

    Args:
        path: the JSONL file.
        task: names the score and the cluster key.

    Returns:
        The columns, sorted by sample id.

    Raises:
        BadRecord: the file cannot be read; a line is not a JSON object, lacks an id, hash,
            cluster or finite score, or has a measure that is not a number; a sample id occurs
            twice.
    """
    ids: list[str] = []
    contents: list[str] = []
    clusters: list[str] = []
    score, by_sum, unparsed = array("d"), array("d"), array("d")
    failed = bytearray()
    columns = {name: array("d") for name in MEASURES}
    lines = array("q")
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if text.isspace():
                    continue
                line = _Line(path, number, text)
                ids.append(sys.intern(line.name("sample_id")))
                contents.append(sys.intern(line.name("content_hash")))
                clusters.append(sys.intern(f"{task.cluster_key}={line.name(task.cluster_key)}"))
                error = line.measure(columns)
                failed.append(error)
                score.append(0.0 if error else line.score(task.score_key))
                sums = line.number(line.raw, SUM_KEY)
                by_sum.append(0.0 if error and not math.isnan(sums) else sums)
                unparsed.append(line.number(line.raw, "parse_failure"))
                lines.append(number)
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise BadRecord(path, None, reason, "Copy it beside run.json, or rerun this task") from None
    order = sorted(range(len(ids)), key=ids.__getitem__)
    for first, second in itertools.pairwise(order):
        if ids[first] == ids[second]:
            at = sorted((lines[first], lines[second]))
            reason = f"sample_id {ids[first]!r} is on line {at[0]} and again on line {at[1]}"
            action = "Two runs may have written one file in the same second; rerun this task"
            raise BadRecord(path, at[1], reason, action)
    return _columns(order, ids, contents, clusters, score, by_sum, failed, unparsed, columns)


def _columns(
    order: list[int],
    ids: list[str],
    contents: list[str],
    clusters: list[str],
    score: array[float],
    by_sum: array[float],
    failed: bytearray,
    unparsed: array[float],
    columns: dict[str, array[float]],
) -> Samples:
    """Put all columns in `order` and hash the identity of the samples."""
    rows = np.array(order, dtype=np.intp)

    def pick(values: array[float]) -> Floats:
        return np.frombuffer(values, dtype=np.float64)[rows] if rows.size else np.empty(0)

    digest = hashlib.sha256()
    for i in order:
        digest.update(f"{ids[i]}\0{contents[i]}\0{clusters[i]}\n".encode(errors="surrogatepass"))
    return Samples(
        ids=tuple(ids[i] for i in order),
        contents=tuple(contents[i] for i in order),
        clusters=tuple(clusters[i] for i in order),
        digest=digest.hexdigest(),
        score=pick(score),
        by_sum=pick(by_sum),
        failed=np.array(failed, dtype=bool)[rows],
        unparsed=pick(unparsed),
        measures={name: pick(values) for name, values in columns.items()},
    )


class _Line:
    """One parsed line and where it stands, so that every error can name the place."""

    __slots__ = ("line", "path", "raw", "sample")

    def __init__(self, path: Path, line: int, text: bytes) -> None:
        self.path, self.line = path, line
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            self.fail("not JSON; the file may be cut off")
        if not isinstance(raw, dict):
            self.fail(f"a {type(raw).__name__}, not an object")
        self.raw: dict[str, Any] = raw
        sample = raw.get("sample")
        self.sample: dict[str, Any] = sample if isinstance(sample, dict) else {}

    def fail(self, reason: str) -> NoReturn:
        """Raise BadRecord at this line."""
        raise BadRecord(self.path, self.line, reason, _RERUN)

    def name(self, key: str) -> str:
        """Give an identifying value, from the top level or the `sample` metric, as text."""
        value = self.raw.get(key)
        if value is None:
            value = self.sample.get(key)
        if isinstance(value, str):
            return value
        if type(value) is not int:
            self.fail(f"no {key!r} at the top level or inside 'sample'")
        return str(value)

    def score(self, key: str) -> float:
        """Give the score; a missing, null or non-finite one is an error, never a zero."""
        value = self.raw.get(key)
        number = _float(value)
        if number is None or not math.isfinite(number):
            self.fail(f"score {key!r} is {_short(value)}, not a finite number")
        return number

    def number(self, fields: dict[str, Any], key: str) -> float:
        """Give a measure, NaN when it is missing, null or not finite."""
        value = fields.get(key)
        if value is None:
            return _NAN
        number = _float(value)
        if number is None:
            self.fail(f"{key!r} is {_short(value)}, not a number")
        return number if math.isfinite(number) else _NAN

    def measure(self, columns: dict[str, array[float]]) -> bool:
        """Append this line's measures to the columns; True when the sample failed."""
        entries = self.raw.get("token_counts") or []
        if not isinstance(entries, list):
            self.fail(f"'token_counts' is {_short(entries)}, not a list")
        counts = [entry for entry in entries if isinstance(entry, dict)]
        if not counts or not isinstance(entries[0], dict):
            for column in columns.values():
                column.append(_NAN)
            return any(entry.get("error") is not None for entry in counts)
        for name in _DIRECT:
            columns[name].append(_largest([self.number(entry, name) for entry in counts]))
        times = [_largest([self.number(entry, name) for entry in counts]) for name in _TIMES[:3]]
        times += [self.number(entry, _TIMES[3]) for entry in counts]
        columns["seconds"].append(math.fsum(times) / 1000)
        return any(entry.get("error") is not None for entry in counts)


def _float(value: object) -> float | None:
    """Give a JSON number or boolean as float, None for anything else."""
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:
        return math.inf


def _short(value: object) -> str:
    return repr(value)[:60]


def _largest(values: list[float]) -> float:
    """Give the largest value, NaN when any is NaN."""
    return _NAN if any(value != value for value in values) else max(values)
