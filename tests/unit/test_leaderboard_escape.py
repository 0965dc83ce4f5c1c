"""Text from records stays text in GitHub's markdown."""

from __future__ import annotations

import pytest

from tempeval.leaderboard.render import _prose
from tempeval.leaderboard.text import code, escape


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("__pas__", r"\_\_pas\_\_"),
        ("_x_ y", r"\_x\_ y"),
        ("a _b", r"a \_b"),
        ("mini_action__2", "mini_action__2"),
        ("~~x~~", r"\~\~x\~\~"),
        ("*a* [b](c) `d` e|f", r"\*a\* \[b\](c) \`d\` e\|f"),
        ("a\\", "a\\\\"),
        ("<b> & c", "&lt;b&gt; &amp; c"),
        ("$x$", "<span>$</span>x<span>$</span>"),
        ("@user a@b.c", "<span>@</span>user a<span>@</span>b.c"),
        ("#12, # and :heart: 1:23:45", "<span>#</span>12, # and <span>:</span>heart: 1:23:45"),
        ("https://a.b HTTP://c", r"https\://a.b HTTP\://c"),
        ("www.a.b ftp://c", r"www\.a.b ftp\://c"),
        ("pas[unit=position;a=0.5]+kv (1.5 %)", r"pas\[unit=position;a=0.5\]+kv (1.5 %)"),
    ],
)
def test_no_mark_is_left(text, safe):
    assert escape(text) == safe


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("--", r"\--"),
        ("+ a", r"\+ a"),
        ("12. a", r"12\. a"),
        ("-5.0", "-5.0"),
        ("1.5 a", "1.5 a"),
        ("Model a", "Model a"),
    ],
)
def test_a_line_of_prose_starts_no_block(text, safe):
    assert _prose(text) == safe


def test_long_names_that_differ_at_the_end_stay_apart():
    one, two = (f"{'a' * 400}{end}" for end in "xy")
    for show in (escape, code):
        assert show(one) != show(two)
        assert len(show(one)) < 330
        assert show("b" * 300).strip("`") == "b" * 300


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a|b", "`a|b`"), ("a`b", "``a`b``"), ("`a", "`` `a ``"), ("", "`-`"), ("_x_", "`_x_`")],
)
def test_inline_code_keeps_every_character(text, shown):
    assert code(text) == shown
