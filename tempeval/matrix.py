"""Which runs a matrix of methods x budgets has: options checked, folders laid out, nothing run."""

from __future__ import annotations

import hashlib
import math
import re
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tempeval import __version__
from tempeval.errors import InvalidSetting, UnknownName
from tempeval.families.registry import family_module
from tempeval.methods.registry import method_names, parse_chain
from tempeval.run.record import Allowed
from tempeval.source_digest import run_code
from tempeval.task_sources import source_digests
from tempeval.video.decode import check_decoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tempeval.methods.base import Chain

SAMPLING = ("uniform", "segment", "fps")
POSITION_RULES = ("original", "native")
NEWLINE_POSITIONS = ("one_token", "grid")
#: Largest seed that NumPy takes.
MAX_SEED = 2**32 - 1
FOLDER_CHARACTERS = string.ascii_letters + string.digits + "_.+=-"


@dataclass(frozen=True)
class RunOptions:
    """A matrix of runs.

    Attributes:
        out: folder that gets one folder per run.
        methods: chains such as `pas+temporal_exit`.
        tasks: tasks and groups.
        pretrained: hub id, folder, `mini` or `mini:NAME`.
        num_frames: frames per video (with `fps`: the cap); None for the model's default, or for
            what fits a budget.
        fps: frames per second (1/s); None for a fixed number of frames.
        sampling: `uniform`, `segment` or `fps`, which `fps` implies.
        budgets: visual tokens per sample; empty for no budget.
        limit: documents per task, at most; None for all.
        batch_size: questions in one batch; None for the model's default.
        device: torch device; None for the model's default.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        position_rule: `original` or `native`.
        settings: more method settings, by method name.
        seed: of Python, NumPy and torch.
        overwrite: replace all earlier runs in the same folders.
        overwrite_different: replace those that differ in a setting, instead of refusing.
        min_pixels: fewest pixels per frame; None for the family's default.
        max_pixels: most pixels per frame; None for the family's default.
        decoder: `auto` (PyAV), `pyav` or `decord`.
        decode_timeout: seconds per clip; more for many frames or a large file.
        max_failures: failed samples a complete run may have: `0`, `N`, or a share such as `5%`.
        max_damaged: damaged videos a complete run may have: `N`, or a share such as `5%`; None for
            any number, which is said and not refused.
        skip_missing: leave questions whose videos are not there out of every method.
        skip_unloadable: leave out tasks that cannot be loaded, if others can.
        mm_newline_position: `one_token` or `grid`, for LLaVA-OneVision; None for the checkpoint's.
    """

    out: Path
    methods: Sequence[str]
    tasks: Sequence[str]
    pretrained: str = "mini"
    num_frames: int | None = None
    fps: float | None = None
    sampling: str = "uniform"
    budgets: Sequence[int] = ()
    limit: int | None = None
    batch_size: int | None = None
    device: str | None = None
    dtype: str = "auto"
    position_rule: str = "original"
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seed: int = 0
    overwrite: bool = False
    overwrite_different: bool = False
    min_pixels: int | None = None
    max_pixels: int | None = None
    decoder: str = "auto"
    decode_timeout: float = 30.0
    max_failures: str = "0"
    max_damaged: str | None = None
    skip_missing: bool = False
    skip_unloadable: bool = False
    mm_newline_position: str | None = None

    @property
    def allowed(self) -> Allowed:
        """What a complete run may lack."""
        return Allowed(self.max_failures, self.max_damaged)


@dataclass(frozen=True)
class Plan:
    """One run of a matrix.

    Attributes:
        chain: its methods.
        budget: visual tokens per sample, or None.
        folder: where it writes.
        request: what was asked for, as the record keeps it.
        code: digests of the code that answers go through, part by part.
    """

    chain: Chain
    budget: int | None
    folder: Path
    request: Mapping[str, Any]
    code: Mapping[str, str] = field(default_factory=dict)


