"""Chats to token ids for Video-LLaVA: the port's documented prompt, and the original's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.chat import Chat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: System text of conversation `llava_v1`, which the original evaluation scripts use. Training used
#: `vicuna_v1`, with "user" in the place of "human".
LLAVA_V1 = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)

#: What the original code replaces in a prompt's text.
_ORIGINAL_TOKENS = ("<image>", "<video>")


@dataclass(frozen=True)
class Slot:
    """The place of a visual of some kind in a rendered chat."""

    kind: str


class PortPrompt(Chat):
    """The port's: its chat template, or `USER: <video>`, a line break, `... ASSISTANT:`.

    Source: transformers' documentation of Video-LLaVA.
    """

    def _ids(self, chat: Sequence[Mapping[str, Any]]) -> list[int]:
        if self.processor.chat_template is None:
            pieces = render(chat, answer_end=" ")
            text = "".join(self._token(p.kind) if isinstance(p, Slot) else p for p in pieces)
        else:
            text = self.processor.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True
            )
        # A template may write the token that the tokenizer puts first.
        begins = text.startswith(self.tokenizer.bos_token or "\0")
        ids: list[int] = self.tokenizer(text, add_special_tokens=not begins)["input_ids"]
        return ids

    def _token(self, kind: str) -> str:
        token: str = self.tokenizer.convert_ids_to_tokens(self.placeholders[kind])
        return token


class OriginalPrompt(Chat):
    """The original evaluation scripts': conversation `llava_v1`.

    Each piece of text is tokenized by itself. The original prompt has one `<image>` per frame with
    nothing between them; one placeholder stands for all frames of a video here. A Llama vocabulary
    has no id to spare, so the placeholder is the id of the unknown token, which byte fallback keeps
    out of every text.

    Source: PKU-YuanGroup/Video-LLaVA @ 984e65b, conversation.py, mm_utils.py
    `tokenizer_image_token`.
    """

    @classmethod
    def of(cls, tokenizer: Any, pretrained: str) -> OriginalPrompt:
        """Build from the checkpoint's tokenizer.

        Raises:
            UnsupportedModel: if the tokenizer has no id that can stand for a video.
        """
        return cls(tokenizer, {"video": spare_id(tokenizer)}, pretrained)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer itself: this layout has no processor."""
        return self.processor

    def _ids(self, chat: Sequence[Mapping[str, Any]]) -> list[int]:
        if not any(message["role"] == "system" for message in chat):
            system = [{"type": "text", "text": LLAVA_V1}]
            chat = [{"role": "system", "content": system}, *chat]
        first = self.tokenizer.bos_token_id
        ids: list[int] = [] if first is None else [first]
        text = ""
        for piece in render(chat, answer_end=self.tokenizer.eos_token or "</s>"):
            if isinstance(piece, Slot):
                ids += [*self._plain_ids(text), self.placeholders[piece.kind]]
                text = ""
            else:
                text += piece
        return ids + self._plain_ids(text)

    def _plain_ids(self, text: str) -> list[int]:
        ids: list[int] = []
        if text:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """Also what the original code replaces in a prompt's text, for which there is no token."""
        return tuple(dict.fromkeys((*super().marks, *_ORIGINAL_TOKENS)))


def spare_id(tokenizer: Any) -> int:
    """Return the id that stands for a video where the vocabulary has none: unknown or padding.

    Raises:
        UnsupportedModel: if the tokenizer has neither.
    """
    for spare in (tokenizer.unk_token_id, tokenizer.pad_token_id):
        if spare is not None:
            return int(spare)
    raise UnsupportedModel(
        "the checkpoint's tokenizer has neither an unknown nor a padding token, one of which "
        "stands for a video in a prompt; use the tokenizer files of Video-LLaVA"
    )


def render(chat: Sequence[Mapping[str, Any]], answer_end: str) -> list[str | Slot]:
    """Render turns as texts and slots of visuals, in order; a line break follows each visual.

    Args:
        chat: messages whose content is a list of parts; the first may be the system's.
        answer_end: what follows an answer of the assistant.

    Raises:
        InvalidSetting: for a role that the prompt has no place for.
    """
    pieces: list[str | Slot] = []
    for number, message in enumerate(chat):
        role = message["role"]
        if role == "system" and number == 0:
            start, end = "", " "
        elif role in ("user", "assistant"):
            start, end = role.upper() + ": ", " " if role == "user" else answer_end
        else:
            raise InvalidSetting(
                f"a message has role {role!r}; accepted are user and assistant, and system for the "
                "first message"
            )
        pieces.append(start)
        for part in message["content"]:
            pieces += [part["text"]] if part["type"] == "text" else [Slot(part["type"]), "\n"]
        pieces.append(end)
    return [*pieces, "ASSISTANT:"]
