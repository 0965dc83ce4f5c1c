"""The engine against a dense reference, and against plain transformers, for every stage."""

from __future__ import annotations

import itertools

import pytest
import torch
from probes import (
    DropEarlyFrames,
    FramesApart,
    Int8Store,
    KnockOutPositions,
    LastFrameOnly,
    LastNotQuestion,
    PoolTokens,
    ReverseOrder,
)

from tempeval.engine.answer import generate, score
from tempeval.engine.attach import ATTENTION_NAME, Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.methods.base import Chain, Method
from tempeval.methods.pas import PAS
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.verification.dense import dense_generate, dense_logits
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.video.clip import FramePlan

CHAINS = {
    "baseline": Chain(),
    "reverse_order": Chain([ReverseOrder()]),
    "pool_tokens": Chain([PoolTokens()]),
    "pas": Chain([PAS()]),
    "pas_all_rows": Chain([PAS(offsets=(0.0, 0.5, 1.0), unit="position", rows="all")]),
    "knock_out": Chain([KnockOutPositions()]),
    "last_frame_only": Chain([LastFrameOnly()]),
    "frames_apart": Chain([FramesApart()]),
    "last_not_question": Chain([LastNotQuestion()]),
    "exit": Chain([TemporalExit(layer=2)]),
    "drop_early_frames": Chain([DropEarlyFrames()]),
    "int8": Chain([Int8Store()]),
    "pas+exit": Chain([PAS(), TemporalExit(layer=1)]),
    "everything": Chain(
        [
            PoolTokens(),
            PAS(),
            KnockOutPositions(layer=2),
            LastFrameOnly(),
            FramesApart(),
            DropEarlyFrames(),
            Int8Store(),
        ]
    ),
}

QUESTIONS = ("What happens first?", "Is it faster? yes no", "up", "What happens last? A. left B.")


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def family(request):
    return request.getfixturevalue(f"tiny_{request.param}")


def build(family, make_clip, message, chain, questions=QUESTIONS, visuals=1):
    """Layout, prefix embeddings and question tails of prompts about the same clips."""
    clips = [make_clip(8, 84, 112, seed=n) for n in range(visuals)]
    plan = chain.frames(FramePlan())
    clips = [c.reordered(plan.permutation(c.num_frames)) for c in clips]
    tokens = [chain.tokens(family.encode(clip)) for clip in clips]
    return laid_out(family, message, tokens, questions)


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_chain_equals_dense_reference(family, make_clip, message, name):
    chain = CHAINS[name]
    layout, embeddings, tails = build(family, make_clip, message, chain)
    plan = make_plan(chain, layout, family.geometry)
    tail = tails[0]
    wide = name in ("int8", "everything")  # fp32 differences flip codes at rounding boundaries
    if wide:
        family.model.double()
        embeddings = embeddings.double()
    try:
        expected_ids, expected = dense_generate(family, chain, layout, embeddings, tail, 8)
        with Attachment(family, plan) as attachment:
            prefix = prefill(attachment, embeddings)
            got = stepwise_logits(attachment, prefix, tail, expected_ids)
            answers = generate(attachment, prefix, tails, {"max_new_tokens": 8})
        assert (got - expected).abs().max() < 1e-4
        assert expected.std() > 0.1  # a degenerate model would agree about anything
        end = family.model.generation_config.eos_token_id
        wanted = (
            expected_ids[: expected_ids.index(end) + 1] if end in expected_ids else expected_ids
        )
        assert list(answers[0].token_ids) == wanted
    finally:
        if wide:
            family.model.float()


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_a_batch_never_changes_a_sample(family, make_clip, message, name):
    chain = CHAINS[name]
    layout, embeddings, tails = build(family, make_clip, message, chain)
    assert len({len(t) for t in tails}) > 1
    settings = {"max_new_tokens": 8}
    continuations = [torch.tensor(ids) for ids in ([5, 6, 7], [9], [11, 12], [3, 4])]
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        together = generate(attachment, prefix, tails, settings)
        scored = score(attachment, prefix, tails, continuations)
        for number, tail in enumerate(tails):
            (alone,) = generate(attachment, prefix, [tail], settings)
            assert alone.token_ids == together[number].token_ids
            assert alone.tail_tokens == together[number].tail_tokens
            (one,) = score(attachment, prefix, [tail], [continuations[number]])
            assert one.log_likelihood == pytest.approx(scored[number].log_likelihood, abs=1e-4)
            assert one.is_greedy == scored[number].is_greedy


