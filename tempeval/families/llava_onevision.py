"""LLaVA-OneVision in the Hugging Face format: frames to visual tokens, chats to layouts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from tempeval.errors import InvalidSetting
from tempeval.families.base import Family
from tempeval.families.chat import Chat
from tempeval.families.frame_choice import fit_frames
from tempeval.families.llava_onevision_budget import FixedFrames
from tempeval.families.llava_onevision_checkpoint import load_llava_onevision, newline_position
from tempeval.families.llava_onevision_vision import ImageTokens, VisionTower
from tempeval.families.mrope import POSITION_RULES
from tempeval.families.sequence_layout import SequenceLayoutBuilder, TokenRun, grid_run
from tempeval.video.still import read_rgb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from tempeval.families.base import LoadOptions
    from tempeval.families.loading import Checkpoint
    from tempeval.stages import Layout, VisualTokens
    from tempeval.video.clip import Clip, FramePlan, GridRule, Sampling


class LlavaOnevision(Family):
    """A loaded LLaVA-OneVision (`llava-hf/llava-onevision-qwen2-*-ov-hf`).

    Every frame is resized to the tower's square by the checkpoint's own video processor, so a clip
    is decoded at its own size, and a frame has a fixed number of tokens: 14 x 14 for the published
    checkpoints. Frames are encoded one by one, and positions count tokens, so both position rules
    are the same.

    An image is the base image, and its tiles row by row, each row with a newline token. Several
    images of a prompt are tiled each by itself.

    `mm_newline_position` is `one_token` (one newline token after a video: 32 frames give 6273
    tokens) or `grid` (one after each row of each frame: 6720). It is the options', else the
    checkpoint's own (`mm_newline_position` in its `config.json`, there or under `tempeval`), else
    `one_token`, as in transformers.

    Args:
        checkpoint: a loaded checkpoint.
        pretrained: what was loaded, as given.
        options: how it was loaded.
    """

    name: ClassVar[str] = "llava_onevision"
    model_types: ClassVar[tuple[str, ...]] = ("llava_onevision",)

    def __init__(self, checkpoint: Checkpoint, pretrained: str, options: LoadOptions) -> None:
        self.pretrained = pretrained
        self.options = options
        self.revision = checkpoint.revision
        self.model = checkpoint.model
        self.processor = checkpoint.processor
        self.tokenizer = checkpoint.processor.tokenizer
        self.mm_newline_position = newline_position(checkpoint.model.config, options)
        self._tower = VisionTower(checkpoint)
        config = self.model.config
        self._placeholders = {"video": config.video_token_id, "image": config.image_token_id}
        self._chat = Chat(self.processor, self._placeholders, pretrained)
        self._chat.check_system_prompt(options.system_prompt)
        self._builder = SequenceLayoutBuilder.of(
            self.model.model.language_model.rotary_emb,
            self._placeholders,
            self._runs,
            self.device,
        )

    @classmethod
    def load(cls, pretrained: str, options: LoadOptions) -> LlavaOnevision:
        """Load weights, processor and chat template from a folder or hub id."""
        if options.position_rule not in POSITION_RULES:
            raise InvalidSetting(
                f"position_rule={options.position_rule!r} is not one of {', '.join(POSITION_RULES)}"
            )
        family = cls(load_llava_onevision(pretrained, options), pretrained, options)
        family._check_pixels()
        family.resize()  # refuses a bad budget before any work
        return family

    @property
    def text_model(self) -> nn.Module:
        """The module that takes `inputs_embeds` and runs the decoder layers."""
        return cast("nn.Module", self.model.model.language_model)

    @property
    def axes(self) -> bool:
        """Positions count tokens."""
        return False

    @property
    def frames_per_block(self) -> int:
        """Every frame is encoded by itself."""
        return 1

    @property
    def frames_per_grid(self) -> int:
        """A frame is a temporal grid."""
        return 1

    @property
    def feature_width(self) -> int:
        """Width of the tower, times the layers whose features are joined."""
        return self._tower.cost.in_width

    @property
    def settings(self) -> dict[str, str]:
        """Where newline tokens lie in a video."""
        return {"mm_newline_position": self.mm_newline_position}

    def planned_tokens(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> int:
        """Return the tokens of a video with all its frames, newlines included."""
        return self._fixed_frames(1, grid_rules).tokens(sampling.num_frames)

    @property
    def placeholder_ids(self) -> frozenset[int]:
        """Token ids that stand for a visual in a prompt."""
        return frozenset(self._placeholders.values())

    def resize(self, num_visuals: int = 1, grid_rules: tuple[GridRule, ...] = ()) -> FixedFrames:
        """Return a rule that keeps a clip's own size, and holds its frames against the budget."""
        return self._fixed_frames(num_visuals, grid_rules)

    def pixel_limits(self) -> dict[str, int]:
        """Return the pixels of the tower's square, which every frame gets."""
        area = self._tower.anyres.tile**2
        return {"min_pixels": area, "max_pixels": area}

    def check_sampling(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> None:
        """Refuse a number of frames that is not 98 to 100 % of the budget."""
        self._fixed_frames(1, grid_rules).check(sampling)

    def frames_for_budget(self, preferred: int) -> int:
        """Choose the number of frames nearest to `preferred` that makes 98 to 100 % of it."""
        return self._fixed_frames(1).frames_near(preferred)

    def fit(self, plan: FramePlan, *, free_frames: bool) -> FramePlan:
        """Choose frames, and the settings of grid rules, for the budget."""
        fixed = self._fixed_frames(1, plan.grid_rules)
        return fit_frames(fixed, plan, free_frames=free_frames)

    def _fixed_frames(self, num_visuals: int, grid_rules: tuple[GridRule, ...] = ()) -> FixedFrames:
        side, rows = self._tower.side, self.mm_newline_position == "grid"
        return FixedFrames(
            per_frame=side * (side + 1) if rows else side * side,
            per_video=0 if rows else 1,
            budget=self.options.visual_token_budget,
            num_visuals=num_visuals,
            cells=(side, side),
            newline_rows=rows,
            grid_rules=grid_rules,
        )

    def _check_pixels(self) -> None:
        side, (area, _) = self._tower.anyres.tile, self.pixel_limits().values()
        for name in ("min_pixels", "max_pixels"):
            asked = getattr(self.options, name)
            if asked not in (None, area):
                raise InvalidSetting(
                    f"{name}={asked}: every frame is resized to {side} x {side} px, so the only "
                    f"value is {area}; leave it out, and choose the number of frames instead"
                )

    def encode(
        self, clip: Clip, *, num_groups: int = 1, with_features: bool = False
    ) -> VisualTokens:
        """Run the vision tower, the projector and the pooling on a clip.

        Frames do not see one another, so groups change nothing. Features are the projector's
        input, pooled like its output: `[T, h, w, C]`.

        Args:
            clip: frames at their own size.
            num_groups: strided groups of frames encoded separately.
            with_features: also return the features before the projector.

        Raises:
            InvalidSetting: if the frames don't divide into the groups.
        """
        return self._tower.encode(clip, num_groups, with_features)

    def encode_image(self, image: Any, *, num_visuals: int = 1) -> ImageTokens:
        """Run the vision tower and projector on one still image and its tiles.

        Args:
            image: PIL image, or path of one; as `read_rgb` reads it.
            num_visuals: visuals in the prompt, which share the visual-token budget.

        Raises:
            InfeasibleBudget: if the image's tokens, whose number is fixed by its aspect ratio, are
                not 98 to 100 % of its share of the budget.
            UnsupportedModel: if the image is too long and narrow to leave any token.
        """
        rgb = read_rgb(image)
        packing = self._tower.anyres.pack(rgb.height, rgb.width)
        tokens = self._tower.cost.side**2 + packing.rows * (packing.columns + 1)
        what = f"an image of {rgb.height} x {rgb.width} px with {tokens}"
        self._fixed_frames(num_visuals).check_tokens(tokens, what)
        return self._tower.encode_image(rgb)

    def tokenize(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Render a chat with the checkpoint's template and tokenize it.

        The published templates put the images of a turn first, then its videos, then its texts.
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
        """Expand placeholders, newline tokens included; split after the last visual token."""
        return self._builder.build(input_ids, visuals)

    @torch.no_grad()
    def embed(self, layout: Layout, visuals: Sequence[VisualTokens]) -> torch.Tensor:
        """Return input embeddings of the prefix, `[1, P, D]`, visuals and newlines in place."""
        newline = self.model.model.image_newline
        return self._builder.embed(layout, visuals, self.model.get_input_embeddings(), newline)

    def vision_flops(self, visuals: Sequence[VisualTokens]) -> float:
        """Count operations of the vision tower and projector: formula in `TileCost`.

        Args:
            visuals: as `encode` returned them, before any method pools them.
        """
        tiles = [v.tiles if isinstance(v, ImageTokens) else v.grid[0] for v in visuals]
        return self._tower.cost.flops(sum(tiles))

    def _runs(self, visual: VisualTokens) -> list[TokenRun]:
        """Lay out a visual's pathways: newlines after rows, or one after the last token."""
        first, *others = visual.runs
        if visual.kind == "image" and others:
            tiles = [grid_run(p.grid, lead=visual.lead, newline_rows=True) for p in others]
            return [grid_run(first.grid, lead=visual.lead), *tiles]
        rows = visual.kind == "video" and self.mm_newline_position == "grid"
        last = len(others)
        return [
            grid_run(
                pathway.grid,
                lead=visual.lead,
                newline_rows=rows,
                newline_end=not rows and number == last,
            )
            for number, pathway in enumerate(visual.runs)
        ]
