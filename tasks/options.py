"""Read which option of a multiple-choice question an answer means: exactly one, or none.

The rule is ours; where a benchmark has an official one, its own module has that beside it. Each
mention of an option, by letter or by text, first becomes one character in place of its words; what
the words around it say of it is read afterwards, sentence by sentence.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from tempeval.tasks.answers import Parsed, final_answer, normalise, plain, strict_yes_no

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: Characters that stand for mentions: of letters, and of texts, by the first option with the text.
_LETTER, _TEXT = 0xE000, 0xE100
#: Characters on either side of a mention that may say something of it; sentences have no end.
_REACH = 400
#: Places of a text that may name options; one with more is a model that goes round in circles.
_MOST = 300
_M = "[\ue000-\uf8ff]"
_L = "[\ue000-\ue0ff]"
_T = "[\ue100-\uf8ff]"

_NOUN = (
    r"(?:\b(?:answers?|ans|options?|choices?|letter|alternative|selection|antwort|réponse|reponse"
    r"|respuesta|resposta|risposta|ответ)\b|答案|选项|選項|选择|選擇|正解|答え|정답|답)"
)
_IS = r"(?:\b(?:is|was|be|es|est|ist)\b|[é是为は은는])"
_HEDGE = (
    r"(?:\b(?:most|very)?\s?(?:definitely|clearly|likely|probably|simply|indeed|therefore|thus"
    r"|obviously|certainly|then|the|option|choice|letter)\b\s?)"
)
_REASON = (
    r"\b(?:because|since|as|due|given|based|for|with|but|not|rather|instead|over|and|or|nor)\b"
)
#: What may follow a lone letter that is an answer: no word that it could be the article of.
_END = rf"(?=[\s\"')\]]{{0,4}}(?:$|[.,;:!?\n/&|{_M[1:-1]}-]|{_REASON}|です|だ|입니다|이다))"
#: `(B)` or `[b]` anywhere but at the end of a word, as in "object(s)".
_BRACKETED = re.compile(r"(?<!\w)[(\[{]\s?([A-Za-z])\s?[)\]}]")
#: `(a)` before a word other than a reason, and what makes it a letter there too.
_BEFORE_WORD = re.compile(rf"[ \t]{{1,4}}(?!(?:{_REASON}))[\w{_M[1:-1]}]")
_ASKED_FOR = re.compile(
    rf"(?:^|{_NOUN}(?:\s{{1,4}}(?:is|would\s+be|should\s+be))?)[\s:\"']{{0,4}}$", re.IGNORECASE
)
#: A letter at the start of a line or a sentence: alone, or before `)`, `.`, `:` or a closing quote
#: or bracket; the dot of "e.g." is none.
_LEADING = re.compile(
    r"(?:^[\s\"'(\[]{0,8}([A-Za-z])|(?<=[.!?;]\s)([A-Z]))"
    r"\s?(?:[)\]:](?:\.(?=\s))?|\.(?!\w\.)|[\"'](?!\w)|$)",
    re.MULTILINE,
)
#: `B, because`, `B - it rolls`, `B!` at the start of a line.
_LEADING_REASON = re.compile(
    rf"^[\s\"'(\[]{{0,8}}([A-Z])(?=\s?(?:[,;!?]|-(?!\w)|{_REASON}|{_M}))", re.MULTILINE
)
#: `answer is B`, `Answer: b`, `option B`, `the answer that fits best is B`, before an end or
#: a reason. A small "a" needs the colon: "the answer is a" may be the start of more.
_NAMED = re.compile(
    rf"{_NOUN}(?:[^.;:!?\n{_M[1:-1]}]{{0,60}}?\s?{_IS})?\s?"
    rf"(?:[:=]|-{{1,2}}>?)?\s?{_HEDGE}{{0,3}}[\"'(\[]{{0,3}}((?-i:[A-Zb-z])|(?<=:)a"
    rf"|(?<=:\s)a){_END}",
    re.IGNORECASE,
)
#: `Option B` needs no end after it.
_NOUN_LETTER = re.compile(
    r"\b(?:[Oo]ption|OPTION|[Cc]hoice|CHOICE|[Ll]etter|[Aa]nswer|ANSWER)\s{1,3}([A-Z])(?![\w'])"
)
#: `"B"`
_QUOTED = re.compile(r"(?<!\w)([\"'])([A-Z])[.)]?\1(?!\w)")
#: `It's B.`, `I choose B.`, `So B`: a sentence of little else.
_CHOSEN = re.compile(
    r"(?:\b(?:it's|its|it is|that's|that is|this is|that would be|it would be|it must be"
    r"|it should be"
    r"|choose|chose|choosing|pick|picked|picking|select|selected|go with|going with|go for|say"
    r"|think|guess|believe|suggest|prefer|vote for|say that|so|thus|therefore|hence|definitely"
    r"|clearly|probably|likely|maybe|certainly|actually|leaving|leaves|left with"
    r"|elimination|only|also|as well as|sorry|oops|wait"
    r"|correction|i mean|rather|yes|no)|选|選|->|[:;])\s?[,:]?\s?(?:(?:it's|it is)\s)?"
    rf"{_HEDGE}{{0,2}}[\"']?((?-i:[A-Z])){_END}",
    re.IGNORECASE,
)
#: `not A`, `rather than A`
_NEGATED = re.compile(
    r"(?:\b(?:not|nor|neither|than|except|unlike|over|instead of|exclud\w+|eliminat\w+|reject\w*"
    rf"|rul\w+ out)|n't)\s{_HEDGE}{{0,2}}[\"']?((?-i:[A-Z])){_END}",
    re.IGNORECASE,
)
#: `The lid is B.`: of a letter that no option's text uses as a name.
_IS_LETTER = re.compile(rf"{_IS}\s{{1,3}}{_HEDGE}{{0,2}}[\"']?((?-i:[A-Z])){_END}", re.IGNORECASE)
_JUDGED = (
    r"(?:correct|right|wrong|incorrect|true|false|best|better|accurate|inaccurate|answer|option"
    r"|choice|likely|unlikely|possible|impossible|plausible|implausible|ruled|eliminated|excluded"
    r"|appropriate|suitable|consistent|inconsistent|supported|unsupported|out)"
)
#: `B is right`, `B fits best`.
_SUBJECT = re.compile(
    r"(?<![\w'])([A-Z])(?=\s(?:remains\b|(?:is|was|are|seems|appears|looks|would be|can be"
    r"|cannot be|must be)"
    rf"(?:n't| not)?\s(?:\w{{1,12}}\s){{0,3}}?{_JUDGED}\b|(?:best\s)?(?:fits|matches"
    rf"|describes|makes"
    r" sense|contradicts)\b|does(?:n't| not) (?:fit|match|describe|make|apply)\b))"
)
_COMMA = r"(?:\s?(?:[,/&+]|\b(?:and|or|nor)\b)){1,3}\s?"
#: `D or A`, `B, C`, `A: B` at the end, and a letter listed with one that is found already.
_LISTED = re.compile(
    rf"(?<![\w'])(?:[A-Z]|{_L})(?:(?:{_COMMA}(?:[A-Z](?![\w'])|{_L}))+"
    rf"|\s?:\s?(?:[A-Z]|{_L})(?=\W{{0,4}}$))"
)
_LONE_CAPITAL = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
#: A letter and the text after it: `C. time-lapse`, `(D) painting a fence`, `B - washing`.
_WITH_TEXT = re.compile(
    rf"(?:{_L}|(?<![\w'])(?:[A-Z]|[a-z](?=[)\]])))((?:[.):\],\"'(-]|\s){{0,6}})({_T})"
)
_CLOSED = re.compile(rf"[\s\"')\]]{{0,4}}(?:$|[.,;:!?\n{_M[1:-1]}-]|{_REASON})")
_LEAD_IN = re.compile(
    rf"^(?:(?:the|my|so|thus|therefore|hence|final|best|correct|right)[\s,]{{1,3}}){{0,4}}"
    rf"{_NOUN}\s{{0,3}}(?:is|:|would\s+be)\s{{0,3}}:?\s{{0,3}}",
    re.IGNORECASE,
)

#: Words that look like a denial and are none.
_IDIOMS = re.compile(
    r"\b(?:(?:there(?:'s| is) )?no (?:doubt|question)(?: that)?|without (?:a |any )?doubt"
    r"|not (?:only|just|merely)|if i (?:had|have) to[^,.]{0,30}|if (?:i'm|i am) not mistaken)\b",
    re.IGNORECASE,
)
#: What is put in between two commas and says nothing of an option.
_PARENTHESES = re.compile(
    r",\s(?:however|in my opinion|i (?:think|believe|guess)|after all|of course|in fact|therefore"
    r"|on (?:the other hand|balance)|as (?:[^,.;]{1,30})|for (?:example|sure)|clearly|though"
    r"|(?:al)?though [^,.;]{1,40}),",
    re.IGNORECASE,
)
#: Denials by words before or after an option.
_DENIAL = re.compile(
    r"\b(?:not|cannot|never|neither|nor|none|nothing|nobody|without|except|excepting"
    r"|exclud\w+|eliminat\w+|unlike"
    r"|reject\w*|dismiss\w*|discard\w*|disregard\w*|disagree\w*|contradict\w*|inconsistent|wrong\w*"
    r"|incorrect\w*|false\w*|unlikely|least|less|hardly|barely|impossible|than|avoid\w*"
    r"|fail\w*|lack\w*"
    r"|doubt\w*|unsure|uncertain|unclear|unsuitable|inappropriate"
    r"|inaccurate\w*|irrelevant|distractors?|worst|implausible|improbable|untrue"
    r"|mistak\w+|compared (?:to|with)|instead of"
    r"|rather than|other than"
    r"|opposite of|opposite(?=\s?:)|opposed to|contrary to|far from|different from"
    r"|too(?:\s\w+){1,3}\sto"
    r"|(?:all|anything"
    r"|nothing|everything|none) but|nicht|kein\w*|pas|não|nao|nunca|jamais|falsch|faux"
    r"|falso|не|нет|ни)\b"
    r"|\bno\b(?!\s?[.,;:!])|\bover\s?[\"'(]{0,2}$|n't\b|\brul(?:e|es|ed"
    r"|ing)(?:\s\w+){0,2}\sout\b|[不非没沒除错錯無无]"
    r"|[✗✘❌×]",  # noqa: RUF001
    re.IGNORECASE,
)
#: What is said of other options than the one beside it.
_OTHERS = re.compile(
    r"\b(?:others|the rest|else|(?:other|remaining)\s(?:two |three |four )?(?:options?"
    r"|choices?|answers?"
    r"|captions?|sentences?|letters?|ones?|candidates?|alternatives?|descriptions?)|alternatives)\b"
    r"|其他|其余",
    re.IGNORECASE,
)
_DENIED_OTHERS = re.compile(
    rf"(?:{_OTHERS.pattern})[^.;(]{{0,40}}?(?:{_DENIAL.pattern})"
    rf"|(?:{_DENIAL.pattern})[^.;(]{{0,15}}?(?:{_OTHERS.pattern})",
    re.IGNORECASE,
)
_COMPARED = re.compile(r"\bthan\b|\bcompared\b", re.IGNORECASE)
#: After a letter that begins a line, only a verdict on it denies it; the rest is its text.
_VERDICT = re.compile(
    r"[\s\"')\]:,.(-]{0,6}(?:(?:option|choice|answer|which)\s){0,2}"
    r"(?:(?:is|are|was|were|does|do|did|can|could|would|should|will|has|seems?|looks?|appears?)"
    r"(?:n't|\snot\b|\s(?:\w+ly\s|be\s|also\s|both\s|all\s|the\s|a\s){0,3}(?:not|never|no|wrong"
    r"|incorrect|false|ruled\sout|eliminated|excluded|out|unlikely|impossible|inaccurate"
    r"|inconsistent|implausible"
    r"|improbable|less|hardly|least)\b)|cannot\b|can't\b|(?:not|no|wrong|incorrect|false|eliminated|excluded"
    r"|ruled\sout|impossible|unlikely|contradict\w*|fails?|(?:incorrect|wrong|false|mistaken)ly)\b"
    r"|[✗✘❌×])",  # noqa: RUF001
    re.IGNORECASE,
)
_JUDGED_WRONG = re.compile(
    r"\b(?:is|are|was|were|seems|appears)(?:\s(?:\w+ly|also|both|all))?\s(?:wrong|incorrect|false"
    r"|ruled out|excluded|eliminated|not (?:the )?(?:right|correct|answer|true|shown|case|it))\b",
    re.IGNORECASE,
)
_VERB = re.compile(
    r"\b(?:is|are|was|were|am|be|do|does|did|has|have|had|can|could|will|would|should|may|might"
    r"|must|seems?|looks?|appears?|choose|chose|pick|select|go|say|think|believe|guess|answer|fits?"
    r"|match(?:es)?|shows?|describes?|works?|makes?|prefer)\b|'(?:s|d|m|re|ll)\b|n't\b",
    re.IGNORECASE,
)
#: Options that are named together: "(A) or (B)".
_GROUP = re.compile(
    rf"{_M}(?:(?:[\s,/&+\"'(]|\b(?:and|or|nor|options?|choices?|both|the)\b){{0,8}}{_M})*"
)
_HARD = re.compile(
    r"(?<!all )(?<!anything )(?<!nothing )(?<!everything )(?<!none )\bbut\b|;"
    r"|\b(?:however|therefore|thus|hence|while|whereas|yet|although|though|(?<!think )so"
    r"|instead(?! of))\b",
    re.IGNORECASE,
)
_REASONS = re.compile(r"\b(?:because|since|as|when|where)\b", re.IGNORECASE)
_SOFT = re.compile(r",|\s-{1,2}\s|[\u2013\u2014]|\band\b|[()]", re.IGNORECASE)
#: A denial before the next option is that one's, not this one's.
_OF_NEXT = re.compile(
    r"(?:\b(?:and|or)\s)?\b(?:not|never|nor|rather than|instead of|unlike|over|except|without"
    r"|(?:as\s)?opposed to)(?:\s(?:in|the|with|option|choice|by)){0,2}[\s\"'(]{0,3}$",
    re.IGNORECASE,
)
_SUPPOSED = re.compile(r"\b(?:if|unless|suppose|supposing|assuming|whether)\b", re.IGNORECASE)
#: "In a slow-motion video it would ..." says what is not there.
_WOULD = re.compile(
    r"(?<!\bi )(?<!answer )(?<!option )(?<!choice )(?<!\bit )\bwould\b", re.IGNORECASE
)
#: After the answer was given: no mere explanation of it.
_RECONSIDERED = re.compile(
    r"\b(?:wait|actually|correction|second thought|however|but|or|alternatively|maybe|perhaps|could"
    r"|may|might|possib\w+|also|too|equally|as well|both|either|sorry|instead|again)\b"
    r"|^\W{0,3}no\b",
    re.IGNORECASE,
)
_ORDINAL = re.compile(
    r"\b(first|second|third|fourth|fifth|last)\s(?:option|choice|alternative)\b", re.IGNORECASE
)
_ORDINALS = ("first", "second", "third", "fourth", "fifth")
_SENTENCE_ENDS = re.compile(r"(?<=[.!?])(?=\s)|\n+|(?<=;)\s")
#: `No, that is wrong.` takes back the sentence before it.
_TAKEN_BACK = re.compile(
    r"\s{0,3}(?:no[,.]\s|wait[,.]\s|but\s)?(?:that|this|it|which)(?:\s(?:is|was|seems|would be)|'s"
    r"|(?=\scan))?(?:\s(?:\w+ly|cannot be|can't be|also))?(?:\s(?:wrong|incorrect|false|mistaken)"
    r"|(?:n't|\snot)\s(?:right|correct|true|so|it|the\s(?:right|correct|answer|case)))\b",
    re.IGNORECASE,
)
_DECLARED_BEFORE = re.compile(
    rf"(?:\banswer|\bans\b|答案|\bcorrect\b|\bbest\b|\bright\s(?:option|choice)|\bchoose"
    rf"|\bpick|\bselect"
    rf"|\bgo(?:ing)?\swith|\bconclu)[^{_M[1:-1]}]{{0,40}}$",
    re.IGNORECASE,
)
_DECLARED_AFTER = re.compile(
    r"[\s\"')]{0,4}(?:is|was|would be|seems|must be)\s(?:\w{1,10}\s){0,3}?(?:correct|right|best"
    r"|better|answer|accurate|appropriate|suitable)\b",
    re.IGNORECASE,
)


class _Mention(NamedTuple):
    """A group of options that one place of an answer names together, and what is said of them."""

    options: frozenset[int]
    letters: bool
    chosen: bool
    denied: bool
    alone: bool
    explicit: bool
    reconsidered: bool
    sentence: int

    @property
    def declared(self) -> bool:
        """Whether it is called the answer, or is all that its sentence says."""
        return self.alone or self.explicit


def parse_option(
    text: str, options: Sequence[str], *, digits: bool = False, by_text: bool = True
) -> Parsed:
    """Read which option an answer means: exactly one, or none.

    Thinking, tags and marks of turns are put aside first (see `final_answer`). Then a letter counts
    alone, in brackets, before `)`, `.` or `:` at the start of a line, before the text of its own
    option, or where the words before it ask for one ("answer", "I choose"); the word "a" does not.
    Without a letter, an option's text counts when it is the whole answer or its words stand in it.
    An option that is denied, supposed or asked about is not meant. A letter and a text that
    contradict each other are ambiguous, and so are several options, unless one is declared the
    answer and the others stand in explanations.

    Args:
        text: what the model wrote.
        options: the options' texts, in order of their letters.
        digits: whether a bare number is an index from 0.
        by_text: whether an option's text means it where there is no letter.
    """
    if not text.strip():
        return Parsed(None, "empty")
    said = plain(final_answer(text))
    if digits and (number := said.strip(" .()[]\"'")).isascii() and number.isdigit():
        return _one({int(number)} if len(number) < 3 else set(), options)
    if by_text and (whole := _whole(said, options)):
        return _one(whole, options)
    marked = _marked(said, options)
    if len(_GROUP.findall(marked)) > _MOST:
        return Parsed(None, "ambiguous")
    mentions = [m for m in _mentions(marked, options) if m.letters or by_text]
    return _decide(mentions, options)


def _one(found: set[int], options: Sequence[str]) -> Parsed:
    if len(found) > 1:
        return Parsed(None, "ambiguous")
    index = next(iter(found), None)
    if index is None or index >= len(options):
        return Parsed(None, "unparsed")
    return Parsed(index, "parsed")


def _whole(said: str, options: Sequence[str]) -> set[int]:
    """Return the option whose words are all of a text; with a letter that is another one, both."""
    found: set[int] = set()
    for text in (said, _LEAD_IN.sub("", said)):
        found = found or _equal(text, options)
    word = normalise(_LEAD_IN.sub("", said)).upper()
    if found and len(word) == 1 and word in LETTERS[: len(options)]:
        found |= {LETTERS.index(word)}
    if (
        not found
        and len(options) == 2
        and {normalise(option) for option in options} == {"yes", "no"}
    ):
        answer = strict_yes_no(said).index
        found = set() if answer is None else _equal(("yes", "no")[answer], options)
    return found


def _equal(text: str, options: Sequence[str]) -> set[int]:
    """Return the one option whose words are those of a text, if there is one."""
    wanted = _words(text) or text.strip()
    same = {i for i, o in enumerate(options) if wanted and (_words(o) or o.strip()) == wanted}
    return same if len(same) == 1 else set()


def _decide(mentions: Sequence[_Mention], options: Sequence[str]) -> Parsed:
    """Return the option that the mentions leave, if it is one."""
    letters = {index for m in mentions if m.chosen and m.letters for index in m.options}
    # A text that is declared the answer weighs as much as a letter.
    chosen = letters | {i for m in mentions if m.chosen and m.declared for i in m.options}
    by_text = not chosen
    if by_text:
        chosen = {index for m in mentions if m.chosen for index in m.options}
    # What is said of an option's words beside a chosen letter may be said of something else.
    denied = {i for m in mentions if m.denied and (m.letters or by_text) for i in m.options}
    if chosen & denied:
        return Parsed(None, "ambiguous")
    if len(chosen) > 1:
        chosen = _declared(mentions, len(options)) or chosen
    return _one(chosen, options)


def _declared(mentions: Sequence[_Mention], options: int) -> set[int]:
    """Return the option that is declared the answer, if the others stand in explanations of it.

    An explanation is a sentence before or after, and one after that takes nothing back.
    """
    # "It could be A or B, but B is better": what follows chooses among those named together.
    singles = [len(m.options) == 1 and m.chosen and m.explicit for m in mentions]
    mentions = [
        m
        for place, m in enumerate(mentions)
        if not any(
            of and later.options < m.options
            for of, later in zip(singles[place + 1 :], mentions[place + 1 :], strict=True)
        )
    ]
    found = {index for m in mentions if m.chosen and m.declared for index in m.options}
    said = {m.sentence for m in mentions if m.chosen and m.declared}
    alone = {index for m in mentions if m.alone for index in m.options}
    if mentions[-1].explicit and len(alone) >= options:
        return set(mentions[-1].options)  # after a copy of all options
    for m in mentions if said else ():
        if m.chosen and (m.sentence in said or (m.sentence > min(said) and m.reconsidered)):
            found |= m.options
    return found


def _marked(said: str, options: Sequence[str]) -> str:
    """Return a text with one character in place of each mention of an option."""
    texts = _texts(tuple(options))
    if texts.pattern is not None:
        said = texts.pattern.sub(lambda m: texts.marks.get(_words(m[0]), m[0]), said)
    said = _WITH_TEXT.sub(lambda m: _letter_with_text(m, texts.same), said)
    said = _own_word(said, options)
    known = LETTERS[: len(options)]
    said = _ORDINAL.sub(lambda m: _ordinal(m, len(options)), said)
    said = _LISTED.sub(lambda m: _list(m, known), said)
    said = _BRACKETED.sub(lambda m: m[0] if _is_article(m) else f" {_mark(m[1])} ", said)
    for rule in (_LEADING, _NAMED, _NOUN_LETTER, _QUOTED, _CHOSEN, _LEADING_REASON):
        if rule is not _LEADING_REASON or not texts.names:
            said = rule.sub(_replaced, said)
    if not texts.names:
        for rule in (_NEGATED, _IS_LETTER, _SUBJECT):
            said = rule.sub(_replaced, said)
    said = _LISTED.sub(lambda m: _list(m, known), said)
    return _WITH_TEXT.sub(lambda m: _letter_with_text(m, texts.same), said)


def _mark(letter: str) -> str:
    return chr(_LETTER + LETTERS.index(letter.upper()))


def _replaced(found: re.Match[str]) -> str:
    """Return a match with a mention in place of its last group and what follows that."""
    last = found.lastindex or 0
    start, end = (at - found.start() for at in found.span(last))
    after = found[0][end:]
    return f"{found[0][:start]}{_mark(found[last])}{after if after.isspace() else ' '}"


def _ordinal(found: re.Match[str], options: int) -> str:
    word = found[1].lower()
    index = options - 1 if word == "last" else _ORDINALS.index(word)
    return chr(_LETTER + index) if 0 <= index < min(options, len(LETTERS)) else found[0]


def _list(found: re.Match[str], known: str) -> str:
    letters = _LONE_CAPITAL.findall(found[0])
    if not letters or any(letter not in known for letter in letters):
        return found[0]
    return _LONE_CAPITAL.sub(lambda m: _mark(m[0]), found[0])


def _letter_with_text(found: re.Match[str], same: dict[str, frozenset[int]]) -> str:
    """Return one mention of a letter and its own text; both where they contradict each other."""
    head, between, text = found[0][0], found[1], found[2]
    is_mark = head >= "\ue000"
    if not is_mark and not between.strip() and (head in "AI" or head.islower()):
        return found[0]  # "A dog": an article
    letter = head if is_mark else _mark(head)
    if ord(letter) - _LETTER in same[text]:
        return f" {letter} "
    if not between.strip():
        return found[0]
    closed = _CLOSED.match(found.string, found.end())
    # "D) a cup" where a cup is option B: nobody knows what was meant.
    return f" {letter},{text} " if closed else f" {letter} . {text}"


def _own_word(said: str, options: Sequence[str]) -> str:
    """Take in the text of a letter's option where that text alone would be no mention: `A. no`."""
    for index, option in enumerate(options[: len(LETTERS)]):
        words = normalise(option)
        if words and not _is_mentioned(words):
            own = rf"(?<![\w'])[(\[]?{LETTERS[index]}\s?[.):\]-]\s?{re.escape(words)}\b"
            said = re.sub(own, _mark(LETTERS[index]), said, flags=re.IGNORECASE)
    return said


