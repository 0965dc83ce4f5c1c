"""What is said about a leaderboard and its tables in words; plain text, escaped by who prints it.

Everything is read from the document (`tempeval.leaderboard.schema`).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from tempeval.leaderboard import plan_words, text
from tempeval.leaderboard.caveats import caveats
from tempeval.leaderboard.interval_notes import interval_notes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tempeval.leaderboard.schema import Document, Row, Table, Task

MINI = (
    "These are real measurements of a tiny model (the mini suite); "
    "they say nothing about 7B models."
)
# What a budget can be: the measure -> how a heading names it.
BUDGETS = {
    "visual_tokens": "visual tokens",
    "token_layers": "token-layers",
    "kv_bytes": "of keys and values",
    "prefill_flops": "prefill TFLOPs",
    "frames": "frames",
}
REFERENCES = (
    "As published, with their sources. They are of other checkpoints, frames, prompts and "
    "graders, and are not ranked with measured rows."
)
_FEW_CLUSTERS = 30
# Settings that tell two tables of one heading apart, in the order in which they are tried.
_APART = (
    "frame_policy",
    "position_rule",
    "dtype",
    "limit",
    "model_revision",
    "baseline",
    "visual_token_budget",
    "min_pixels",
    "max_pixels",
    "methods_plan",
)


def lead(document: Document) -> str:
    """Say in a sentence what is compared with what, and at which budget."""
    how = document["methodology"]
    on = BUDGETS.get(how["match_on"], how["match_on"]).removeprefix("of ")
    return (
        f"Methods against {how['baseline']} at matched measured {on}: "
        f"{100 * how['paired_share']:.3g} % of the paired questions and the mean agree within "
        f"{100 * how['tolerance']:.3g} %."
    )


def legend(document: Document) -> list[str]:
    """Explain the columns and how the numbers were computed, one point each."""
    how = document["methodology"]
    level = f"{100 * how['level']:.3g} %"
    return [
        "Scores in percent, ± standard error clustered by video (or the task's cluster key). A "
        "failed question counts as wrong.",
        f"Δ: difference to the baseline, paired by question, with a {level} cluster-bootstrap "
        f"interval ({how['draws']} draws, seed {how['seed']}; studentised below "
        f"{how['studentised_below']} clusters, or marked {text.ROUGH} where too few of them differ "
        "for that). Intervals are not corrected for the number of "
        "comparisons.",
        "Bold: the clustered sign-flip test says that there is a difference, corrected by Holm's "
        f"method over all methods and tasks of the table (p at most {how['alpha']:g}), "
        "and also without the questions that failed on either side. Nothing else is called "
        "a difference. Means over tasks are not tested.",
        "macro: mean of the task scores; pooled: mean over the questions of all tasks, where "
        "that is another number. Neither is given where a task is missing.",
        f"MDE: minimum detectable effect of one test at {100 * how['power']:.3g} % power. "
        "better/same/worse: questions, against the baseline.",
        "tokens: visual tokens. layers: token-layers (visual tokens present, averaged over the "
        "layers). KV: bytes of keys and values held. TFLOPs: operations of the prefill. s/q: "
        "seconds per question standing alone (decode + encode + prefill + answer); shared: as "
        "run, what is shared divided by who shares it. memory: largest peak of the device. "
        "unparsed: answers that could not be parsed, which count as wrong. All are measured "
        "means over the answered questions.",
        "'-': not measured, or a task is missing.",
    ]


def left_out(document: Document) -> str:
    """Say how many runs are not comparable."""
    runs = len({found["run"] for found in document["not_comparable"]})
    if not runs:
        return "Every run was comparable."
    return (
        f"{runs} {'run is' if runs == 1 else 'runs are'} not comparable, at least in part; "
        "leaderboard.md says why."
    )


def heat_caption(document: Document, table: Table) -> str:
    """Say what the table of differences shows."""
    if not table["ranked"]:
        return "Difference to the baseline; not tested, since this is a trial run."
    alpha = document["methodology"]["alpha"]
    return (
        f"Difference to the baseline. Bold: significant at {alpha:g} after Holm's correction "
        f"for the table's {table['tests']} tests."
    )


def budget(table: Table) -> str:
    """Put a table's budget in words, such as '49 visual tokens per question'."""
    on = table["match_on"]
    number = {"kv_bytes": text.size, "prefill_flops": text.tera}
    return f"{number.get(on, text.count)(table['budget'])} {BUDGETS.get(on, on)} per question"


def group(names: Sequence[str], groups: Iterable[str | None]) -> str:
    """Name what is asked: the tasks' group, or the tasks where they are few or of several.

    Args:
        names: of the tasks, at least one.
        groups: that list them, None for none.
    """
    listed = set(groups)
    if len(listed) == 1 and len(names) > 1 and (found := listed.pop()):
        return found
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} and {len(names) - 1} more tasks"


