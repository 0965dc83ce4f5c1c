"""Proof that both sides get the same input: frames as pixels, visual tokens, prompt ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tempeval.bench.sides import BenchMismatch, messages_of, usage_of

if TYPE_CHECKING:
    from tempeval.bench.sides import Sides


class Seen:
    """Records what a model's vision tower and `generate` are given, while it is entered.

    Args:
        model: a Qwen2.5-VL.

    Attributes:
        pixels: patches of each vision call.
        grids: temporal grids, patch rows and columns of each vision call.
        prompts: prompt ids of each `generate` call.
    """

    def __init__(self, model: Any) -> None:
        self.pixels: list[torch.Tensor] = []
        self.grids: list[list[int]] = []
        self.prompts: list[list[int]] = []
        self._model = model

    def __enter__(self) -> Seen:
        self._hook = self._model.model.visual.register_forward_pre_hook(
            self._vision, with_kwargs=True
        )
        generate = self._model.generate

        def recorded(*args: Any, **kwargs: Any) -> Any:
            self.prompts += kwargs["input_ids"].tolist()
            return generate(*args, **kwargs)

        # On the instance, so that deleting it restores the class's own.
        self._model.generate = recorded
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()
        del self._model.generate

    def _vision(self, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = dict(zip(("hidden_states", "grid_thw"), args, strict=False)) | kwargs
        self.pixels.append(named["hidden_states"].detach().cpu())
        self.grids.append(named["grid_thw"][0].tolist())


def check_same_input(sides: Sides, video: str, text: str) -> dict[str, Any]:
    """Ask both sides the same question, untimed, and compare what the model was given.

    Args:
        sides: the two wrappers.
        video: the file that will be measured.
        text: the question.

    Returns:
        Facts for the table: frames, frame size, visual tokens.

    Raises:
        BenchMismatch: if pixels, grids, prompt ids or visual tokens differ anywhere.
    """
    model = sides.family.model
    with Seen(model) as stock:
        _, theirs = sides.ask_stock([video], [text])
    with Seen(model) as own:
        _, mine = sides.ask_ours([video], [text])
    usage = usage_of(mine[0])
    if stock.grids != own.grids or len(own.grids) != 1:
        raise BenchMismatch(f"visual grids differ: stock {stock.grids}, ours {own.grids}")
    if not torch.equal(stock.pixels[0], own.pixels[0]):
        apart = (stock.pixels[0].float() - own.pixels[0].float()).abs().max()
        raise BenchMismatch(f"pixels differ by up to {apart:.3g}; the decoders do not agree")
    if stock.prompts != own.prompts:
        raise BenchMismatch("prompt ids differ between stock and ours")
    placeholder = model.config.video_token_id
    counts = (stock.prompts[0].count(placeholder), own.prompts[0].count(placeholder))
    if counts != (usage.visual_tokens, usage.visual_tokens):
        raise BenchMismatch(f"visual tokens differ: {counts} fed, {usage.visual_tokens} recorded")
    grids, rows, columns = own.grids[0]
    patch = model.config.vision_config.patch_size
    return {
        "frames": usage.frames,
        "height": rows * patch,
        "width": columns * patch,
        "grids": grids,
        "visual_tokens": usage.visual_tokens,
        "same_first_answer": theirs[0].text == mine[0].text,
    }


def question_tokens(sides: Sides, text: str) -> int:
    """Count the prompt ids after the last visual token: the part that is each question's own."""
    ids = sides.family.tokenize(messages_of({"video": "", "text": text}))
    return ids[::-1].index(sides.family.model.config.video_token_id)
