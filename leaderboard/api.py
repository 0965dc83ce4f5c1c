"""Build a leaderboard from run folders: the one function the command line calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tempeval.leaderboard.load import Loaded
    from tempeval.leaderboard.records import Refusal
    from tempeval.leaderboard.schema import Document


#: The method that others are compared with if none is named.
BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a build wrote.

    Attributes:
        markdown: path of leaderboard.md.
        json: path of leaderboard.json.
        files: paths of all files, these two included.
        text: the summary tables, for a terminal.
        tables: number of tables (one for each model, setting and budget).
        compared: number of method rows that stand beside a baseline.
        refusals: what is not ranked, and why.
        document: what leaderboard.json holds.
    """

    markdown: Path
    json: Path
    files: tuple[Path, ...]
    text: str
    tables: int
    compared: int
    refusals: tuple[Refusal, ...]
    document: Document


def build(
    runs: Sequence[Path],
    out: Path,
    *,
    baseline: str = BASELINE,
    match_on: str = "visual_tokens",
    tolerance: float = 0.02,
    seed: int = 0,
    draws: int = 10_000,
    max_failure_ratio: float = 0.05,
) -> Summary:
    """Compare runs and write the leaderboard: markdown, JSON, CSV, a page and plots.

    A run that cannot be read or compared is listed with its reason and the rest is built. The
    output depends on the inputs only: neither on their order nor on the clock. Of what is in the
    folder, only files that an earlier build lists in its leaderboard.json are replaced or removed.

    Args:
        runs: folders (searched recursively for run.json, and for results of lmms-eval without
            one) or such files.
        out: folder to write to; made when missing.
        baseline: method that the others are compared with: its name, or the name with settings
            as it is printed.
        match_on: the measure that is the budget: visual_tokens, token_layers, kv_bytes,
            prefill_flops or frames.
        tolerance: largest difference of measured budgets, as a fraction >= 0.
        seed: of the draws, >= 0.
        draws: bootstrap draws, >= 100.
        max_failure_ratio: most failed questions of a ranked task, as a fraction in [0, 1].

    Returns:
        The paths, the summary tables as text, the refusals, and the document.

    Raises:
        RunsNotFound: a path does not exist or there is no run below it.
        InvalidSetting: an argument is out of range.
        UnknownName: `match_on` is not accepted, or no run is of the method `baseline`.
        NotOurs: the folder holds files of others where a leaderboard's would be written, or a
            leaderboard with tables that this one, without any, would replace.
    """
    # Imported here because they bring scipy, which the processes that read samples do without.
    from tempeval.leaderboard.board import Options, make_document, to_json
    from tempeval.leaderboard.load import load
    from tempeval.leaderboard.output import RECORD, NotOurs, earlier, refuse_foreign
    from tempeval.leaderboard.output import files as files_of
    from tempeval.leaderboard.render import to_summary
    from tempeval.leaderboard.writing import write_all

    options = Options(baseline, match_on, tolerance, max_failure_ratio, draws, seed)
    options.check()
    loaded = load(runs)
    _check_baseline(baseline, loaded)
    before = earlier(out)
    document, refusals = make_document(loaded, options)
    if before.tables and not document["tables"]:
        raise NotOurs(
            f"{out} holds a leaderboard with tables, and of these runs none could be compared: "
            f"{_first_reason(refusals)}. Mend that, or choose another -o to see all reasons"
        )
    contents = files_of(document)
    document["files"] = sorted([*contents, RECORD])
    contents[RECORD] = to_json(document)
    refuse_foreign(out, contents, before.files)
    write_all({out / name: content for name, content in sorted(contents.items())})
    for name in before.files - contents.keys():
        (out / name).unlink(missing_ok=True)
    rows = [row for table in document["tables"] for row in table["rows"]]
    return Summary(
        markdown=out / "leaderboard.md",
        json=out / "leaderboard.json",
        files=tuple(out / name for name in sorted(contents)),
        text=to_summary(document),
        tables=len(document["tables"]),
        compared=sum(not row["is_baseline"] for row in rows),
        refusals=refusals,
        document=document,
    )


def _check_baseline(baseline: str, loaded: Loaded) -> None:
    """Refuse a name that no run has; that there is no run of the usual baseline, a board says."""
    keys = ("method", "method_label")
    names = {source.facts.get(key) for source in loaded.sources for key in keys}
    known = {name for name in names if isinstance(name, str)}
    if known and baseline not in known and baseline != BASELINE:
        raise UnknownName("run of the method", baseline, known, "Name one with --baseline.")


def _first_reason(refusals: Sequence[Refusal]) -> str:
    for refusal in refusals:
        return f"run {refusal.run}: {refusal.reason}"
    return "there is no run"
