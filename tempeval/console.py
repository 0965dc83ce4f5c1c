"""Text of others (names, paths, messages) made visible before it is printed, and the console.

A sample id may hold an escape sequence that rewrites the terminal, a name a character of no width
that makes it look like another. Whatever prints such text goes through `visible` or `clean`.
"""

from __future__ import annotations

import re
import unicodedata

# Controls, formats (of no width, or turning the direction), lone surrogates, private use,
# unassigned ones, separators of lines and paragraphs.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# What has another category and shows nothing all the same: fillers of Hangul, vowels of Khmer and
# selectors that Unicode lists as ignorable by default, and the empty pattern of Braille.
_IGNORABLE = (
    *((0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2800, 0x2800)),
    *((0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF)),
)
# A space that is none of these looks like one and makes another name.
_SPACES = frozenset(" \u3000")
_BLANK = re.compile(r"[ \t\n\r\f\v]+")


def visible(text: str) -> str:
    r"""Write every character that cannot be seen as its escape, such as `\x1b`; line ends stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "\n" else _visible(c) for c in text)


def clean(text: str) -> str:
    """Make text printable as one line: blanks and line ends become one space, see `visible`."""
    return visible(_BLANK.sub(" ", text).strip(" "))


def say(text: str, *, error: bool = False, mark: str = "") -> None:
    """Print lines on the console, whatever the text holds.

    Args:
        text: lines; text of others may be in them.
        error: print to standard error.
        mark: our own text before them, with its colours.
    """
    import typer

    typer.echo(f"{mark}{visible(text)}", err=error)


def _visible(character: str) -> str:
    if character.isascii() and character.isprintable():
        return character
    category = unicodedata.category(character)
    number = ord(character)
    unseen = category in _UNSEEN or any(low <= number <= high for low, high in _IGNORABLE)
    if unseen or (category == "Zs" and character not in _SPACES):
        return character.encode("unicode_escape").decode("ascii")
    return character
