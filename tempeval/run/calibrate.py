"""Make a calibration file: load the model, show it clips, write the ranges it was seen to use."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tempeval.engine.calibrate import measure_bounds
from tempeval.errors import InvalidSetting
from tempeval.methods.base import Chain
from tempeval.methods.intp import BITS, INTP
from tempeval.methods.kv_calibration import read_calibration, write_calibration
from tempeval.methods.kv_quantization import KVQuant
from tempeval.methods.registry import BASELINE, parse_chain
from tempeval.mini.paths import is_mini
from tempeval.model_wrappers.arguments import DEFAULT_FRAMES, make_inference
from tempeval.run.calibration_clips import MINI, find_clips
from tempeval.run.spec import RunSpec
from tempeval.versions import versions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tempeval.engine.inference import Inference
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
        overwrite: replace a file that is there.
        run: the model, its method (what that stores is left out), frames, sizes and seed (of
            rendered clips), as a run with the calibration has them.
    """

    out: Path
    clips: str | None = None
    limit: int = 16
    overwrite: bool = False
    run: RunSpec = field(default_factory=RunSpec)


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
    spec = options.run
    if spec.num_frames is None:
        spec = replace(spec, num_frames=DEFAULT_FRAMES)
    source = options.clips or (MINI if is_mini(spec.pretrained) else None)
    if source is None:
        raise InvalidSetting(
            f"no clips given to calibrate {spec.pretrained!r} on; pass --clips with a folder of "
            f"training videos or a list of them ({MINI!r} renders squares that move)"
        )
    chain = parse_chain(spec.method or BASELINE).without_kv_cache()
    with tempfile.TemporaryDirectory(prefix="tempeval-calibrate-") as scratch:
        clips = find_clips(source, options.limit, spec.seed, Path(scratch))
        inference = make_inference(spec)
        tokens: list[int] = []

        def progress(done: int, prefix_tokens: int) -> None:
            tokens.append(prefix_tokens)
            report(f"clip {done}/{len(clips)}: {clips[done - 1].name}, {prefix_tokens} tokens")

        bounds = measure_bounds(inference, chain, [clip.ref for clip in clips], progress)
    facts = _facts(spec, source, inference, chain, clips, tokens)
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


def _facts(
    spec: RunSpec,
    source: str,
    inference: Inference,
    chain: Chain,
    clips: Sequence[CalibrationClip],
    tokens: Sequence[int],
) -> dict[str, Any]:
    family, bound = inference.family, inference.resolve(chain).bound
    return {
        "model": spec.pretrained,
        "model_revision": family.revision,
        "family": family.name,
        "chain": bound.spec,
        "chain_fingerprint": bound.fingerprint,
        "num_frames": spec.num_frames,
        "visual_token_budget": spec.visual_token_budget,
        **family.pixel_limits(),
        "position_rule": family.options.position_rule,
        **family.settings,
        "dtype": str(family.model.dtype).removeprefix("torch."),
        "source": source if source == MINI else Path(source).name,
        "seed": spec.seed,
        "num_clips": len(clips),
        "num_tokens": sum(tokens),
        "clips": [{"name": clip.name, "sha256": clip.digest} for clip in clips],
        "packages": versions(),
    }
