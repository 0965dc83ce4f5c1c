"""How often intervals hold the truth and tests find what is not there, on simulated answers.

The default suite has small versions; the long ones are those of docs/statistics.md.
"""

from __future__ import annotations

from pathlib import Path

import calibration as c
import pytest

from tempeval.leaderboard import stats

PAGE = Path(__file__).parents[2] / "docs" / "statistics.md"


def by_text(design):
    return f"{design.clusters}x{design.questions}-{design.gain:g}-{design.kind}"


def noise(share, simulations):
    """Return 3 standard errors of a share found in simulations."""
    return 3 * (share * (1 - share) / simulations) ** 0.5


@pytest.mark.parametrize("design", c.CALIBRATED[:6], ids=by_text)
def test_intervals_hold_the_truth_small(design):
    found = c.coverage(design, 200, draws=1000)
    assert found == pytest.approx(0.95, abs=noise(0.95, 200))


def test_intervals_of_few_clusters_hold_the_truth_small():
    assert c.coverage(c.Design(12, 6, 0.5), 300, draws=1000) >= 0.95 - noise(0.95, 300)


@pytest.mark.parametrize("design", c.NO_EFFECT, ids=by_text)
def test_the_test_finds_nothing_where_nothing_is_small(design):
    if design.questions == 65:
        design = c.Design(71, 20)
    found = c.rejections(design, 300)["sign_flip"]
    assert found <= stats.ALPHA + noise(stats.ALPHA, 300)


def test_tables_find_nothing_where_nothing_is_small():
    found = c.family_errors(c.FAMILIES["no effects"], c.METHODS, 300)
    assert found["holm"] <= stats.ALPHA + noise(stats.ALPHA, 300)
    assert found["uncorrected"] > 0.2


def test_mcnemar_finds_what_is_not_there_small():
    """Why it is not given for several questions per cluster."""
    assert c.rejections(c.Design(60, 18), 200)["mcnemar"] > 0.1


def rows_of(block):
    """Return the rows of a generated table, cell by cell."""
    text = PAGE.read_text(encoding="utf-8").split(f"<!-- {block} -->\n")[1]
    lines = text.split(f"<!-- /{block} -->")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def share(cell):
    return float(cell.removesuffix(" %")) / 100


def test_the_page_has_every_figure():
    """Its rows are those that are measured, in order, and within the promised bounds."""
    coverage = rows_of("coverage")
    designs = [*c.CALIBRATED, *c.REPORTED]
    assert [int(row[0]) for row in coverage] == [design.clusters for design in designs]
    for row, design in zip(coverage, designs, strict=True):
        assert float(row[3]) == pytest.approx(100 * design.truth, abs=0.006)
    for row in coverage[: len(c.CALIBRATED)]:
        assert 0.94 <= share(row[-1]) <= 0.96
    bound = stats.ALPHA + noise(stats.ALPHA, c.SIMULATIONS)
    assert [int(row[0]) for row in rows_of("errors")] == [d.clusters for d in c.NO_EFFECT]
    assert all(share(row[-2]) <= bound for row in rows_of("errors"))
    assert [row[0] for row in rows_of("families")] == list(c.FAMILIES)
    assert all(share(row[-1]) <= bound for row in rows_of("families"))
    assert len(rows_of("power")) == len(c.POWER)
    assert len(rows_of("cost")) == 2


# Other kernels of matrix products may move an interval's end across the truth once or twice.
SAME = 0.0006


@pytest.mark.long
@pytest.mark.parametrize("place", range(len(c.CALIBRATED)), ids=map(by_text, c.CALIBRATED))
def test_intervals_hold_the_truth(place):
    found = c.coverage(c.CALIBRATED[place], c.SIMULATIONS)
    assert 0.94 <= found <= 0.96
    assert found == pytest.approx(share(rows_of("coverage")[place][-1]), abs=SAME)


@pytest.mark.long
@pytest.mark.parametrize("place", range(len(c.REPORTED)), ids=map(by_text, c.REPORTED))
def test_reported_intervals_are_as_the_page_says(place):
    found = c.coverage(c.REPORTED[place], c.SIMULATIONS)
    row = rows_of("coverage")[len(c.CALIBRATED) + place]
    assert found == pytest.approx(share(row[-1]), abs=SAME)


@pytest.mark.long
@pytest.mark.parametrize("place", range(len(c.NO_EFFECT)), ids=map(by_text, c.NO_EFFECT))
def test_the_test_finds_nothing_where_nothing_is(place):
    found = c.rejections(c.NO_EFFECT[place], c.SIMULATIONS)
    assert found["sign_flip"] <= stats.ALPHA + noise(stats.ALPHA, c.SIMULATIONS)
    row = rows_of("errors")[place]
    assert found["sign_flip"] == pytest.approx(share(row[-2]), abs=SAME)
    assert found["mcnemar"] == pytest.approx(share(row[-1]), abs=SAME)


@pytest.mark.long
@pytest.mark.parametrize("name", c.FAMILIES)
def test_tables_find_nothing_where_nothing_is(name):
    found = c.family_errors(c.FAMILIES[name], c.METHODS, c.SIMULATIONS)
    assert found["holm"] <= stats.ALPHA + noise(stats.ALPHA, c.SIMULATIONS)
    row = rows_of("families")[list(c.FAMILIES).index(name)]
    assert found["holm"] == pytest.approx(share(row[-1]), abs=SAME)


@pytest.mark.long
@pytest.mark.parametrize("design", c.POWER, ids=by_text)
def test_the_detectable_effect_is_detected(design):
    found = c.power_at_detectable(design, c.SIMULATIONS)
    assert 0.75 <= found["power"] <= 0.82
