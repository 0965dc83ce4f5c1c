"""The questions of the mini suite: five aspects, seven kinds, one-word answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tempeval.mini.scene import ACTIONS, BALL_COLOURS, DIRECTIONS, LAMP_COLOURS, SPEEDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tempeval.mini.scene import Facts

ASPECTS = ("action", "direction", "speed", "order", "attribute_change")
SYSTEM = "You are a helpful assistant."
ENDING = "Answer with one word."


def prompt(text: str, choices: Sequence[str]) -> str:
    """Return what a model is asked: the question, its choices and how to answer."""
    return f"{text} Choices: {', '.join(choices)}. {ENDING}"


@dataclass(frozen=True)
class Kind:
    """A kind of question; its options always come in the same order.

    Attributes:
        name: unique name.
        aspect: one of `ASPECTS`.
        text: the question.
        choices: the words that may answer it.
    """

    name: str
    aspect: str
    text: str
    choices: tuple[str, ...]

    @property
    def prompt(self) -> str:
        """The question, its choices and how to answer."""
        return prompt(self.text, self.choices)

    @property
    def chance(self) -> float:
        """Accuracy of guessing; also of the majority answer, as test answers are balanced."""
        return 1 / len(self.choices)


KINDS = (
    Kind("box_action", "action", "What does the box do?", ACTIONS),
    Kind("ball_direction", "direction", "Which way does the ball move?", tuple(DIRECTIONS)),
    Kind("ball_speed", "speed", "How fast does the ball move?", tuple(SPEEDS)),
    Kind("lamp_first", "order", "What does the lamp show first?", tuple(LAMP_COLOURS)),
    Kind("lamp_last", "order", "What does the lamp show last?", tuple(LAMP_COLOURS)),
    Kind(
        "colour_before",
        "attribute_change",
        "Before, what colour was the ball?",
        tuple(BALL_COLOURS),
    ),
    Kind("colour_after", "attribute_change", "What colour did the ball get?", tuple(BALL_COLOURS)),
)


def answer(kind: Kind, facts: Facts) -> str:
    """Return the right answer to a kind of question about a clip."""
    answers = {
        "box_action": facts.action,
        "ball_direction": facts.direction,
        "ball_speed": facts.speed,
        "lamp_first": facts.lamp[0],
        "lamp_last": facts.lamp[1],
        "colour_before": facts.colours[0],
        "colour_after": facts.colours[1],
    }
    return answers[kind.name]