@torch.no_grad()
@pytest.mark.parametrize("name", ["baseline", "exit", "last_frame_only", "everything"])
def test_scores_equal_full_forwards(tiny_qwen2_5_vl, make_clip, message, name):
    family, chain = tiny_qwen2_5_vl, CHAINS[name]
    layout, embeddings, tails = build(family, make_clip, message, chain)
    continuations = [torch.tensor(ids) for ids in ([5, 6, 7], [9], [11, 12], [3, 4])]
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        scored = score(attachment, prefill(attachment, embeddings), tails, continuations)
    for got, tail, continuation in zip(scored, tails, continuations, strict=True):
        prompt = layout.length + len(tail)
        ids = torch.cat([tail, continuation])
        logits = dense_logits(family, chain, layout, embeddings, ids, prompt)
        log_probs = logits[prompt - 1 : -1].log_softmax(-1)
        expected = log_probs.gather(1, continuation.unsqueeze(1)).sum()
        assert got.log_likelihood == pytest.approx(
            float(expected), abs=2e-3 if "every" in name else 1e-4
        )
        assert got.is_greedy == bool((log_probs.argmax(-1) == continuation).all())
        assert got.num_tokens == len(continuation)


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("batch_tokens", [1, 6, 4096])
def test_choices_equal_one_score_each(family, make_clip, message, name, batch_tokens):
    chain = CHAINS[name]
    layout, embeddings, tails = build(family, make_clip, message, chain)
    generator = torch.Generator().manual_seed(3)
    lengths = (1, 3, 1, 5, 2, 3, 4, 1, 2)
    labels = [torch.randint(7, 400, (n,), generator=generator) for n in lengths]
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        (best,) = generate(attachment, prefix, tails[:1], {"max_new_tokens": 3})
        labels.append(torch.tensor(best.token_ids))
        got = score_choices(attachment, prefix, tails[0], labels, batch_tokens=batch_tokens)
        expected = [score(attachment, prefix, tails[:1], [label])[0] for label in labels]
    assert got[-1].is_greedy
    for one, other in zip(got, expected, strict=True):
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-4)
        assert (one.num_tokens, one.is_greedy) == (other.num_tokens, other.is_greedy)


def snapshot(family):
    model = family.model
    hooks = [
        (name, len(m._forward_pre_hooks), len(m._forward_hooks))
        for name, m in model.named_modules()
    ]
    implementations = [
        (name, m.config._attn_implementation)
        for name, m in model.named_modules()
        if hasattr(m, "config")
    ]
    attributes = {name: sorted(vars(m)) for name, m in model.named_modules()}
    return hooks, implementations, attributes


@torch.no_grad()
def plain_logits(family, ids=(5, 6, 7, 8)):
    return family.model(input_ids=torch.tensor([ids])).logits


def test_leaving_restores_everything(tiny_qwen2_5_vl, make_clip, message):
    family = tiny_qwen2_5_vl
    before, logits = snapshot(family), plain_logits(family)
    weights = {k: v.clone() for k, v in family.model.state_dict().items()}
    layout, embeddings, tails = build(family, make_clip, message, CHAINS["everything"])
    plan = make_plan(CHAINS["everything"], layout, family.geometry)
    with Attachment(family, plan) as attachment:
        assert snapshot(family) != before
        generate(attachment, prefill(attachment, embeddings), tails, {"max_new_tokens": 2})
    assert snapshot(family) == before
    assert torch.equal(plain_logits(family), logits)
    with pytest.raises(RuntimeError, match="on purpose"), Attachment(family, plan):
        raise RuntimeError("on purpose")
    assert snapshot(family) == before
    assert torch.equal(plain_logits(family), logits)
    for key, value in family.model.state_dict().items():
        assert torch.equal(value, weights[key])


