"""The page, the plots and the CSV: self-contained, escaped, the same bytes."""

from __future__ import annotations

import csv
import re
import runpy
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tempeval.leaderboard import build

REFERENCE = Path(__file__).parents[1] / "reference" / "leaderboard"
made = runpy.run_path(str(REFERENCE / "make_runs.py"))
TASK = "tempeval_mini_action"
EVIL = "</style></script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"


class Seen(HTMLParser):
    """What a browser would make of a page: elements, and what they load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.handlers: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith("#"):
                self.loaded.append(value)
            if name.startswith("on"):
                self.handlers.append(name)


def page(folder: Path, label: str) -> tuple[Path, Seen]:
    lines = made["sample_lines"](TASK, videos=40)
    made["write_run"](folder / "runs" / "a", tasks={TASK: lines}, model=label)
    made["write_run"](
        folder / "runs" / "b", "pas", tasks={TASK: lines}, method_label=label, model=label
    )
    made["write_run"](folder / "runs" / "c", "pas", tasks={TASK: lines}, model=f"{label} other")
    summary = build([folder / "runs"], folder / "out", draws=200)
    seen = Seen()
    path = next(path for path in summary.files if path.name == "index.html")
    seen.feed(path.read_text("utf-8"))
    return folder / "out", seen


def test_nothing_in_a_name_becomes_an_element(tmp_path):
    _, plain = page(tmp_path / "plain", "model")
    out, evil = page(tmp_path / "evil", EVIL)
    # A longer title of a plot takes more lines.
    assert [tag for tag in evil.tags if tag != "text"] == [t for t in plain.tags if t != "text"]
    assert "img" not in evil.tags
    assert evil.handlers == plain.handlers
    assert "alert(1)" in (out / "index.html").read_text("utf-8")  # as text


def test_the_page_loads_nothing(tmp_path):
    _, seen = page(tmp_path, "model")
    local = ("leaderboard.", "plots/", "data:")
    assert [url for url in seen.loaded if not url.startswith(local)] == []
    assert seen.tags.count("table") >= 2
    assert "svg" in seen.tags


def test_tables_can_be_read_aloud(tmp_path):
    out, _ = page(tmp_path, "model")
    text = (out / "index.html").read_text("utf-8")
    assert '<html lang="en"' in text
    assert 'scope="col"' in text
    assert 'scope="row"' in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme" in text
    assert "@media print" in text


def test_plots_are_the_same_bytes_as_vectors_and_as_pixels(tmp_path):
    scene = made["write_scene"](tmp_path / "runs")
    for name in ("one", "two"):
        build([scene], tmp_path / name, draws=200)
    vectors = sorted((tmp_path / "one" / "plots").glob("*.svg"))
    assert vectors
    for path in vectors:
        assert path.read_bytes() == (tmp_path / "two" / "plots" / path.name).read_bytes()
        pixels = path.with_suffix(".png").read_bytes()
        assert pixels.startswith(b"\x89PNG")
        again = (tmp_path / "two" / "plots" / path.name).with_suffix(".png").read_bytes()
        assert pixels == again
        assert not re.search(r"<script|https?://(?!www\.w3\.org)", path.read_text("utf-8"))


def test_plots_of_an_earlier_build_are_removed_and_nothing_else(tmp_path):
    page(tmp_path, "old model")
    plots = tmp_path / "out" / "plots"
    before = {path.name for path in plots.iterdir()}
    for name in ("mine.svg", "pareto-notes.txt", "Differences-x.svg"):
        (plots / name).write_text("mine")
    shutil.rmtree(tmp_path / "runs")
    page(tmp_path, "model")
    after = {path.name for path in plots.iterdir()}
    assert before
    assert not before & after
    assert {"mine.svg", "pareto-notes.txt", "Differences-x.svg"} < after
    fresh = tmp_path / "fresh"
    build([tmp_path / "runs"], fresh, draws=200)
    assert len(after) == 3 + len(list((fresh / "plots").iterdir()))


@pytest.mark.parametrize("column", ["method", "task"])
def test_the_csv_has_a_row_for_each_cell(tmp_path, column):
    page(tmp_path, 'a, "b"\nc')
    with (tmp_path / "out" / "leaderboard.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["task"] for row in rows} >= {TASK}
    assert all(row[column] for row in rows)
