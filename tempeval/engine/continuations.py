"""The texts that are scored after one prompt."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Continuations:
    """All choices of one question, in order; questions with the same choices can share one object.

    In lmms-eval's requests it stands where the host has one text or a function, so that a document
    is one request however many choices it has.

    Attributes:
        texts: as they continue the prompt, spaces included.
    """

    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __call__(self, doc: Any) -> NoReturn:
        """Refuse a model of the host's, which calls what is no text.

        Raises:
            UnsupportedModel: always.
        """
        raise UnsupportedModel(
            f"a request with {len(self)} choices reached a model that scores one text at a time; "
            "tasks that end in _choice need a tempeval model (--model tempeval). Other models can "
            "run the same benchmark as _list or _mcq, where it has them, which read a text"
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the texts."""
        return hashlib.sha256(json.dumps(self.texts).encode()).hexdigest()

    @property
    def identity(self) -> str | list[str | int]:
        """A JSON value that names the texts and does not grow with their number."""
        return self.texts[0] if len(self.texts) == 1 else [len(self.texts), self.digest]
