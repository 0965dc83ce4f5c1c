"""The Llama tokenizer of an original Video-LLaVA folder, from its SentencePiece model."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tempeval.errors import UnsupportedModel
from tempeval.families.video_llava_prompt import LLAVA_V1

if TYPE_CHECKING:
    from pathlib import Path


def load_tokenizer(folder: Path) -> Any:
    """Load `tokenizer.json` as it is, else build the tokenizer from `tokenizer.model`.

    transformers' own conversion of `tokenizer.model` reads it as a protobuf and depends on
    matching versions of two packages; here the SentencePiece library reads its own file.

    Raises:
        UnsupportedModel: if there is neither file, or one that cannot be read.
    """
    import transformers

    if not (folder / "tokenizer.json").is_file():
        if not (folder / "tokenizer.model").is_file():
            raise UnsupportedModel(
                f"checkpoint {str(folder)!r} has no tokenizer (tokenizer.model or tokenizer.json)"
            )
        return _from_sentencepiece(folder / "tokenizer.model")
    try:
        return transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
        raise UnsupportedModel(f"cannot load the tokenizer of {str(folder)!r}: {error}") from error


def _from_sentencepiece(path: Path) -> Any:
    import sentencepiece
    import transformers

    try:
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise UnsupportedModel(f"cannot read {path}: {error}") from error
    names = {pieces.id_to_piece(number): number for number in range(pieces.get_piece_size())}
    tokenizer = transformers.LlamaTokenizer(
        vocab=names,
        merges=_merges(pieces, names),
        unk_token=pieces.id_to_piece(pieces.unk_id()),
        bos_token=pieces.id_to_piece(pieces.bos_id()),
        eos_token=pieces.id_to_piece(pieces.eos_id()),
        add_bos_token=True,
    )
    if tokenizer(LLAVA_V1, add_special_tokens=False)["input_ids"] != pieces.encode(LLAVA_V1):
        raise UnsupportedModel(
            f"{path} is not a Llama tokenizer (byte-pair encoding with byte fallback); use the "
            "tokenizer files of Video-LLaVA"
        )
    return tokenizer


def _merges(pieces: Any, names: dict[str, int]) -> list[tuple[str, str]]:
    """List the pairs whose concatenation is a piece, the earliest piece first."""
    merges = []
    for piece, number in names.items():
        if pieces.is_control(number) or pieces.is_byte(number) or pieces.is_unknown(number):
            continue
        halves = ((piece[:i], piece[i:]) for i in range(1, len(piece)))
        merges += [(left, right) for left, right in halves if left in names and right in names]
    return merges