def test_an_error_inside_a_forward_restores_everything(tiny_qwen2_5_vl, make_clip, message):
    family = tiny_qwen2_5_vl
    before, logits = snapshot(family), plain_logits(family)
    layout, embeddings, _ = build(family, make_clip, message, Chain())
    plan = make_plan(Chain(), layout, family.geometry)
    with pytest.raises(RuntimeError), Attachment(family, plan) as attachment:
        prefill(attachment, embeddings[..., :7])
    assert snapshot(family) == before
    assert torch.equal(plain_logits(family), logits)


def test_attachments_do_not_nest(tiny_qwen2_5_vl, make_clip, message):
    family = tiny_qwen2_5_vl
    before = snapshot(family)
    layout, _, _ = build(family, make_clip, message, Chain())
    plan = make_plan(Chain(), layout, family.geometry)
    with Attachment(family, plan):
        inside = snapshot(family)
        with pytest.raises(UnsupportedModel, match="attachment already"), Attachment(family, plan):
            pass
        assert snapshot(family) == inside
    assert snapshot(family) == before


@torch.no_grad()
def test_methods_in_turn_do_not_leak(family, make_clip, message):
    answers = {}
    order = ["baseline", "pas_all_rows", "exit", "everything", "last_frame_only"]
    for name in [*order, *reversed(order)]:
        layout, embeddings, tails = build(family, make_clip, message, CHAINS[name])
        plan = make_plan(CHAINS[name], layout, family.geometry)
        with Attachment(family, plan) as attachment:
            prefix = prefill(attachment, embeddings)
            got = score(attachment, prefix, tails, [torch.tensor([5, 6])] * len(tails))
        got = [s.log_likelihood for s in got]
        assert answers.setdefault(name, got) == got
    for one, other in itertools.combinations(order, 2):
        assert answers[one] != pytest.approx(answers[other], abs=1e-3)


@torch.no_grad()
def test_each_probe_changes_the_logits(family, make_clip, message):
    """A stage that did nothing would pass every equality above."""
    reference = None
    for name, chain in CHAINS.items():
        layout, embeddings, tails = build(family, make_clip, message, chain)
        logits = dense_logits(family, chain, layout, embeddings, tails[0])[-1]
        if reference is None:
            reference = logits
        else:
            assert (logits - reference).abs().max() > 1e-3, name


@torch.no_grad()
def test_exit_really_removes_the_frames(family, make_clip, message):
    chain = Chain([TemporalExit(layer=2)])
    layout, embeddings, _ = build(family, make_clip, message, chain)
    widths = []
    handles = [
        layer.mlp.register_forward_pre_hook(lambda m, args: widths.append(args[0].shape[1]))
        for layer in family.layers
    ]
    try:
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            prefix = prefill(attachment, embeddings)
    finally:
        for handle in handles:
            handle.remove()
    text = int((~layout.is_visual).sum())
    # The last layer only fills its cache: nothing reads its prefix rows.
    assert widths == [layout.length, layout.length, text]
    geometry = family.geometry
    per_token = 2 * geometry.num_kv_heads * geometry.head_dim * 4
    for layer, (piece,) in enumerate(prefix.layers):
        rows = layout.length if layer < 2 else text
        assert piece.held.nbytes(0) == rows * per_token
        assert piece.held.nbytes(3) == (rows + 3) * per_token
        frames = (piece.segment > 0).sum()
        assert int(frames) == (layout.num_visual_tokens if layer < 2 else 0)