#: Prefixes that make another word, or its opposite, however it is spelled.
_PREFIXED = re.compile(r"(counter|anti|non)(\w{3,})")
_PREFIX = re.compile(r"\b(counter|anti|non)\s(?=\w)")
_NO_WORD_BEFORE = (
    r"(?<![\w'])(?<!\w-)(?<!\d[.,:/])(?<!option\s)(?<!choice\s)(?<!counter\s)(?<!anti\s)(?<!non\s)"
)
_NO_WORD_AFTER = r"(?!\w)(?!-\w)(?![.,:/]\d)"


class _Texts(NamedTuple):
    """What finds the texts of options.

    Attributes:
        pattern: of all texts that may be mentioned inside a sentence, longest first.
        marks: character by normalised text.
        same: options by character.
        names: whether an option's text uses a lone capital as a name, as EgoSchema's "C".
    """

    pattern: re.Pattern[str] | None
    marks: dict[str, str]
    same: dict[str, frozenset[int]]
    names: bool


@lru_cache(maxsize=64)
def _texts(options: tuple[str, ...]) -> _Texts:
    by_words: dict[str, list[int]] = {}
    for index, option in enumerate(options):
        by_words.setdefault(_words(plain(option)), []).append(index)
    found = {words: where for words, where in by_words.items() if _is_mentioned(words)}
    marks = {words: chr(_TEXT + where[0]) for words, where in found.items()}
    ordered = sorted(found, key=lambda words: (-len(words), words))
    forms = [r"[\W_]{1,6}".join(map(_form, words.split())) for words in ordered]
    pattern = rf"{_NO_WORD_BEFORE}(?:{'|'.join(forms)}){_NO_WORD_AFTER}" if forms else None
    return _Texts(
        re.compile(pattern, re.IGNORECASE) if pattern else None,
        marks,
        {marks[words]: frozenset(where) for words, where in found.items()},
        any(re.search(r"(?<![\w'.])[B-HJ-Z](?![\w'.])", option) for option in options),
    )


