"""lmms-eval model `tempeval_pave`: PAVE (see `tempeval.methods.pave`).

`--model_args adapter=FOLDER` says which patch; its other settings are arguments too.
"""

from __future__ import annotations

from typing import Any

from tempeval.families.registry import family_of
from tempeval.methods.pave_adapter import load_adapter
from tempeval.mini.paths import located
from tempeval.model_wrappers.wrapper import TempevalModel

#: Families whose videos have newline tokens.
NEWLINE_FAMILIES = ("llava_onevision",)


class TempevalPAVE(TempevalModel):
    """Chat path.

    Newline tokens lie where the adapter says that they lay in training, unless
    `mm_newline_position` says otherwise: this model runs nothing but PAVE, so there is no other
    method to be fair to.

    Args:
        pretrained: see `TempevalModel`.
        mm_newline_position: `one_token` or `grid`, for LLaVA-OneVision; None takes the adapter's,
            else the checkpoint's own.
        arguments: see `TempevalModel`.
    """

    fixed_method = "pave"

    def __init__(
        self,
        pretrained: str = "mini",
        *,
        mm_newline_position: str | None = None,
        **arguments: Any,
    ) -> None:
        if mm_newline_position is None:
            mm_newline_position = _trained_newlines(pretrained, arguments)
        super().__init__(pretrained, mm_newline_position=mm_newline_position, **arguments)


def _trained_newlines(pretrained: str, arguments: dict[str, Any]) -> str | None:
    """Return where the adapter says that newlines lay; None if it does not, or there are none."""
    adapter = arguments.get("adapter", arguments.get("pave.adapter"))
    if not isinstance(adapter, str):
        return None  # refused by the model, with the rest of its arguments
    family = arguments.get("family") or family_of(located(pretrained), arguments.get("revision"))
    if family not in NEWLINE_FAMILIES:
        return None
    weights = load_adapter(adapter).weights
    return weights.mm_newline_position if weights.says_newlines else None


class TempevalPAVESimple(TempevalPAVE):
    """Simple path (`--force_simple`), and the one that scores choices."""

    is_simple = True
