"""PAVE: a small patch adds what a side channel (audio, 3D, more frames) says to visual tokens.

Source: PAVE, arXiv 2503.19794; code github.com/dragonlzm/PAVE.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from tempeval.errors import BadSideChannel, InvalidSetting, UnsupportedModel
from tempeval.methods.base import Method
from tempeval.methods.pave_adapter import load_adapter
from tempeval.methods.pave_patch import PavePatch, check_rope
from tempeval.methods.pave_side import asked_side
from tempeval.side_channels.align import backwards, neighbors

if TYPE_CHECKING:
    from tempeval.engine.low_rank import LowRank
    from tempeval.methods.pave_adapter import Adapter
    from tempeval.stages import RunFacts, SideFeatures, VisualTokens
    from tempeval.video.clip import FramePlan, SideSpec

__all__ = ["PAVE", "PavePatch"]

NEWLINES = "mm_newline_position"
#: Characters with a meaning in the spelling of a chain or of lmms-eval's model arguments.
_RESERVED = "+[];,"


@dataclass(frozen=True)
class PAVE(Method):
    """Add what a side channel says to the visual tokens, by a trained patch; and its LoRA.

    Each token of a video asks the side channel's steps near its own time, with its features before
    the projector, and the answer is added to it after the projector. The number of tokens stays.
    Tokens without a cell (newlines, Video-LLaVA's CLS) and images stay as they are. Other methods
    meet the tokens after this, however the chain is written. The adapter's low-rank changes of the
    text stack act on every token and prompt, also on one without a video.

    Departure from the released code: steps are matched to frames by their times. Where both last
    equally long this is the released equal partition.

    Attributes:
        adapter: folder, zip or safetensors file of a patch, or a shipped one (`mini:audio`); its
            content, not its name, is part of the fingerprint.
        side_channel: registry name (`tempeval list side-channels`); None for the one that the
            adapter says it was trained with, else `audio`.
        features: folder of features that were extracted before; None for a side channel that is
            made from the video itself.
        side_settings: more settings of the side channel, as `step:0.1`; those that are not set are
            the adapter's own, if it names them for this side channel, else the defaults.
        neighborhood: how many steps on each side of the one nearest to a frame's middle it hears;
            None for the steps in its own part of the time; `trained` for what the adapter says,
            else None.
        shift: seconds added to the side channel's times; `reversed` plays it backwards in the time
            of the frames, so that it says the opposite of what is seen when. An ablation.
        shuffle: seed by which each video gets the side channel of another; None for its own. An
            ablation.
        lora: `kept` (two small products more per linear map), `merged` (merged once into copies of
            the weights, for as much memory as these have) or `none`.
        kv_share: take the patch's values from its key map, as the released weights need it; False
            for its value map; None for what the adapter says, else True.
        use_3d_rope: turn the patch's queries and keys by time, row and column, as v5_1_2 of the
            released checkpoints was trained; None for what the adapter or its name says, else
            False.
    """

    name: ClassVar[str] = "pave"
    modifies: ClassVar[frozenset[str]] = frozenset({"cells", "low_rank"})

    adapter: str
    side_channel: str | None = None
    features: str | None = None
    side_settings: tuple[str, ...] = ()
    neighborhood: int | Literal["trained"] | None = "trained"
    shift: float | Literal["reversed"] = 0.0
    shuffle: int | None = None
    lora: Literal["kept", "merged", "none"] = "kept"
    kv_share: bool | None = None
    use_3d_rope: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora not in ("kept", "merged", "none"):
            raise InvalidSetting(f"pave.lora={self.lora!r} is not one of kept, merged, none")
        if isinstance(self.neighborhood, int) and self.neighborhood < 0:
            raise InvalidSetting(
                f"pave.neighborhood={self.neighborhood}; accepted: 0 or more steps on each side"
            )
        for name in ("adapter", "features"):
            if reserved := set(getattr(self, name) or "") & set(_RESERVED):
                raise InvalidSetting(
                    f"pave.{name}={getattr(self, name)!r} has {sorted(reserved)[0]!r}, which "
                    f"separates settings; use a path without any of {_RESERVED}"
                )

    @cached_property
    def loaded(self) -> Adapter:
        """What the adapter holds; see `load_adapter`."""
        return load_adapter(self.adapter)

    @cached_property
    def side(self) -> SideSpec:
        """The side channel that is asked for.

        Raises:
            UnknownName: if there is none of that name.
            InvalidSetting: if it does not take one of the settings, or lacks one.
        """
        return asked_side(
            self.loaded.side, self.side_channel, self.features, self.shuffle, self.side_settings
        )

    @property
    def steps_each_side(self) -> int | None:
        """The neighbourhood in force."""
        if self.neighborhood != "trained":
            return self.neighborhood
        return self.loaded.neighborhood

    @property
    def rotary(self) -> bool:
        """Whether the patch has rotary positions in this run."""
        own = self.loaded.weights.use_3d_rope
        return bool(own if self.use_3d_rope is None else self.use_3d_rope)

    @cached_property
    def low_rank(self) -> LowRank | None:
        """The adapter's low-rank changes, as `lora` says; None where there are none."""
        if self.lora == "none":
            return None
        changes = self.loaded.low_rank
        if changes is None:
            return None
        return replace(changes, merged=self.lora == "merged")

    def settings(self) -> dict[str, Any]:
        """Return all settings as JSON values; the adapter is named by its digest."""
        settings = {k: v for k, v in super().settings().items() if k != "adapter"}
        side = {"name": self.side.name, **dict(self.side.settings)}
        return {
            **settings,
            "neighborhood": self.steps_each_side,
            "use_3d_rope": self.rotary,
            "side": side,
            "adapter_digest": self.loaded.weights.digest,
        }

    def resolve(self, facts: RunFacts) -> dict[str, Any]:
        """Check the adapter against the model, and that every setting has an effect.

        Raises:
            InvalidSetting: naming what does not fit.
            UnknownName: for a side channel that does not exist.
        """
        weights, sizes = self.loaded.weights, self.loaded.weights.sizes
        for what, made_for, here in (
            ("visual features before the projector", sizes.query, facts.feature_width),
            ("visual tokens after it", sizes.output, facts.geometry.hidden_size),
        ):
            if made_for != here:
                raise InvalidSetting(
                    f"pave.adapter={self.adapter!r} is for a base model with {made_for} channels "
                    f"of {what}, this one has {here}; use an adapter trained on this base model"
                )
        if self.lora == "merged" and weights.lora is None:
            raise InvalidSetting(
                f"pave.lora=merged has no effect: adapter {self.adapter!r} has no low-rank "
                "changes; leave lora out"
            )
        check_rope(sizes.hidden, weights.num_heads, use_3d_rope=self.rotary)
        if self.shift and self.steps_each_side is None and self._grids(facts) == 1:
            raise InvalidSetting(
                f"pave.shift={self.shift} means nothing with one temporal grid per video; give "
                "more frames"
            )
        return {
            "side_channel": self.side.name,
            "side_width": sizes.side,
            "neighborhood": self.steps_each_side,
            "patch_layers": sizes.layers,
            "use_3d_rope": self.rotary,
            "low_rank_maps": 0 if self.low_rank is None else len(self.low_rank.matrices),
        }

    @staticmethod
    def _grids(facts: RunFacts) -> int:
        return -(-facts.num_frames // facts.frames_per_grid)

    def labels(self, facts: RunFacts) -> tuple[str, ...]:
        """Name ablations, and an adapter that was not trained."""
        found = []
        if self.shift:
            how = "reversed" if self.shift == "reversed" else "shifted"
            found.append(f"ablation: side channel {how}")
        if self.shuffle is not None:
            found.append("ablation: side channel shuffled")
        if self.loaded.is_silent:
            found.append("untrained patch, adds nothing")
        own = self.loaded.weights.use_3d_rope
        if own is None and self.use_3d_rope is None:
            found.append("3-D rotary positions not said, none taken; use_3d_rope says")
        elif own is not None and own != self.rotary:
            words = ("without", "with")
            found.append(f"{words[self.rotary]} 3-D rotary positions, trained {words[own]}")
        elif self.rotary:
            found.append("3-D rotary positions")
        trained, here = self.loaded.weights.mm_newline_position, facts.family_settings.get(NEWLINES)
        if None not in (trained, here) and trained != here:
            found.append(f"{NEWLINES} {here}, trained with {trained}")
        base = self.loaded.weights.metadata.get("base_revision")
        if base and facts.revision and base != facts.revision:
            found.append("trained on another base model")
        return tuple(found)

    def frames(self, plan: FramePlan) -> FramePlan:
        """Ask for the features before the projector, and for the side channel."""
        return replace(plan, features=True, side=(*plan.side, self.side))

    @torch.no_grad()
    def tokens(self, tokens: VisualTokens) -> VisualTokens:
        """Add what the patch says to the cells of a video.

        Raises:
            BadSideChannel: if the side channel does not fit the patch, or cannot be matched in
                time.
        """
        if tokens.kind == "image":
            return tokens
        heard, features = self._asked(tokens)
        self._check(heard)
        grids, rows, columns = tokens.grid
        patch, near = self._patch(tokens.embeddings), self._near(tokens, heard)
        flops = tokens.flops + patch.flops(heard.features.shape, grids, rows * columns, near)
        # [N, D] -> [T, lead + h * w, D]
        fused = tokens.embeddings.reshape(grids, tokens.lead + rows * columns, -1).clone()
        if not bool(torch.isfinite(features).all()):
            # The base model's own numbers overflow: the sample fails as it does without the patch.
            lost = torch.full_like(tokens.embeddings, torch.nan)
            return replace(tokens, embeddings=lost, flops=flops)
        side = heard.features.to(fused)
        if not bool(torch.isfinite(side).all()):
            raise BadSideChannel(
                heard.source,
                f"it has numbers that {fused.dtype} cannot hold; run with another dtype",
            )
        fused[:, tokens.lead :] += patch(
            side, features.flatten(1, 2).to(fused), near, grid=(rows, columns)
        )
        return replace(tokens, embeddings=fused.flatten(0, 1), flops=flops)

    def _asked(self, tokens: VisualTokens) -> tuple[SideFeatures, torch.Tensor]:
        heard, features = tokens.side.get(self.side), tokens.features
        if heard is None or features is None:
            raise UnsupportedModel(
                "pave was given visual tokens without their features or without side channel "
                f"{self.side.name!r}; encode them under the frame plan of the chain"
            )
        return (backwards(heard, _spans(tokens)) if self.shift == "reversed" else heard), features

    def _patch(self, like: torch.Tensor) -> PavePatch:
        own = self.loaded.weights.kv_share
        share = own if self.kv_share is None else self.kv_share
        return self.loaded.patch(like.device, like.dtype, kv_share=share, use_3d_rope=self.rotary)

    def _near(self, tokens: VisualTokens, heard: SideFeatures) -> list[range] | None:
        """Return the steps that each temporal grid asks; None for the equal partition."""
        try:
            return neighbors(
                _spans(tokens),
                heard.spans,
                neighborhood=self.steps_each_side,
                shift=0.0 if self.shift == "reversed" else self.shift,
                steps=heard.features.shape[0],
            )
        except InvalidSetting as error:
            raise BadSideChannel(heard.source, str(error)) from error

    def _check(self, heard: SideFeatures) -> None:
        """Refuse a side channel that this patch cannot read: one video's, not the run's."""
        found, width = heard.features, self.loaded.weights.sizes.side
        problem = ""
        if found.ndim != 4 or found.shape[-1] != width:
            problem = f"it has shape {tuple(found.shape)}, the patch takes [steps, h, w, {width}]"
        elif not found.numel():
            problem = f"it is empty: shape {tuple(found.shape)}"
        elif not bool(torch.isfinite(found).all()):
            problem = "it has numbers that are not finite"
        elif heard.spans is not None and len(heard.spans) != len(found):
            problem = f"it has {len(found)} steps and the times of {len(heard.spans)}"
        if problem:
            raise BadSideChannel(
                heard.source,
                f"{problem} (side channel {self.side.name}); extract the features again, with "
                "the encoder that the patch was trained with",
            )


def _spans(tokens: VisualTokens) -> torch.Tensor:
    """Return the times of the grids, float64 `[T, 2]`; NaN where they have none."""
    if tokens.spans is not None:
        return tokens.spans
    return torch.full((tokens.grid[0], 2), torch.nan, dtype=torch.float64)
