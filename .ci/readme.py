"""Fill the generated blocks of README.md: methods, benchmarks, tables of `make quickstart`.

The benchmarks' table also stands in docs/benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from tempeval.benchmarks.listing import benchmark_table
from tempeval.listing import method_table

README = Path(__file__).resolve().parent.parent / "README.md"
BENCHMARKS = README.parent / "docs" / "benchmarks" / "README.md"


def replace_block(text: str, name: str, content: str) -> str:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`."""
    block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if len(block.findall(text)) != 1:
        raise SystemExit(
            f"a README.md needs exactly one block <!-- {name} --> ... <!-- /{name} -->"
        )
    return block.sub(lambda found: f"{found[1]}{content.strip()}\n{found[2]}", text)


def summaries(leaderboard: str) -> list[str]:
    """Return the summaries of a leaderboard, the longest first: heading, notes and table of each.

    Headings become bold lines, so that they do not interrupt the README's own.
    """
    found = []
    for chapter in re.split(r"\n## ", leaderboard)[1:]:
        summary = re.split(r"\n### ", chapter)[0].strip()
        if "\n| method" in summary:
            found.append("**" + summary.replace("\n", "**\n", 1))
    return sorted(found, key=lambda text: -text.count("\n|"))


def main() -> None:
    """Rewrite README.md, or with --check say whether methods and benchmarks are up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--table", type=Path, help="leaderboard.md of a quickstart")
    options = parser.parse_args()
    old = README.read_text(encoding="utf-8")
    new = replace_block(old, "methods", method_table())
    new = replace_block(new, "benchmarks", benchmark_table())
    if options.table:
        first, *others = summaries(options.table.read_text(encoding="utf-8"))
        new = replace_block(new, "quickstart-table", first)
        heard = [text for text in others if "| pave" in text]
        new = replace_block(new, "side-channel-tables", "\n\n".join(heard))
        sized = [text for text in others if text not in heard]
        new = replace_block(new, "budget-tables", "\n\n".join(sized))
    old_overview = BENCHMARKS.read_text(encoding="utf-8")
    overview = replace_block(old_overview, "benchmarks", benchmark_table(pages=""))
    if options.check:
        stale = new != old or overview != old_overview
        sys.exit("README.md is out of date; run: make readme" if stale else 0)
    README.write_text(new, encoding="utf-8")
    BENCHMARKS.write_text(overview, encoding="utf-8")


if __name__ == "__main__":
    main()
