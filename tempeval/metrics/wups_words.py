"""Tokens, lemmas and similarities as the official code of WUPS takes them from NLTK and pywsd.

Source: facts of pywsd 1.2.4 (`lemmatize_sentence`) and nltk 3.3 (`word_tokenize`,
`wup_similarity`), which doc-doc/NExT-OE @ a83f8f5 names in its requirements.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from tempeval.metrics.unavailable import MetricUnavailable
from tempeval.metrics.wordnet import WordNet
from tempeval.metrics.wups_data import COMMAND, PACKAGES, WORDNET_VERSION, check, located

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.metrics.wups import Roots

#: Where Punkt may end a sentence inside a text: it looks at no other place.
_INNER_END = re.compile(r"[.?!](?=\s+\S|[)\";}\]*:@'({\[!?])")
#: WordNet's part of speech by the first two letters of a Penn tag.
_PARTS = {"NN": "n", "JJ": "a", "VB": "v", "RB": "r"}
#: Closing quotation marks outside ASCII.
_CLOSING = "»”\u2019"
#: How many texts and pairs are kept; a split of NExT-QA has fewer.
_KEPT = 1 << 18


class NltkWords:
    """What NLTK's data say about words; it is loaded at first use.

    Its methods raise MetricUnavailable where data are missing, or WordNet is another version.
    """

    def __init__(self) -> None:
        self.lemmas = lru_cache(_KEPT)(_lemmas)
        self.tokens = lru_cache(_KEPT)(_tokens)
        self.similarity = lru_cache(_KEPT)(_similarity)


def _tokens(text: str) -> tuple[str, ...]:
    """Return Penn Treebank tokens, sentence by sentence."""
    tokenize = _tokenizer().tokenize
    return tuple(token for sentence in _sentences(text) for token in tokenize(sentence))


def _lemmas(text: str) -> tuple[str, ...]:
    """Return the lemma of each token by its part of speech, as pywsd's `lemmatize_sentence`."""
    check("WUPS")
    tagged = _tagger().tag(list(_tokens(text)))
    return tuple(_lemma(word.lower(), _PARTS.get(tag[:2], "")) for word, tag in tagged)


def _similarity(word: str, other: str, roots: Roots) -> float:
    """Return the Wu-Palmer similarity of the first senses, of all parts of speech."""
    wordnet = _wordnet()
    first, second = wordnet.first(word), wordnet.first(other)
    if first is None or second is None:
        return 0.0
    either = (first.part, second.part) != ("n", "n")
    rooted = first.part == "v" if roots == "pinned" else either
    return wordnet.similarity(first, second, rooted=rooted)


@lru_cache(_KEPT)
def _lemma(word: str, part: str) -> str:
    """Return WordNet's lemma, else the stem where that is a word of WordNet, else the word.

    Args:
        word: in small letters.
        part: `n`, `v`, `a` or `r`; empty for other tags: then that of the word alone.
    """
    if not part:
        ((_, tag),) = _tagger().tag([word])
        part = _PARTS.get(tag[:2], "n")
    wordnet = _wordnet()
    lemma = min(wordnet.base_forms(word, part), key=len, default=word)
    if wordnet.first(lemma):
        return lemma
    stem = str(_stemmer().stem(word))
    return stem if wordnet.first(stem) else word


def _sentences(text: str) -> Sequence[str]:
    """Return the sentences of a text. Punkt's data are asked only where there may be several."""
    if not _INNER_END.search(text):
        return [text]
    return _punkt().tokenize(text)  # type: ignore[no-any-return]


@cache
def nltk_words() -> NltkWords:
    """Return the one whose caches all samples share."""
    return NltkWords()


@cache
def _tokenizer() -> Any:
    """Return the Treebank tokenizer with what nltk 3.3 and pywsd put before its rules.

    Later versions of that tokenizer differ in two things, which stay: `more'n`, and quotation marks
    of two apostrophes.
    """
    from nltk.tokenize.treebank import TreebankWordTokenizer

    class Tokenizer(TreebankWordTokenizer):  # type: ignore[misc]
        STARTING_QUOTES = (
            (re.compile("([«“\u2018„]|[`]+)"), r" \1 "),
            *TreebankWordTokenizer.STARTING_QUOTES,
        )
        ENDING_QUOTES = (
            (re.compile(f"([{_CLOSING}]+)"), r" \1 "),
            *TreebankWordTokenizer.ENDING_QUOTES,
        )
        # A full stop before closing marks ends the text, those outside ASCII included.
        PUNCTUATION = (
            (re.compile(rf"([^.])(\.)([\])}}>\"'{_CLOSING} ]*)\s*$"), r"\1 \2 \3 "),
            *TreebankWordTokenizer.PUNCTUATION,
        )

    return Tokenizer()


def _loaded(name: str, load: Callable[[], Any]) -> Any:
    """Return what `load` makes of the data of a package.

    Raises:
        MetricUnavailable: if they are missing, or there but not whole.
    """
    check("WUPS", (name,))
    try:
        return load()
    except (LookupError, OSError, ValueError, BadZipFile) as error:
        raise MetricUnavailable(
            "WUPS", f"NLTK data {name} cannot be read ({error}); remove them, then: {COMMAND}"
        ) from error


@cache
def _punkt() -> Any:
    from nltk.tokenize.punkt import PunktTokenizer

    return _loaded("punkt_tab", PunktTokenizer)


@cache
def _tagger() -> Any:
    from nltk.tag.perceptron import PerceptronTagger

    return _loaded("averaged_perceptron_tagger_eng", PerceptronTagger)


@cache
def _stemmer() -> Any:
    from nltk.stem import PorterStemmer

    return PorterStemmer()


@cache
def _wordnet() -> WordNet:
    home = _loaded("wordnet", lambda: located(PACKAGES["wordnet"]))
    found: WordNet = _loaded("wordnet", lambda: WordNet(lambda name: _content(home.join(name))))
    if found.version != WORDNET_VERSION:
        raise MetricUnavailable(
            "WUPS",
            f"it is defined on WordNet {WORDNET_VERSION}; {home} is version {found.version or '?'}",
        )
    return found


def _content(pointer: Any) -> bytes:
    with pointer.open() as file:
        return bytes(file.read())