@torch.no_grad()
def test_int8_store_is_smaller_by_what_it_says(tiny_qwen2_5_vl, make_clip, message):
    family = tiny_qwen2_5_vl
    sizes = {}
    for name in ("baseline", "int8"):
        layout, embeddings, _ = build(family, make_clip, message, CHAINS[name])
        plan = make_plan(CHAINS[name], layout, family.geometry)
        with Attachment(family, plan) as attachment:
            prefix = prefill(attachment, embeddings)
        sizes[name] = prefix.nbytes(0)
        assert prefix.quantised(0) == ((1.0, 1.0) if name == "int8" else (0.0, 0.0))
    dim = family.geometry.head_dim
    assert sizes["int8"] / sizes["baseline"] == pytest.approx((dim + 4) / (4 * dim))


@torch.no_grad()
@pytest.mark.parametrize("name", ["baseline", "exit", "pas_all_rows"])
def test_beam_search(tiny_qwen2_5_vl, make_clip, message, name):
    family, chain = tiny_qwen2_5_vl, CHAINS[name]
    layout, embeddings, tails = build(family, make_clip, message, chain)
    settings = {"max_new_tokens": 5, "num_beams": 3}
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        beams = generate(attachment, prefix, tails, settings)
        for tail, beam in zip(tails, beams, strict=True):
            (alone,) = generate(attachment, prefix, [tail], settings)
            assert alone.token_ids == beam.token_ids
            (greedy,) = generate(attachment, prefix, [tail], {"max_new_tokens": 5})
            best = score(
                attachment,
                prefix,
                [tail, tail],
                [torch.tensor(beam.token_ids), torch.tensor(greedy.token_ids)],
            )
            if len(beam.token_ids) == len(greedy.token_ids):
                assert best[0].log_likelihood >= best[1].log_likelihood - 1e-3


def test_repetition_penalty_is_honoured_and_blind_to_padding(tiny_qwen2_5_vl, make_clip, message):
    family = tiny_qwen2_5_vl
    layout, embeddings, tails = build(family, make_clip, message, Chain())
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        settings = {"max_new_tokens": 12, "repetition_penalty": 3.0}
        together = generate(attachment, prefix, tails, settings)
        plain = generate(attachment, prefix, tails, {"max_new_tokens": 12})
        for tail, got in zip(tails, together, strict=True):
            (alone,) = generate(attachment, prefix, [tail], settings)
            assert alone.token_ids == got.token_ids
    assert [a.token_ids for a in together] != [a.token_ids for a in plain]


def test_a_checkpoint_s_shapes_loops_and_caches_change_nothing(
    tiny_qwen2_5_vl, make_clip, message, monkeypatch
):
    """Question 2 got question 1's second beam; others of these ended the run."""
    family = tiny_qwen2_5_vl
    layout, embeddings, tails = build(family, make_clip, message, Chain())
    settings = {"max_new_tokens": 4}
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        plain = generate(attachment, prefix, tails, settings)
        for name, value in {
            "num_return_sequences": 2,
            "num_beams": 2,
            "return_dict_in_generate": True,
            "output_scores": True,
            "output_attentions": True,
            "output_hidden_states": True,
            "cache_implementation": "static",
            "prompt_lookup_num_tokens": 3,
            "use_cache": False,
            "max_length": 5,
            "remove_invalid_values": True,
        }.items():
            monkeypatch.setattr(family.model.generation_config, name, value)
        assert generate(attachment, prefix, tails, settings) == plain
        assert family.model.generation_config.num_return_sequences == 2  # given back


