"""The documents name nothing that a reader does not have, and every stage of a method."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tempeval.methods.base import STAGES, Method

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
NAMED = re.compile(
    r"`((?:tempeval|tasks|model_wrappers|leaderboard|tests|docs|\.ci)/[\w/.\-]*)`"
    r"|\]\(([^)#:\s]+)(?:#[^)]*)?\)"
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_are_there(page: Path) -> None:
    missing = [
        named or linked
        for named, linked in NAMED.findall(page.read_text())
        if not ((ROOT if named else page.parent) / (named or linked)).exists()
    ]
    assert missing == []


def test_the_architecture_names_every_stage_of_a_method() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    picture = (ROOT / "docs" / "stages.svg").read_text()
    for number, stage in enumerate(STAGES, start=1):
        assert stage in vars(Method)
        assert f"| `{stage}` |" in page
        assert f">{number} {stage}<" in picture


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
