"""Make a calibration file: load the model, show it clips, write the ranges it was seen to use."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.engine.base_model import load_family
from tempeval.engine.calibrate import measure_bounds
from tempeval.engine.inference import Inference
from tempeval.errors import InvalidSetting
from tempeval.families.base import LoadOptions
from tempeval.methods.base import Chain
from tempeval.methods.intp import BITS, INTP
from tempeval.methods.kv_calibration import read_calibration, write_calibration
from tempeval.methods.kv_quantization import KVQuant
from tempeval.methods.registry import parse_chain
from tempeval.mini.paths import is_mini, located
from tempeval.run.calibration_clips import MINI, find_clips
from tempeval.versions import versions
from tempeval.video.clip import Sampling

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.methods.base import Method
    from tempeval.run.calibration_clips import CalibrationClip


@dataclass(frozen=True)
class CalibrateOptions:
    """What to calibrate on what.

    Attributes:
        out: file to write.
        clips: `mini`, a folder of videos, or a text file with one path per line; None is `mini`
            for the mini checkpoint, and refused for others.
        limit: most clips.
        pretrained: hub id, checkpoint folder, or `mini`.
        method: the chain that the store will be part of; what it stores is left out.
        num_frames: frames per video.
        visual_token_budget: visual tokens per prompt to plan for; None for no budget.
        min_pixels: fewest pixels per frame; None for the family's default.
        max_pixels: most pixels per frame; None for the family's default.
        position_rule: `original` or `native`.
        device: torch device.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        revision: commit of a hub checkpoint.
        seed: of rendered clips.
        overwrite: replace a file that is there.
        mm_newline_position: `one_token` or `grid`, for LLaVA-OneVision; None for the checkpoint's.
    """

    out: Path
    clips: str | None = None
    limit: int = 16
    pretrained: str = "mini"
    method: str = "baseline"
    num_frames: int = 8
    visual_token_budget: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    position_rule: str = "original"
    device: str = "cpu"
    dtype: str = "auto"
    revision: str | None = None
    seed: int = 0
    overwrite: bool = False
    mm_newline_position: str | None = None


@dataclass(frozen=True)
class Calibrated:
    """What was written.

    Attributes:
        path: the file.
        digest: of the file, as run records name it.
        num_clips: clips seen.
        num_tokens: prefix tokens seen.
    """

    path: Path
    digest: str
    num_clips: int
    num_tokens: int


def calibrate(
    options: CalibrateOptions, report: Callable[[str], None] = lambda line: None
) -> Calibrated:
    """Measure and write; nothing is written unless every clip went through.

    Args:
        options: what to calibrate on what.
        report: gets one line of progress at a time.

    Raises:
        TempevalError: for options that cannot be honoured, test data, or a clip that cannot be
            decoded.
    """
    if options.out.exists() and not options.overwrite:
        raise InvalidSetting(
            f"{str(options.out)!r} exists, and the fingerprint of runs depends on its content; "
            "choose another -o, or pass --overwrite"
        )
    source = options.clips or (MINI if is_mini(options.pretrained) else None)
    if source is None:
        raise InvalidSetting(
            f"no clips given to calibrate {options.pretrained!r} on; pass --clips with a folder of "
            f"training videos or a list of them ({MINI!r} renders squares that move)"
        )
    chain = parse_chain(options.method).without_kv_cache()
    with tempfile.TemporaryDirectory(prefix="tempeval-calibrate-") as scratch:
        clips = find_clips(source, options.limit, options.seed, Path(scratch))
        inference = _load(options)
        tokens: list[int] = []

        def progress(done: int, prefix_tokens: int) -> None:
            tokens.append(prefix_tokens)
            report(f"clip {done}/{len(clips)}: {clips[done - 1].name}, {prefix_tokens} tokens")

        bounds = measure_bounds(inference, chain, [clip.ref for clip in clips], progress)
    facts = _facts(options, source, inference, chain, clips, tokens)
    write_calibration(options.out, bounds, facts)
    digest = read_calibration(str(options.out)).digest
    return Calibrated(options.out, digest, len(clips), sum(tokens))


def with_calibration(chain: Chain, path: str) -> Chain:
    """Return the chain that a calibration is made for, holding its prefix by the file.

    Args:
        chain: as it was calibrated.
        path: the calibration file.

    Returns:
        The chain with the file in the method that stores, or in a static `kv_quant` at its end.

    Raises:
        InvalidSetting: for a path that cannot be written in a chain.
    """
    methods: list[Method] = []
    stores = False
    for method in chain.methods:
        if isinstance(method, INTP):
            bits = BITS[0] if method.kv_bits == BITS[-1] else method.kv_bits
            method = replace(method, kv_bits=bits, calibration=path)
            method.parts()  # refuses the path
        elif isinstance(method, KVQuant):
            method = KVQuant(method.nbits, "static", prefill=method.prefill, calibration=path)
        stores = stores or "kv_cache" in method.modifies
        methods.append(method)
    if not stores:
        methods.append(KVQuant(scheme="static", calibration=path))
    return Chain(methods)


def _load(options: CalibrateOptions) -> Inference:
    folder = located(options.pretrained)
    load = LoadOptions(
        device=options.device,
        dtype=options.dtype,
        position_rule=options.position_rule,
        revision=options.revision,
        min_pixels=options.min_pixels,
        max_pixels=options.max_pixels,
        visual_token_budget=options.visual_token_budget,
        mm_newline_position=options.mm_newline_position,
    )
    family = load_family(folder, load)
    family.check_newline_position()
    return Inference(family, Sampling(num_frames=options.num_frames))


def _facts(
    options: CalibrateOptions,
    source: str,
    inference: Inference,
    chain: Chain,
    clips: Sequence[CalibrationClip],
    tokens: Sequence[int],
) -> dict[str, Any]:
    family, bound = inference.family, inference.resolve(chain).bound
    return {
        "model": options.pretrained,
        "model_revision": family.revision,
        "family": family.name,
        "chain": bound.spec,
        "chain_fingerprint": bound.fingerprint,
        "num_frames": options.num_frames,
        "visual_token_budget": options.visual_token_budget,
        **family.pixel_limits(),
        "position_rule": options.position_rule,
        **family.settings,
        "dtype": str(family.model.dtype).removeprefix("torch."),
        "source": source if source == MINI else Path(source).name,
        "seed": options.seed,
        "num_clips": len(clips),
        "num_tokens": sum(tokens),
        "clips": [{"name": clip.name, "sha256": clip.digest} for clip in clips],
        "packages": versions(),
    }
