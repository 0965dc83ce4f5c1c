"""Every method on every family, and every pair of methods: equal to the reference, or refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_pave import encoded_for, register_tiny_channel, save_tiny_pave

from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.inference import Inference
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.errors import ConflictingMethods, TempevalError
from tempeval.methods.base import Chain
from tempeval.methods.registry import METHODS, parse_chain
from tempeval.verification.dense import dense_generate, dense_logits
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.video.clip import Sampling

FAMILIES = (
    "qwen2_5_vl",
    "qwen2_vl",
    "llava_onevision",
    "video_llava",
    "video_llava_original",
)
#: A spelling of each method with which the tiny models feel it.
SPELLINGS = {
    "intp": "intp[kv_bits=16;scale=2]",
    "kv_quant": "kv_quant[nbits=4;group_size=8;residual_length=8]",
    "pas": "pas",
    "pave": "pave[adapter=ADAPTER;side_channel=tiny]",
    "rearrange": "rearrange",
    "reverse_order": "reverse_order",
    "reverse_pe": "reverse_pe",
    "rope_scale": "rope_scale[scale=2]",
    "slowfast": "slowfast",
    "staged_sparse": "staged_sparse[strategies=1/2;question_layers=0/2;frame_layer=2]",
    "temporal_exit": "temporal_exit[layer=2]",
    "vrope": "vrope",
}
#: (method, family) -> words of the refusal. Everything else must work.
REFUSED = {
    (method, family): "inert"
    for method in ("intp", "rearrange")
    for family in ("llava_onevision", "video_llava")
}
#: Pairs of those spellings that modify the same.
CONFLICTS = (("intp", "rearrange"), ("intp", "rope_scale"), ("reverse_order", "reverse_pe"))
NUM_FRAMES = 16
QUESTIONS = ("What happens first?", "Is it faster? yes no")
STEPS = 9  # the prompt's end and 8 decode steps


ADAPTERS: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _tiny_channel(monkeypatch):
    register_tiny_channel(monkeypatch)


@pytest.fixture(scope="module", autouse=True)
def _adapters(request, tmp_path_factory):
    """An adapter of PAVE for each family, by its widths."""
    for name in FAMILIES:
        family = request.getfixturevalue(f"tiny_{name}")
        path = save_tiny_pave(tmp_path_factory.mktemp("adapter"), family)
        ADAPTERS[name] = str(path)


def spelled(method, name="qwen2_5_vl"):
    """A chain of one method on a family; PAVE's adapter is its own for each base model."""
    return SPELLINGS[method].replace("ADAPTER", ADAPTERS[name])


@pytest.fixture(scope="module", params=FAMILIES)
def named(request):
    return request.param, request.getfixturevalue(f"tiny_{request.param}")


def build(family, make_clip, message, chain):
    """Bind a chain as a run does; layout, prefix embeddings and question tails of its prompts."""
    inference = Inference(family, Sampling("uniform", NUM_FRAMES))
    resolved = inference.resolve(chain)
    bound, plan = resolved.bound, resolved.frames
    clip = make_clip(plan.sampling.num_frames, 84, 112)
    visuals = [bound.tokens(encoded_for(family, clip, plan))]
    return bound, *laid_out(family, message, visuals, QUESTIONS)


@torch.no_grad()
def compare(family, chain, layout, embeddings, tails):
    """Hold the engine against the dense reference: shared and one-shot, batch 1 and 2."""
    # Differences of float32 flip codes at rounding boundaries, so stores are compared in float64.
    wide = any(chain.kv_cache(n, family.geometry) for n in range(family.geometry.num_layers))
    if wide:
        family.model.double()
        embeddings = embeddings.double()
    try:
        references = [dense_generate(family, chain, layout, embeddings, t, STEPS) for t in tails]
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            shared = prefill(attachment, embeddings)
            for tail, (ids, expected) in zip(tails, references, strict=True):
                for prefix in (shared, prefill(attachment, embeddings)):
                    got = stepwise_logits(attachment, prefix, tail, ids)
                    assert (got - expected).abs().max() < 1e-4
            together = generate(attachment, shared, tails, {"max_new_tokens": STEPS})
        end = family.model.generation_config.eos_token_id
        for (ids, _), answer in zip(references, together, strict=True):
            assert list(answer.token_ids) == (ids[: ids.index(end) + 1] if end in ids else ids)
    finally:
        if wide:
            family.model.float()


