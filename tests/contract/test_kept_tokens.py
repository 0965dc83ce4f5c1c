"""Irregular subsets of visual tokens, and merged ones, against prompts written token by token."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from reducers import KeepAttended, KeepKeys
from slow_positions import SlowPAS, SlowReversePE, SlowVRoPE

from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.encoder import DecodeOptions
from tempeval.engine.inference import Inference
from tempeval.engine.plan import make_plan
from tempeval.engine.plan_costs import temporal_step
from tempeval.engine.prefix import prefill
from tempeval.engine.question import Question
from tempeval.errors import ConflictingMethods, InfeasibleBudget, UnsupportedModel
from tempeval.families.frame_choice import fit_frames
from tempeval.families.llava_onevision_budget import FixedFrames
from tempeval.methods.base import Chain, Method
from tempeval.methods.order_probes import ReverseOrder
from tempeval.methods.pas import PAS
from tempeval.methods.slowfast import SlowFast
from tempeval.methods.staged_sparse import StagedSparse
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.methods.vrope import VRoPE
from tempeval.stages import Layout
from tempeval.verification.dense import dense_generate
from tempeval.verification.exactness import compare, make_case
from tempeval.verification.purity import problems_of
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.verification.tiny_llava_onevision import load_llava_onevision
from tempeval.video.clip import FramePlan, Sampling, TokenRule, VideoRef

QUESTIONS = ("Is it faster? yes no", "What happens last? A. left B.")
STEPS = 3
EXIT = TemporalExit(layer=2)
SPARSE = StagedSparse(strategies=(1, 2), question_layers=(0, 2), frame_layer=2)


@dataclass(frozen=True)
class DropSome(Method):
    """`tokens`: of each grid a subset of its own size, and two dropped tokens merged into one.

    Of grid `empty` nothing is left.
    """

    name: ClassVar[str] = "drop_some"
    modifies: ClassVar[frozenset[str]] = frozenset({"tokens"})

    position_ids: Literal["original", "renumbered"] = "original"
    seed: int = 0
    empty: int = -1

    def tokens(self, tokens):
        if tokens.kind == "image":
            return tokens
        generator = torch.Generator().manual_seed(self.seed)
        embeddings, cells, anchors = [], [], []
        start = 0
        for run in tokens.runs:
            grids, rows, columns = run.grid
            size = tokens.lead + rows * columns
            for grid in range(grids):
                order = start + torch.randperm(size, generator=generator)
                count = 1 + (5 * grid + 2) % max(size - 2, 1)
                kept = order[: count if grid != self.empty else 0].sort().values
                embeddings.append(tokens.embeddings[kept])
                cells.append(kept)
                anchors.append(kept)
                if grid == 1 and start < size * 2:
                    embeddings.append(tokens.embeddings[order[-2:]].mean(0, keepdim=True))
                    cells.append(torch.tensor([-1]))
                    anchors.append(order[-1:])
                start += size
        return replace(
            tokens,
            embeddings=torch.cat(embeddings),
            cells=torch.cat(cells),
            anchors=torch.cat(anchors),
            position_ids=self.position_ids,
        )


#: Frames of a fixed size: LLaVA-OneVision's two layouts and Video-LLaVA's two towers.
FIXED = (
    {"per_frame": 196, "per_video": 1, "cells": (14, 14)},
    {"per_frame": 210, "cells": (14, 14), "newline_rows": True},
    {"per_frame": 257, "cells": (16, 16)},
    {"per_frame": 257, "cells": (16, 16), "block": 8},
)
RENUMBERED = DropSome("renumbered")
#: Methods of each chain; what they mean for positions of the whole prompt, token by token.
CHAINS = {
    "drop": ([DropSome()], []),
    "drop+pas": ([DropSome(), PAS()], [SlowPAS()]),
    "temporal_exit+drop": ([EXIT, DropSome()], []),
    "drop+sparse": ([DropSome(), SPARSE], []),
    "empty+sparse+pas": ([DropSome(empty=2), PAS(), SPARSE], [SlowPAS()]),
    "drop+vrope": ([DropSome(), VRoPE()], [SlowVRoPE()]),
    "vrope+pas+drop": ([VRoPE(), PAS(), DropSome()], [SlowVRoPE(), SlowPAS()]),
    "reverse_order+drop": ([ReverseOrder(), DropSome()], [SlowReversePE()]),
    "renumbered": ([RENUMBERED], []),
    "renumbered+pas+exit": ([RENUMBERED, PAS(), EXIT], [PAS()]),
}
FAMILIES = ("qwen2_5_vl", "qwen2_vl", "llava_onevision", "video_llava", "video_llava_original")


@pytest.fixture(scope="module", params=[*FAMILIES, "llava_onevision_grid"])
def family(request):
    if request.param == "llava_onevision_grid":
        folder = request.getfixturevalue("tiny_llava_onevision_folder")
        return load_llava_onevision(folder, mm_newline_position="grid")
    return request.getfixturevalue(f"tiny_{request.param}")


class Placed(Chain):
    def __init__(self, methods, rotary):
        super().__init__(methods)
        self.placed = rotary

    def positions(self, rotary, layout, geometry):
        return self.placed


def written_out(family, message, visual, dropped, methods, slow):
    """Chain, layout and embeddings of a prompt about one video, written token by token."""
    whole, embeddings, _ = laid_out(family, message, [visual], QUESTIONS)
    grids, rows, columns = visual.grid
    size = visual.lead + rows * columns
    newline = getattr(family.model.model, "image_newline", None)
    reverse = any(isinstance(m, ReverseOrder) for m in methods)
    renumbered = dropped.position_ids == "renumbered"
    # Tokens of each grid as (row of cells or None, row of the whole prompt's place, vector).
    places = [
        i
        for i in range(whole.length)
        if whole.is_visual[i] and (newline is None or not torch.equal(embeddings[0, i], newline))
    ]
    assert len(places) == grids * size
    kept = [[] for _ in range(grids)]
    for cell, anchor, vector in zip(
        dropped.cells.tolist(), dropped.anchors.tolist(), dropped.embeddings, strict=True
    ):
        grid, inside = divmod(anchor, size)
        grid = grids - 1 - grid if reverse else grid
        line = None if cell < 0 or inside < visual.lead else (inside - visual.lead) // columns
        kept[grid].append((cell >= 0, line, places[grid * size + inside], vector))
    out = [(i, embeddings[0, i], False) for i in range(places[0])]
    by_row = family.name == "llava_onevision" and family.mm_newline_position == "grid"
    for grid in range(grids):
        for number, (real, line, place, vector) in enumerate(kept[grid]):
            out.append((place, vector, not real))
            later = [other for _, other, _, _ in kept[grid][number + 1 :]]
            if by_row and line is not None and line not in later:
                end = places[grid * size + line * columns + columns - 1] + 1
                out.append((end, newline, False))
    if newline is not None and not by_row:
        out.append((whole.length - 1, newline, False))
    index = torch.tensor([place for place, _, _ in out])
    rotary = whole.rotary
    if not renumbered:
        rotary = Chain(slow).positions(rotary, whole, family.geometry)
    scale = rotary.shift_scale
    rotary = replace(
        rotary,
        positions=rotary.positions[index],
        step=rotary.step[index],
        shift_scale=None if scale is None else scale[index],
    )
    is_visual = whole.is_visual[index]
    if renumbered:
        half = rotary.positions.shape[1]
        count = torch.arange(len(out), dtype=torch.float64)
        rotary = replace(
            rotary,
            positions=count.unsqueeze(1).expand(-1, half),
            next_position=float(len(out)),
            step=torch.where(is_visual, float(is_visual.sum()) / grids, 0.0).double(),
        )
    layout = Layout(
        input_ids=whole.input_ids[index],
        is_visual=is_visual,
        segment=whole.segment[index],
        grid_index=torch.stack(
            [torch.full((4,), -1) if no else whole.grid_index[i] for i, _, no in out]
        ),
        rotary=rotary,
        visuals=whole.visuals,
        num_frames=whole.num_frames,
    )
    if renumbered:
        rotary = Chain(slow).positions(rotary, layout, family.geometry)
    return Placed(methods, rotary), layout, torch.stack([v for _, v, _ in out]).unsqueeze(0)


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_kept_tokens_equal_a_prompt_written_token_by_token(family, make_clip, message, name):
    methods, slow = CHAINS[name]
    chain = Chain(methods)
    visual = family.encode(make_clip(8, 84, 112))
    kept = chain.tokens(visual)
    (dropping,) = (m for m in methods if isinstance(m, DropSome))
    reference, expected_layout, expected = written_out(
        family, message, visual, dropping.tokens(visual), methods, slow
    )
    layout, embeddings, tails = laid_out(family, message, [kept], QUESTIONS)
    assert layout.length < expected_layout.length + 1
    for part in ("input_ids", "is_visual", "segment", "grid_index"):
        assert torch.equal(getattr(layout, part), getattr(expected_layout, part)), part
    assert torch.equal(embeddings, expected)
    assert len({int(n) for n in layout.segment[layout.is_visual].bincount() if n}) > 2
    plan = make_plan(chain, layout, family.geometry)
    assert plan.visual_tokens_in(0) == int(expected_layout.is_visual.sum())
    answers = [
        dense_generate(family, reference, expected_layout, expected, tail, STEPS) for tail in tails
    ]
    with Attachment(family, plan) as attachment:
        shared = prefill(attachment, embeddings)
        for tail, (ids, logits) in zip(tails, answers, strict=True):
            got = stepwise_logits(attachment, shared, tail, ids)
            assert (got - logits).abs().max() < 1e-4
        together = generate(attachment, shared, tails, {"max_new_tokens": STEPS})
    end = family.model.generation_config.eos_token_id
    for answer, (ids, _) in zip(together, answers, strict=True):
        assert answer.token_ids == tuple(ids[: ids.index(end) + 1] if end in ids else ids)


@torch.no_grad()
def test_all_cells_said_one_by_one_are_all_cells(family, make_clip, message):
    visual = family.encode(make_clip(8, 84, 112))
    said = replace(visual, cells=torch.arange(visual.num_tokens))
    plain, embeddings, tails = laid_out(family, message, [visual], QUESTIONS[:1])
    layout, others, _ = laid_out(family, message, [said], QUESTIONS[:1])
    assert torch.equal(embeddings, others)
    logits = []
    for chain in (Chain([PAS()]), Chain([VRoPE()]), Chain()):
        for one in (plain, layout):
            plan = make_plan(chain, one, family.geometry)
            with Attachment(family, plan) as attachment:
                prefix = prefill(attachment, embeddings)
                logits.append(stepwise_logits(attachment, prefix, tails[0], [0, 1]))
            assert temporal_step(plan) == temporal_step(make_plan(chain, plain, family.geometry))
        assert torch.equal(logits[-1], logits[-2])


@torch.no_grad()
def test_two_pathways_and_two_visuals(family, make_clip, message):
    """After pooling, whatever the order of writing; each visual has cells of its own."""
    clip = make_clip(8, 84, 112)
    first = Chain([DropSome(), SlowFast(slow_frames=2)]).tokens(family.encode(clip))
    second = Chain([SlowFast(slow_frames=2), DropSome()]).tokens(family.encode(clip))
    assert torch.equal(first.embeddings, second.embeddings)
    assert torch.equal(first.cells, second.cells)
    alone, _, _ = laid_out(family, message, [first], QUESTIONS[:1])
    both, embeddings, _ = laid_out(family, message, [first, second], QUESTIONS[:1])
    assert embeddings.shape[1] == both.length
    assert both.num_visual_tokens == 2 * alone.num_visual_tokens
    assert both.num_frames == 2 * alone.num_frames
    rows = both.rows
    assert bool((rows.diff() > 0).sum() >= len(rows) - 4)  # merged tokens alone go back
    whole = both.whole.rotary
    assert torch.equal(both.rotary.positions, whole.positions[rows])
    assert both.rotary.next_position == whole.next_position
    mixed, _, _ = laid_out(
        family,
        message,
        [replace(first, position_ids="renumbered"), family.encode(clip)],
        QUESTIONS[:1],
    )
    assert mixed.whole is None
    assert mixed.rotary.positions[: alone.length, 0].tolist() == list(range(alone.length))
    if not family.axes:
        assert mixed.rotary.next_position == mixed.length
    plain, _, _ = laid_out(family, message, [family.encode(clip)], QUESTIONS[:1])
    count = plain.num_visual_tokens
    assert torch.equal(mixed.rotary.step[-count:], plain.rotary.step[-count:])


@pytest.mark.parametrize(
    "methods",
    [
        [DropSome(), VRoPE(), PAS()],
        [RENUMBERED, PAS(), KeepAttended(), KeepKeys()],
        [DropSome(empty=3), KeepAttended(numbering="renumbered")],
    ],
    ids=["original", "renumbered", "pruned"],
)
def test_verification_proves_a_method_that_drops_tokens(family, methods):
    case = make_case(family, Chain(methods))
    assert all(difference.ok for difference in compare(family, case).values())
    assert problems_of(family, case) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cells": torch.tensor([0, 1])}, r"cells have shape \(2,\)"),
        ({"cells": torch.tensor([0, 0, 1])}, "two tokens stand for one cell"),
        ({"cells": torch.tensor([0, -1, 1])}, "merged token, which needs an anchor"),
        ({"cells": torch.tensor([0, 1, 10**6])}, "accepted: 0 to"),
        (
            {"cells": torch.tensor([0, 1, 2]), "anchors": torch.tensor([0, 1, 3])},
            "another one for its anchor",
        ),
        ({"cells": torch.tensor([0, 1, 2]), "anchors": torch.tensor([0])}, "anchors have shape"),
        ({"cells": torch.tensor([2, 1, -2])}, "accepted: 0 to"),
        (
            {"cells": torch.zeros(0, dtype=torch.long), "embeddings": torch.zeros(0, 64)},
            "no token is left",
        ),
    ],
)
def test_cells_that_describe_nothing_are_refused(family, make_clip, message, change, words):
    visual = family.encode(make_clip(8, 84, 112))
    broken = replace(visual, **{"embeddings": visual.embeddings[:3], **change})
    with pytest.raises(UnsupportedModel, match=words):
        laid_out(family, message, [broken], QUESTIONS[:1])


def test_grids_come_in_the_order_of_time(family, make_clip, message):
    visual = family.encode(make_clip(8, 84, 112))
    cells = torch.tensor([visual.num_tokens - 1, 0])
    turned = replace(visual, embeddings=visual.embeddings[cells], cells=cells)
    with pytest.raises(UnsupportedModel, match="order of their temporal grids"):
        laid_out(family, message, [turned], QUESTIONS[:1])


def test_methods_that_need_whole_frames_say_so(family, make_clip, message):
    visual = family.encode(make_clip(8, 84, 112))
    kept = RENUMBERED.tokens(visual)
    layout, _, _ = laid_out(family, message, [kept], QUESTIONS[:1])
    for method, words in ((VRoPE(), "whole frames"), (ReverseOrder(), "equal size")):
        with pytest.raises(UnsupportedModel, match=words):
            make_plan(Chain([method]), layout, family.geometry)
    with pytest.raises(UnsupportedModel, match="slowfast pools whole grids"):
        SlowFast(slow_frames=2).tokens(kept)
    with pytest.raises(ConflictingMethods, match="both modify 'tokens'"):
        Chain([DropSome(), RENUMBERED])


@dataclass(frozen=True)
class Half(TokenRule):
    """A part of each frame's cells, with its lead tokens; at least one."""

    ratio: float

    def counts(self, grids, lead):
        return tuple((lead + max(1, int(h * w * self.ratio)),) * t for t, h, w in grids)


