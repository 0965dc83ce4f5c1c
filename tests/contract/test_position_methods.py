"""VRoPE, the order probes and PAS with them, against placements written token by token."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
import torch
from probes import ReverseOrder as ReverseFrames
from slow_positions import SlowPAS, SlowReverseOrder, SlowReversePE, SlowVRoPE

from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.plan import make_plan
from tempeval.engine.plan_costs import distinct_temporal_ids
from tempeval.engine.prefix import prefill
from tempeval.errors import InvalidSetting
from tempeval.methods.base import Chain, Method
from tempeval.methods.order_probes import ReverseOrder, ReversePE
from tempeval.methods.pas import PAS
from tempeval.methods.slowfast import SlowFast
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.methods.vrope import VRoPE
from tempeval.verification.dense import dense_generate
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.verification.tiny_llava_onevision import load_llava_onevision
from tempeval.video.clip import FramePlan

QUESTIONS = ("What happens first?", "Is it faster? yes no", "up", "What happens last? A. left B.")
STEPS = 8


class Placed(Chain):
    """A chain whose positions are computed once, because the references are slow."""

    def __init__(self, chain, layout, geometry):
        super().__init__(chain.methods)
        self.placed = chain.positions(layout.rotary, layout, geometry)

    def positions(self, rotary, layout, geometry):
        return self.placed


EXIT = TemporalExit(layer=2)
SLOWFAST = SlowFast(slow_frames=2)
PAPER = VRoPE(channel_order="paper")
#: Methods of each chain, and what they mean token by token.
CHAINS = {
    "pas": ([PAS()], [SlowPAS()]),
    "vrope": ([VRoPE()], [SlowVRoPE()]),
    "vrope_paper": ([PAPER], [SlowVRoPE((0, 2, 3, 1))]),
    "reverse_pe": ([ReversePE()], [SlowReversePE()]),
    "reverse_order": ([ReverseOrder()], [SlowReverseOrder()]),
    "pas+vrope": ([PAS(), VRoPE()], [SlowVRoPE(), SlowPAS()]),
    "pas+reverse_pe": ([PAS(), ReversePE()], [SlowReversePE(), SlowPAS()]),
    "reverse_order+pas": ([ReverseOrder(), PAS()], [SlowReverseOrder(), SlowPAS()]),
    "reverse_pe+vrope": ([ReversePE(), VRoPE()], [SlowVRoPE(), SlowReversePE()]),
    "vrope+reverse_order": ([VRoPE(), ReverseOrder()], [SlowVRoPE(), SlowReverseOrder()]),
    "vrope+temporal_exit": ([VRoPE(), EXIT], [SlowVRoPE(), EXIT]),
    "slowfast+vrope": ([SLOWFAST, VRoPE()], [SLOWFAST, SlowVRoPE()]),
    "reverse_order+slowfast": ([ReverseOrder(), SLOWFAST], [SLOWFAST, SlowReverseOrder()]),
}

FAMILIES = ("qwen2_5_vl", "qwen2_vl", "llava_onevision", "video_llava", "video_llava_original")


@pytest.fixture(scope="module", params=[*FAMILIES, "llava_onevision_grid"])
def family(request):
    if request.param == "llava_onevision_grid":
        folder = request.getfixturevalue("tiny_llava_onevision_folder")
        return load_llava_onevision(folder, mm_newline_position="grid")
    return request.getfixturevalue(f"tiny_{request.param}")


def build(family, clip, message, chain, questions=QUESTIONS):
    """Layout, prefix embeddings and question tails of prompts about one clip."""
    visuals = [] if clip is None else [chain.tokens(family.encode(clip))]
    return laid_out(family, message, visuals, questions)


def until_end(family, ids):
    end = family.model.generation_config.eos_token_id
    return tuple(ids[: ids.index(end) + 1] if end in ids else ids)


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_chain_equals_token_by_token_reference(family, make_clip, message, name):
    methods, slow = CHAINS[name]
    chain, reference = Chain(methods), Chain(slow)
    clip = make_clip(8, 84, 112)
    layout, embeddings, tails = build(family, clip, message, chain)
    slow_layout, slow_embeddings, _ = build(family, clip, message, reference)
    assert torch.equal(embeddings, slow_embeddings)
    reference = Placed(reference, slow_layout, family.geometry)
    checked = (0, len(tails) - 1)  # the batch has all of them, of different length
    expected = {
        number: dense_generate(
            family, reference, slow_layout, slow_embeddings, tails[number], STEPS
        )
        for number in checked
    }
    settings = {"max_new_tokens": STEPS}
    plan = make_plan(chain, layout, family.geometry)
    with Attachment(family, plan) as attachment:
        shared = prefill(attachment, embeddings)
        together = generate(attachment, shared, tails, settings)
        for number, (ids, logits) in expected.items():
            assert together[number].token_ids == until_end(family, ids)
            got = stepwise_logits(attachment, shared, tails[number], ids)
            assert (got - logits).abs().max() < 1e-4
    for number, (ids, logits) in expected.items():
        tail = tails[number]
        with Attachment(family, plan) as attachment:
            own = prefill(attachment, embeddings)
            (answer,) = generate(attachment, own, [tail], settings)
            assert answer.token_ids == until_end(family, ids)
            assert (stepwise_logits(attachment, own, tail, ids) - logits).abs().max() < 1e-4
    assert torch.stack([logits for _, logits in expected.values()]).std() > 0.1


@torch.no_grad()
def first_logits(family, clip, message, chain):
    layout, embeddings, tails = build(family, clip, message, chain, QUESTIONS[:1])
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        return stepwise_logits(attachment, prefill(attachment, embeddings), tails[0], [0])


def test_every_chain_changes_the_logits_in_its_own_way(family, make_clip, message):
    clip = make_clip(8, 84, 112)
    found = {"baseline": first_logits(family, clip, message, Chain())}
    frames = Chain([ReverseFrames()])
    turned = clip.reordered(frames.frames(FramePlan()).permutation(clip.num_frames))
    found["frames reversed"] = first_logits(family, turned, message, Chain())
    for name, (methods, _) in CHAINS.items():
        found[name] = first_logits(family, clip, message, Chain(methods))
    names = list(found)
    for number, one in enumerate(names):
        for other in names[:number]:
            assert (found[one] - found[other]).abs().max() > 1e-3, (one, other)


@pytest.mark.parametrize("name", CHAINS)
def test_text_alone_is_as_it_was(family, message, name):
    chain = Chain(CHAINS[name][0])
    assert torch.equal(
        first_logits(family, None, message, chain), first_logits(family, None, message, Chain())
    )


class Palindrome(Method):
    """A video that is the same played backwards, grid by grid."""

    name = "palindrome"

    def tokens(self, tokens):
        frames = tokens.embeddings.view(tokens.grid[0], -1, tokens.embeddings.shape[1])
        return replace(tokens, embeddings=((frames + frames.flip(0)) / 2).flatten(0, 1))


def test_of_a_palindrome_only_the_ids_are_reversed(family, make_clip, message):
    clip = make_clip(8, 84, 112)
    logits = [
        first_logits(family, clip, message, Chain([Palindrome(), *methods]))
        for methods in ([ReverseOrder()], [ReversePE()], [])
    ]
    assert torch.equal(logits[0], logits[1])
    assert (logits[0] - logits[2]).abs().max() > 1e-3


@pytest.mark.parametrize("method", [ReverseOrder(), ReversePE()])
def test_one_grid_is_as_it_was(family, make_clip, message, method):
    clip = make_clip(1, 84, 112)
    if family.frames_per_block > family.frames_per_grid:
        with pytest.raises(InvalidSetting, match="8"):  # the tower takes whole blocks only
            family.encode(clip)
        return
    assert torch.equal(
        first_logits(family, clip, message, Chain([method])),
        first_logits(family, clip, message, Chain()),
    )


def test_the_usage_counts_times_only_where_there_are_any(family, make_clip, message):
    counts = {}
    for name in ("vrope", "reverse_pe", "reverse_order"):
        chain = Chain(CHAINS[name][0])
        layout, _, _ = build(family, make_clip(8, 84, 112), message, chain)
        counts[name] = distinct_temporal_ids(make_plan(chain, layout, family.geometry))
        native = distinct_temporal_ids(make_plan(Chain(), layout, family.geometry))
    assert counts == {"vrope": None, "reverse_pe": native, "reverse_order": native}
    assert native == (4 if family.axes else None)


# ---------------------------------------------------------------- labels and refusals of a run


def test_a_run_says_whether_the_checkpoint_knows_the_positions(tiny_qwen2_5_vl_folder, tmp_path):
    from tempeval.model_wrappers.chain import Tempeval
    from tempeval.model_wrappers.vrope import TempevalVRoPE

    trained = shutil.copytree(tiny_qwen2_5_vl_folder, tmp_path / "trained")
    config = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps({**config, "trained_with": "vrope"}))
    options = {"device": "cpu", "min_pixels": 784, "max_pixels": 9408}
    models = {}
    for name, folder in (("stock", tiny_qwen2_5_vl_folder), ("trained", trained)):
        models[name, "vrope"] = TempevalVRoPE(str(folder), **options)
        models[name, "pas"] = Tempeval(str(folder), method="pas", **options)
    facts = {key: model.run_facts() for key, model in models.items()}
    assert {key: (f.method_label, f.method_notes) for key, f in facts.items()} == {
        ("stock", "vrope"): ("vrope (swap, untrained)", ["swap, untrained"]),
        ("trained", "vrope"): ("vrope", []),
        ("stock", "pas"): ("pas", []),
        ("trained", "pas"): (
            "pas (trained with vrope, run without it)",
            ["trained with vrope, run without it"],
        ),
    }
    for method in ("vrope", "pas"):
        one, other = models["stock", method].chain, models["trained", method].chain
        assert one.name == other.name == method
        assert one.fingerprint == other.fingerprint


def test_a_probe_without_effect_is_refused_before_any_video(tiny_qwen2_5_vl_folder):
    from tempeval.model_wrappers.chain import Tempeval

    for name in ("reverse_pe", "reverse_order"):
        with pytest.raises(InvalidSetting, match=f"{name} has no effect on num_frames=2"):
            Tempeval(str(tiny_qwen2_5_vl_folder), method=name, num_frames=2, device="cpu")
