"""Where answers are kept, and the keys under which they are found again."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tempeval.engine.question import Outcome, Question
    from tempeval.engine.work import Item, VideoWork
    from tempeval.methods.base import Chain


class AnswerStore(Protocol):
    """Where answers are kept: a `Journal` on disk, or a `Memory`."""

    def get(self, key: str) -> Outcome | None:
        """Return what is known under a key."""
        ...

    def is_new(self, key: str) -> bool:
        """Return True if a key was answered in this run, not in an earlier one."""
        ...

    def append(self, outcomes: Mapping[str, Outcome]) -> None:
        """Keep one batch."""
        ...


class Memory:
    """An `AnswerStore` that lives as long as the process."""

    def __init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}

    def get(self, key: str) -> Outcome | None:
        """Return what is known under a key."""
        return self._outcomes.get(key)

    def is_new(self, key: str) -> bool:
        """Return True for all that is known: nothing outlives the process."""
        return key in self._outcomes

    def append(self, outcomes: Mapping[str, Outcome]) -> None:
        """Keep one batch."""
        self._outcomes.update(outcomes)


class Keys:
    """Keys of answers; a question asked twice in one run has two.

    Args:
        fingerprint: everything besides question and chain that an answer depends on.
        drawing: what a sampled answer depends on besides; greedy answers and scores do not.
        code: digest of the code that a chain brings; None where it brings none.
        beside: what an answer to a question under a chain depends on beside its videos, such as
            files of features; None where there is nothing.
    """

    def __init__(
        self,
        fingerprint: str,
        drawing: str,
        code: Callable[[Chain], str | None],
        beside: Callable[[Chain, Question], Sequence[str]] | None = None,
    ) -> None:
        self._fingerprint, self._drawing, self._beside = fingerprint, drawing, beside
        self._code = cache(code)
        self._digests: dict[int, str] = {}
        self._seen: dict[str, int] = {}

    def of(self, chain: Chain, item: Item) -> str:
        """Return the key of a question under a chain."""
        number = item.question.number
        if number not in self._digests:
            digest = item.question.digest()
            repeat = self._seen[digest] = self._seen.get(digest, 0) + 1
            self._digests[number] = f"{digest}#{repeat}"
        record = f"{self._fingerprint} {chain.fingerprint} {self._code(chain)} "
        record += self._digests[number]
        if item.question.samples:
            record += f" {self._drawing}"
        stamps = self._beside(chain, item.question) if self._beside else ()
        if stamps:
            record += f" beside {json.dumps(list(stamps))}"
        return hashlib.sha256(record.encode()).hexdigest()

    def of_all(self, chains: Iterable[Chain], work: Iterable[VideoWork]) -> set[str]:
        """Return the keys of everything in a plan under some chains."""
        items = [
            item
            for video in work
            for batches in video.prefixes
            for batch in batches
            for item in batch.items
        ]
        return {self.of(chain, item) for chain in chains for item in items}
