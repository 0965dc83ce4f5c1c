"""What is said about a leaderboard and its tables in words; plain text, escaped by who prints it.

Everything is read from the document (`tempeval.leaderboard.schema`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from tempeval.leaderboard import lists, plan_words, text
from tempeval.leaderboard.caveats import caveats
from tempeval.leaderboard.interval_notes import interval_notes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from tempeval.leaderboard.schema import Document, Interval, Row, Table, Task

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
_FEW_CLUSTERS, _FEW_BUDGETS = 30, 3
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
        f"method over all methods and tasks of one setting (p at most {how['alpha']:g}), "
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
        "means over the answered questions. Counted, where there are some: failed questions, those "
        "answered over damaged videos, and those skipped because their video is not there.",
        "'-': not measured, or a task is missing.",
    ]


def left_out(document: Document) -> str:
    """Say how many runs are not comparable, and which are compared and not ranked."""
    runs = len({found["run"] for found in lists.refused(document)})
    said = "Every run was comparable."
    if runs:
        many = "run is" if runs == 1 else "runs are"
        said = f"{runs} {many} not comparable, at least in part; leaderboard.md says why."
    return " ".join(filter(None, (said, trials(document))))


def trials(document: Document) -> str:
    """Name the runs that are compared and not ranked; empty where there are none."""
    names = dict.fromkeys(x["run"] for x in document["not_comparable"] if x["kind"] == "limit")
    if not names:
        return ""
    return (
        "Compared and not ranked, because they are trial runs over some of the samples (--limit): "
        f"{', '.join(names)}."
    )


def heat_caption(document: Document, table: Table) -> str:
    """Say what the table of differences shows."""
    if not table["ranked"]:
        return "Difference to the baseline; not tested, since this is a trial run."
    alpha = document["methodology"]["alpha"]
    return (
        f"Difference to the baseline. Bold: significant at {alpha:g} after Holm's correction "
        f"for {table['tests']} tests: all methods and tasks of this setting."
    )


def budget(table: Table) -> str:
    """Put a table's budget in words, such as '49 visual tokens per question'.

    Where its tasks have budgets of their own, each is named, or the least and the most of many.
    """
    on = table["match_on"]
    show = _number(on)
    unit = f"{BUDGETS.get(on, on)} per question"
    if table["budget"] is not None:
        return f"{show(table['budget'])} {unit}"
    known = sorted((value, show(value)) for value in table["budgets"] if value is not None)
    words = list(dict.fromkeys(shown for _, shown in known))
    if len(words) > _FEW_BUDGETS:
        return f"{words[0]} to {words[-1]} {unit}, by task"
    return f"{' and '.join(words)} {unit}, by task"


def _number(on: str) -> Callable[[float | None], str]:
    return {"kv_bytes": text.size, "prefill_flops": text.tera}.get(on, text.count)


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
    for places in _alike(names):
        asked = [_tasks(tables[i]) for i in places]
        if len(set(asked)) > 1:
            for i, what in zip(places, asked, strict=True):
                names[i] = f"{what}: {names[i].partition(': ')[2]}"
    for field in _APART:
        for places in _alike(names):
            values = [_setting(tables[i], field) for i in places]
            if len(set(values)) > 1:
                for i, value in zip(places, values, strict=True):
                    names[i] = f"{names[i]}, {value}"
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return unique


def _alike(names: Sequence[str]) -> list[list[int]]:
    """Give the places of names that are there more than once."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, name in enumerate(names):
        places[name].append(place)
    return [found for found in places.values() if len(found) > 1]


def _tasks(table: Table) -> str:
    return group([task["name"] for task in table["tasks"]], [None])


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
    yield from _flat([(row["label"], _shown_interval(table, row)) for row in rows])
    if table["budget"] is None and len(tasks) > 1:
        show = _number(table["match_on"])
        shown = [
            f"{name} {show(value)}"
            for name, value in zip(text.columns(tasks), table["budgets"], strict=True)
        ]
        yield (
            f"Each task has a budget of its own ({', '.join(shown)}), so no mean over them is "
            "drawn against a cost."
        )
    if len(rows) == 1:
        yield f"Only {rows[0]['label']} was run here: nothing is compared."
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


def task_notes(table: Table, place: int) -> Iterator[str]:
    """Give what a reader must know before trusting the table of one task."""
    found = [(row["label"], row["cells"][place]) for row in table["rows"]]
    yield from _flat([(label, cell["interval"]) for label, cell in found if cell is not None])


def _shown_interval(table: Table, row: Row) -> Interval | None:
    """Give the interval that the summary prints in a row."""
    if len(table["tasks"]) > 1:
        return row["macro_interval"]
    return row["cells"][0]["interval"] if row["cells"][0] is not None else None


def _flat(found: Iterable[tuple[str, Interval | None]]) -> Iterator[str]:
    """Name the rows whose interval has no width, as when no score differs."""
    flat = [label for label, ends in found if ends is not None and ends["low"] == ends["high"]]
    if flat:
        yield (
            "Intervals of zero width say that no draw differs, not that the difference is known: "
            f"{', '.join(flat)}."
        )


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
