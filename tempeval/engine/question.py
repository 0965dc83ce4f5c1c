"""A question and what became of it, free of the host's types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from tempeval.engine.answer import Answer, Score
    from tempeval.engine.ledger import Ledger
    from tempeval.video.clip import VideoRef


@dataclass(frozen=True)
class Picture:
    """A still image of a prompt: a path or a PIL image, with a key that names its content."""

    key: Hashable
    image: Any


@dataclass(frozen=True)
class Question:
    """One request, free of the host's types.

    Attributes:
        number: position in the caller's list.
        messages: the chat (see `Family.tokenize`).
        visuals: what its placeholders stand for, in order.
        kind: `generate`, or `score` for a continuation.
        gen_kwargs: lmms-eval's generation arguments (`generate`).
        continuation: text to score (`score`).
    """

    number: int
    messages: tuple[Mapping[str, Any], ...]
    visuals: tuple[VideoRef | Picture, ...]
    kind: Literal["generate", "score"] = "generate"
    gen_kwargs: Mapping[str, Any] | None = None
    continuation: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of one question.

    Attributes:
        answer: an `Answer` or a `Score`; None when the sample failed.
        ledger: what it used; `ledger.error` says why it failed.
    """

    answer: Answer | Score | None
    ledger: Ledger
