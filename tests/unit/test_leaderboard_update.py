"""A block of a README is replaced, and nothing else of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tempeval.leaderboard.update import BadMarkers, update_block

FIRST, LAST = "<!-- tempeval-leaderboard -->", "<!-- /tempeval-leaderboard -->"


@pytest.fixture
def readme(tmp_path):
    path = tmp_path / "README.md"

    def write(*lines, end="\n"):
        path.write_bytes(end.join([*lines, ""]).encode())
        return path

    return write


def test_what_stands_between_the_markers_is_replaced(readme):
    path = readme("# Title", FIRST, "old", "", "older", LAST, "tail")
    assert update_block(path, "\n| a |\n|---|\n\n") is True
    assert path.read_text() == f"# Title\n{FIRST}\n| a |\n|---|\n{LAST}\ntail\n"


def test_an_empty_block_and_an_empty_text(readme):
    path = readme(FIRST, LAST)
    assert update_block(path, "new")
    assert path.read_text() == f"{FIRST}\nnew\n{LAST}\n"
    assert update_block(path, "")
    assert path.read_text() == f"{FIRST}\n{LAST}\n"


def test_the_same_text_writes_nothing(readme):
    path = readme(FIRST, "same", LAST)
    os.utime(path, ns=(1, 1))
    assert update_block(path, "same\n") is False
    assert path.stat().st_mtime_ns == 1


def test_other_blocks_stay(readme):
    path = readme("<!-- methods -->", "mine", "<!-- /methods -->", FIRST, LAST)
    update_block(path, "new")
    assert path.read_text().startswith("<!-- methods -->\nmine\n<!-- /methods -->\n")
    update_block(path, "yours", name="methods")
    assert "<!-- methods -->\nyours\n<!-- /methods -->" in path.read_text()


def test_line_ends_and_byte_order_mark_stay(readme):
    path = readme(f"\ufeff{FIRST}", "old", LAST, "tail", end="\r\n")
    assert update_block(path, "a\nb")
    assert path.read_bytes().decode() == f"\ufeff{FIRST}\r\na\r\nb\r\n{LAST}\r\ntail\r\n"
    assert update_block(path, "a\nb") is False


def test_markers_without_a_line_end_after_the_last(tmp_path):
    path = tmp_path / "README.md"
    path.write_text(f"{FIRST}\n{LAST}")
    update_block(path, "new")
    assert path.read_text() == f"{FIRST}\nnew\n{LAST}"


def test_permissions_and_links_stay(readme, tmp_path):
    path = readme(FIRST, LAST)
    path.chmod(0o640)
    link = tmp_path / "link.md"
    link.symlink_to(path)
    update_block(link, "new")
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert "new" in path.read_text()


@pytest.mark.parametrize("fence", ["```", "~~~~", "  ```"])
def test_a_marker_in_a_code_block_is_an_example(readme, fence):
    shown = (f"{fence}markdown", FIRST, LAST, fence.strip())
    path = readme(*shown, FIRST, LAST)
    update_block(path, "new")
    assert path.read_text().splitlines() == [*shown, FIRST, "new", LAST]
    with pytest.raises(BadMarkers, match="there is no line"):
        update_block(readme(*shown), "new")


@pytest.mark.parametrize(
    "shown",
    [
        ("    " + FIRST, "    " + LAST),
        ("\t" + FIRST, "\t" + LAST),
        ("<!-- Put here:", FIRST, LAST, "-->"),
        ("<!--", FIRST, "", LAST),
    ],
    ids=["indented", "tab", "comment", "comment that a marker ends"],
)
def test_a_marker_in_indented_code_or_in_a_comment_is_none(readme, shown):
    path = readme(*shown)
    before = path.read_bytes()
    with pytest.raises(BadMarkers, match="there is no line"):
        update_block(path, "new")
    assert path.read_bytes() == before


def test_comments_of_one_line_hide_nothing(readme):
    path = readme("<!-- one -->", "<!-- two --> text", FIRST, LAST)
    assert update_block(path, "new")


def test_a_marker_inside_a_sentence_is_none(readme):
    path = readme(f"Between `{FIRST}` and `{LAST}`:", FIRST, LAST)
    update_block(path, "new")
    assert path.read_text().splitlines()[1:] == [FIRST, "new", LAST]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["text"], f"there is no line '{FIRST}'"),
        ([FIRST, "text"], f"there is no line '{LAST}'"),
        ([LAST], f"there is no line '{FIRST}'"),
        ([LAST, "text", FIRST], f"'{LAST}' (line 1) stands above '{FIRST}' (line 3)"),
        ([FIRST, LAST, FIRST, LAST], f"'{FIRST}' stands in lines 1, 3"),
        ([FIRST, LAST, LAST], f"'{LAST}' stands in lines 2, 3"),
        ([FIRST, "```", LAST], f"there is no line '{LAST}'"),
    ],
)
def test_markers_that_name_no_block(readme, lines, reason):
    path = readme(*lines)
    before = path.read_bytes()
    with pytest.raises(BadMarkers) as caught:
        update_block(path, "new")
    message = str(caught.value)
    assert message.startswith(f"{path}: {reason}.")
    assert f"Give one line '{FIRST}'" in message
    assert path.read_bytes() == before


def test_text_that_would_end_the_block_early(readme):
    path = readme(FIRST, LAST)
    with pytest.raises(BadMarkers, match="a marker of its own"):
        update_block(path, f"a\n {LAST}\nb")


def test_files_that_are_no_document(tmp_path):
    with pytest.raises(BadMarkers, match="no such file"):
        update_block(tmp_path / "none.md", "new")
    path = tmp_path / "latin.md"
    path.write_bytes(b"abc\xe9")
    with pytest.raises(BadMarkers, match=r"not UTF-8 \(byte 3\)\. Save it as UTF-8$"):
        update_block(path, "new")
    path.write_bytes(f"{FIRST}\n{LAST}\n".encode("utf-16"))
    with pytest.raises(BadMarkers, match=r"not UTF-8 \(byte 0\)\. Save it as UTF-8$"):
        update_block(path, "new")
    with pytest.raises(BadMarkers, match="no name of a block"):
        update_block(path, "new", name="a --> b")


def test_a_failed_write_leaves_the_document(readme, monkeypatch):
    path = readme(FIRST, "old", LAST)

    def refuse(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space"):
        update_block(path, "new")
    assert "old" in path.read_text()
    assert [found.name for found in path.parent.iterdir()] == ["README.md"]