def headings(document: Document) -> list[str]:
    """Name each table by tasks, model and budget; where that is the same, by what differs.

    Returns:
        One heading for each table, no two of them equal.
    """
    tables = document["tables"]
    names = [
        f"{_group(table)}: {table['model']}, {budget(table)}{_limit_mark(table)}"
        for table in tables
    ]
    for field in _APART:
        alike = {name for name, times in Counter(names).items() if times > 1}
        for name in alike:
            places = [i for i, other in enumerate(names) if other == name]
            values = [_setting(tables[i], field) for i in places]
            if len(set(values)) > 1:
                for i, value in zip(places, values, strict=True):
                    names[i] = f"{name}, {value}"
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def slugs(names: Sequence[str]) -> list[str]:
    """Make names that can be anchors and file names of headings: a-z, 0-9 and dashes, unique."""
    made: list[str] = []
    for name in names:
        stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80].strip("-") or "table"
        number, slug = 1, stem
        while slug in made:
            number += 1
            slug = f"{stem}-{number}"
        made.append(slug)
    return made


def facts(table: Table) -> str:
    """Give what all runs of a table share, in one line."""
    setting = table["setting"]
    parts = [
        f"Model {table['model']} ({text.short(setting['model_revision'])})",
        frames(setting["frame_policy"]),
        f"{setting['position_rule']} positions",
        setting["dtype"],
        ", ".join(table["devices"]),
    ]
    return f"{', '.join(parts)}. {table['n']} questions in {table['clusters']} clusters."


def task_facts(task: Task) -> str:
    """Say which version of a task, prompt and data the scores are of."""
    return (
        f"Version {task['version']}, prompt {text.short(task['prompt_hash'])}, "
        f"data {text.short(task['dataset_digest'])}. "
        f"{task['n']} questions in {task['clusters']} clusters."
    )


def frames(policy: Mapping[str, Any]) -> str:
    """Put a frame policy in words, such as '8 frames, uniform'."""
    fields = dict(policy)
    number, fps, rule = (fields.pop(name, None) for name in ("num_frames", "fps", "rule"))
    words = [f"{number} frames"] if number is not None else []
    words += [f"{fps} frames/s"] if fps is not None else []
    words += [str(rule)] if rule is not None else []
    words += [f"{name}={value}" for name, value in sorted(fields.items()) if value is not None]
    return ", ".join(words) or "no frame policy"


def limited(limit: float) -> str:
    """Put a --limit in words, such as 'first 20 samples'."""
    return f"first {limit:.3g} of the samples" if limit < 1 else f"first {limit:.0f} samples"


def notes(table: Table) -> Iterator[str]:
    """Give what a reader must know before trusting a table."""
    tasks, rows = table["tasks"], table["rows"]
    if table["is_mini"]:
        yield MINI
    if not table["ranked"]:
        yield "A trial run: rows stand by name, and nothing is called a difference."
    few = [task["name"] for task in tasks if task["clusters"] < _FEW_CLUSTERS]
    if few and len(rows) > 1:
        yield (
            f"Fewer than {_FEW_CLUSTERS} clusters in {', '.join(few)}: "
            "intervals and tests are rough."
        )
    flat = [row["label"] for row in rows if _flat(row)]
    if flat:
        yield (
            "Intervals of zero width say that no draw differs, not that the difference is known: "
            f"{', '.join(flat)}."
        )
    yield from interval_notes(table)
    raw = [task["name"] for task in tasks if not task["fraction"]]
    if raw:
        tail = "" if len(tasks) == 1 else ", and there is no macro score"
        yield f"Not percentages but the task's own scale: {', '.join(raw)}{tail}."
    if len({task["higher_is_better"] for task in tasks}) > 1:
        yield "Lower is better in tasks marked ↓, so there is no macro score."
    yield from caveats(table)
    for name, values in table["differs"].items():
        yield f"The runs differ in {name}: {', '.join(values)}."


def _flat(row: Row) -> bool:
    """Tell whether an interval of the row has no width, as when no score differs."""
    found = [row["macro_interval"], *(cell["interval"] for cell in row["cells"] if cell)]
    return any(ends is not None and ends["low"] == ends["high"] for ends in found)


def _group(table: Table) -> str:
    tasks = table["tasks"]
    return group([task["name"] for task in tasks], [task["group"] for task in tasks])


def _limit_mark(table: Table) -> str:
    limit = table["setting"]["limit"]
    return "" if limit is None else f" ({limited(limit)}: not a full run)"


def _setting(table: Table, field: str) -> str:
    value: Any = dict(table["setting"])[field]
    if field == "frame_policy":
        return frames(value)
    if field in ("model_revision", "baseline"):
        return f"{field.replace('_', ' ')} {text.short(value)}"
    if field in plan_words.SIZES:
        return plan_words.size(field, value)
    if field == "methods_plan":
        if value is None:
            return "methods of that plan"
        return f"methods with {frames(value['frame_policy'])}, {plan_words.sizes(value)}"
    return f"{value} positions" if field == "position_rule" else str(value)
