import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempeval.mini.questions import KINDS
from tempeval.tasks.answers import match_choice, normalise

LEFT_RIGHT = ("left", "right", "up", "down")
kinds = st.sampled_from(KINDS)
fillers = st.text(alphabet=" .,;:!?*\"'\n\t-()", max_size=6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("left", "left"),
        ("Left.", "left"),
        ("  **LEFT**\n", "left"),
        ("It moves left", "left"),
        ("left left", "left"),
        ("", None),
        ("...", None),
        ("leftwards", None),
        ("left or right", None),
        ("not sure", None),
        ("upright", None),
        ("up-left", None),
        ("\ufeffleft", "left"),
        ("\uff4ceft", "left"),
    ],
)
def test_match_choice(text: str, expected: str | None) -> None:
    assert match_choice(text, LEFT_RIGHT) == expected


@given(kinds, st.data(), fillers, fillers)
def test_a_lone_choice_is_found_in_any_case_and_punctuation(
    kind: object, data: st.DataObject, before: str, after: str
) -> None:
    choices = kind.choices  # type: ignore[attr-defined]
    choice = data.draw(st.sampled_from(choices))
    for word in (choice, choice.upper(), choice.title()):
        assert match_choice(before + word + after, choices) == choice


@given(kinds, st.data())
def test_two_choices_are_never_resolved(kind: object, data: st.DataObject) -> None:
    choices = kind.choices  # type: ignore[attr-defined]
    first, second = data.draw(st.permutations(choices))[:2]
    assert match_choice(f"{first} {second}", choices) is None


@given(st.text(max_size=40))
def test_what_is_found_was_said(text: str) -> None:
    found = match_choice(text, LEFT_RIGHT)
    assert found is None or found in normalise(text).split()


@given(st.text(max_size=40))
def test_normalise_settles(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


def test_choices_of_several_words() -> None:
    assert (
        match_choice("A person is sitting down.", ["sitting down", "standing up"]) == "sitting down"
    )


def test_an_empty_choice_matches_nothing() -> None:
    assert match_choice("anything", ["", "?"]) is None
