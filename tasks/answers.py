"""Read what a model's text answers: the answer out of its thinking and tags, and named choices.

Readers never guess: where a person could not say what was meant, nothing is read.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.tasks.failed import STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_THOUGHT = (
    r"(?:\w{1,20}[:_])?"
    r"(?:think(?:ing)?|thoughts?|reason(?:ing)?|analysis|reflection|rationale|scratchpad)"
)
#: Beginnings of thinking: tags, and the marks of Kimi, Magistral, OpenThinker, gpt-oss and Gemma.
_OPENS = re.compile(
    rf"<\s?{_THOUGHT}\s?>|\[THINK\]|◁think▷|<\|(?:begin_of_thought|think_start)\|>"
    r"|<\|channel\|>\s?(?:analysis|commentary)\b[^<]{0,80}<\|message\|>"
    r"|<\|channel>\s?thought|<unused94>\s?thought",
    re.IGNORECASE,
)
#: Ends of thinking, in the same spellings.
_CLOSES = re.compile(
    rf"<\s?/\s?{_THOUGHT}\s?>|\[/THINK\]|◁/think▷|<\|(?:end_of_thought|think_end)\|>"
    r"|<\|channel\|>\s?final\b[^<]{0,80}<\|message\|>|<channel\|>|<unused95>",
    re.IGNORECASE,
)
_ANSWER = r"(?:(?:final_?)?answer|conclusion|response|solution)"
_ANSWER_OPENS = re.compile(rf"<\s?{_ANSWER}\s?>|<\|begin_of_(?:box|solution)\|>", re.IGNORECASE)
_ANSWER_CLOSES = re.compile(rf"<\s?/\s?{_ANSWER}\s?>|<\|end_of_(?:box|solution)\|>", re.IGNORECASE)
#: Ends of a turn: what follows is another one.
_TURN_ENDS = re.compile(
    r"</?s>|</?eos>|\[EOS\]|<pad>|<\|pad\|>|<end_of_(?:turn|utterance)>|<start_of_turn>|<turn\|>"
    r"|<\|(?:im_end|im_start|endoftext|end_of_text|eot_id|eom_id|end|return|EOT|user|observation"
    r"|start|start_header_id)\|>|<｜end▁of▁sentence｜>|\n(?:USER|Human|### ?Human):",  # noqa: RUF001
    re.IGNORECASE,
)
#: What may stand before the first word of a turn.
_TURN_STARTS = re.compile(
    r"(?:\s|</?s>|<bos>|<pad>|<unk>|<\|(?:im_start|begin_of_text|assistant|start)\|>(?:assistant)?"
    r"|<\|start_header_id\|>assistant<\|end_header_id\|>|<start_of_turn>model\b|ASSISTANT:)*",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s?\{")
_DENIED_BOX = re.compile(
    r"(?:\bnot|n't|\bnever|\bcannot|\bneither|\bnor|\bexcept|\bwrong|\bincorrect)\b[^.;\n]*$",
    re.IGNORECASE,
)

#: Marks of other scripts that NFKC leaves.
_MARKS = str.maketrans(
    {
        **dict.fromkeys("。．｡", "."),  # noqa: RUF001
        **dict.fromkeys("、､،", ","),
        **dict.fromkeys("；؛", ";"),  # noqa: RUF001
        **dict.fromkeys("「『《〈“”„«»〝〞」』》〉", '"'),
        **dict.fromkeys("【〔〖", "("),  # noqa: RUF001
        **dict.fromkeys("】〕〗", ")"),  # noqa: RUF001
        **dict.fromkeys("‘’‛`´", "'"),  # noqa: RUF001
        **dict.fromkeys("‐‑‒", "-"),  # noqa: RUF001
        **dict.fromkeys("→⇒➡", "->"),
        "؟": "?",
        "।": ".",
    }
)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ue000-\uf8ff]")
_EMPHASISED = re.compile(r"(?<![\w*])(?:\*{1,3}|__)\s?([A-Z])\s?(?:\*{1,3}|__)(?![\w*])")
_LATEX = re.compile(
    r"\\(?:text|mathrm|mathbf|textbf|mathsf|mathit|textit|rm|bf)\s?\{([^{}]{0,200})\}"
)
_LATEX_MARKS = re.compile(r"\$+|\\[()\[\]]|\\[,;!]")
_HTML = re.compile(r"</?(?:b|i|u|em|strong|p|br|span|code|h[1-6]|li|ul)\s?/?>", re.IGNORECASE)
_LINE_STARTS = re.compile(
    r"^[ \t]*(?:(?:[-•·*+>#|✅✔☑]|[-=]>|\d{1,2}\.(?=[ \t]+[(\[]?[A-Z]\b))+[ \t]+)+", re.M
)
_EMPHASIS = re.compile(r"\*+|(?<!\w)_+|_+(?!\w)|`+|[ \t]*\|[ \t]*$", re.M)
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~|<del>[^<]{0,200}</del>", re.IGNORECASE)
_WIDE_BESIDE_LATIN = re.compile(
    "(?<=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])(?=[A-Za-z0-9(])"
    "|(?<=[A-Za-z0-9)])(?=[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])"
)


@dataclass(frozen=True)
class Parsed:
    """What an answer names.

    Attributes:
        index: the option, or None.
        status: `parsed`, `ambiguous` (several options), `unparsed` (none), `empty`, or `failed`
            where there is no answer.
    """

    index: int | None
    status: str


#: What is read of a question that failed.
NOTHING = Parsed(None, STATUS)


class Index(str):
    """A number of a predictions file: the index of an option where official result files hold one.

    It is its digits to every task that has no such files.
    """

    __slots__ = ()


def without_thinking(text: str) -> str:
    """Return what follows the thinking of a reasoning model; nothing where that does not end.

    Thinking ends at its last closing tag, with or without the opening one, which may have been
    part of the prompt. In an unfinished one, an `<answer>` that ends the text still counts.
    """
    *_, said = _CLOSES.split(text)
    opened = _OPENS.search(said)
    if opened is None:
        return said
    said = _within_turn(said[opened.end() :])
    closed = list(_ANSWER_CLOSES.finditer(said))
    starts = list(_ANSWER_OPENS.finditer(said))
    if closed and starts and not said[closed[-1].end() :].strip():
        return said[starts[-1].start() :]
    return ""


def final_answer(text: str) -> str:
    r"""Return a model's answer without its thinking, tags and marks of turns.

    An `<answer>` or a `\boxed{}` holds the answer where there is one; several that differ are all
    returned, one a line.
    """
    said = _within_turn(without_thinking(text))
    tagged = list(_tagged(said))
    said = "\n".join(dict.fromkeys(tagged)) if tagged else said
    boxed = list(_boxed(said))
    said = "\n".join(dict.fromkeys(filter(None, boxed))) if boxed else said
    return said.strip()


def official_text(text: str) -> str | None:
    """Return what an official rule is given: the text after the thinking, otherwise as it is.

    Returns:
        None where a text is nothing but thinking: that is no answer, not an empty one.
    """
    if _CLOSES.search(text) is None and _OPENS.search(text) is None:
        return text
    return without_thinking(text).strip() or None


def _within_turn(text: str) -> str:
    started = _TURN_STARTS.match(text)
    said = text[started.end() :] if started else text
    return _TURN_ENDS.split(said, maxsplit=1)[0]


def _tagged(text: str) -> Iterator[str]:
    """Yield what stands in the answer's tags; before a closing one, if the prompt opened it."""
    before, *opened = _ANSWER_OPENS.split(text)
    if not opened and _ANSWER_CLOSES.search(before):
        opened = [before]
    for piece in opened:
        yield _ANSWER_CLOSES.split(piece, maxsplit=1)[0].strip()


