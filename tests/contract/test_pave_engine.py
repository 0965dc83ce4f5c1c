"""PAVE on models: dense reference, low-rank changes, sharing, failures, usage, wrapper."""

from __future__ import annotations

import gc
import shutil
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from lmms_eval.api.instance import Instance
from pave_reference import reference
from PIL import Image
from tiny_pave import TinyChannel, encoded_for, register_tiny_channel, save_tiny_pave

from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.inference import Inference
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.engine.question import Question
from tempeval.engine.store import Memory
from tempeval.errors import InvalidSetting
from tempeval.methods.base import Chain
from tempeval.methods.pave import PAVE
from tempeval.methods.pave_patch import equal_partition
from tempeval.methods.registry import parse_chain
from tempeval.model_wrappers.baseline import TempevalBaselineSimple
from tempeval.model_wrappers.chain import TempevalSimple
from tempeval.model_wrappers.pave import TempevalPAVE, TempevalPAVESimple
from tempeval.verification.dense import dense_generate, dense_logits
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.verification.tiny_llava_onevision import load_llava_onevision
from tempeval.video.clip import FramePlan, Sampling, VideoPath, VideoRef

FAMILIES = ("one_token", "grid", "qwen2_5_vl")
QUESTIONS = ("What happens first?", "Is it faster? yes no")
FRAMES = 6
STEPS = 9  # the prompt's end and 8 decode steps


@pytest.fixture(autouse=True)
def _tiny_channel(monkeypatch):
    register_tiny_channel(monkeypatch)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return load(request, request.param)


@pytest.fixture(scope="module")
def qwen(request):
    return load(request, "qwen2_5_vl")


def load(request, name):
    if name in ("one_token", "grid"):
        folder = request.getfixturevalue("tiny_llava_onevision_folder")
        return load_llava_onevision(folder, mm_newline_position=name)
    folder = request.getfixturevalue("tiny_qwen2_5_vl_folder")
    return request.getfixturevalue("load_family")(folder, min_pixels=784, max_pixels=9408)


