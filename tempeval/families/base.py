"""What a family must offer: pixels to visual tokens, prompt to layout, and where the text stack is.

Families know models and no methods. Everything that attaches to a model is in `tempeval.engine`.
One file tells all that a family must offer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

from tempeval.errors import InvalidSetting
from tempeval.stages import Geometry, RunFacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import nn

    from tempeval.stages import Layout, VisualTokens
    from tempeval.video.clip import Clip, FramePlan, GridRule, Sampling, TowerInput


class Resize(Protocol):
    """Size at which a clip is decoded; picklable, because decoding runs in worker processes."""

    def __call__(self, height: int, width: int, num_frames: int) -> tuple[int, int]:
        """Map the upright source size in pixels to the decoded (height, width)."""
        ...


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is loaded and how its inputs are made.

    Attributes:
        device: torch device string, such as `cpu` or `cuda:0`.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` (the checkpoint's on CUDA, float32 on
            CPU).
        position_rule: `original` or `native`.
        revision: commit of a hub checkpoint.
        min_pixels, max_pixels: per frame; None takes the family's default.
        visual_token_budget: exact number of visual tokens per prompt to plan for (98 to 100 %).
        system_prompt: replaces the chat template's own when not None.
        mm_newline_position: where a family that puts newline tokens into videos puts them; None
            takes the checkpoint's own. Families without such tokens do not read it (see
            `Family.settings`).
        weights: False makes a model whose parameters have shapes and no values, where the
            checkpoint's layout allows it; it plans, and answers nothing.
    """

    device: str = "cpu"
    dtype: str = "auto"
    position_rule: str = "original"
    revision: str | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    visual_token_budget: int | None = None
    system_prompt: str | None = None
    mm_newline_position: str | None = None
    weights: bool = True