@dataclass(frozen=True)
class DropHalf(Method):
    """`frames` and `tokens`: the first part of the cells of each frame, as `Half` counts them."""

    name: ClassVar[str] = "drop_half"
    modifies: ClassVar[frozenset[str]] = frozenset({"tokens"})

    ratio: float = 0.5

    def frames(self, plan):
        return replace(plan, grid_rules=(*plan.grid_rules, Half(self.ratio)))

    def tokens(self, tokens):
        _, rows, columns = tokens.grid
        size = tokens.lead + rows * columns
        cells = torch.cat(
            [
                torch.arange(count) + grid * size
                for grid, count in enumerate(
                    Half(self.ratio).counts((tokens.grid,), tokens.lead)[0]
                )
            ]
        )
        return replace(tokens, embeddings=tokens.embeddings[cells], cells=cells)


def test_the_planner_counts_what_a_chain_will_leave(family, make_clip, message):
    chain = Chain([DropHalf()])
    inference = Inference(family, Sampling(num_frames=8))
    plan = inference.resolve(chain).frames
    planned = family.planned_tokens(plan.sampling, plan.grid_rules)
    assert planned < family.planned_tokens(plan.sampling)
    if family.axes:
        return  # frames are sized video by video
    visual = chain.tokens(family.encode(make_clip(8, 84, 112)))
    layout, _, _ = laid_out(family, message, [visual], QUESTIONS[:1])
    if family.name == "llava_onevision" and family.mm_newline_position == "grid":
        assert layout.num_visual_tokens <= planned  # rows without tokens have no newline
    else:
        assert layout.num_visual_tokens == planned


