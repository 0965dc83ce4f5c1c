"""The page in a real browser: no errors, no network, sorting, filters, links, tips, small screens.

Where there is no Chromium the tests are skipped; with CI=true they fail.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from browser import chromium, require_chromium

from tempeval.leaderboard.output import files
from tempeval.leaderboard.writing import write_all

SCENE = Path(__file__).parents[1] / "reference" / "leaderboard" / "scene.json"
EVIL = (
    "</style></script></title><script>window.hacked = 1; alert(1)</script>"
    "<img src=x onerror='window.hacked = 1'><svg onload=\"window.hacked = 1\">\"'&{{ 7 * 7 }}"
)
SUMMARY = "section table"


@pytest.fixture(scope="module")
def browser():
    require_chromium()
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def document():
    found = json.loads(SCENE.read_text(encoding="utf-8"))
    found["references"] = [
        {
            "value": 70.8,
            "metric": "accuracy",
            "task": "tempeval_tempcompass",
            "method": "baseline",
            "model": "Qwen2.5-VL-7B",
            "frames": 8,
            "table": "Table 2",
            "source": "text",
            "details": {},
        }
    ]
    return found


@pytest.fixture(scope="module")
def address(document, tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    write_all({out / name: content for name, content in files(document).items()})
    return f"file://{out}/index.html"


@pytest.fixture
def page(browser, address):
    browser.size(1280)
    browser.media(prefers_color_scheme="light")
    browser.open(address)
    browser.run("localStorage.clear()")
    browser.open(address)
    browser.log()
    return browser


def column(page, number):
    """The texts of a column of the first table, rows that are not hidden, top to bottom."""
    script = (
        f"return [...document.querySelector('{SUMMARY}').tBodies[0].rows]"
        ".filter((row) => !row.hidden)"
        f".map((row) => row.cells[{number}].firstChild.textContent.trim())"
    )
    return page.run(script)


def methods(page):
    script = (
        f"return [...document.querySelector('{SUMMARY}').tBodies[0].rows]"
        ".filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim())"
    )
    return page.run(script)


def header(number):
    return f"{SUMMARY} thead th:nth-child({number + 1}) button"


def test_it_opens_without_errors_and_loads_nothing(browser, address):
    browser.open(address)
    assert browser.log() == []
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return document.title").startswith("Leaderboard: mini")
    assert browser.run("return document.querySelectorAll('h1').length") == 1


def test_a_click_sorts_and_missing_values_stay_last(page):
    before = methods(page)
    found = []
    for state in ("descending", "ascending", "none"):
        page.click(header(3))
        found.append(column(page, 3))
        sorted_as = page.run(
            f"return document.querySelector('{SUMMARY} thead th:nth-child(4)')"
            ".getAttribute('aria-sort')"
        )
        assert sorted_as == state
        assert state.replace("none", "Original order") in page.run(
            "return document.getElementById('status').textContent"
        )
    down, up, original = found
    numbers = [float(value) for value in down[:-1]]
    assert len(numbers) == 4
    assert numbers == sorted(numbers, reverse=True)
    assert [float(value) for value in up[:-1]] == sorted(numbers)
    assert down[-1] == up[-1] == "-"
    assert methods(page) == before
    assert sorted(original) == sorted(down)


def test_the_keyboard_sorts_and_words_sort_by_the_alphabet(page):
    page.run(f"document.querySelector('{header(0)}').focus()")
    page.press("Enter")
    assert methods(page) == sorted(methods(page))
    page.press("Space")
    assert methods(page) == sorted(methods(page), reverse=True)


def test_costs_sort_upwards_first(page):
    names = page.run(
        f"return [...document.querySelectorAll('{SUMMARY}')[0].tHead.rows[0].cells]"
        ".map((cell) => cell.textContent.trim())"
    )
    page.click(header(names.index("layers")))
    assert methods(page)[0] == "pas+temporal_exit"


def test_a_filter_hides_rows_everywhere_and_fades_points(page):
    everything = methods(page)
    page.type("input[type=search]", "exit pas")
    assert methods(page) == ["pas+temporal_exit"]
    assert page.run("return document.querySelector('output').textContent") == "1 of 12"
    shown = page.run(
        "return [...document.querySelectorAll('.heat')[0].tBodies[0].rows]"
        ".filter((row) => !row.hidden).length"
    )
    assert shown == 1
    faded = page.run(
        "const all = [...document.querySelectorAll('.point')];"
        "return [all.filter((p) => p.classList.contains('faded')).length, all.length]"
    )
    assert 0 < faded[0] < faded[1]
    page.run(
        "const box = document.querySelector('input[type=search]');"
        "box.value = ''; box.dispatchEvent(new Event('input'))"
    )
    assert methods(page) == everything
    assert page.run("return document.querySelectorAll('.faded').length") == 0


def test_a_filter_finds_runs_that_are_not_comparable_by_their_reason(page):
    page.type("input[type=search]", "float16")
    rows = page.run(
        "return [...document.querySelectorAll('section[aria-labelledby=not-comparable] tbody tr')]"
        ".filter((row) => !row.hidden).map((row) => row.cells[0].textContent.trim())"
    )
    assert rows == ["bad/half"]


@pytest.mark.parametrize(
    ("words", "rows", "runs"),
    [
        ("order", 4, 12),  # intp has no such task
        ("16_frames", 0, 3),
        ("pas_exit", 1, 1),
        ("nothing like it", 0, 0),
    ],
)
def test_a_filter_finds_tasks_and_runs_and_hides_the_others(page, words, rows, runs):
    page.type("input[type=search]", words)
    assert len(methods(page)) == rows
    shown = page.run(
        "return [...document.querySelectorAll('details.run')].filter((e) => !e.hidden).length"
    )
    assert shown == runs
    named = page.run(
        "return [...document.querySelectorAll('.point:not(.faded)')].map((e) => e.dataset.name)"
    )
    assert all(word in name for name in named for word in words.split())
    assert bool(named) is bool(rows or runs)


def test_links_lead_somewhere_and_open_what_is_closed(page):
    dead = page.run(
        "return [...document.querySelectorAll('a[href^=\"#\"]')].map((a) => a.hash.slice(1))"
        ".filter((id) => !document.getElementById(id))"
    )
    assert dead == []
    page.click(f"{SUMMARY} tbody tr:nth-child(2) th a")
    target = page.run("return location.hash.slice(1)")
    assert page.run("return document.getElementById(arguments[0]).open", target)
    assert "method_fingerprint" in page.run(
        "return document.getElementById(arguments[0]).innerText", target
    )
    assert page.run("return scrollY") > 0


def test_links_to_files_lead_to_files(page, address):
    names = page.run(
        "return [...document.querySelectorAll('a')].map((a) => a.getAttribute('href'))"
        ".filter((href) => !href.startsWith('#') && !href.startsWith('https:'))"
    )
    folder = Path(address.removeprefix("file://")).parent
    missing = [name for name in names if not (folder / name).is_file()]
    assert missing == ["leaderboard.json"]  # which `build` writes
    assert any(name.endswith(".svg") for name in names)


def test_tips_come_with_pointer_and_keyboard(page):
    page.hover(f"{SUMMARY} tbody tr:nth-child(2) td:nth-child(2)")
    tip = page.run("return document.getElementById('tip').innerText")
    assert "score 65.0" in tip
    assert "visual tokens" in tip
    page.press("Escape")
    assert page.run("return document.getElementById('tip').hidden")
    stops = page.run(
        f"return document.querySelectorAll('{SUMMARY}')[0]"
        ".querySelectorAll('td[tabindex=\"0\"]').length"
    )
    assert stops == 1
    page.run(f"document.querySelector('{SUMMARY} td[tabindex=\"0\"]').focus()")
    for key in ("Right", "Down"):
        page.press(key)
    assert page.run("return document.activeElement.dataset.tip").startswith("vrope, tempeval_")
    assert page.run("return document.activeElement.getAttribute('aria-describedby')") == "tip"
    assert not page.run("return document.getElementById('tip').hidden")


def test_points_of_a_plot_take_the_focus(page):
    page.run("document.querySelector('svg .point[tabindex=\"0\"]').focus()")
    first = page.run("return document.activeElement.dataset.name")
    page.press("Right")
    assert page.run("return document.activeElement.dataset.name") != first
    assert not page.run("return document.getElementById('tip').hidden")


def test_the_tip_of_what_has_the_focus_stays_when_the_page_scrolls(page):
    page.run("document.querySelector('svg .point[tabindex=\"0\"]').focus()")
    page.run("document.dispatchEvent(new Event('scroll'))")
    assert not page.run("return document.getElementById('tip').hidden")
    page.hover(f"{SUMMARY} td[data-tip]")
    page.run("document.activeElement.blur(); document.dispatchEvent(new Event('scroll'))")
    assert page.run("return document.getElementById('tip').hidden")


def test_the_theme_follows_the_system_and_then_the_reader(page, address):
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    page.media(prefers_color_scheme="dark")
    dark = page.run(ground)
    assert light != dark
    page.click("#theme")
    assert page.run(ground) == light
    page.open(address)
    assert page.run(ground) == light
    assert page.run("return document.getElementById('theme').textContent") == "Dark theme"


@pytest.mark.parametrize("width", [360, 768])
def test_a_narrow_screen_has_no_sideways_scroll(page, address, width):
    page.size(width, 740, mobile=True)
    page.open(address)
    page.run("for (const each of document.querySelectorAll('details')) each.open = true")
    root = "document.documentElement"
    assert page.run(f"return {root}.scrollWidth") <= width
    assert page.run(f"window.scrollTo(500, 0); return scrollX + {root}.scrollLeft") == 0
    box = page.run(
        f"const box = document.querySelector('{SUMMARY}').parentNode;"
        "return [box.scrollWidth > box.clientWidth, getComputedStyle(box).overflowX]"
    )
    assert box[1] == "auto"
    assert box[0] or width > 360  # the table is wider than a phone and scrolls in its box


def test_tables_and_plots_fit_their_screen_or_paper(page, address):
    """Task tables a usual screen, plots a phone, and everything paper."""
    wide = (
        "for (const each of document.querySelectorAll('details')) each.open = true;"
        "return [...document.querySelectorAll('.scroll')]"
        ".filter((box) => box.scrollWidth > box.clientWidth + 1"
        " && (!arguments[0] || box.matches(arguments[0])))"
        ".map((box) => box.getAttribute('aria-label'))"
    )
    assert page.run(wide, "section > details > .scroll, section > .scroll") == []
    page.size(390, 844, mobile=True)
    page.open(address)
    assert page.run(wide, "figure > .scroll") == []
    page.size(794, 1123)
    page.media("print")
    page.open(address)
    assert page.run(wide, "") == []
    assert page.run("return document.documentElement.scrollWidth") <= 794


def test_a_tip_stays_on_a_narrow_screen(page, address):
    page.size(360, 740, mobile=True)
    page.open(address)
    page.run(f"document.querySelector('{SUMMARY} td[data-tip]').focus()")
    box = page.run(
        "const box = document.getElementById('tip').getBoundingClientRect();"
        "return [box.left, box.right, box.top, box.bottom, innerHeight]"
    )
    assert box[0] >= 0
    assert box[1] <= 360
    assert box[2] >= 0
    assert box[3] <= box[4]


def test_paper_has_the_tables_and_not_the_tools(page):
    page.media("print")
    seen = page.run(
        "return [getComputedStyle(document.querySelector('.tools')).display,"
        "getComputedStyle(document.getElementById('theme')).display,"
        "getComputedStyle(document.querySelector('.scroll')).overflowX]"
    )
    assert seen == ["none", "none", "visible"]
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("return document.querySelectorAll('details:not([open])').length") == 0
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("return document.querySelectorAll('details:not([open])').length") > 0


def test_without_scripts_everything_can_be_read(browser, address):
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(address)
        shown = browser.devtools("Page.getLayoutMetrics")["cssContentSize"]
        assert shown["height"] > 2000
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    browser.open(address)
    assert browser.log() == []


def poisoned(value, key=""):
    """Put EVIL into every text of a document that comes from a file of somebody else's."""
    ours = {"id", "match_on", "kind", "position_rule", "unit"}
    if isinstance(value, dict):
        return {k: v if k in ours else poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return (
            value
            if key == "tables" and value and isinstance(value[0], str)
            else [poisoned(each, key) for each in value]
        )
    return f"{value}{EVIL}" if isinstance(value, str) else value


def test_nothing_from_a_record_runs_or_becomes_an_element(browser, document, address, tmp_path):
    evil = poisoned(copy.deepcopy(document))
    evil["methodology"]["match_on"] = "visual_tokens"
    for run in evil["runs"]:
        run["facts"][EVIL] = {EVIL: EVIL}
    write_all({tmp_path / name: content for name, content in files(evil).items()})
    count = (
        "return Object.fromEntries(['script', 'style', 'img', 'iframe', 'object', 'svg', 'title']"
        ".map((name) => [name, document.getElementsByTagName(name).length]))"
    )
    browser.open(address)
    plain = browser.run(count)
    browser.open(f"file://{tmp_path}/index.html")
    assert browser.dialog() is None
    assert browser.run("return window.hacked === undefined")
    assert browser.log() == []
    assert browser.run(count) == plain
    assert "<script>window.hacked" in browser.run("return document.body.innerText")
    browser.run("for (const each of document.querySelectorAll('details')) each.open = true")
    handlers = browser.run(
        "return [...document.querySelectorAll('*')].flatMap((e) => e.getAttributeNames())"
        ".filter((name) => name.startsWith('on'))"
    )
    assert handlers == []
    browser.run(f"document.querySelector('{SUMMARY} td[data-tip]').focus()")
    assert browser.run("return document.getElementById('tip').children.length") == 0
    for picture in (tmp_path / "plots").glob("*.svg"):
        browser.open(f"file://{picture}")
        assert browser.dialog() is None
        assert browser.run("return document.getElementsByTagName('script').length") == 0
        assert browser.run("return document.documentElement.tagName") == "svg"


def test_the_policy_stops_what_would_get_in(browser, address):
    browser.open(address)
    browser.run(
        "const script = document.createElement('script');"
        "script.textContent = 'window.hacked = 1'; document.body.append(script)"
    )
    assert browser.run("return window.hacked === undefined")
    assert any("Content Security Policy" in line for line in browser.log())
