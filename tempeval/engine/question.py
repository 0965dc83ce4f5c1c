"""A question and what became of it, free of the host's types."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tempeval.engine.generation import draws
from tempeval.video.clip import VideoRef
from tempeval.video.stamp import content_stamp
from tempeval.video.still import read_rgb

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from PIL import Image

    from tempeval.engine.answer import Answer
    from tempeval.engine.continuations import Continuations
    from tempeval.engine.scores import Scores
    from tempeval.engine.usage import Usage


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
        kind: `generate`, or `score` for continuations.
        gen_kwargs: lmms-eval's generation arguments (`generate`).
        continuations: texts to score (`score`).
        sample: names the sample in journals, such as `task/sample_id`.
        content: digest of the sample's content, as the task states it.
    """

    number: int
    messages: tuple[Mapping[str, Any], ...]
    visuals: tuple[VideoRef | Picture, ...]
    kind: Literal["generate", "score"] = "generate"
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    continuations: Continuations | None = None
    sample: str = ""
    content: str = ""

    @property
    def visual_key(self) -> tuple[Hashable, ...]:
        """What questions that share a prefix have in common."""
        return tuple(v.key if isinstance(v, Picture) else v for v in self.visuals)

    def digest(self) -> str:
        """Name everything that the answer depends on, but for model, method and seed."""
        sample, content, texts, *asked = self.identity()
        visuals = [
            [repr(v), content_stamp(v.path)] if isinstance(v, VideoRef) else repr(v.key)
            for v in self.visuals
        ]
        record = [sample, content, texts, visuals, *asked]
        return hashlib.sha256(json.dumps(record).encode()).hexdigest()

    def identity(self) -> list[Any]:
        """Say what is asked, as JSON values that are the same wherever the visuals lie."""
        return [
            self.sample,
            self.content,
            self.texts(),
            self.kind,
            sorted((str(k), repr(v)) for k, v in self.gen_kwargs.items()),
            self.continuations.identity if self.continuations is not None else "",
        ]

    def texts(self) -> list[Any]:
        """Return what the chat says, visuals by their kind, as JSON values."""
        return [[message["role"], _texts(message["content"])] for message in self.messages]

    @property
    def samples(self) -> bool:
        """Whether the answer is drawn at random."""
        return self.kind == "generate" and draws(self.gen_kwargs)


@dataclass(frozen=True)
class Outcome:
    """What became of one question.

    Attributes:
        answer: an `Answer`, or `Scores` of all continuations; None when the sample failed.
        usage: what it used; `usage.error` says why it failed.
    """

    answer: Answer | Scores | None
    usage: Usage


def read_picture(picture: Picture) -> Image.Image:
    """Return the image of a prompt as RGB; see `read_rgb`.

    Raises:
        BadVideo: if it cannot be read.
    """
    return read_rgb(picture.image)


def _texts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [content]
    return [part.get("text") if part["type"] == "text" else part["type"] for part in content]
