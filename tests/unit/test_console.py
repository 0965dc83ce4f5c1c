"""Text of others is made visible before it is printed, in one place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import typer

import tempeval
from tempeval import cli
from tempeval.console import clean, say, visible
from tempeval.errors import RunFailed


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\x9bb\x7fc\0", r"a\x9bb\x7fc\x00"),
        ("pas\u200b", r"pas\u200b"),
        ("p\u2060as\ufeff\u00ad", r"p\u2060as\ufeff\xad"),
        ("\u202esap", r"\u202esap"),
        ("a\u2066b\u061cc", r"a\u2066b\u061cc"),
        ("a\u00a0b\u2003c", r"a\xa0b\u2003c"),
        ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
        ("a\u3164\u115f\u2800\ufe0f\u034f", r"a\u3164\u115f\u2800\ufe0f\u034f"),
        ("\U000e0041\ud800\ue000", r"\U000e0041\ud800\ue000"),
        ("é Δ ± † 视频\u3000B。 🎬 na\u0308me", "é Δ ± † 视频\u3000B。 🎬 na\u0308me"),
    ],
)
def test_what_cannot_be_seen_is_written_as_an_escape(text, shown):
    assert visible(text) == shown
    assert clean(text) == shown


def test_line_ends_stay_or_become_a_space():
    assert visible("a\nb\rc\td") == "a\nb\\rc\\td"
    assert clean(" a\n\n b\r\nc\td ") == "a b c d"


def test_only_our_own_mark_may_have_colours(capsys):
    say(" \x1b[2Jx", mark=typer.style("ok", fg="green"))
    say("\u202eerror", error=True)
    out, err = capsys.readouterr()
    assert (out.endswith(" \\x1b[2Jx\n"), err) == (True, "\\u202eerror\n")


def test_a_named_error_is_printed_visibly(monkeypatch, capsys):
    def fail(**_options):
        raise RunFailed("first failure clip\x1b]0;own\x07: cannot decode")

    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main([])
    assert capsys.readouterr().err == "error: first failure clip\\x1b]0;own\\x07: cannot decode\n"


def test_every_command_prints_through_one_function():
    """Or says why not: a path that a shell reads back must stay what it is."""
    raw = []
    for path in sorted(Path(tempeval.__file__).parent.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef):
                calls = [ast.unparse(n) for n in ast.walk(function) if isinstance(n, ast.Attribute)]
                raw += [function.name for name in calls if name in ("typer.echo", "click.echo")]
    assert sorted(raw) == ["path", "print_tasks_path", "render", "say"]