def test_no_method_is_left_out():
    assert set(SPELLINGS) == set(METHODS)


def test_the_registry_says_what_is_refused():
    """`FAMILIES` here are fixtures: two of `qwen_vl`, two layouts of `video_llava`."""
    names = {"qwen2_5_vl": "qwen_vl", "qwen2_vl": "qwen_vl"}
    names["video_llava_original"] = "video_llava (original layout)"
    for method, entry in METHODS.items():
        for family in FAMILIES:
            name = names.get(family, family)
            listed = name in entry.families or name.split(" ")[0] in entry.families
            assert listed == ((method, family) not in REFUSED)


@pytest.mark.parametrize("method", SPELLINGS)
def test_a_method_works_on_a_family_or_is_refused_by_name(named, make_clip, message, method):
    name, family = named
    chain = parse_chain(spelled(method, name))
    if (method, name) in REFUSED:
        with pytest.raises(TempevalError, match=rf"(?s)(?=.*{REFUSED[method, name]}).*rearrange"):
            Inference(family, Sampling("uniform", NUM_FRAMES)).resolve(chain)
        return
    bound, layout, embeddings, tails = build(family, make_clip, message, chain)
    compare(family, bound, layout, embeddings, tails)


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "method"),
    [c for c in itertools.product(FAMILIES, SPELLINGS) if c[::-1] not in REFUSED],
)
def test_a_method_is_felt(request, make_clip, message, name, method):
    """One that did nothing would equal its reference too."""
    family = request.getfixturevalue(f"tiny_{name}")
    logits = []
    for chain in (Chain(), parse_chain(spelled(method, name))):
        bound, layout, embeddings, tails = build(family, make_clip, message, chain)
        logits.append(dense_logits(family, bound, layout, embeddings, tails[0])[-1])
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize(("first", "second"), CONFLICTS)
def test_a_pair_that_claims_the_same_is_refused_by_both_names(first, second):
    with pytest.raises(ConflictingMethods, match=f"(?=.*{first}).*{second}"):
        parse_chain(f"{spelled(first)}+{spelled(second)}")


@pytest.mark.parametrize(
    ("first", "second"), [p for p in itertools.combinations(SPELLINGS, 2) if p not in CONFLICTS]
)
def test_a_pair_composes_however_it_is_written(tiny_qwen2_5_vl, make_clip, message, first, second):
    family, spellings = tiny_qwen2_5_vl, [spelled(first), spelled(second)]
    bound, layout, embeddings, tails = build(
        family, make_clip, message, parse_chain("+".join(spellings))
    )
    compare(family, bound, layout, embeddings, tails)
    other, its_layout, its_embeddings, _ = build(
        family, make_clip, message, parse_chain("+".join(reversed(spellings)))
    )
    assert torch.equal(its_embeddings, embeddings)
    logits = [
        dense_logits(family, chain, place, embeddings, tails[0])[-1]
        for chain, place in ((bound, layout), (other, its_layout))
    ]
    assert torch.equal(*logits)


@torch.no_grad()
def test_the_order_of_writing_does_not_matter(tiny_qwen2_5_vl, make_clip, message):
    chains = ("pas+staged_sparse+kv_quant[group_size=8;residual_length=8]",)
    for text in chains:
        results = []
        for parts in itertools.permutations(text.split("+")):
            bound, layout, embeddings, tails = build(
                tiny_qwen2_5_vl, make_clip, message, parse_chain("+".join(parts))
            )
            results.append(dense_logits(tiny_qwen2_5_vl, bound, layout, embeddings, tails[0])[-1])
        compare(tiny_qwen2_5_vl, bound, layout, embeddings, tails)
        for other in results[1:]:
            assert torch.equal(other, results[0])
