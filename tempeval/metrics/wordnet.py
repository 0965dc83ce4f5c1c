"""WordNet 3.0 as nltk 3.3 reads it: base forms, first senses, Wu-Palmer similarity.

Later versions of nltk differ in base forms and in the roots of verbs, so the files are read here.
Source: the manual pages wndb(5WN) and morphy(7WN), and facts of nltk 3.3 corpus/reader/wordnet.py.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: Files by part of speech, in the order in which senses are looked up.
FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_ENDINGS = {
    "n": "s: ses:s ves:f xes:x zes:z ches:ch shes:sh men:man ies:y",
    "v": "s: ies:y es:e es: ed:e ed: ing:e ing:",
    "a": "er: est: er:e est:e",
    "r": "",
}
_RULES = {part: [rule.split(":") for rule in text.split()] for part, text in _ENDINGS.items()}
_VERSION = re.compile(rb"Word[Nn]et (\d+(?:\.\d+)?) Copyright")
_KEPT = 1 << 18


class Synset(NamedTuple):
    """A set of synonyms: its part of speech and the offset of its line, in bytes."""

    part: str
    offset: int


#: Above all others, where two synsets are rooted. No file has a line there.
ROOT = Synset("", -1)


class WordNet:
    """The dictionary files.

    Args:
        read: name of a file, such as `data.noun`, to its content.

    Attributes:
        version: as the files say, such as `3.0`; empty if they do not.
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._lines = {part: read(f"data.{name}") for part, name in FILES.items()}
        self._offsets = {part: _index(read(f"index.{name}")) for part, name in FILES.items()}
        self._exceptions = {part: _exceptions(read(f"{name}.exc")) for part, name in FILES.items()}
        found = _VERSION.search(self._lines["a"][:4096])
        self.version = found[1].decode() if found else ""
        self.first = lru_cache(_KEPT)(self._first)
        self._parents = lru_cache(_KEPT)(self._read_parents)
        self._least = lru_cache(_KEPT)(self._least_depth)
        self._most = lru_cache(_KEPT)(self._most_depth)

    def base_forms(self, form: str, part: str) -> list[str]:
        """Return the words of WordNet that a form may be of; endings are taken off repeatedly.

        Args:
            form: in small letters.
            part: of speech, a key of `FILES`.
        """
        known = self._offsets[part]
        if form in self._exceptions[part]:
            return _known([form, *self._exceptions[part][form]], known)
        forms = _without_endings([form], part)
        found = _known([form, *forms], known)
        while forms and not found:
            forms = _without_endings(forms, part)
            found = _known(forms, known)
        return found

    def _first(self, word: str) -> Synset | None:
        """Return the first sense of a word in any form; None where it is no word of WordNet."""
        for part in FILES:
            for form in self.base_forms(word.lower(), part):
                return Synset(part, self._offsets[part][form][0])
        return None

    def similarity(self, synset: Synset, other: Synset, *, rooted: bool) -> float:
        """Return the Wu-Palmer similarity.

        Args:
            synset: one.
            other: another one, or the same.
            rooted: put a root above all that have no other hypernym.

        Returns:
            0 to 1; 0 where they have no hypernym in common.
        """
        paths, others = self._distances(synset, rooted), self._distances(other, rooted)
        common = paths.keys() & others.keys()
        if not common:
            return 0.0
        deepest = max(map(self._least, common))
        lowest = [one for one in common if self._least(one) == deepest]
        subsumer = synset if synset in lowest else min(lowest, key=self._name)
        depth = self._most(subsumer) + 1
        above = self._distances(subsumer, rooted)
        length = _shortest(paths, above) + _shortest(others, above)
        return 2 * depth / (length + 2 * depth)

    def _distances(self, synset: Synset, rooted: bool) -> dict[Synset, int]:
        """Return the hypernyms of a synset, itself included, with the fewest steps to each."""
        found, waiting = {synset: 0}, [synset]
        for one in waiting:
            for parent in self._parents(one):
                if parent not in found:
                    found[parent] = found[one] + 1
                    waiting.append(parent)
        if rooted and synset != ROOT:
            found[ROOT] = max(found.values()) + 1
        return found

    def _least_depth(self, synset: Synset) -> int:
        return min((self._least(parent) + 1 for parent in self._parents(synset)), default=0)

    def _most_depth(self, synset: Synset) -> int:
        return max((self._most(parent) + 1 for parent in self._parents(synset)), default=0)

    def _name(self, synset: Synset) -> str:
        """Return what sorts synsets that are equally deep, such as `dog.n.01`."""
        if synset == ROOT:
            return "*ROOT*"
        word = self._fields(synset)[4].lower()
        number = self._offsets[synset.part][word].index(synset.offset) + 1
        return f"{word}.{synset.part}.{number:02}"

    def _read_parents(self, synset: Synset) -> tuple[Synset, ...]:
        """Return hypernyms, and those of instances."""
        if synset == ROOT:
            return ()
        fields = self._fields(synset)
        start = 4 + 2 * int(fields[3], 16)
        pointers = fields[start + 1 : start + 1 + 4 * int(fields[start])]
        return tuple(
            Synset(part, int(offset))
            for symbol, offset, part in (pointers[at : at + 3] for at in range(0, len(pointers), 4))
            if symbol in ("@", "@i")
        )

    def _fields(self, synset: Synset) -> list[str]:
        content = self._lines[synset.part]
        return content[synset.offset : content.index(b"\n", synset.offset)].decode().split()


def _shortest(paths: dict[Synset, int], others: dict[Synset, int]) -> int:
    return min(paths[one] + others[one] for one in paths.keys() & others.keys())


def _index(content: bytes) -> dict[str, list[int]]:
    """Return the offsets of a word's synsets, the most frequent first."""
    found = {}
    for line in content.decode().splitlines():
        if not line.startswith(" "):  # the licence does
            fields = line.split()
            found[fields[0]] = [int(offset) for offset in fields[-int(fields[2]) :]]
    return found


def _exceptions(content: bytes) -> dict[str, list[str]]:
    lines = (line.split() for line in content.decode().splitlines())
    return {fields[0]: fields[1:] for fields in lines if fields}


def _without_endings(forms: Iterable[str], part: str) -> list[str]:
    return [
        form[: -len(old)] + new for form in forms for old, new in _RULES[part] if form.endswith(old)
    ]


def _known(forms: Iterable[str], known: dict[str, list[int]]) -> list[str]:
    return [form for form in dict.fromkeys(forms) if form in known]
