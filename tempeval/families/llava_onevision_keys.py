"""Names of weights: from the original LLaVA-OneVision to transformers' class, nothing left over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tempeval.errors import UnsupportedModel

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

VISION_PREFIX = "model.vision_tower.vision_tower.vision_model."
_TOWER = "model.vision_tower."

#: First match counts; transformers' names stand on the right.
PREFIXES = (
    (VISION_PREFIX, _TOWER),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("model.embed_tokens.", "model.language_model.embed_tokens."),
    ("model.layers.", "model.language_model.layers."),
    ("model.norm.", "model.language_model.norm."),
    ("lm_head.", "lm_head."),
)
# Buffers that older versions saved; they are computed from the configuration.
_BUFFERS = (".rotary_emb.inv_freq", ".embeddings.position_ids")
_HEAD, _TABLE = "lm_head.weight", "model.language_model.embed_tokens.weight"


def new_name(key: str) -> str | None:
    """Return transformers' name for an original one; None if no part of the model has it."""
    for old, new in PREFIXES:
        if key.startswith(old):
            return new + key[len(old) :]
    return None


def renamed(
    weights: Iterable[tuple[str, torch.Tensor]],
) -> Iterator[tuple[str, str | None, torch.Tensor]]:
    """Yield (original name, transformers' name or None, weight), without buffers."""
    for key, tensor in weights:
        if not key.endswith(_BUFFERS):
            yield key, new_name(key), tensor


def checked_weights(
    config: Any, weights: Iterable[tuple[str, str | None, torch.Tensor]], pretrained: str
) -> dict[str, torch.Tensor]:
    """Return all weights of a configuration under the installed transformers' names.

    Args:
        config: `LlavaOnevisionConfig`.
        weights: from `renamed`.
        pretrained: the checkpoint, for errors.

    Raises:
        UnsupportedModel: naming weights that are missing, unexpected or of another shape, by their
            names in the checkpoint.
    """
    expected = _expected(config)
    # Releases of transformers differ in whether the tower is wrapped once more.
    wrapped = any(name.startswith(_TOWER + "vision_model.") for name in expected)
    taken: dict[str, torch.Tensor] = {}
    unexpected, misshapen = [], []
    for old, new, tensor in weights:
        name = new or ""
        if wrapped and name.startswith(_TOWER):
            name = f"{_TOWER}vision_model.{name[len(_TOWER) :]}"
        if name not in expected:
            unexpected.append(old)
        elif tuple(tensor.shape) != expected[name]:
            misshapen.append(f"{old} {tuple(tensor.shape)}, not {expected[name]}")
        taken[name] = tensor
    if unexpected:
        raise UnsupportedModel(
            f"{pretrained!r} has {len(unexpected)} weights that LLaVA-OneVision does not have, "
            f"such as {', '.join(sorted(unexpected)[:3])}"
        )
    if misshapen:
        raise UnsupportedModel(
            f"{pretrained!r}: {len(misshapen)} weights do not have the shape that config.json "
            f"asks for: {misshapen[0]}"
        )
    _check_head(config, taken, pretrained)
    missing = expected.keys() - taken.keys() - ({_HEAD} if config.tie_word_embeddings else set())
    if missing:
        _refuse(pretrained, sorted(missing), wrapped)
    return taken


def _expected(config: Any) -> dict[str, tuple[int, ...]]:
    import transformers

    with torch.device("meta"):
        model = transformers.LlavaOnevisionForConditionalGeneration(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_head(config: Any, taken: dict[str, torch.Tensor], pretrained: str) -> None:
    if not (config.tie_word_embeddings and _HEAD in taken and _TABLE in taken):
        return
    if not torch.equal(taken[_HEAD], taken[_TABLE]):
        raise UnsupportedModel(
            f"{pretrained!r} says tie_word_embeddings, but its lm_head.weight is not its "
            "model.embed_tokens.weight; set tie_word_embeddings to false in its config.json"
        )


def _refuse(pretrained: str, missing: list[str], wrapped: bool) -> None:
    """Name what is missing as the checkpoint would call it."""
    tower = f"{_TOWER}vision_model." if wrapped else _TOWER
    backwards = [(new, old) for old, new in PREFIXES if new != _TOWER] + [(tower, VISION_PREFIX)]
    names = []
    for name in missing:
        new, old = next((pair for pair in backwards if name.startswith(pair[0])), ("", ""))
        names.append(old + name[len(new) :])
    if all(name.startswith(VISION_PREFIX) for name in names):
        raise UnsupportedModel(
            f"{pretrained!r} lacks {len(names)} weights of its vision tower, such as {names[0]}; "
            "the tower must be inside the checkpoint, as in the published ones"
        )
    raise UnsupportedModel(
        f"{pretrained!r} has no weights for {len(names)} parameters, such as {names[0]}. Download "
        "it again"
    )
