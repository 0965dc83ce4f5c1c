"""Qwen2-VL and Qwen2.5-VL: frames to visual tokens, chats to layouts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from tempeval.errors import InvalidSetting
from tempeval.families.base import Family, Resize
from tempeval.families.chat import Chat
from tempeval.families.mrope import POSITION_RULES, PositionRule
from tempeval.families.pixel_budget import (
    BudgetResize,
    SmartResize,
    count_tokens,
    smart_resize,
)
from tempeval.families.qwen_checkpoint import load_checkpoint
from tempeval.families.qwen_layout import LayoutBuilder, RotaryTable
from tempeval.families.qwen_vision import VisionTower
from tempeval.video.clip import FramePlan, Sampling
from tempeval.video.still import read_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from tempeval.families.base import LoadOptions
    from tempeval.families.loading import Checkpoint
    from tempeval.stages import Layout, VisualTokens
    from tempeval.video.clip import Clip, GridRule

#: (min, max) pixels per frame of lmms-eval 0.7.3's wrappers.
DEFAULT_PIXELS = {
    "qwen2_vl": (3136, 602_112),
    "qwen2_5_vl": (256 * 28 * 28, 1_605_632),
}


class QwenVL(Family):
    """A loaded Qwen2-VL or Qwen2.5-VL.

    One temporal grid holds `temporal_patch_size` (2) frames; the vision tower attends within a
    grid only. Where a clip's times are unknown (one frame, or no timestamps) a grid counts as 1
    second, as in transformers; `clip.seconds_per_frame is None` tells so.

    Layouts live on the model's device. `visual_token_budget` overrides both pixel limits.

    Args:
        checkpoint: a loaded checkpoint.
        pretrained: what was loaded, as given.
        options: how it was loaded.
    """

    name: ClassVar[str] = "qwen_vl"
    model_types: ClassVar[tuple[str, ...]] = ("qwen2_vl", "qwen2_5_vl")

    def __init__(self, checkpoint: Checkpoint, pretrained: str, options: LoadOptions) -> None:
        self.pretrained = pretrained
        self.options = options
        self.revision = checkpoint.revision
        self.model = checkpoint.model
        self.model_type = checkpoint.model_type
        self.processor = checkpoint.processor
        self.tokenizer = checkpoint.processor.tokenizer
        self._tower = VisionTower(checkpoint)
        config = self.model.config
        self._placeholders = {"video": config.video_token_id, "image": config.image_token_id}
        self._chat = Chat(self.processor, self._placeholders, pretrained, in_order=True)
        self._chat.check_system_prompt(options.system_prompt)
        self._builder = LayoutBuilder(
            table=RotaryTable.from_module(self.model.model.language_model.rotary_emb),
            rule=cast("PositionRule", options.position_rule),
            placeholders=self._placeholders,
            tokens_per_second=getattr(config.vision_config, "tokens_per_second", None),
            device=self.device,
        )

    @classmethod
    def load(cls, pretrained: str, options: LoadOptions) -> QwenVL:
        """Load weights, processor and chat template from a folder or hub id."""
        if options.position_rule not in POSITION_RULES:
            raise InvalidSetting(
                f"position_rule={options.position_rule!r} is not one of {', '.join(POSITION_RULES)}"
            )
        family = cls(load_checkpoint(pretrained, options), pretrained, options)
        family.resize()  # refuses bad pixel limits and budgets before any work
        return family

    @property
    def text_model(self) -> nn.Module:
        """The module that takes `inputs_embeds` and runs the decoder layers."""
        return cast("nn.Module", self.model.model.language_model)

    @property
    def axes(self) -> bool:
        """M-RoPE: channels encode time, height and width."""
        return True

    @property
    def frames_per_block(self) -> int:
        """The tower attends within one temporal grid."""
        return self.frames_per_grid

    @property
    def frames_per_grid(self) -> int:
        """Frames that one patch embedding covers (`temporal_patch_size`)."""
        return self._tower.cost.temporal_patch

    @property
    def feature_width(self) -> int:
        """Width of the tower, times the patches that the merger joins."""
        return self._tower.cost.width * self._tower.cost.merge**2

    def planned_tokens(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> int:
        """Return the budget, or what frames at the upper pixel limit have."""
        if self.options.visual_token_budget is not None:
            return self.options.visual_token_budget
        rule = SmartResize(factor=self._tower.pixels_per_token, **self.pixel_limits())
        grids = -(-sampling.num_frames // self.frames_per_grid)
        most = rule.most_tokens(sampling.num_frames)
        # Rules that pool may leave the most of a long frame, or of a square one.
        shapes = range(1, most + 1) if grid_rules else (1,)
        return max(count_tokens(grid_rules, (grids, rows, most // rows)) for rows in shapes)

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """Token ids that stand for a visual in a prompt."""
        return frozenset(self._placeholders.values())

    def resize(self, num_visuals: int = 1, grid_rules: tuple[GridRule, ...] = ()) -> Resize:
        """Return the rule that sizes clips: by the budget if one is set, else by pixels."""
        if self.options.visual_token_budget is not None:
            return self._budget_resize(self.options.visual_token_budget, num_visuals, grid_rules)
        return SmartResize(factor=self._tower.pixels_per_token, **self.pixel_limits())

    def pixel_limits(self) -> dict[str, int]:
        """Return the pixel limits in force: the options', else the checkpoint's own, else stock.

        A checkpoint made for other sizes says so in its `config.json`, under `tempeval`:
        `{"min_pixels": ..., "max_pixels": ...}`, as the mini checkpoints do.
        """
        low, high = DEFAULT_PIXELS[self.model_type]
        own = getattr(self.model.config, "tempeval", None) or {}
        limits = {"min_pixels": low, "max_pixels": high} | own
        asked = {"min_pixels": self.options.min_pixels, "max_pixels": self.options.max_pixels}
        return limits | {key: value for key, value in asked.items() if value is not None}

    def check_sampling(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> None:
        """Refuse a sampling that no frame size can bring within the budget."""
        if self.options.visual_token_budget is not None:
            self._budget_resize(self.options.visual_token_budget, 1, grid_rules).check(sampling)

    def frames_for_budget(self, preferred: int) -> int:
        """Choose the number of frames nearest to `preferred` that the budget can serve."""
        plan = FramePlan(Sampling(num_frames=preferred))
        return self.fit(plan, free_frames=True).sampling.num_frames

    def fit(self, plan: FramePlan, *, free_frames: bool) -> FramePlan:
        """Choose the number of frames; their size follows from it, video by video."""
        budget = self.options.visual_token_budget
        if budget is None or not free_frames:
            return plan
        rule = self._budget_resize(budget, 1, plan.grid_rules)
        frames = rule.frames_near(plan.sampling.num_frames, plan.unit)
        return replace(plan, sampling=replace(plan.sampling, num_frames=frames))

    def _budget_resize(
        self, budget: int, num_visuals: int, grid_rules: tuple[GridRule, ...]
    ) -> BudgetResize:
        return BudgetResize(
            budget=budget,
            factor=self._tower.pixels_per_token,
            frames_per_grid=self._tower.cost.temporal_patch,
            num_visuals=num_visuals,
            grid_rules=grid_rules,
        )

    def encode(
        self, clip: Clip, *, num_groups: int = 1, with_features: bool = False
    ) -> VisualTokens:
        """Run the vision tower and merger on a clip.

        A last grid that lacks frames repeats the last frame (the processor does). With m groups,
        group g holds frames g, g+m, ...; a grid then joins frames that are m apart, and grid k of
        group g comes at place k*m + g. Features are the merger's input, `[T, h, w, merge^2 * C]`.

        Args:
            clip: frames already at their final size, as `resize` gives it.
            num_groups: strided groups of frames encoded separately.
            with_features: also return the features before the merger.

        Raises:
            InvalidSetting: if the frames are of another size, or don't divide into the groups.
        """
        return self._tower.encode(clip, num_groups, with_features)

    def encode_image(self, image: Any, *, num_visuals: int = 1) -> VisualTokens:
        """Run the vision tower and merger on one still image.

        It is resized within the pixel limits (without the caps for video), or to the budget.

        Args:
            image: PIL image, or path of one; as `read_rgb` reads it.
            num_visuals: visuals in the prompt, which share the visual-token budget.
        """
        rgb = read_rgb(image)
        rule = self.resize(num_visuals)
        if isinstance(rule, SmartResize):
            limits = {"min_pixels": rule.min_pixels, "max_pixels": rule.max_pixels}
            size = smart_resize(rgb.height, rgb.width, factor=rule.factor, **limits)
        else:
            size = rule(rgb.height, rgb.width, 1)
        return self._tower.encode_image(rgb, size)

    def tokenize(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Render a chat with the checkpoint's template and tokenize it.

        `options.system_prompt` becomes the system turn unless the messages have one.

        Args:
            messages: `[{"role": ..., "content": [{"type": "text"|"video"|"image", ...}]}]`;
                content may also be a string.

        Raises:
            UnusableText: if a text contains a token that marks visuals.
            InvalidSetting: if a part is of another type.
            UnsupportedModel: if the template does not give one placeholder per visual.
        """
        return self._chat.tokenize(messages, self.options.system_prompt)

    def check_text(self, text: str) -> None:
        """Refuse a text, such as a choice, that the tokenizer would read as a visual."""
        self._chat.check_text(text, "a choice")

    def layout(
        self, input_ids: Sequence[int], visuals: Sequence[VisualTokens]
    ) -> tuple[Layout, torch.Tensor]:
        """Expand placeholders; split after the last visual token."""
        return self._builder.build(input_ids, visuals)

    @torch.no_grad()
    def embed(self, layout: Layout, visuals: Sequence[VisualTokens]) -> torch.Tensor:
        """Return input embeddings of the prefix, `[1, P, D]`, visual tokens in place."""
        embeddings = self.model.get_input_embeddings()(layout.input_ids)
        if visuals:
            tokens = torch.cat([visual.embeddings for visual in visuals]).to(embeddings)
            embeddings[layout.is_visual] = tokens
        return cast("torch.Tensor", embeddings.unsqueeze(0))

    def vision_flops(self, visuals: Sequence[VisualTokens]) -> float:
        """Count operations of the vision tower and merger: formula in `VisionCost`.

        Args:
            visuals: as `encode` returned them, before any method pools them.
        """
        return sum(self._tower.cost.flops(visual.grid) for visual in visuals)