def _form(word: str) -> str:
    """Return what matches a word of an option, "counter-clockwise" for "counterclockwise" too."""
    prefix = _PREFIXED.match(word)
    return re.escape(word) if prefix is None else rf"{prefix[1]}[\W_]?{re.escape(prefix[2])}"


def _words(text: str) -> str:
    """Return normalised words, those with a prefix as one word."""
    return _PREFIX.sub(r"\1", normalise(text))


def _is_mentioned(words: str) -> bool:
    """Return True if an option's words mean it inside a sentence too; a letter or "no" does not."""
    return bool(words) and not re.fullmatch(r"[a-z]|no|not|none|nor|neither|never|i", words)


def _is_article(bracketed: re.Match[str]) -> bool:
    """Return True if a small `a` in brackets is the article, as in "holding (a) cup"."""
    before, after = bracketed.string[: bracketed.start()], bracketed.string[bracketed.end() :]
    lone = bracketed[1] == "a" and _BEFORE_WORD.match(after)
    return bool(lone) and not _ASKED_FOR.search(before[-80:].rpartition("\n")[2])


def _mentions(marked: str, options: Sequence[str]) -> Iterator[_Mention]:
    """Yield what a text says of the options that it mentions, in its order."""
    same = _texts(tuple(options)).same
    sentences = _SENTENCE_ENDS.split(marked)
    for number, given in enumerate(sentences):
        sentence = _PARENTHESES.sub(" ", _IDIOMS.sub(" ", given))
        groups = list(_GROUP.finditer(sentence))
        taken_back = any(_TAKEN_BACK.match(later) for later in sentences[number + 1 : number + 2])
        would = bool(_WOULD.search(sentence))
        asked = sentence.rstrip().endswith("?")
        reconsidered = bool(_RECONSIDERED.search(sentence))
        for place, group in enumerate(groups):
            end = groups[place + 1].start() if place + 1 < len(groups) else len(sentence)
            before = sentence[max(0, group.start() - _REACH) : group.start()]
            after = sentence[group.end() : min(end, group.end() + _REACH)]
            alone = not re.search(r"\w", before + after) and len(groups) == 1
            named = re.findall(_M, group[0])
            meant = [same.get(char, frozenset({ord(char) - _LETTER})) for char in named]
            letters = any(char < chr(_TEXT) for char in named)
            followed = place + 1 < len(groups)
            denied = taken_back or _is_denied(before, after, letters=letters, followed=followed)
            supposed = bool(
                _SUPPOSED.search(before)
                or (not letters and would)
                or (asked and not (alone and len(sentences) == 1))
            )
            yield _Mention(
                options=frozenset().union(*meant),
                letters=letters,
                chosen=not denied and not supposed,
                denied=denied,
                alone=alone,
                explicit=bool(_DECLARED_BEFORE.search(before) or _DECLARED_AFTER.match(after)),
                reconsidered=reconsidered,
                sentence=number,
            )


