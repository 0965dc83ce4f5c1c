"""INTP and SlowFast on models: dense references, sharing, budgets, and prompts that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import tempeval.engine.session as session_module
from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.continuations import Continuations
from tempeval.engine.inference import Inference
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.engine.question import Question
from tempeval.errors import InvalidSetting, PromptTooLong, UnsupportedModel
from tempeval.methods.base import Chain
from tempeval.methods.registry import parse_chain
from tempeval.methods.rope_scale import RopeScale
from tempeval.model_wrappers.chain import Tempeval
from tempeval.model_wrappers.intp import TempevalINTP
from tempeval.run.calibrate import CalibrateOptions, calibrate
from tempeval.run.calibration_clips import MINI
from tempeval.run.spec import RunSpec
from tempeval.verification.dense import dense_generate, dense_logits
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.verification.tiny_llava_onevision import load_llava_onevision
from tempeval.verification.tiny_video_llava import PER_FRAME, load_video_llava, save_tiny_original
from tempeval.video.clip import FramePlan, Sampling, VideoRef

QUESTIONS = ("What happens first?", "Is it faster? yes no", "up", "What happens last? A. left B.")
STEPS = 9  # the prompt's end and 8 decode steps
CHAINS = {
    name: parse_chain(name)
    for name in (
        "rope_scale[scale=2.5]",
        "rope_scale[kind=linear;scale=2.5]",
        "rope_scale[kind=ntk_linear;scale=2.5]",
        "slowfast[slow_frames=2;fast_size=2/1]",
        "slowfast+pas",
        "pas+slowfast[slow_pool=max]+rope_scale[scale=2]+temporal_exit[layer=2]",
    )
}


@pytest.fixture(scope="module", params=["qwen2_5_vl", "llava_onevision", "video_llava"])
def family(request):
    return request.getfixturevalue(f"tiny_{request.param}")


def build(family, make_clip, message, chain, questions=QUESTIONS):
    """Layout, prefix embeddings and question tails of prompts about one clip."""
    visuals = [chain.tokens(family.encode(make_clip(8, 84, 112)))]
    return laid_out(family, message, visuals, questions)


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_chain_equals_dense_reference(family, make_clip, message, name):
    """Prefill and 8 decoding steps; one-shot (each its own prefix), shared, batch 1 and 4."""
    chain = CHAINS[name]
    layout, embeddings, tails = build(family, make_clip, message, chain)
    end = family.model.generation_config.eos_token_id
    plan = make_plan(chain, layout, family.geometry)
    references = [
        dense_generate(family, chain, layout, embeddings, tail, STEPS) for tail in tails[:2]
    ]
    with Attachment(family, plan) as attachment:
        shared = prefill(attachment, embeddings)
        for tail, (ids, expected) in zip(tails, references, strict=False):
            assert expected.std() > 0.1  # a degenerate model would agree about anything
            for prefix in (shared, prefill(attachment, embeddings)):
                got = stepwise_logits(attachment, prefix, tail, ids)
                assert (got - expected).abs().max() < 1e-4
        together = generate(attachment, shared, tails, {"max_new_tokens": STEPS})
        for tail, answer in zip(tails, together, strict=True):
            (alone,) = generate(attachment, shared, [tail], {"max_new_tokens": STEPS})
            assert alone.token_ids == answer.token_ids
    for (ids, _), answer in zip(references, together, strict=False):
        assert list(answer.token_ids) == (ids[: ids.index(end) + 1] if end in ids else ids)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["ntk", "linear", "ntk_linear"])
def test_scaling_equals_transformers_own_with_the_papers_base(family, make_clip, message, kind):
    """The rotary module of the model, built anew: base b', its own linear scaling, or both."""
    scale, dim = 2.5, family.geometry.head_dim
    layout, embeddings, tails = build(family, make_clip, message, Chain(), QUESTIONS[:1])
    rotary = family.text_model.rotary_emb
    config = type(rotary.config)(**rotary.config.to_dict())
    native = dict(config.rope_parameters)
    if kind != "linear":
        native["rope_theta"] *= scale ** (dim / (dim - 2))
    if kind != "ntk":
        native |= {"rope_type": "linear", "factor": scale}
    config.rope_parameters = native
    inv_freq = type(rotary)(config).inv_freq
    placed = replace(layout, rotary=replace(layout.rotary, inv_freq=inv_freq))
    expected = dense_logits(family, Chain(), placed, embeddings, tails[0])
    chain = Chain([RopeScale(kind=kind, scale=scale)])
    got = dense_logits(family, chain, layout, embeddings, tails[0])
    plain = dense_logits(family, Chain(), layout, embeddings, tails[0])
    assert (got - expected).abs().max() < 1e-4
    assert (got - plain).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_each_chain_is_felt(family, make_clip, message, name):
    """Methods that did nothing would pass every equality above."""
    logits = []
    for chain in (Chain(), CHAINS[name]):
        layout, embeddings, tails = build(family, make_clip, message, chain, QUESTIONS[:1])
        logits.append(dense_logits(family, chain, layout, embeddings, tails[0])[-1])
    assert (logits[0] - logits[1]).abs().max() > 1e-2


