"""Model arguments of every tempeval model: checked by name, never swallowed."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.base_model import load_family
from tempeval.engine.encoder import GIB, DecodeOptions
from tempeval.engine.feature_cache import FeatureCache
from tempeval.engine.inference import Inference
from tempeval.errors import InvalidSetting, UnknownName
from tempeval.families.base import LoadOptions
from tempeval.methods.registry import BASELINE, chain_names, method_class, parse_chain
from tempeval.mini.paths import located
from tempeval.video.clip import Sampling

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tempeval.methods.base import Chain
    from tempeval.run.spec import RunSpec
    from tempeval.video.clip import SamplingRule

DEFAULT_FRAMES, DEFAULT_ROWS = 8, 8
#: Most frames of a clip sampled at a fixed rate, as lmms-eval's own Qwen wrappers.
DEFAULT_CAP = 32
#: Bytes of a file name.
_LONGEST_NAME = 255


def chain_with_settings(
    method: str, settings: Mapping[str, Any], arguments: Iterable[str]
) -> Chain:
    """Build a chain from its text and the model arguments that no other parameter took.

    A setting is `name.field=value`, or `field=value` where exactly one method of the chain has
    such a field.

    Args:
        method: the chain, such as `pas+temporal_exit`.
        settings: what is left of the model arguments.
        arguments: names of the ordinary model arguments, for suggestions.

    Raises:
        UnknownName: for an argument that nothing knows.
        InvalidSetting: for a field that several methods have.
    """
    names = chain_names(method)
    owners: dict[str, list[str]] = {}
    for name in names:
        for f in fields(method_class(name)):
            owners.setdefault(f.name, []).append(name)
    by_method: dict[str, dict[str, Any]] = {}
    for key, value in settings.items():
        name, dot, field = key.partition(".")
        if not dot:
            having = owners.get(key, [])
            if len(having) > 1:
                raise InvalidSetting(
                    f"model argument {key!r} belongs to {' and '.join(having)}; write "
                    f"{having[0]}.{key}=... or {having[1]}.{key}=..."
                )
            if not having:
                known = [*arguments, *owners, *(f"{n}.{f}" for f, o in owners.items() for n in o)]
                raise UnknownName("model argument", key, known)
            name, field = having[0], key
        if name not in names:
            raise UnknownName(f"method in {method!r}", name, names or [BASELINE])
        by_method.setdefault(name, {})[field] = value
    return parse_chain(method, by_method)


def make_inference(spec: RunSpec, *, weights: bool = True) -> Inference:
    """Load the base model that a run asks for, and make of it what answers questions.

    Args:
        spec: of the run.
        weights: False loads none, where the checkpoint's layout allows it: for plans.

    Raises:
        TempevalError: for what cannot be honoured.
    """
    rule: SamplingRule = spec.sampling if spec.fps is None else "fps"
    frames = spec.num_frames
    if frames is None:
        frames = DEFAULT_FRAMES if spec.fps is None else DEFAULT_CAP
    sampling = Sampling(rule, frames, spec.fps)
    asked = {f.name: getattr(spec, f.name) for f in fields(LoadOptions) if f.name != "weights"}
    asked["device"] = device_of_rank(spec.device) if weights else "cpu"
    family = load_family(
        located(spec.pretrained), LoadOptions(**asked, weights=weights), spec.family
    )
    family.check_newline_position()
    inference = Inference(
        family,
        sampling,
        batch_size=spec.batch_size or DEFAULT_ROWS,
        decoding=DecodeOptions(spec.decoder, spec.decode_workers, spec.decode_timeout),
        feature_cache=FeatureCache(int(spec.feature_cache_gib * GIB)),
        frames_free=spec.num_frames is None,
        seed=spec.seed,
    )
    inference.set_budget(spec.visual_token_budget)
    return inference


def check_results_name(pretrained: str) -> None:
    """Refuse a checkpoint under whose name lmms-eval's own command cannot save its results.

    It calls the folder by the last two parts of `pretrained`; where that fails it logs so, at the
    end, and exits 0.

    Raises:
        InvalidSetting: if the name has more than 255 bytes.
    """
    from lmms_eval.utils import sanitize_model_name

    size = len(sanitize_model_name(pretrained).encode("utf-8", "surrogateescape"))
    if size > _LONGEST_NAME:
        raise InvalidSetting(
            f"pretrained={pretrained!r} is too long: lmms-eval calls the folder of its results by "
            f"the last two parts, {size} bytes, and file systems take {_LONGEST_NAME}. Link the "
            "checkpoint to a shorter path, or use tempeval run"
        )


def device_of_rank(device: str | None) -> str:
    """Choose this rank's device: its own GPU when there are several ranks, else what was asked."""
    local = int(os.environ.get("LOCAL_RANK", "0"))
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        return f"cuda:{local}"
    if several and device.startswith("cuda:"):
        return f"cuda:{local}"
    return device
