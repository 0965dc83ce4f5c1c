"""What a run's record says about model, method and frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.generation import recorded
from tempeval.families.quantization import dtype_text, quantization_record
from tempeval.run.counting import method_label
from tempeval.run.record import FramePolicy, ModelFacts
from tempeval.versions import versions

if TYPE_CHECKING:
    from tempeval.engine.inference import Answered, Inference
    from tempeval.methods.base import Chain
    from tempeval.run.spec import RunSpec
    from tempeval.video.clip import Sampling


#: Names of the decoder that is the default.
_SAME_FRAMES = ("auto", "pyav")


@dataclass
class Tally:
    """How the answers of one chain came about.

    Attributes:
        kernels: names of the attention kernels that they were made with.
        replayed: answers that earlier runs had journalled.
        computed: all others.
    """

    kernels: set[str] = field(default_factory=set)
    replayed: int = 0
    computed: int = 0

    def add(self, answered: Answered) -> None:
        """Count one answer."""
        self.replayed += answered.earlier
        self.computed += not answered.earlier
        self.kernels.update((answered.outcome.usage.attention_kernel or "").split("+"))

    def join(self, other: Tally) -> None:
        """Add the answers of another rank."""
        self.replayed += other.replayed
        self.computed += other.computed
        self.kernels |= other.kernels


def run_facts(spec: RunSpec, chain: Chain, inference: Inference, tally: Tally) -> ModelFacts:
    """Return what a record says about model, method, frames and answers."""
    family = inference.family
    cuda = family.device.type == "cuda"
    resolved = inference.resolve(chain)
    notes = chain.labels(resolved.facts)
    of_family: dict[str, Any] = {**family.adapted, **family.pixel_limits()}
    return ModelFacts(
        # What tables print; the method's identity is its fingerprint.
        method_label=method_label(chain.spec, notes),
        method_notes=list(notes),
        method_resolved=dict(resolved.settings),
        model=spec.pretrained,
        model_revision=family.revision,
        **of_family,
        family=family.name,
        family_settings=dict(family.settings),
        frame_policy=_frame_policy(inference.sampling, resolved.frames.sampling),
        shown=_shown(spec, inference),
        visual_token_budget=family.options.visual_token_budget,
        position_rule=family.options.position_rule,
        system_prompt=family.options.system_prompt,
        # What the run put over the tasks' own; `generation` is what took effect.
        gen_kwargs=dict(spec.gen_kwargs),
        generation=recorded(inference.generation),
        quantization=quantization_record(family.model),
        dtype=dtype_text(family.model),
        attention_kernel="+".join(sorted(tally.kernels - {""})) or None,
        replayed=tally.replayed,
        computed=tally.computed,
        decoder=inference.encoder.options.decoder,
        device=str(family.device),
        gpu=torch.cuda.get_device_name(family.device) if cuda else None,
        packages=versions(),
    )


def _frame_policy(base: Sampling, seen: Sampling) -> FramePolicy:
    """Return how frames are chosen under a chain.

    `base_num_frames` is there where a budget chose another number for the chain than for the model
    alone. Runs are comparable by it; `num_frames` is what the chain sees.
    """
    other = seen.num_frames != base.num_frames
    return FramePolicy(
        rule=base.rule,
        num_frames=seen.num_frames,
        fps=base.fps,
        base_num_frames=base.num_frames if other else None,
    )


def _shown(spec: RunSpec, inference: Inference) -> dict[str, Any]:
    """Return what else changes what the model sees, where it is not the default."""
    family = inference.family
    found: dict[str, Any] = {}
    if inference.encoder.options.decoder not in _SAME_FRAMES:
        found["decoder"] = inference.encoder.options.decoder
    if family.options.system_prompt is not None:
        found["system_prompt"] = family.options.system_prompt
    if spec.gen_kwargs:
        found["gen_kwargs"] = dict(spec.gen_kwargs)
    newlines = family.settings.get("mm_newline_position")
    if newlines not in (None, "one_token"):
        found["mm_newline_position"] = newlines
    return found
