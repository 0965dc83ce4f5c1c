"""Named errors. Each message says what happened, the value, what is accepted, and what to do."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


#: Names that an error lists, where they can be listed by a command too.
_MOST_NAMES = 30


class TempevalError(Exception):
    """Base of every error that tempeval raises on purpose."""


class UnknownName(TempevalError):
    """A method, task, family or argument name that does not exist.

    Args:
        kind: what was looked up, such as `method`.
        name: the name received.
        known: the names that exist.
        where: an optional hint on how to list or set them.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        close = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        guess = f"; did you mean {close[0]!r}?" if close else "."
        tail = f" {where}" if where else ""
        self.where = where
        # Nobody reads eighty names on one line; where they can be listed, that is said instead.
        many = len(self.known) > _MOST_NAMES and where
        listed = f"{len(self.known)} are known." if many else f"Known: {', '.join(self.known)}."
        super().__init__(f"no {kind} {name!r}{guess} {listed}{tail}")

    def __reduce__(self) -> tuple[type[UnknownName], tuple[str, str, list[str], str]]:
        return type(self), (self.kind, self.name, self.known, self.where)


class BrokenPlugin(TempevalError):
    """A file, module or entry point of others that cannot be used.

    Args:
        what: which one, as it was written or as its package calls it.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, what: str, reason: str) -> None:
        self.what, self.reason = what, reason
        super().__init__(f"cannot use {what}: {reason}")

    def __reduce__(self) -> tuple[type[BrokenPlugin], tuple[str, str]]:
        return type(self), (self.what, self.reason)


class InvalidSetting(TempevalError):
    """A setting whose value is not accepted."""


class ConflictingMethods(TempevalError):
    """Two methods of a chain modify the same thing."""


class UnsupportedModel(TempevalError):
    """A checkpoint, family or layout that a component cannot work with."""


class BadArchive(TempevalError):
    """An archive that cannot be unpacked, or that may not be.

    Args:
        source: path of the archive.
        reason: what is wrong with it, and what to do.
    """

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"cannot unpack {source!r}: {reason}")

    def __reduce__(self) -> tuple[type[BadArchive], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class InfeasibleBudget(TempevalError):
    """No frames x resolution plan gives the asked-for number of visual tokens."""


class BudgetMissed(TempevalError):
    """A chain of methods that makes another number of visual tokens than its budget."""


class DecoderUnavailable(TempevalError):
    """A video decoder that is not installed, or decoding processes that do not start."""


class RunFailed(TempevalError):
    """A run that began could not be brought to its end; what it has is kept."""


class UnusableText(InvalidSetting):
    """A text that a model would read as something else; a sample with it fails, the run goes on."""


class PromptTooLong(TempevalError):
    """A prompt that needs more positions than the model takes under a chain of methods."""


class CannotStore(TempevalError):
    """A prefix that a store method cannot hold, or of which it would hold nothing in fewer bits.

    The sample fails, the run goes on.
    """


class BadVideo(TempevalError):
    """A video that cannot be decoded; the sample fails, the run goes on.

    Args:
        source: path of the file or folder.
        reason: what is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{self.title} {source!r}: {reason}")

    @property
    def title(self) -> str:
        """What could not be done."""
        return "cannot decode"

    def __reduce__(self) -> tuple[type[BadVideo], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class BadSideChannel(BadVideo):
    """A side channel that a video lacks or that cannot be used; the sample fails, the run goes on.

    Args:
        source: path of the video, or of the file of features.
        reason: what is wrong, and what to do.
    """

    @property
    def title(self) -> str:
        """What could not be done."""
        return "no side channel for"
