"""Video-LLaVA: the Hugging Face port, and the checkpoint as it was released."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from tempeval.families.base import Family
from tempeval.families.frame_choice import fit_frames
from tempeval.families.llava_onevision_budget import FixedFrames
from tempeval.families.sequence_layout import SequenceLayoutBuilder, TokenRun, grid_run
from tempeval.families.video_llava_loading import load_parts
from tempeval.families.video_llava_prompt import OriginalPrompt
from tempeval.video.still import read_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from tempeval.families.base import LoadOptions
    from tempeval.families.video_llava_loading import Parts
    from tempeval.stages import Layout, VisualTokens
    from tempeval.video.clip import Clip, FramePlan, GridRule, Sampling


class VideoLlava(Family):
    """A loaded Video-LLaVA.

    Every frame is a CLS token and its patches (257 tokens), a temporal grid of its own; positions
    count tokens. The port's tower looks at each frame alone. The original's attends over blocks of
    8 frames, so it takes multiples of 8.

    Nothing is ever cut from a prompt: the released loader cuts embeddings at
    `tokenizer_model_max_length` (3072), which loses the question of 16 frames.

    Args:
        parts: a loaded checkpoint.
        pretrained: what was loaded, as given.
        options: how it was loaded.

    Attributes:
        is_original: whether it is the released layout.
    """

    name: ClassVar[str] = "video_llava"
    model_types: ClassVar[tuple[str, ...]] = ("video_llava",)

    def __init__(self, parts: Parts, pretrained: str, options: LoadOptions) -> None:
        self.pretrained = pretrained
        self.options = options
        self.revision = parts.revision
        self.model = parts.model
        self.tokenizer = parts.tokenizer
        self.is_original = isinstance(parts.prompt, OriginalPrompt)
        self._text_model = parts.text_model
        self._vision = parts.vision
        self._prompt = parts.prompt
        self._prompt.check_system_prompt(options.system_prompt)
        self._builder = SequenceLayoutBuilder.of(
            parts.text_model.rotary_emb, parts.prompt.placeholders, _runs, self.device
        )

    @classmethod
    def load(cls, pretrained: str, options: LoadOptions) -> VideoLlava:
        """Load a folder or hub id of either layout."""
        family = cls(load_parts(pretrained, options), pretrained, options)
        family.resize()  # refuses bad budgets before any work
        return family

    @property
    def text_model(self) -> nn.Module:
        """The module that takes `inputs_embeds` and runs the decoder layers."""
        return cast("nn.Module", self._text_model)

    @property
    def axes(self) -> bool:
        """Positions count tokens."""
        return False

    @property
    def frames_per_block(self) -> int:
        """8 frames see one another in the original tower; in the port's, each is alone."""
        return self._vision.cost.block

    @property
    def frames_per_grid(self) -> int:
        """Each frame is a grid."""
        return 1

    @property
    def feature_width(self) -> int:
        """Width of the tower, times the layers whose features are joined."""
        return self._vision.feature_width

    def planned_tokens(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> int:
        """Return frames x tokens per frame, or what grid rules leave of them."""
        return self.resize(1, grid_rules).tokens(sampling.num_frames)

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """Token ids that stand for a visual in a prompt."""
        return frozenset(self._prompt.placeholders.values())

    def resize(self, num_visuals: int = 1, grid_rules: tuple[GridRule, ...] = ()) -> FixedFrames:
        """Return the rule that keeps frames at their size, and counts tokens against the budget."""
        return FixedFrames(
            per_frame=self._vision.per_frame,
            block=self.frames_per_block,
            budget=self.options.visual_token_budget,
            num_visuals=num_visuals,
            cells=(self._vision.cost.side, self._vision.cost.side),
            grid_rules=grid_rules,
        )

    @property
    def settings(self) -> dict[str, str]:
        """The layout; the released code also mirrors half of its videos, which is left out here."""
        if self.is_original:
            return {"checkpoint_layout": "original", "random_horizontal_flip": "off"}
        return {"checkpoint_layout": "port"}

    def pixel_limits(self) -> dict[str, int]:
        """Return the one size that the tower takes, as both limits."""
        pixels = self._vision.image_size**2
        return {"min_pixels": pixels, "max_pixels": pixels}

    def check_sampling(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> None:
        """Refuse frames that don't divide into blocks, or don't fit the budget."""
        self.resize(1, grid_rules).check(sampling)

    def frames_for_budget(self, preferred: int) -> int:
        """Choose the number of frames nearest to `preferred` that the budget can serve."""
        return self.resize().frames_near(preferred)

    def fit(self, plan: FramePlan, *, free_frames: bool) -> FramePlan:
        """Choose frames, and the settings of grid rules, for the budget."""
        fixed = self.resize(1, plan.grid_rules)
        return fit_frames(fixed, plan, free_frames=free_frames)

    def encode(
        self, clip: Clip, *, num_groups: int = 1, with_features: bool = False
    ) -> VisualTokens:
        """Run the vision tower and projector on a clip.

        With m groups the original tower gets group g = frames g, g+m, ... in blocks of its own,
        and its tokens come back in the order of time; in the port groups change nothing. Features
        are the selected hidden state without CLS, `[T, h, w, C]`.

        Args:
            clip: frames at any size; the checkpoint's own preprocessing resizes and crops them.
            num_groups: strided groups of frames encoded separately.
            with_features: also return the features before the projector.

        Raises:
            InvalidSetting: if the frames of a group don't divide into blocks.
        """
        return self._vision.video(clip, num_groups, with_features)

    def encode_image(self, image: Any, *, num_visuals: int = 1) -> VisualTokens:
        """Run the port's image tower and projector on one still image.

        Args:
            image: PIL image, or path of one; as `read_rgb` reads it.
            num_visuals: visuals in the prompt, which share the visual-token budget.

        Raises:
            UnsupportedModel: on the original layout, whose image tower is not loaded.
            InfeasibleBudget: if an image's tokens are not 98 to 100 % of the budget.
        """
        tokens = self._vision.image(read_rgb(image))
        self.resize(num_visuals).check_tokens(tokens.num_tokens, "an image")
        return tokens

    def tokenize(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Render a chat and tokenize it, with one placeholder token per visual.

        The port uses its chat template, or without one the documented `USER: ... ASSISTANT:`. The
        original uses conversation `llava_v1`. `options.system_prompt` becomes the system text
        unless the messages have one.

        Args:
            messages: `[{"role": ..., "content": [{"type": "text"|"video"|"image", ...}]}]`;
                content may also be a string.

        Raises:
            InvalidSetting: if a text contains a placeholder token, a role or part is unknown, or
                an image comes to the original layout.
            UnsupportedModel: if the template does not give one placeholder per visual.
        """
        return self._prompt.tokenize(messages, self.options.system_prompt)

    def check_text(self, text: str) -> None:
        """Refuse a text, such as a choice, that the tokenizer would read as a visual."""
        self._prompt.check_text(text, "a choice")

    def layout(
        self, input_ids: Sequence[int], visuals: Sequence[VisualTokens]
    ) -> tuple[Layout, torch.Tensor]:
        """Expand placeholders; split after the last visual token."""
        return self._builder.build(input_ids, visuals)

    @torch.no_grad()
    def embed(self, layout: Layout, visuals: Sequence[VisualTokens]) -> torch.Tensor:
        """Return input embeddings of the prefix, `[1, P, D]`, visual tokens in place."""
        return self._builder.embed(layout, visuals, self.model.get_input_embeddings(), None)

    def vision_flops(self, visuals: Sequence[VisualTokens]) -> float:
        """Count operations of the vision tower and projector: formula in `ClipCost`.

        Args:
            visuals: as `encode` returned them, before any method pools them.
        """
        return sum(self._vision.cost.flops(visual) for visual in visuals)


def _runs(visual: VisualTokens) -> list[TokenRun]:
    return [grid_run(pathway.grid, lead=visual.lead) for pathway in visual.runs]
