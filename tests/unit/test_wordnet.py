"""The reader of WordNet's files, on a dictionary of a few words in their form."""

from __future__ import annotations

import pytest

from tempeval.metrics.wordnet import FILES, ROOT, WordNet

#: Part, word, hypernyms. `mule` has two, equally deep; verbs have several roots.
ENTRIES = (
    ("n", "entity", ()),
    ("n", "animal", ("entity",)),
    ("n", "bus", ("entity",)),
    ("n", "horse", ("animal",)),
    ("n", "ass", ("animal",)),
    ("n", "mule", ("horse", "ass")),
    ("n", "hinny", ("ass", "horse")),
    ("v", "move", ()),
    ("v", "run", ("move",)),
    ("v", "race", ("run",)),
    ("v", "focus", ()),
    ("v", "think", ()),
    ("a", "red", ()),
    ("r", "fast", ()),
)
EXCEPTIONS = {"noun": "asses ass\n", "verb": "ran run\n", "adj": "", "adv": ""}


def dictionary() -> dict[str, bytes]:
    """Return the files; as in the real ones a line of licence comes first."""
    licence = b"  1 WordNet 3.0 Copyright 2006\n"
    places: dict[tuple[str, str], int] = {}
    files = dict.fromkeys(
        (f"{kind}.{n}" for kind in ("data", "index") for n in FILES.values()), licence
    )
    for part, word, parents in ENTRIES:
        places[part, word] = len(files[name := f"data.{FILES[part]}"])
        pointers = "".join(f" @ {places[part, parent]:08} {part} 0000" for parent in parents)
        line = (
            f"{places[part, word]:08} 03 {part} 01 {word} 0 {len(parents):03}{pointers} | gloss\n"
        )
        files[name] += line.encode()
        index = f"{word} {part} 1 1 @ 1 1 {places[part, word]:08}  \n"
        files[f"index.{FILES[part]}"] += index.encode()
    return files | {f"{name}.exc": text.encode() for name, text in EXCEPTIONS.items()}


@pytest.fixture(scope="module")
def wordnet() -> WordNet:
    return WordNet(dictionary().__getitem__)


def between(wordnet: WordNet, word: str, other: str, *, rooted: bool) -> float:
    first, second = wordnet.first(word), wordnet.first(other)
    assert first is not None
    assert second is not None
    return wordnet.similarity(first, second, rooted=rooted)


@pytest.mark.parametrize(
    ("form", "part", "forms"),
    [
        ("horses", "n", ["horse"]),
        ("bus", "n", ["bus"]),
        ("buses", "n", ["bus"]),
        ("asses", "n", ["ass"]),  # an exception: no ending is taken off
        ("ran", "v", ["run"]),
        ("racing", "v", ["race"]),
        ("focussed", "v", ["focus"]),  # two endings, one after the other
        ("redder", "a", []),
        ("zzqv", "n", []),
    ],
)
def test_base_forms(wordnet: WordNet, form: str, part: str, forms: list[str]) -> None:
    assert wordnet.base_forms(form, part) == forms


def test_the_version_and_first_senses(wordnet: WordNet) -> None:
    assert wordnet.version == "3.0"
    assert wordnet.first("zzqv") is None
    horse = wordnet.first("Horses")
    assert horse is not None
    assert horse.part == "n"


def test_similarity_is_by_depth_of_the_lowest_common_hypernym(wordnet: WordNet) -> None:
    assert between(wordnet, "horse", "horse", rooted=False) == 1.0
    assert between(wordnet, "horse", "ass", rooted=False) == pytest.approx(2 * 2 / 6)
    assert between(wordnet, "horse", "bus", rooted=False) == pytest.approx(2 * 1 / 5)
    assert between(wordnet, "animal", "mule", rooted=False) == pytest.approx(2 * 2 / 6)
    # Two hypernyms are equally deep: the first by name counts.
    assert between(wordnet, "mule", "hinny", rooted=False) == pytest.approx(2 * 3 / 8)


def test_a_root_connects_verbs_with_all(wordnet: WordNet) -> None:
    assert between(wordnet, "run", "think", rooted=False) == 0.0
    assert between(wordnet, "run", "think", rooted=True) == pytest.approx(2 * 1 / 5)
    assert between(wordnet, "run", "horse", rooted=True) == pytest.approx(2 * 1 / 7)
    assert between(wordnet, "run", "race", rooted=True) == pytest.approx(2 * 2 / 5)
    assert between(wordnet, "red", "red", rooted=True) == 1.0
    assert ROOT.part == ""