def test_repeated_ngrams_and_bad_words_are_blind_to_padding(
    tiny_qwen2_5_vl, make_clip, message, monkeypatch
):
    family = tiny_qwen2_5_vl
    layout, embeddings, tails = build(family, make_clip, message, Chain(), QUESTIONS[:2])
    settings = {"max_new_tokens": 8}
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        plain = generate(attachment, prefix, tails, settings)
        word = list(plain[0].token_ids[:2])
        for name, value in {"no_repeat_ngram_size": 1, "bad_words_ids": [word]}.items():
            with monkeypatch.context() as patch:
                patch.setattr(family.model.generation_config, name, value)
                together = generate(attachment, prefix, tails, settings)
                alone = [generate(attachment, prefix, [t], settings)[0] for t in tails]
            assert [a.token_ids for a in together] == [a.token_ids for a in alone]
            assert together[0].token_ids != plain[0].token_ids


def test_an_answer_ends_at_the_tokenizer_s_end_too(
    tiny_qwen2_5_vl, make_clip, message, monkeypatch
):
    family = tiny_qwen2_5_vl
    layout, embeddings, tails = build(family, make_clip, message, Chain())
    settings = {"max_new_tokens": 12, "repetition_penalty": 3.0}  # else it says one word for ever
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        monkeypatch.setattr(family.model.generation_config, "eos_token_id", None)
        (full,) = generate(attachment, prefix, tails[:1], settings)
        end = full.token_ids[4]
        before, ends = family.tokenizer.eos_token, family.tokenizer.convert_ids_to_tokens(end)
        try:
            family.tokenizer.eos_token = ends
            (cut,) = generate(attachment, prefix, tails[:1], settings)
            monkeypatch.setattr(family.model.generation_config, "eos_token_id", full.token_ids[2])
            (both,) = generate(attachment, prefix, tails[:1], settings)
        finally:
            family.tokenizer.eos_token = before
    assert cut.token_ids == full.token_ids[: full.token_ids.index(end) + 1]
    assert len(both.token_ids) == 1 + full.token_ids.index(full.token_ids[2])


def test_stop_strings_cut_and_end(tiny_qwen2_5_vl, make_clip, message):
    family = tiny_qwen2_5_vl
    layout, embeddings, tails = build(family, make_clip, message, Chain())
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        (full,) = generate(attachment, prefix, tails[:1], {"max_new_tokens": 12})
        stop = full.text[len(full.text) // 2 :][:2]
        assert stop
        (cut,) = generate(attachment, prefix, tails[:1], {"max_new_tokens": 12, "until": [stop]})
    assert cut.text == full.text.split(stop)[0]
    assert len(cut.token_ids) < len(full.token_ids)


class Returning(Method):
    name = "returning"

    def prune(self, kept, layer, prefix):
        return torch.ones_like(kept) if layer == 2 else torch.zeros_like(kept)


class Blind(Method):
    name = "blind"

    def attention(self, visible, layer, segments):
        return torch.zeros_like(visible)


@pytest.mark.parametrize(("method", "match"), [(Returning(), "monotone"), (Blind(), "diagonal")])
def test_impossible_plans_are_refused(tiny_qwen2_5_vl, make_clip, message, method, match):
    layout, _, _ = build(tiny_qwen2_5_vl, make_clip, message, Chain())
    with pytest.raises(InvalidSetting, match=match):
        make_plan(Chain([method]), layout, tiny_qwen2_5_vl.geometry)


@torch.no_grad()
def test_text_alone_several_videos_and_text_between(family, make_clip, message):
    chain = CHAINS["pas"]
    clips = [family.encode(make_clip(4, 84, 84, seed=n)) for n in range(2)]
    cases = [
        (message("What happens first?"), []),
        (message("<video>", "Which way?", "<video>", "What happens last?"), clips),
    ]
    for messages, visuals in cases:
        layout, tail = family.layout(family.tokenize(messages), visuals)
        embeddings = family.embed(layout, visuals)
        ids, expected = dense_generate(family, chain, layout, embeddings, tail, 4)
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            prefix = prefill(attachment, embeddings)
            got = stepwise_logits(attachment, prefix, tail, ids)
        assert (got - expected).abs().max() < 1e-4
    assert ATTENTION_NAME not in str(family.text_model.config._attn_implementation)
