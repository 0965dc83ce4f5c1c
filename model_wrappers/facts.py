"""What a run's record says about model, method and frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.generation import recorded
from tempeval.families.quantization import dtype_text, quantization_record
from tempeval.run.record import method_label
from tempeval.versions import versions

if TYPE_CHECKING:
    from tempeval.engine.inference import Answered, Inference
    from tempeval.methods.base import Chain
    from tempeval.run.spec import RunSpec
    from tempeval.video.clip import Sampling


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


def run_facts(
    spec: RunSpec, chain: Chain, inference: Inference, world_size: int, tally: Tally
) -> dict[str, Any]:
    """Return what a record says about model, method, frames and answers."""
    family = inference.family
    cuda = family.device.type == "cuda"
    resolved = inference.resolve(chain)
    notes = chain.labels(resolved.facts)
    return {
        "method": chain.name,
        # What tables print; the method's identity is its fingerprint.
        "method_label": method_label(chain.spec, notes),
        "method_notes": list(notes),
        "method_settings": chain.settings(),
        "method_resolved": dict(resolved.settings),
        "method_fingerprint": chain.fingerprint,
        "model": spec.pretrained,
        "model_revision": family.revision,
        **family.adapted,
        "family": family.name,
        "frame_policy": _frame_policy(inference.sampling, resolved.frames.sampling),
        "visual_token_budget": family.options.visual_token_budget,
        **family.pixel_limits(),
        "position_rule": family.options.position_rule,
        "system_prompt": family.options.system_prompt,
        **family.settings,
        # What the run put over the tasks' own; `generation` is what took effect.
        "gen_kwargs": dict(spec.gen_kwargs) or None,
        "generation": recorded(inference.generation),
        "quantization": quantization_record(family.model),
        "dtype": dtype_text(family.model),
        "attention_kernel": "+".join(sorted(tally.kernels - {""})) or None,
        "replayed": tally.replayed,
        "computed": tally.computed,
        "decoder": inference.encoder.options.decoder,
        "device": str(family.device),
        "gpu": torch.cuda.get_device_name(family.device) if cuda else None,
        "world_size": world_size,
        "packages": versions(),
    }


def _frame_policy(base: Sampling, seen: Sampling) -> dict[str, Any]:
    """Return how frames are chosen under a chain.

    `base_num_frames` is there where a budget chose another number for the chain than for the model
    alone. Runs are comparable by it; `num_frames` is what the chain sees.
    """
    policy = {"rule": base.rule, "num_frames": seen.num_frames, "fps": base.fps}
    if seen.num_frames != base.num_frames:
        policy["base_num_frames"] = base.num_frames
    return policy