@torch.no_grad()
@pytest.mark.parametrize("spec", ["rope_scale", "rope_scale[kind=linear;scale=1]", "rearrange"])
def test_settings_that_change_nothing_are_bit_equal_to_baseline(
    tiny_qwen2_5_vl, make_clip, message, spec
):
    family, got = tiny_qwen2_5_vl, []
    for chain in (Chain(), parse_chain(spec).bind(family.facts(Sampling(num_frames=8)))):
        plan = chain.frames(FramePlan(Sampling(num_frames=8)))
        visuals = [family.encode(make_clip(8, 84, 112), num_groups=plan.num_groups)]
        layout, tail = family.layout(family.tokenize(message("<video>", "up")), visuals)
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            prefix = prefill(attachment, family.embed(layout, visuals))
            got.append(stepwise_logits(attachment, prefix, tail, [5, 6]))
    assert torch.equal(*got)


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Frame folders of two videos, 72 frames each."""
    root = tmp_path_factory.mktemp("videos")
    refs = []
    for number in range(2):
        folder = root / f"video{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(72):
            coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame:03d}.png")
        refs.append(VideoRef(str(folder), fps=36.0))
    return refs


def ask(videos, texts=QUESTIONS, **kwargs):
    kwargs.setdefault("gen_kwargs", {"max_new_tokens": 3})
    content = [[{"type": "video"}, {"type": "text", "text": text}] for text in texts]
    return [
        Question(v * len(texts) + q, ({"role": "user", "content": part},), (ref,), **kwargs)
        for v, ref in enumerate(videos)
        for q, part in enumerate(content)
    ]


def run(inference, chains, questions):
    """Outcomes by chain and question number."""
    found = {chain.spec: {} for chain in chains}
    for answered in inference.run(inference.plan(questions), chains):
        found[answered.chain.spec][answered.question.number] = answered.outcome
    return found


def counted_prefills(monkeypatch):
    calls, original = [], session_module.prefill
    monkeypatch.setattr(session_module, "prefill", lambda *a: calls.append(a) or original(*a))
    return calls


MATCHED = [parse_chain(spec) for spec in ("baseline", "slowfast", "slowfast+pas", "pas")]


def check_matched(inference, budget, videos, monkeypatch):
    """All methods get the budget; what they may share is made once."""
    calls = counted_prefills(monkeypatch)
    found = run(inference, MATCHED, ask(videos))
    for outcomes in found.values():
        assert [o.usage.error for o in outcomes.values()] == [None] * len(outcomes)
        for outcome in outcomes.values():
            assert 0.98 * budget <= outcome.usage.visual_tokens <= budget
    assert len(calls) == len(MATCHED) * len(videos)  # one prefix for all questions of a video
    # Baseline and pas share their visual tokens, and so do slowfast and slowfast+pas.
    assert inference.encoder.vision_runs == 2 * len(videos)
    return {spec: outcomes[0].usage for spec, outcomes in found.items()}


@pytest.mark.parametrize("budget", [64, 144])
def test_matched_budget_where_frames_are_sized(
    load_family, tiny_qwen2_5_vl_folder, videos, monkeypatch, budget
):
    family = load_family(tiny_qwen2_5_vl_folder, visual_token_budget=budget)
    inference = Inference(family, Sampling(num_frames=8), frames_free=True)
    usages = check_matched(inference, budget, videos, monkeypatch)
    given = Inference(family, Sampling(num_frames=8))
    assert given.resolve(MATCHED[1]).frames.sampling.num_frames == 8
    ids = {spec: usage.distinct_temporal_ids for spec, usage in usages.items()}
    assert ids["slowfast"] > ids["baseline"]  # two paths, one after the other in time


@pytest.mark.parametrize("kind", ["one_token", "grid", "port", "original"])
def test_matched_budget_where_frames_are_counted(request, videos, monkeypatch, kind):
    if kind in ("one_token", "grid"):
        folder = request.getfixturevalue("tiny_llava_onevision_folder")
        plain = load_llava_onevision(folder, mm_newline_position=kind)
    else:
        name = "tiny_video_llava_folder" if kind == "port" else "tiny_video_llava_original_folder"
        plain = load_video_llava(request.getfixturevalue(name))
    frames = 16
    budget = plain.planned_tokens(Sampling(num_frames=frames))
    plain.options = replace(plain.options, visual_token_budget=budget)
    inference = Inference(plain, Sampling(num_frames=frames), frames_free=True)
    usages = check_matched(inference, budget, videos, monkeypatch)
    assert usages["baseline"].frames == frames
    assert usages["slowfast"].frames > frames
    resolved = inference.resolve(MATCHED[1]).settings["slowfast"]
    assert resolved["fast_grids"] == usages["slowfast"].frames
    assert 1 <= resolved["slow_grids"] < frames
    # With the number of frames given, the slow part alone is left to choose.
    inference.frames_free = False
    plan = inference.resolve(MATCHED[0]).frames
    assert plan.sampling.num_frames == frames


# ---------------------------------------------------------------- prompts that do not fit


def test_a_prompt_that_does_not_fit_fails_alone(load_family, tiny_qwen2_5_vl_folder, videos):
    """M-RoPE: positions are compared, so 48 tokens and a question fit 60 positions."""
    family = load_family(tiny_qwen2_5_vl_folder, min_pixels=784, max_pixels=9408)
    texts = ["up", "What happens first? " * 12, "left", "up and down " * 12]
    questions = ask(videos[:1], texts)
    free = run(Inference(family, Sampling(num_frames=8)), [Chain()], questions)["baseline"]
    tokens = [free[n].usage.input_tokens for n in range(4)]
    layout_length = free[0].usage.visual_tokens
    config = family.model.config.get_text_config()
    previous = config.max_position_embeddings
    assert layout_length == 48
    try:
        config.max_position_embeddings = 60
        outcomes = run(Inference(family, Sampling(num_frames=8)), [Chain()], questions)["baseline"]
        assert [outcomes[n].usage.error is None for n in range(4)] == [True, False, True, False]
        for number in (0, 2):
            assert outcomes[number].answer == free[number].answer
            assert tokens[number] > 60
        for number in (1, 3):
            message = outcomes[number].usage.error
            assert outcomes[number].answer is None
            assert "8 frames make 48 visual tokens" in message
            assert f"with {tokens[number] - 48} tokens of text and 3 to generate" in message
            assert "the context is 60;" in message
        scaled = [parse_chain("rope_scale[scale=4]")]
        (fits,) = run(Inference(family, Sampling(num_frames=8)), scaled, questions).values()
        assert [o.usage.error for o in fits.values()] == [None] * 4
        labels = ask(videos[:1], ["up"], kind="score", continuations=Continuations((" left" * 40,)))
        (score,) = run(Inference(family, Sampling(num_frames=8)), [Chain()], labels).values()
        assert "to score" in score[0].usage.error
    finally:
        config.max_position_embeddings = previous


@pytest.fixture(scope="module")
def short_original(tmp_path_factory):
    """An original Video-LLaVA whose 16 frames do not fit, as those of the released one."""
    folder = tmp_path_factory.mktemp("short")
    return save_tiny_original(folder, max_position_embeddings=16 * PER_FRAME - 1)


def test_16_frames_are_refused_before_decoding_where_they_cannot_fit(short_original, videos):
    family = load_video_llava(short_original)
    inference = Inference(family, Sampling(num_frames=16))
    context = 16 * PER_FRAME - 1
    with pytest.raises(
        PromptTooLong, match=rf"16 frames make {context + 1} visual tokens.* is {context};"
    ):
        run(inference, [Chain()], ask(videos))
    eight = run(Inference(family, Sampling(num_frames=8)), [Chain()], ask(videos, ["up"]))
    assert eight["baseline"][0].usage.error is None
    long = run(Inference(family, Sampling(num_frames=8)), [Chain()], ask(videos, ["up " * 200]))
    assert "8 frames make" in long["baseline"][0].usage.error
    assert long["baseline"][0].answer is None


@pytest.mark.parametrize("frames", [16, 32, 64])
def test_many_frames_within_one_config_line(short_original, videos, frames):
    arguments = f"pretrained={short_original},num_frames={frames},device=cpu"
    model = TempevalINTP.create_from_arg_string(arguments)
    facts = model.run_facts()
    assert model.chain.name == "intp"
    assert facts.method_resolved["rearrange"]["num_groups"] == frames // 8
    scale = facts.method_resolved["rope_scale"]["scale"]
    assert scale == (frames * PER_FRAME + 512) / (16 * PER_FRAME - 1)
    assert facts.method_label == f"intp (rope_scale: scale {scale:.4g})"
    outcomes = run(model.inference, [model.chain], ask(videos[:1]))[model.chain.spec]
    for outcome in outcomes.values():
        assert outcome.usage.error is None
        assert outcome.usage.visual_tokens == frames * PER_FRAME
        assert outcome.usage.frames == frames
    assert json.loads(facts.model_dump_json())["family"] == facts.family


def test_deployed_in_two_bits_with_a_calibration_of_its_own(short_original, videos, tmp_path):
    """`intp` as the paper deploys it; ranges of another scale are refused."""
    path = str(tmp_path / "ranges.safetensors")
    run_of = RunSpec(pretrained=str(short_original), method="intp", num_frames=16)
    ranges = CalibrateOptions(tmp_path / "ranges.safetensors", MINI, 2, run=run_of)
    calibrate(ranges)
    arguments = {"num_frames": 16, "device": "cpu", "kv_bits": 2, "calibration": path}
    model = TempevalINTP(str(short_original), **arguments)
    outcomes = run(model.inference, [model.chain], ask(videos[:1]))[model.chain.spec]
    for outcome in outcomes.values():
        assert outcome.usage.error is None
        assert outcome.usage.quantised_fraction == 1.0
    resolved = model.run_facts().method_resolved
    assert list(resolved) == ["rearrange", "rope_scale", "kv_quant"]
    assert "rope_scale[scale=" in resolved["kv_quant"]["calibration_chain"]
    with pytest.raises(InvalidSetting, match="was made under method"):
        TempevalINTP(str(short_original), **(arguments | {"num_frames": 32}))


def test_rearrangement_is_what_the_tower_sees(tiny_video_llava_original, make_clip):
    """INTP of 32 frames: the tower on four strided clips, each by itself, put back in order."""
    family, clip = tiny_video_llava_original, make_clip(32, 56, 56)
    inference = Inference(family, Sampling(num_frames=32))
    plan = inference.resolve(parse_chain("rearrange")).frames
    got = family.encode(clip, num_groups=plan.num_groups).embeddings.view(32, PER_FRAME, -1)
    for group in range(4):
        own = clip.reordered(np.arange(group, 32, 4))
        expected = family.encode(own).embeddings.view(8, PER_FRAME, -1)
        assert (got[group::4] - expected).abs().max() < 1e-4
    naive = family.encode(clip).embeddings.view(32, PER_FRAME, -1)
    assert (got - naive).abs().max() > 1e-2


def test_intp_is_refused_by_name_where_it_is_inert(
    tiny_video_llava, tiny_llava_onevision, tiny_qwen2_5_vl
):
    for family in (tiny_video_llava, tiny_llava_onevision):
        inference = Inference(family, Sampling(num_frames=16))
        for spec in ("rearrange", "intp"):
            with pytest.raises(UnsupportedModel, match=r"inert.*allow_inert=true"):
                inference.resolve(parse_chain(spec))
        inference.resolve(parse_chain("intp[allow_inert=true]"))
    inference = Inference(tiny_qwen2_5_vl, Sampling(num_frames=16))
    inference.resolve(parse_chain("intp"))
    assert inference.resolve(parse_chain("rearrange")).frames.num_groups == 2
    with pytest.raises(InvalidSetting, match="nearest feasible num_frames is 8 or 16"):
        Inference(tiny_qwen2_5_vl, Sampling(num_frames=12)).resolve(parse_chain("rearrange"))


def test_the_wrapper_compares_methods_at_one_budget(tiny_llava_onevision_folder):
    """The number of frames is the method's own; what the table calls its frames is the same."""
    model = Tempeval(str(tiny_llava_onevision_folder), device="cpu", visual_token_budget=145)
    frames, policies = {}, set()
    for spec in ("baseline", "slowfast", "slowfast+pas"):
        model.set_method(spec)
        plan = model.inference.resolve(model.chain).frames
        frames[spec] = plan.sampling.num_frames
        policy = model.run_facts().frame_policy
        assert policy.num_frames == frames[spec]
        policies.add(policy.base_num_frames or policy.num_frames)
    assert frames["baseline"] == 16
    assert frames["slowfast"] == frames["slowfast+pas"] > 16
    assert policies == {16}