def _boxed(text: str) -> Iterator[str]:
    """Yield the contents of boxes, empty where the words before one deny it."""
    at = 0
    while found := _BOX.search(text, at):
        depth, at = 1, found.end()
        while at < len(text) and depth and text[at] != "\n":
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            at += 1
        content = text[found.end() : at - (depth == 0)]
        denied = _DENIED_BOX.search(text[max(0, found.start() - 60) : found.start()])
        yield "" if denied else content.strip()


def plain(text: str) -> str:
    """Return a text without markup, in ASCII punctuation; emphasised lone letters in brackets."""
    said = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).translate(_MARKS)
    said = _EMPHASISED.sub(r"(\1)", _HTML.sub(" ", _STRUCK.sub(" ", said)))
    said = _LATEX_MARKS.sub("", _LATEX.sub(r"\1", _LATEX.sub(r"\1", said)))
    said = _EMPHASIS.sub("", _LINE_STARTS.sub("", said))
    return _WIDE_BESIDE_LATIN.sub(" ", said).strip()


def normalise(text: str) -> str:
    """Return lower-case words separated by single spaces, without punctuation."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", folded))


_NEGATIONS = re.compile(
    r"\b(?:not?|none|nor|neither|never|cannot|without|except|unlike|wrong|incorrect|false|\w+n t)\b"
)


def match_choice(text: str, choices: Sequence[str]) -> str | None:
    """Return the one choice that a text names, as whole words.

    Args:
        text: what the model wrote.
        choices: the accepted answers, each of one or more words.

    Returns:
        The choice as listed, or None if the text names none or several of them, or negates
        something beside it.
    """
    padded = f" {normalise(final_answer(text))} "
    found = [choice for choice in choices if (w := normalise(choice)) and f" {w} " in padded]
    if len(found) != 1:
        return None
    rest = padded.replace(f" {normalise(found[0])} ", "  ")
    return None if _NEGATIONS.search(rest) else found[0]


_YES_NO = r"(yes|no|yeah|yep|yup|nope|nah)"
#: A first word that is no answer: "no doubt", "no way to tell", "yes or no".
_FIRST = re.compile(
    rf"\W*{_YES_NO}\b(?!'|\s(?:doubt|question|idea|way|clue|information|answer|evidence|indication"
    rf"|one|longer|clear|definit\w+|sufficient|enough)\b"
    rf"|\s?(?:/|\b(?:and|or)\b)\s?{_YES_NO}\b)",
    re.IGNORECASE,
)
_BOTH = re.compile(rf"\W*{_YES_NO}\s?(?:/|\b(?:and|or)\b)\s?{_YES_NO}\b", re.IGNORECASE)
#: `The answer is yes`, `I would say no, because ...`.
_SAID = re.compile(
    rf"(?:\b(?:answer|it|that|this)(?:\sis|'s|\swould be|\smust be)|\b(?:answer|say|think|believe"
    rf"|guess|wait|actually|correction|mean|sure|certainly|definitely|so|therefore)[,:]?|:)\s?[:\"'(]?\s?{_YES_NO}\b"
    r"(?=[\s\"')]{0,4}(?:$|[.,;!:\n]|\b(?:because|since|as|for|based)\b))",
    re.IGNORECASE,
)


def strict_yes_no(text: str) -> Parsed:
    """Read an answer that begins with yes or no, or says so in a phrase like "the answer is no".

    What follows a leading yes or no does not change it, unless it says the other one in such a
    phrase; "no" elsewhere ("there is no ball") is no answer.

    Returns:
        Index 0 for yes, 1 for no.
    """
    if not text.strip():
        return Parsed(None, "empty")
    said = plain(final_answer(text))
    first = _FIRST.match(said)
    found = {_is_no(m[1]) for m in _SAID.finditer(said)}
    if first:
        found.add(_is_no(first[1]))
    if len(found) > 1 or _BOTH.match(said):
        return Parsed(None, "ambiguous")
    return Parsed(int(found.pop()), "parsed") if found else Parsed(None, "unparsed")


def _is_no(word: str) -> bool:
    return word.lower().startswith("n")