@dataclass(frozen=True)
class DropUnsaid(DropHalf):
    """The same, without saying it to the planner."""

    name: ClassVar[str] = "drop_unsaid"

    def frames(self, plan):
        return plan


def test_a_budget_is_met_by_what_is_left(load_family, tiny_qwen2_5_vl_folder, tmp_path):
    for frame in range(8):
        shade = np.random.default_rng(frame).integers(0, 256, (84, 112, 3), dtype=np.uint8)
        Image.fromarray(shade).save(tmp_path / f"{frame + 1}.png")
    content = [{"type": "video"}, {"type": "text", "text": QUESTIONS[0]}]
    question = Question(
        0,
        ({"role": "user", "content": content},),
        (VideoRef(str(tmp_path), fps=4.0),),
        gen_kwargs={"max_new_tokens": 2},
    )
    budget = 48
    family = load_family(tiny_qwen2_5_vl_folder, visual_token_budget=budget)
    here = DecodeOptions(workers=0)  # a worker would have to import this file's rule
    inference = Inference(family, Sampling(num_frames=8), decoding=here)
    said, unsaid = Chain([DropHalf()]), Chain([DropUnsaid()])
    inference.resolve(said)
    (answered,) = inference.run(inference.plan([question]), [said])
    usage = answered.outcome.usage
    assert usage.error is None
    assert 0.98 * budget <= usage.visual_tokens <= budget
    assert usage.token_layers == usage.visual_tokens
    assert usage.positions_per_grid is not None
    list(inference.run(inference.plan([question]), [unsaid]))
    assert set(inference.missed) == {unsaid}