def _is_denied(before: str, after: str, *, letters: bool, followed: bool) -> bool:
    """Return True if the words around an option say that it is not meant."""
    verdict = _VERDICT.match(after) or _TAKEN_BACK.match(after)
    if followed and (of_next := _OF_NEXT.search(after)):
        after = after[: of_next.start()]
        verdict = _VERDICT.match(after) or _TAKEN_BACK.match(after)
    if verdict and not _OTHERS.search(verdict[0]):
        return True
    clause = _clause_before(before, after)
    if _denies(clause):
        return True
    leads = letters and not re.search(r"\w", before)
    if leads:
        return False
    stop = _first(after, _HARD, _REASONS, _SOFT, re.compile(r"[:]"))
    if _denies(after[: min(stop, _first(after, _COMPARED))]):
        return True
    rest = after[stop : _first(after, _HARD, _REASONS)]
    return bool(_JUDGED_WRONG.search(rest)) and not _OTHERS.search(rest)


def _denies(clause: str) -> bool:
    """Return True if a clause denies something else than "the other options"."""
    if not _DENIAL.search(clause):
        return False
    return not _OTHERS.search(clause) or bool(_DENIAL.search(_DENIED_OTHERS.sub(" ", clause)))


def _first(text: str, *rules: re.Pattern[str]) -> int:
    """Return where the first match of any rule begins, or the length of a text."""
    return min((m.start() for rule in rules if (m := rule.search(text))), default=len(text))


def _clause_before(before: str, after: str) -> str:
    """Return the words before an option that a denial of it would stand in."""
    start = max((m.end() for m in _HARD.finditer(before)), default=0)
    region = before[start:]
    soft = max((m.start() for m in _SOFT.finditer(region)), default=0)
    last = region[soft:]
    follows = after[: _first(after, _HARD, _REASONS, _SOFT)]
    if _VERB.search(last) or re.match(rf"[\s\"')]{{0,4}}{_VERB.pattern}", follows, re.IGNORECASE):
        return last
    return region
