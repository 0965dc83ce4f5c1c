"""A check's report as lines for a terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from tempeval.benchmarks.check import NAMED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.benchmarks.check import Report, SplitReport

_UNITS = ("B", "kB", "MB", "GB", "TB")


def human_bytes(count: int) -> str:
    """Return a number of bytes in decimal units: `1.5 GB`."""
    value, unit = float(count), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def report_lines(report: Report) -> list[str]:
    """Return what `tempeval data check` prints."""
    lines = [f"{report.title} ({report.name}): {_state(report)}"]
    for split in report.splits:
        lines += _split_lines(split, brief=len(report.splits) > 2)
    if len(report.splits) > 1:
        videos = report.videos
        lines.append(
            f"  in all: {report.items} items, {videos.there} of {videos.wanted} videos, "
            f"{human_bytes(videos.bytes)}"
        )
    if absent := report.missing_data:
        lines.append(f"  metrics lack {', '.join(absent)}: {report.prepare}")
    if report.next:
        lines.append("next:")
        lines += ["  - " + step.replace("\n", "\n    ") for step in report.next]
        lines += [f"licence: {report.licence}", "expected:", textwrap.indent(report.tree, "  ")]
    return lines


def _state(report: Report) -> str:
    """Say whether all is there; of several splits, which are complete and which are not."""
    names: dict[bool, list[str]] = {True: [], False: []}
    for split in report.splits:
        names[split.complete].append(split.split)
    if not names[False]:
        return "complete"
    if not names[True]:
        return "incomplete"
    return f"{', '.join(names[True])} complete, {', '.join(names[False])} incomplete"


def _split_lines(split: SplitReport, brief: bool) -> list[str]:
    if brief and split.complete:
        videos, published = split.videos, _published(split.items, split.published_items)
        return [
            f"  {split.split}: complete, {split.items} items{published}, {videos.there} videos, "
            f"{human_bytes(videos.bytes)}, {split.root or split.source}"
        ]
    lines = [f"  {split.split}: {split.root or split.source}"]
    if split.problem:
        lines.append(f"    problem      {split.problem}")
    for path, size in split.annotations.items():
        lines.append(f"    annotations  {path} ({human_bytes(size)})")
    if not split.items:
        return lines
    lines.append(f"    items        {split.items}{_published(split.items, split.published_items)}")
    videos = split.videos
    published = _published(videos.wanted, split.published_videos)
    lines.append(
        f"    videos       {videos.there} of {videos.wanted}{published}, "
        f"{human_bytes(videos.bytes)}"
    )
    lines += _named("missing", videos.missing)
    lines += _named("empty", videos.empty)
    gaps = [f"{path} (no frame {number})" for path, number in videos.gaps.items()]
    return lines + _named("with gaps", gaps)


def _published(count: int, published: int | None) -> str:
    return "" if published in (None, count) else f" (published: {published})"


def _named(what: str, paths: Sequence[str]) -> list[str]:
    if not paths:
        return []
    lines = [f"    {what:<11}  {len(paths)}"]
    lines += [f"      {path}" for path in paths[:NAMED]]
    return lines + ([f"      ... and {len(paths) - NAMED} more"] if len(paths) > NAMED else [])
