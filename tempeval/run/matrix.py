"""Which runs a matrix of methods x budgets has: options checked, folders laid out, nothing run."""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tempeval import __version__
from tempeval.errors import InvalidSetting, UnknownName
from tempeval.families.registry import family_module, family_of
from tempeval.methods.registry import chain_names, check_names, method_names, parse_chain
from tempeval.mini.paths import located
from tempeval.source_digest import run_code
from tempeval.task_sources import source_digests

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tempeval.methods.base import Chain
    from tempeval.run.spec import RunSpec

FOLDER_CHARACTERS = string.ascii_letters + string.digits + "_.+=-"


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


def plan_matrix(options: RunSpec) -> list[Plan]:
    """Check all options and lay out the runs.

    Raises:
        TempevalError: naming the first option that cannot be honoured.
    """
    options.check()
    family = options.family or family_of(located(options.pretrained), options.revision)
    chains = [_chain(text, options.settings) for text in options.methods]
    named = {method.name for chain in chains for method in chain.methods}
    for name in options.settings.keys() - named:
        if name not in method_names():
            raise UnknownName("method", name, {*method_names(), *named})
        raise InvalidSetting(f"--set {name}.... has no effect: no chain has {name!r}")
    check_names(chains)
    annotations = source_digests(options.tasks, skip_missing=options.skip_unloadable)
    plans: dict[Path, Plan] = {}
    for budget in options.budgets or (None,):
        for chain in chains:
            folder = options.out / _frames_name(options, budget) / _slug(chain)
            if folder in plans:
                raise InvalidSetting(f"{chain.spec!r} (budget {budget}) is listed twice")
            run = replace(options, method=chain.spec, visual_token_budget=budget)
            request = {**run.request(), "tempeval_version": __version__}
            request |= {"annotations": annotations} if annotations else {}
            code = run_code(chain, family_module(family))
            plans[folder] = Plan(chain, budget, folder, request, code)
    return list(plans.values())


def _chain(text: str, settings: Mapping[str, Mapping[str, str]]) -> Chain:
    names = chain_names(text)
    return parse_chain(text, {name: values for name, values in settings.items() if name in names})


def _frames_name(options: RunSpec, budget: int | None) -> str:
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
