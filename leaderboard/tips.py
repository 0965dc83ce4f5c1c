"""All numbers behind one cell in a few lines, for whoever points at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tempeval.leaderboard import text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tempeval.leaderboard.schema import Costs, Interval, Point, Row, Table


def cell(table: Table, row: Row, place: int) -> str:
    """Describe one method on one task; empty where it has none.

    Args:
        table: of the document.
        row: of the table.
        place: of the task in the table.
    """
    found = row["cells"][place]
    if found is None:
        return ""
    task = table["tasks"][place]
    fraction = task["fraction"]
    se = text.error(found["se"], fraction)
    lines = [
        f"{row['label']}, {task['name']}",
        f"score {text.score(found['score'], fraction)} {se} "
        f"{_span(found['score_interval'], fraction)}".rstrip(),
    ]
    if found["difference"] is not None:
        gap = text.signed(found["difference"], fraction)
        ends = text.interval(found["interval"], fraction, found["interval_kind"])
        lines.append(f"difference {gap} {ends}")
    if found["p"] is not None:
        holm = text.p_value(found["p_holm"])
        corrected = f"; {holm} corrected for {table['tests']} tests" if table["ranked"] else ""
        lines.append(f"p = {text.p_value(found['p'])}{corrected}")
    if found["mde"] is not None:
        lines.append(f"one test would find {text.score(found['mde'], fraction)}")
    if found["wins"] is not None:
        counts = f"{found['wins']} better, {found['ties']} the same, {found['losses']} worse"
        lines.append(f"questions: {counts}")
    lines += costs(found["costs"])
    lines.append(f"{found['n']} questions in {found['clusters']} clusters")
    return "\n".join(lines)


def means(table: Table, row: Row) -> str:
    """Describe a method's macro and pooled scores over all tasks of a table."""
    if row["macro"] is None:
        return ""
    lines = [f"{row['label']}, {len(table['tasks'])} tasks"]
    numbers = (
        ("macro", row["macro"], row["macro_score_interval"]),
        ("pooled", row["pooled"], row["pooled_score_interval"]),
    )
    gaps = (
        (row["macro_difference"], row["macro_interval"], row["macro_interval_kind"]),
        (row["pooled_difference"], row["pooled_interval"], row["pooled_interval_kind"]),
    )
    for (name, score, ends), (gap, between, kind) in zip(numbers, gaps, strict=True):
        if score is not None:
            lines.append(f"{name} {text.score(score, fraction=True)} {_span(ends, fraction=True)}")
        if gap is not None:
            shown = text.signed(gap, fraction=True)
            lines.append(f"  difference {shown} {text.interval(between, True, kind)}")
    if row["costs"] is not None and table["budget"] is not None:
        lines += costs(row["costs"])
    return "\n".join(lines)


def point(found: Point, fraction: bool) -> str:
    """Describe a point of a plot."""
    score = text.score(found["score"], fraction)
    lines = [found["label"], f"score {score} {_span(found['interval'], fraction)}".rstrip()]
    return "\n".join([*lines, *measures(found["measures"])])


def costs(found: Costs) -> Iterator[str]:
    """Yield what the questions cost, as lines; only what was measured."""
    yield from measures(found["measures"])
    bad = [f"{text.share(found['parse_failure_rate'])} unparsed"]
    if found["parse_failure_rate"] is None:
        bad = []
    bad += [f"{found['failed']} failed"] if found["failed"] else []
    bad += [f"{found['damaged']} over damaged videos"] if found["damaged"] else []
    bad += [f"{found['skipped']} skipped"] if found["skipped"] else []
    if bad:
        yield ", ".join(bad)


def measures(found: dict[str, float | None]) -> Iterator[str]:
    """Yield the budget and the times, as lines; only what was measured."""
    held = [
        (found.get("visual_tokens"), text.count, "visual tokens"),
        (found.get("token_layers"), text.count, "token-layers"),
        (found.get("kv_bytes"), text.size, "of keys and values"),
    ]
    spent = [
        (found.get("prefill_flops"), text.tera, "prefill TFLOPs"),
        (found.get("seconds"), text.seconds, "s per question"),
        (found.get("amortised_seconds"), text.seconds, "s shared"),
        (found.get("peak_memory_bytes"), text.size, "peak memory"),
    ]
    for group in (held, spent):
        parts = [f"{show(value)} {name}" for value, show, name in group if value is not None]
        if parts:
            yield ", ".join(parts)


def _span(ends: Interval | None, fraction: bool) -> str:
    return "" if ends is None else text.span(ends, fraction)