@pytest.fixture(scope="module")
def adapters(tmp_path_factory):
    """`adapters(family, **options)`: the path of a tiny adapter, saved once."""
    made = {}

    def make(family, **options):
        key = (family.name, *sorted(options.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("adapter")
            made[key] = str(save_tiny_pave(folder, family, **options))
        return made[key]

    return make


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Frame folders of three little videos, 12 frames in 2 seconds."""
    root = tmp_path_factory.mktemp("videos")
    refs = []
    for number in range(3):
        folder = root / f"video{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(12):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame:02d}.png")
        refs.append(VideoRef(str(folder), fps=6.0))
    return refs


def pave(adapter, **settings):
    return Chain([PAVE(adapter, side_channel="tiny", **settings)])


def ask(number, ref, text="What happens first?", **kwargs):
    content = [] if ref is None else [{"type": "video"}]
    messages = ({"role": "user", "content": [*content, {"type": "text", "text": text}]},)
    kwargs.setdefault("gen_kwargs", {"max_new_tokens": 4})
    return Question(number, messages, () if ref is None else (ref,), **kwargs)


def run(inference, questions, chains, store=None):
    """Outcomes by (chain, question number)."""
    work = inference.plan(questions)
    return {
        (a.chain, a.question.number): (a.outcome, a.replayed)
        for a in inference.run(work, chains, store)
    }


def by_hand(family, chain, clip):
    """Visual tokens of a clip with the patch's output added, from the reference alone."""
    (method,) = chain.methods
    plain = family.encode(clip, with_features=True)
    side = encoded_for(family, clip, chain.frames(FramePlan())).side[method.side].features
    weights = method.loaded.weights
    features = plain.features.flatten(1, 2)
    added = reference(
        weights.patch_state, side, features, weights.num_heads, None, kv_share=weights.kv_share
    )
    return replace(plain, embeddings=plain.embeddings + added.flatten(0, 1).to(plain.embeddings))


@torch.no_grad()
@pytest.mark.parametrize("lora", ["kept", "merged"])
def test_equals_dense_reference_shared_and_alone(family, adapters, make_clip, message, lora):
    """Tokens by an independent patch, low-rank changes by hand; prefill and 8 decode steps."""
    chain = pave(adapters(family), lora=lora)
    inference = Inference(family, Sampling(num_frames=FRAMES))
    clip = make_clip(FRAMES, 84, 84)
    expected_tokens = by_hand(family, chain, clip)
    layout, embeddings, tails = laid_out(family, message, [expected_tokens], QUESTIONS)
    bound = inference.resolve(chain).bound
    tokens = bound.tokens(encoded_for(family, clip, inference.resolve(chain).frames))
    assert tokens.num_tokens == expected_tokens.num_tokens
    assert (tokens.embeddings - expected_tokens.embeddings).abs().max() < 1e-4
    own, own_embeddings, _ = laid_out(family, message, [tokens], QUESTIONS)
    assert own.length == layout.length
    baseline = dense_logits(family, Chain(), layout, embeddings, tails[0])[-1]
    references = [dense_generate(family, bound, layout, embeddings, t, STEPS) for t in tails]
    # Both the patch and the low-rank changes are felt.
    bare = laid_out(family, message, [family.encode(clip)], QUESTIONS)[1]
    unpatched = dense_logits(family, bound, layout, bare, tails[0])[-1]
    for less in (baseline, unpatched):
        assert (references[0][1][0] - less).abs().max() > 1e-2
    with Attachment(family, make_plan(bound, own, family.geometry)) as attachment:
        shared = prefill(attachment, own_embeddings)
        for tail, (ids, expected) in zip(tails, references, strict=True):
            for prefix in (shared, prefill(attachment, own_embeddings)):
                got = stepwise_logits(attachment, prefix, tail, ids)
                assert (got - expected).abs().max() < 2e-3
        together = generate(attachment, shared, tails, {"max_new_tokens": STEPS})
    end = family.model.generation_config.eos_token_id
    for (ids, _), answer in zip(references, together, strict=True):
        assert list(answer.token_ids) == (ids[: ids.index(end) + 1] if end in ids else ids)


def instances(model, videos, kind):
    docs = [{"path": ref.path, "text": text} for ref in videos for text in QUESTIONS]
    model.task_dict = {"task": {"test": docs}}
    made = []
    for i, doc in enumerate(docs):
        first = " left" if kind == "loglikelihood" else {"max_new_tokens": 8}
        visual = [VideoPath(doc["path"], fps=6.0)]
        arguments = (doc["text"], first, lambda _, v=visual: v, i, "task", "test")
        metadata = {"task": "task", "doc_id": i, "repeats": 1}
        made.append(Instance(kind, arguments, 0, metadata))
    return made


@pytest.mark.parametrize("model", ["llava_onevision", "qwen2_5_vl"])
def test_before_training_the_wrapper_equals_the_baseline_bit_for_bit(
    request, adapters, videos, model
):
    folder = str(request.getfixturevalue(f"tiny_{model}_folder"))
    options = {"device": "cpu", "num_frames": FRAMES}
    if model == "qwen2_5_vl":
        options |= {"min_pixels": 784, "max_pixels": 9408}
    baseline = TempevalBaselineSimple(folder, **options)
    adapter = adapters(baseline.family, trained=False)
    models = [baseline]
    models.append(
        TempevalPAVESimple(folder, adapter=adapter, **{"pave.side_channel": "tiny"}, **options)
    )
    losses, texts, usages = [], [], []
    for one in models:
        scored = one.loglikelihood(instances(one, videos, "loglikelihood"))
        losses.append([(float(loss), loss.log_likelihood) for loss, _ in scored])
        answers = one.generate_until(instances(one, videos, "generate_until"))
        texts.append([answer.text for answer in answers])
        usages.append([answer.token_counts.usage for answer in answers])
        assert not one.failures
    assert losses[0] == losses[1]
    assert texts[0] == texts[1]
    for mine, other in zip(*usages, strict=True):
        for name in (
            "input_tokens",
            "output_tokens",
            "frames",
            "visual_tokens",
            "token_layers",
            "kv_bytes",
            "quantised_fraction",
            "distinct_temporal_ids",
        ):
            assert getattr(mine, name) == getattr(other, name)
        assert other.prefill_flops > mine.prefill_flops
    facts, settings = models[1].run_facts(), models[1].chain.settings()
    assert "untrained patch, adds nothing" in facts.method_notes
    assert len(settings["pave"]["adapter_digest"]) == 64
    # The same arguments, a trained adapter: other scores.
    trained = TempevalSimple(
        folder,
        method=f"pave[adapter={adapters(baseline.family)};side_channel=tiny]",
        **options,
    )
    scored = trained.loglikelihood(instances(trained, videos, "loglikelihood"))
    pairs = zip(losses[0], scored, strict=True)
    changes = [abs(before - float(after)) for (before, _), (after, _) in pairs]
    assert max(changes) > 1e-2


def test_the_wrapper_needs_an_adapter(tiny_qwen2_5_vl_folder):
    with pytest.raises(InvalidSetting, match="adapter"):
        TempevalPAVE(str(tiny_qwen2_5_vl_folder), device="cpu")


def test_newlines_lie_where_they_lay_in_training(
    tiny_llava_onevision_folder, tiny_qwen2_5_vl_folder, tiny_qwen2_5_vl, adapters, tmp_path
):
    """The wrapper that runs PAVE alone takes them from an adapter that says where."""
    base = load_llava_onevision(tiny_llava_onevision_folder)
    assert base.settings == {"mm_newline_position": "one_token"}

    def loaded(adapter, folder=tiny_llava_onevision_folder, **arguments):
        arguments |= {"adapter": adapter, "pave.side_channel": "tiny", "device": "cpu"}
        model = TempevalPAVESimple(str(folder), num_frames=4, **arguments)
        return model.family.settings, model.run_facts().method_notes

    grid, one = ({"mm_newline_position": name} for name in ("grid", "one_token"))
    other = "mm_newline_position one_token, trained with grid"
    silent = adapters(base)
    assert loaded(silent) == (one, [other])
    says = tmp_path / "says"
    shutil.copytree(silent, says)
    (says / "config.json").write_text('{"mm_newline_position": "grid"}')
    assert loaded(str(says)) == (grid, [])
    assert loaded(str(says), mm_newline_position="one_token") == (one, [other])
    # A base model that has no newlines has none then either.
    qwen = tmp_path / "qwen"
    shutil.copytree(adapters(tiny_qwen2_5_vl), qwen)
    (qwen / "config.json").write_text('{"mm_newline_position": "grid"}')
    assert loaded(str(qwen), tiny_qwen2_5_vl_folder) == ({}, [])


def snapshot(family):
    """Every parameter object with a copy of its numbers, and all hooks."""
    parameters = {n: (p, p.detach().clone()) for n, p in family.model.named_parameters()}
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in family.model.modules())
    return parameters, hooks


def assert_restored(family, before):
    parameters, hooks = snapshot(family)
    assert hooks == before[1]
    assert list(parameters) == list(before[0])
    for name, (weight, numbers) in before[0].items():
        assert parameters[name][0] is weight
        assert torch.equal(parameters[name][1], numbers)


@torch.no_grad()
@pytest.mark.parametrize("lora", ["kept", "merged", "none"])
def test_the_model_is_restored_also_after_an_exception(qwen, adapters, make_clip, message, lora):
    chain = pave(adapters(qwen), lora=lora)
    layout, embeddings, tails = laid_out(
        qwen, message, [qwen.encode(make_clip(4, 84, 84))], QUESTIONS
    )
    plan = make_plan(chain, layout, qwen.geometry)
    before = snapshot(qwen)
    with Attachment(qwen, plan) as attachment:
        generate(attachment, prefill(attachment, embeddings), tails, {"max_new_tokens": 2})
        changed = qwen.text_model.layers[0].mlp.up_proj.weight
        assert (changed is before[0]["model.language_model.layers.0.mlp.up_proj.weight"][0]) == (
            lora != "merged"
        )
    assert_restored(qwen, before)
    with pytest.raises(KeyboardInterrupt), Attachment(qwen, plan):
        raise KeyboardInterrupt
    assert_restored(qwen, before)


def test_an_unknown_or_misshapen_map_is_named_and_nothing_is_changed(qwen, adapters):
    (method,) = pave(adapters(qwen)).methods
    low_rank = method.low_rank
    a, b = low_rank.matrices["layers.0.self_attn.q_proj"]
    before = snapshot(qwen)
    for wrong, words in (
        ({"layers.9.self_attn.q_proj": (a, b)}, "'layers.9.self_attn.q_proj'.*no linear map"),
        ({"layers.0.self_attn.q_proj": (a, b[:-1])}, r"'layers.0.self_attn.q_proj'.*B \(127, 2\)"),
        ({"norm": (a, b)}, "'norm'.*no linear map"),
    ):
        bad = replace(low_rank, matrices={**low_rank.matrices, **wrong})
        with pytest.raises(InvalidSetting, match=words):
            Attachment(qwen, make_plan_of(qwen, bad)).__enter__()
        assert_restored(qwen, before)


def make_plan_of(family, low_rank):
    layout, _ = family.layout(family.tokenize([{"role": "user", "content": "up"}]), [])
    return replace(make_plan(Chain(), layout, family.geometry), low_rank=low_rank)


@torch.no_grad()
def test_merged_and_kept_agree_and_are_made_once(qwen, adapters, make_clip, message, monkeypatch):
    import tempeval.engine.low_rank as low_rank_module

    made = []
    original = low_rank_module._Prepared.__init__

    def counting(self, low_rank, maps):
        made.append(low_rank.merged)
        original(self, low_rank, maps)

    monkeypatch.setattr(low_rank_module._Prepared, "__init__", counting)
    low_rank_module._PREPARED.pop(qwen.text_model, None)
    adapter = adapters(qwen)
    layout, embeddings, tails = laid_out(
        qwen, message, [qwen.encode(make_clip(4, 84, 84))], QUESTIONS
    )
    got = []
    for _ in range(3):
        for lora in ("kept", "merged"):
            # Chains as a matrix makes them: parsed anew each time.
            chain = parse_chain(f"pave[adapter={adapter};side_channel=tiny;lora={lora}]")
            with Attachment(qwen, make_plan(chain, layout, qwen.geometry)) as attachment:
                prefix = prefill(attachment, embeddings)
                got.append(stepwise_logits(attachment, prefix, tails[0], [5, 6]))
    assert (got[0] - got[1]).abs().max() < 1e-3
    assert sorted(made) == [False, True]
    # A model whose weights have changed since is merged anew.
    weight = qwen.text_model.layers[0].mlp.up_proj.weight
    kept = weight.detach().clone()
    try:
        weight *= 1.5
        plan = make_plan(chain, layout, qwen.geometry)
        with Attachment(qwen, plan) as attachment:
            prefix = prefill(attachment, embeddings)
            other = stepwise_logits(attachment, prefix, tails[0], [5, 6])
        assert (other - got[1]).abs().max() > 1e-2
        assert sorted(made) == [False, True, True]
    finally:
        weight.copy_(kept)


@torch.no_grad()
def test_merged_weights_go_with_the_last_chain_that_uses_them(qwen, adapters, make_clip, message):
    layout, _, _ = laid_out(qwen, message, [qwen.encode(make_clip(4, 84, 84))], QUESTIONS)
    text = f"pave[adapter={adapters(qwen)};side_channel=tiny;lora=merged]"
    weight = qwen.text_model.layers[0].mlp.up_proj.weight
    own, chain = weakref.ref(weight), parse_chain(text)

    def merged_now(chain):
        with Attachment(qwen, make_plan(chain, layout, qwen.geometry)):
            return weakref.ref(qwen.text_model.layers[0].mlp.up_proj.weight)

    first = merged_now(chain)
    assert first is not own
    gc.collect()
    assert first() is not None
    other = parse_chain(text)  # as a matrix makes it of the same words
    assert merged_now(other)() is first()
    del chain
    gc.collect()
    assert first() is not None
    del other
    gc.collect()
    assert first() is None
    assert own() is weight is qwen.text_model.layers[0].mlp.up_proj.weight
    assert merged_now(parse_chain(text)) is not None  # and is made again when it is asked for


@torch.no_grad()
@pytest.mark.parametrize("lora", ["kept", "merged"])
def test_text_only_prompts_and_choices_feel_the_low_rank_changes(
    qwen, adapters, make_clip, message, lora
):
    chain = pave(adapters(qwen), lora=lora)
    labels = [torch.tensor(ids) for ids in ([5, 6, 7], [9], [11, 12])]
    for visuals in ([], [qwen.encode(make_clip(4, 84, 84))]):
        layout, embeddings, (tail, _) = laid_out(qwen, message, visuals, QUESTIONS)
        plan = make_plan(chain, layout, qwen.geometry)
        with Attachment(qwen, plan) as attachment:
            scored = score_choices(attachment, prefill(attachment, embeddings), tail, labels)
        for got, label in zip(scored, labels, strict=True):
            prompt = layout.length + len(tail)
            ids = torch.cat([tail, label])
            expected = []
            for under in (chain, Chain()):
                logits = dense_logits(qwen, under, layout, embeddings, ids, prompt)
                rows = logits[prompt - 1 : -1].log_softmax(-1)
                expected.append(float(rows.gather(1, label.unsqueeze(1)).sum()))
            assert got.log_likelihood == pytest.approx(expected[0], abs=2e-3)
            assert abs(expected[0] - expected[1]) > 1e-2


def test_it_comes_before_what_pools_or_reorders_however_it_is_written(family, adapters, make_clip):
    text = f"pave[adapter={adapters(family)};side_channel=tiny]"
    clip = make_clip(FRAMES, 84, 84)
    for other in ("slowfast", "reverse_order"):
        chains = [parse_chain(f"{text}+{other}"), parse_chain(f"{other}+{text}")]
        inference = Inference(family, Sampling(num_frames=FRAMES))
        got = []
        for chain in chains:
            bound, plan = inference.resolve(chain).bound, inference.resolve(chain).frames
            got.append(bound.tokens(encoded_for(family, clip, plan)).embeddings)
        fused = parse_chain(text).tokens(
            encoded_for(family, clip, inference.resolve(chains[0]).frames)
        )
        expected = inference.resolve(parse_chain(other)).bound.tokens(fused).embeddings
        assert torch.equal(got[0], expected)
        assert torch.equal(got[1], expected)


def test_a_matrix_shares_decoding_tower_and_side_channel(qwen, adapters, videos, monkeypatch):
    import tempeval.engine.encoder as encoder_module

    decoded = []
    stream = encoder_module.ClipStream

    def counting(requests, **kwargs):
        decoded.extend(request.ref.path for request in requests)
        return stream(requests, **kwargs)

    monkeypatch.setattr(encoder_module, "ClipStream", counting)
    monkeypatch.setattr(TinyChannel, "sleep_s", 0.02)
    inference = Inference(qwen, Sampling(num_frames=FRAMES))
    adapter = adapters(qwen)
    chains = [Chain(), pave(adapter), pave(adapter, shift=0.5), pave(adapter, shuffle=3)]
    questions = [
        ask(2 * n + k, ref, t) for n, ref in enumerate(videos) for k, t in enumerate(QUESTIONS)
    ]
    outcomes = run(inference, questions, chains)
    assert inference.encoder.vision_runs == len(videos)
    assert len(decoded) == len(videos)
    assert len(TinyChannel.calls) == 2 * len(videos)  # its own, and with the shuffle
    alone = Inference(qwen, Sampling(num_frames=FRAMES))
    for chain in chains:
        for key, (outcome, _) in run(alone, questions, [chain]).items():
            assert outcome.answer == outcomes[key][0].answer
    for number in range(len(questions)):
        plain, *others = (outcomes[chain, number][0].usage for chain in chains)
        assert all(usage.encode_ms > plain.encode_ms + 19 for usage in others)
        # Shared by the two chains that hear the same, and by their two questions.
        assert all(usage.amortised_ms >= 20 / 4 for usage in others)
    held = inference.encoder.cache
    sides = 2 * 11 * 6 * 4 + 3 * 2 * 8
    grids = 3 * 3 * 3
    sizes = grids * (qwen.geometry.hidden_size + qwen.feature_width) * 4 + sides
    times = 2 * 11 * 2 * 8
    assert held._bytes == len(videos) * (sizes + times)


def test_a_missing_side_channel_fails_its_own_samples_only(qwen, adapters, videos):
    chains = [Chain(), pave(adapters(qwen))]
    questions = [ask(n, ref) for n, ref in enumerate(videos)] + [ask(3, videos[1], "up")]
    whole = run(Inference(qwen, Sampling(num_frames=FRAMES)), questions, chains)
    for content, words in (
        ("missing", "its features are not there"),
        ("wide", r"shape \(11, 1, 1, 7\), the patch takes \[steps, h, w, 6\]"),
        ("nan", "not finite"),
    ):
        TinyChannel.content["video1"] = content
        TinyChannel.calls.clear()
        got = run(Inference(qwen, Sampling(num_frames=FRAMES)), questions, chains)
        for (chain, number), (outcome, _) in got.items():
            if chain.methods and number in (1, 3):
                assert outcome.answer is None
                with pytest.raises(AssertionError, match=words):
                    raise AssertionError(outcome.usage.error)
                assert outcome.usage.error.startswith(f"no side channel for {videos[1].path!r}")
            else:
                assert outcome.answer == whole[chain, number][0].answer
                assert outcome.usage.error is None
        assert len(TinyChannel.calls) == len(videos)


def test_a_replaced_feature_file_is_not_answered_from_the_journal(qwen, adapters, videos):
    store = Memory()
    chains = [Chain(), pave(adapters(qwen))]
    questions = [ask(n, ref) for n, ref in enumerate(videos)] + [ask(3, None, "up")]

    def replayed():
        inference = Inference(qwen, Sampling(num_frames=FRAMES))
        got = run(inference, questions, chains, store)
        return [[got[chain, n][1] for n in range(4)] for chain in chains]

    assert replayed() == [[False] * 4] * 2
    assert replayed() == [[True] * 4] * 2
    TinyChannel.content["video1"] = "another file"
    assert replayed() == [[True] * 4, [True, False, True, True]]
    # The same loaded model, whose cache still holds the earlier features.
    inference = Inference(qwen, Sampling(num_frames=FRAMES))
    first = run(inference, questions, chains[1:])
    TinyChannel.content["video1"] = "a third"
    second = run(inference, questions, chains[1:])
    fresh = run(Inference(qwen, Sampling(num_frames=FRAMES)), questions, chains[1:])
    assert {k: o.answer for k, (o, _) in second.items()} == {
        k: o.answer for k, (o, _) in fresh.items()
    }
    assert first[chains[1], 0][0].answer == second[chains[1], 0][0].answer


def test_the_usage_equals_the_baselines_but_for_what_is_computed(family, adapters, videos):
    inference = Inference(family, Sampling(num_frames=FRAMES))
    adapter = adapters(family)
    chains = {name: pave(adapter, lora=name) for name in ("none", "merged", "kept")}
    got = run(inference, [ask(0, videos[0])], [Chain(), *chains.values()])
    base = got[Chain(), 0][0].usage
    (method,) = chains["kept"].methods
    usages = {name: got[chain, 0][0].usage for name, chain in chains.items()}
    for usage in usages.values():
        for name in (
            "input_tokens",
            "frames",
            "visual_tokens",
            "token_layers",
            "distinct_temporal_ids",
        ):
            assert getattr(usage, name) == getattr(base, name)
    grids = 3 if family.axes else FRAMES
    cells = base.visual_tokens // grids if family.axes else 9
    patch = method.loaded.patch(torch.device("cpu"), torch.float32, kv_share=True)
    more = patch.flops((11, 1, 1, 6), grids, cells)
    assert usages["none"].prefill_flops - base.prefill_flops == pytest.approx(more)
    assert usages["merged"].prefill_flops == usages["none"].prefill_flops
    numbers = sum(a.numel() + b.numel() for a, b in method.low_rank.matrices.values())
    kept = usages["kept"].prefill_flops - usages["none"].prefill_flops
    assert kept == pytest.approx(2 * numbers * base.input_tokens)


def test_shift_and_neighbourhood_move_what_a_frame_hears(qwen, adapters, make_clip):
    """Steps of other times: each frame's tokens equal those of the reference on these steps."""
    clip = make_clip(8, 84, 84)
    whole = (0.0, 4.0)
    clip = replace(clip, span=whole)
    inference = Inference(qwen, Sampling(num_frames=8))
    plain = qwen.encode(clip, with_features=True)
    official = equal_partition(12, 4)
    for settings, near in (
        ({}, official),
        ({"shift": 1.0}, [range(0), *official[:3]]),
        ({"shift": -1.0}, [*official[1:], range(0)]),
        ({"neighborhood": 2}, [range(4), range(2, 7), range(5, 10), range(8, 12)]),
    ):
        chain = pave(adapters(qwen), side_settings=("steps:12",), **settings)
        (method,) = chain.methods
        tokens = encoded_for(qwen, clip, inference.resolve(chain).frames)
        got = chain.tokens(tokens).embeddings - plain.embeddings
        weights = method.loaded.weights
        expected = reference(
            weights.patch_state,
            tokens.side[method.side].features,
            plain.features.flatten(1, 2),
            weights.num_heads,
            near,
            kv_share=True,
        )
        assert (got - expected.flatten(0, 1)).abs().max() < 1e-4