def plan_matrix(options: RunOptions) -> list[Plan]:
    """Check all options and lay out the runs.

    Raises:
        TempevalError: naming the first option that cannot be honoured.
    """
    family = _check_options(options)
    chains = [_chain(text, options.settings) for text in options.methods]
    named = {method.name for chain in chains for method in chain.methods}
    for name in options.settings:
        if name not in method_names():
            raise UnknownName("method", name, method_names())
        if name not in named:
            raise InvalidSetting(f"--set {name}.... has no effect: no chain has {name!r}")
    annotations = source_digests(options.tasks, skip_missing=options.skip_unloadable)
    plans: dict[Path, Plan] = {}
    for budget in options.budgets or (None,):
        for chain in chains:
            folder = options.out / _frames_name(options, budget) / _slug(chain)
            if folder in plans:
                raise InvalidSetting(f"{chain.spec!r} (budget {budget}) is listed twice")
            request = _request(options, chain, budget, annotations)
            code = run_code(chain, family_module(family))
            plans[folder] = Plan(chain, budget, folder, request, code)
    return list(plans.values())


def _check_options(options: RunOptions) -> str:
    """Check what can be checked without a model; return the family of the checkpoint."""
    whole = {"num_frames": options.num_frames, "limit": options.limit}
    whole |= {"batch_size": options.batch_size}
    whole |= {f"budget {budget}": budget for budget in options.budgets}
    for name, value in whole.items():
        if value is not None and value < 1:
            raise InvalidSetting(f"{name} is {value}; accepted: a whole number from 1")
    if options.fps is not None and not 0 < options.fps < math.inf:
        raise InvalidSetting(f"fps is {options.fps}; accepted: a number above 0, frames per second")
    if not 0 < options.decode_timeout < math.inf:
        raise InvalidSetting(
            f"decode_timeout is {options.decode_timeout}; accepted: a number above 0, seconds"
        )
    if not 0 <= options.seed <= MAX_SEED:
        raise InvalidSetting(
            f"seed is {options.seed}; accepted: whole numbers from 0 to {MAX_SEED}"
        )
    if options.fps is None and options.sampling == "fps":
        raise InvalidSetting("sampling=fps needs fps, frames per second")
    if options.fps is not None and options.sampling == "segment":
        raise InvalidSetting("fps and sampling=segment exclude each other; leave one out")
    if options.sampling not in SAMPLING:
        raise UnknownName("sampling", options.sampling, SAMPLING)
    if options.position_rule not in POSITION_RULES:
        raise UnknownName("position rule", options.position_rule, POSITION_RULES)
    if options.mm_newline_position not in (None, *NEWLINE_POSITIONS):
        raise UnknownName("newline position", options.mm_newline_position, NEWLINE_POSITIONS)
    for kind, names in (("methods", options.methods), ("tasks", options.tasks)):
        if not names:
            raise InvalidSetting(f"no {kind} given; list them with: tempeval list {kind}")
    check_decoder(options.decoder)
    options.allowed.check()
    from tempeval.families.registry import family_of
    from tempeval.mini.paths import located

    return family_of(located(options.pretrained))


def _chain(text: str, settings: Mapping[str, Mapping[str, str]]) -> Chain:
    names = set(re.findall(r"[A-Za-z0-9_]+", re.sub(r"\[[^\]]*\]", "", text)))
    return parse_chain(text, {name: values for name, values in settings.items() if name in names})


def _frames_name(options: RunOptions, budget: int | None) -> str:
    """Return a folder name for what the methods of one table share."""
    if budget is not None:
        return f"tokens{budget}"
    rule = options.sampling if options.fps is None else f"fps{options.fps:g}"
    return rule if options.num_frames is None else f"{rule}-{options.num_frames}"


def _slug(chain: Chain) -> str:
    """Return a folder name: the methods, and a digest when settings do not fit a file name."""
    plain = "".join(c if c in FOLDER_CHARACTERS else "-" for c in chain.spec)
    if plain == chain.spec:
        return plain
    return f"{plain.strip('-')}.{hashlib.sha256(chain.spec.encode()).hexdigest()[:8]}"


def _request(
    options: RunOptions, chain: Chain, budget: int | None, annotations: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "method": chain.spec,
        "visual_token_budget": budget,
        "pretrained": options.pretrained,
        "tasks": list(options.tasks),
        "num_frames": options.num_frames,
        "fps": options.fps,
        "sampling": options.sampling,
        "limit": options.limit,
        "batch_size": options.batch_size,
        "device": options.device,
        "dtype": options.dtype,
        "min_pixels": options.min_pixels,
        "max_pixels": options.max_pixels,
        "decoder": options.decoder,
        "position_rule": options.position_rule,
        "mm_newline_position": options.mm_newline_position,
        "seed": options.seed,
        "tempeval_version": __version__,
        **({"annotations": annotations} if annotations else {}),
    }