@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("sizes", FIXED, ids=["one newline", "row newlines", "port", "original"])
def test_frames_are_chosen_by_what_is_left(sizes, ratio):
    rows, columns = sizes["cells"]
    newlines = sizes.get("newline_rows", False)
    lead = sizes["per_frame"] - rows * (columns + newlines)
    each = lead + int(rows * columns * ratio) + rows * newlines
    budget = 32 * each + sizes.get("per_video", 0)
    fixed = FixedFrames(budget=budget, **sizes)
    plan = FramePlan(Sampling(num_frames=8), grid_rules=(Half(ratio),))
    assert fit_frames(fixed, plan, free_frames=True).sampling.num_frames == 32
    nearest = (8 * each + sizes.get("per_video", 0)) * 100 // 98
    with pytest.raises(InfeasibleBudget, match=f"Nearest feasible: {nearest}"):
        fit_frames(fixed, plan, free_frames=False)


@dataclass(frozen=True)
class Asks(Method):
    """`frames`: asks for the attention of the vision tower."""

    name: ClassVar[str] = "asks"

    def frames(self, plan):
        return replace(plan, tower=("attention", "keys"))


def test_what_a_tower_does_not_give_is_refused_by_name(family):
    with pytest.raises(UnsupportedModel, match=f"attention and keys.*{family.name}"):
        Inference(family, Sampling(num_frames=8)).resolve(Chain([Asks()]))
