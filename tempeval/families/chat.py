"""Chats to token ids with one placeholder per visual, by a checkpoint's own chat template."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, UnsupportedModel, UnusableText

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


#: Tokens that stand for visuals, or for where they begin and end, in any tokenizer's spelling.
_MARK = re.compile("image|video|vision", re.IGNORECASE)


@dataclass(frozen=True)
class Chat:
    """Renders chats with a processor's template and tokenizes them.

    A template may put the visuals of a turn in an order of its own (images before videos): what
    counts is that there is one placeholder for each, since the n-th placeholder of a kind stands
    for the n-th visual of that kind.

    Attributes:
        processor: with `tokenizer` and `apply_chat_template`.
        placeholders: placeholder token id of each kind of visual.
        pretrained: the checkpoint as the user gave it, for errors.
        in_order: whether visuals must stand in the order in which the messages give them.
    """

    processor: Any
    placeholders: Mapping[str, int]
    pretrained: str
    in_order: bool = False

    def tokenize(
        self, messages: Sequence[Mapping[str, Any]], system_prompt: str | None
    ) -> list[int]:
        """Return the ids of a chat.

        Args:
            messages: `[{"role": ..., "content": [{"type": "text"|"video"|"image", ...}]}]`;
                content may also be a string.
            system_prompt: becomes the system turn unless the messages have one; None for none.

        Raises:
            UnusableText: if a text of the messages contains a token that marks visuals.
            InvalidSetting: if the system prompt does, or a part is of another type.
            UnsupportedModel: if the template does not give one placeholder per visual.
        """
        chat = [{"role": m["role"], "content": self._content(m["content"])} for m in messages]
        if system_prompt is not None and not any(m["role"] == "system" for m in chat):
            self.check_system_prompt(system_prompt)
            system = [{"type": "text", "text": system_prompt}]
            chat.insert(0, {"role": "system", "content": system})
        ids = self._ids(chat)
        kinds = [p["type"] for m in chat for p in m["content"] if p["type"] != "text"]
        wanted = [self.placeholders[kind] for kind in kinds]
        found = [token for token in ids if token in self.placeholders.values()]
        if found != wanted and (self.in_order or sorted(found) != sorted(wanted)):
            raise UnsupportedModel(
                f"the chat template of {self.pretrained!r} does not give one placeholder for each "
                f"of the {len(wanted)} visuals of a prompt" + ", in their order" * self.in_order
            )
        return ids

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    def _ids(self, chat: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the ids of a chat of checked parts."""
        text = self.processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids: list[int] = self.tokenizer(text)["input_ids"]
        return ids

    def _content(self, content: str | Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """Keep types and texts only: the template needs no paths or pixels."""
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        parts: list[dict[str, str]] = []
        texts = (part["text"] for part in content if part["type"] == "text")
        self.check_text("".join(texts))  # a template may join them
        for part in content:
            kind = part["type"]
            if kind == "text":
                parts.append({"type": "text", "text": part["text"]})
            elif kind in self.placeholders:
                parts.append({"type": kind})
            else:
                raise InvalidSetting(
                    f"a message part of type {kind!r} is not one of text, "
                    f"{', '.join(self.placeholders)}"
                )
        return parts

    def check_text(self, text: str, what: str = "a prompt text") -> None:
        """Refuse a text that the tokenizer would read as a visual.

        Args:
            text: as a document gives it.
            what: it is, for the error.

        Raises:
            UnusableText: naming the token.
        """
        for token in self.marks:
            if token in text:
                raise UnusableText(
                    f"{what} contains {token!r}, which stands for a visual in this model; remove "
                    "it from the text"
                )

    def check_system_prompt(self, text: str | None) -> None:
        """Refuse a system prompt that the tokenizer would read as a visual.

        Raises:
            InvalidSetting: naming the token.
        """
        try:
            self.check_text(text or "", f"system_prompt={text!r}")
        except UnusableText as error:
            raise InvalidSetting(str(error)) from error

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """The tokens that no text may contain: placeholders, and what else marks visuals."""
        placeholders = self.tokenizer.convert_ids_to_tokens(list(self.placeholders.values()))
        added = (token for token in self.tokenizer.get_added_vocab() if _MARK.search(token))
        return tuple(dict.fromkeys((*placeholders, *added)))
