"""`tempeval run --dry-run`: what would be run on what, and what a prompt would cost."""

from __future__ import annotations

import os
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from tempeval.accepted import refuse_all
from tempeval.engine.plan import make_plan
from tempeval.engine.plan_costs import text_flops
from tempeval.errors import InvalidSetting, TempevalError
from tempeval.run.runner import JOURNAL_NAME, prepare
from tempeval.run.scoring import counts
from tempeval.stages import VisualTokens
from tempeval.video.folder import is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tempeval.engine.inference import Inference
    from tempeval.engine.question import Question
    from tempeval.engine.resolved import ResolvedChain
    from tempeval.engine.work import Item, VideoWork
    from tempeval.host import HostTasks
    from tempeval.run.matrix import Plan
    from tempeval.run.record import RunRecord
    from tempeval.run.spec import RunSpec

    Report = Callable[[str], None]


def describe_run(spec: RunSpec, report: Report) -> None:
    """Say what a run would do: tasks, videos, methods, tokens, cost, and what is there already.

    Nothing is answered or written, and weights are loaded only where the checkpoint's layout needs
    them to tell what the model is.

    Args:
        spec: of the run.
        report: gets one line at a time.

    Raises:
        TempevalError: where the run would not start, for the same reason.
    """
    from tempeval.model_wrappers.arguments import make_inference

    plans, tasks, kept = prepare(spec, report, _check_place)
    _say_tasks(tasks, report)
    inference = make_inference(spec, weights=False)
    family = inference.family
    loaded = not any(each.is_meta for each in family.model.parameters())
    report(
        f"model: {spec.pretrained}, family {family.name}, revision {family.revision}"
        + (" (weights were loaded: its layout needs them)" if loaded else "")
    )
    work = inference.plan(_questions(spec, tasks))
    refused: dict[Path, TempevalError] = {}
    for plan in plans:
        name = plan.folder.relative_to(spec.out)
        inference.set_budget(plan.budget)
        try:
            resolved = inference.resolve(plan.chain)
        except TempevalError as error:
            refused[plan.folder] = error
            report(f"{name}: would fail, {error}")
            continue
        report(f"{name}: {_frames(resolved)}, {_cost(inference, resolved, work)}")
        for method, settings in resolved.settings.items():
            if settings:
                said = ", ".join(f"{key}={value}" for key, value in settings.items())
                report(f"  {method}: {said}")
        report(f"  {_state(plan, spec, kept)}")
    if len(kept) < len(plans):
        refuse_all(refused, plans)


def _check_place(out: Path) -> None:
    """Refuse a folder that could not be made or written, without making it."""
    place = out.expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise InvalidSetting(f"cannot write to {out}: {place} is not writable; choose another -o")


def _say_tasks(tasks: HostTasks, report: Report) -> None:
    for name, facts in tasks.load().items():
        wanted = {path for paths in tasks.videos(name) for path in paths}
        there = sum(map(is_there, wanted))
        videos = f"{there} of {len(wanted)} videos there" if wanted else "videos not known before"
        report(f"{name}: {facts.expected} documents, {videos}")


def _questions(spec: RunSpec, tasks: HostTasks) -> list[Question]:
    from tempeval.model_wrappers.requests import reader

    holder: Any = SimpleNamespace(task_dict={})
    found: list[Question] = []
    for kind, instances in tasks.requests(holder, spec.seed).items():
        read = reader(kind, simple=False, over=spec.gen_kwargs)
        found += [read(len(found) + i, one, holder.task_dict) for i, one in enumerate(instances)]
    return found


def _frames(resolved: ResolvedChain) -> str:
    sampling, facts = resolved.frames.sampling, resolved.facts
    rule = sampling.rule if sampling.fps is None else f"{sampling.fps:g} frames/s"
    most = "" if sampling.fps is None else "at most "
    return (
        f"{most}{sampling.num_frames} frames ({rule}), at most {facts.visual_tokens} visual tokens"
    )


def _cost(inference: Inference, resolved: ResolvedChain, work: Sequence[VideoWork]) -> str:
    """Estimate what the commonest prompt costs in the text stack, and how many prefills there are.

    Tokens lie evenly in the temporal grids, which is how they are only nearly.
    """
    prefills = sum(len(video.prefixes) for video in work)
    asked = f"{prefills} prefills for {sum(video.num_questions for video in work)} questions"
    items = [item for video in work for batch in video.batches() for item in batch.items]
    shown = [item for item in items if len(item.question.visuals) == 1]
    if not shown:
        return f"{asked}; no prompt with one video, so no estimate"
    (ids, _), _ = Counter((item.input_ids, item.prefix_length) for item in shown).most_common(1)[0]
    item = next(item for item in shown if item.input_ids == ids)
    try:
        share, flops = _estimate(inference, resolved, item)
    except (TempevalError, RuntimeError) as error:
        return f"{asked}; no estimate before the first video ({error})"
    return (
        f"about {share:.4g} of them in the mean layer, {flops:.3g} operations of the text stack a "
        f"prompt ({len(item.tail)} tokens of question), {asked}"
    )


def _estimate(inference: Inference, resolved: ResolvedChain, item: Item) -> tuple[float, float]:
    """Return visual tokens in the mean layer, and operations of a prompt in the text stack."""
    facts, family = resolved.facts, inference.family
    grids = max(1, -(-facts.num_frames // facts.frames_per_grid))
    tokens = max(1, facts.visual_tokens // grids)
    visual = VisualTokens(
        torch.zeros(grids * tokens, 1), (grids, 1, tokens), frames=facts.num_frames
    )
    layout, tail = family.layout(item.input_ids, [visual])
    plan = make_plan(resolved.bound, layout, family.geometry)
    return plan.token_layers, text_flops(plan, family.geometry, len(tail))


def _state(plan: Plan, spec: RunSpec, kept: dict[Path, RunRecord]) -> str:
    """Say what of a run is there already."""
    if plan.folder in kept:
        return f"complete already, would be reused ({counts(kept[plan.folder])})"
    journal = spec.out / JOURNAL_NAME
    if not spec.overwrite and any(journal.glob("*.jsonl")):
        return f"would be made; answers of it that are in {journal} are taken from there"
    return "would be made"