class Family(ABC):
    """A loaded base model and everything that is particular to its kind.

    Attributes:
        name: family name, as `tempeval list families` prints it.
        model_types: values of `config.json`'s `model_type` it loads.
        pretrained: what was loaded, as given.
        revision: commit of a hub checkpoint, else a digest of the weights.
        options: how it was loaded.
        tower_inputs: what of the vision tower stage `tokens` can be given besides the features
            before the projector (`FramePlan.tower`); nothing so far.
        adapted: of a base model with an adapter merged into it: `base_model`, `base_revision` and
            `adapter_revision`; else empty.
    """

    name: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    tower_inputs: ClassVar[frozenset[TowerInput]] = frozenset()
    adapted: Mapping[str, str] = MappingProxyType({})

    pretrained: str
    revision: str
    options: LoadOptions
    model: Any  # transformers' classes carry no types
    tokenizer: Any

    @classmethod
    @abstractmethod
    def load(cls, pretrained: str, options: LoadOptions) -> Family:
        """Load weights, processor and chat template from a folder or hub id.

        Raises:
            UnsupportedModel: if the checkpoint is not of this family or files are missing.
            InvalidSetting: if an option's value is not accepted.
        """

    @property
    @abstractmethod
    def text_model(self) -> nn.Module:
        """The module that takes `inputs_embeds` and runs the decoder layers."""

    @property
    def layers(self) -> Sequence[nn.Module]:
        """The decoder layers; each has a `self_attn` with `layer_idx`."""
        return cast("Sequence[nn.Module]", self.text_model.layers)

    @property
    def geometry(self) -> Geometry:
        """Sizes of the text stack."""
        config = self.model.config.get_text_config()
        head_dim = getattr(config, "head_dim", None)
        return Geometry(
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            head_dim=head_dim or config.hidden_size // config.num_attention_heads,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
        )

    @property
    @abstractmethod
    def axes(self) -> bool:
        """Whether rotary channels encode time, height and width (M-RoPE)."""

    @property
    @abstractmethod
    def frames_per_block(self) -> int:
        """Frames that the vision tower lets attend to one another."""

    @property
    @abstractmethod
    def frames_per_grid(self) -> int:
        """Frames merged into one temporal grid."""

    @property
    @abstractmethod
    def feature_width(self) -> int:
        """Channels of the features before the projector (`VisualTokens.features`)."""

    @property
    def context_length(self) -> int:
        """Positions that the text stack was trained with."""
        length: int = self.model.config.get_text_config().max_position_embeddings
        return length

    @abstractmethod
    def planned_tokens(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> int:
        """Return the most visual tokens that one video can have under a sampling.

        Exact where positions count tokens and every video has the same number of frames.

        Args:
            sampling: how frames are chosen.
            grid_rules: what stage `tokens` will make of the grids.
        """

    @property
    def trained_with(self) -> frozenset[str]:
        """Methods that the checkpoint says it was trained with (`trained_with` in `config.json`).

        A chain such as `vrope`, or a list of names.
        """
        names = getattr(self.model.config, "trained_with", None) or ()
        return frozenset(names.split("+") if isinstance(names, str) else names)

    def facts(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> RunFacts:
        """Return what methods may know of this model before the first video.

        Args:
            sampling: how frames are chosen.
            grid_rules: what stage `tokens` will make of the grids.
        """
        return RunFacts(
            geometry=self.geometry,
            axes=self.axes,
            context_length=self.context_length,
            frames_per_block=self.frames_per_block,
            frames_per_grid=self.frames_per_grid,
            num_frames=sampling.num_frames,
            visual_tokens=self.planned_tokens(sampling, grid_rules),
            trained_with=self.trained_with,
            revision=self.revision,
            grid_rules=grid_rules,
            feature_width=self.feature_width,
            family_settings=self.settings,
        )

    @property
    def device(self) -> torch.device:
        """Device of the text stack's inputs; the CPU where the model has no weights."""
        import torch

        device: torch.device = self.model.device
        return torch.device("cpu") if device.type == "meta" else device

    @property
    @abstractmethod
    def placeholder_ids(self) -> frozenset[int]:
        """Token ids that stand for a visual in a prompt."""

    @abstractmethod
    def resize(self, num_visuals: int = 1, grid_rules: tuple[GridRule, ...] = ()) -> Resize:
        """Return the rule that sizes clips while they are decoded.

        Args:
            num_visuals: videos in the prompt, which share the visual-token budget.
            grid_rules: what stage `tokens` will make of the grids.
        """

    @abstractmethod
    def pixel_limits(self) -> dict[str, int]:
        """Return `min_pixels` and `max_pixels` per frame, as they are without a budget."""

    @property
    def settings(self) -> dict[str, str]:
        """Return what this kind of model alone can set and what changes its answers, as in force.

        Part of the fingerprint and of a run's record.
        """
        return {}

    def check_newline_position(self) -> None:
        """Refuse a place for newline tokens where the model has none.

        Raises:
            InvalidSetting: if one was asked for.
        """
        asked = self.options.mm_newline_position
        if asked is not None and "mm_newline_position" not in self.settings:
            raise InvalidSetting(
                f"mm_newline_position={asked!r}: models of family {self.name} have no newline "
                "tokens; leave it out"
            )

    @abstractmethod
    def check_sampling(self, sampling: Sampling, grid_rules: tuple[GridRule, ...] = ()) -> None:
        """Refuse a sampling that no budget plan can serve.

        Args:
            sampling: how frames are chosen.
            grid_rules: what stage `tokens` will make of the grids.

        Raises:
            InfeasibleBudget: naming the nearest feasible budget.
        """

    @abstractmethod
    def frames_for_budget(self, preferred: int) -> int:
        """Choose the number of frames nearest to `preferred` that the budget can serve.

        Raises:
            InfeasibleBudget: if no number of frames can.
        """

    @abstractmethod
    def fit(self, plan: FramePlan, *, free_frames: bool) -> FramePlan:
        """Choose what a plan of frames leaves to the visual-token budget, if there is one.

        Args:
            plan: after stage `frames`.
            free_frames: whether the number of frames may change, as little as need be, to a
                multiple of the plan's unit.

        Returns:
            The plan with its final number of frames, and with grid rules that leave no choice.

        Raises:
            InfeasibleBudget: if nothing can be chosen that makes 98 to 100 % of it.
        """

    @abstractmethod
    def encode(
        self, clip: Clip, *, num_groups: int = 1, with_features: bool = False
    ) -> VisualTokens:
        """Run the vision tower and projector on a clip.

        Args:
            clip: frames already at their final size.
            num_groups: strided groups of frames encoded separately.
            with_features: also return the features before the projector.
        """

    @abstractmethod
    def encode_image(
        self,
        image: Any,
        *,
        num_visuals: int = 1,
    ) -> VisualTokens:
        """Run the vision tower and projector on one still image.

        Args:
            image: PIL image, or path of one.
            num_visuals: visuals in the prompt, which share the visual-token budget.
        """

    @abstractmethod
    def tokenize(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Render a chat and tokenize it, with one placeholder token per visual.

        Args:
            messages: `[{"role": ..., "content": [{"type": "text"|"video"|"image", ...}]}]`.

        Raises:
            UnusableText: if a text of the messages would be read as a visual.
        """

    @abstractmethod
    def check_text(self, text: str) -> None:
        """Refuse a text to be scored that the tokenizer would read as a visual.

        Raises:
            UnusableText: naming the token.
        """

    @abstractmethod
    def layout(
        self, input_ids: Sequence[int], visuals: Sequence[VisualTokens]
    ) -> tuple[Layout, torch.Tensor]:
        """Expand placeholders; split after the last visual token.

        Args:
            input_ids: from `tokenize`.
            visuals: one per placeholder, in order, after stage `tokens`.

        Returns:
            The layout of the prefix, and the question's ids `[Q]` (everything after it; the whole
            prompt when there is no visual).
        """

    @abstractmethod
    def embed(self, layout: Layout, visuals: Sequence[VisualTokens]) -> torch.Tensor:
        """Return input embeddings of the prefix, `[1, P, D]`, visual tokens in place."""

    @abstractmethod
    def vision_flops(self, visuals: Sequence[VisualTokens]) -> float:
        """Analytic floating-point operations of the vision tower and projector."""
