"""Pruning by scores and eviction against a dense forward, on every family."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from probes import Int8Store, LastFrameOnly
from reducers import EverySecond, KeepAttended, KeepAttendedToo, KeepKeys

import tempeval.engine.weights as weights_module
from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.continuations import Continuations
from tempeval.engine.inference import Inference
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import finish, prefill
from tempeval.engine.question import Question
from tempeval.errors import InvalidSetting
from tempeval.methods.base import Chain, Method
from tempeval.methods.kv_quantization import KVQuant
from tempeval.methods.pas import PAS
from tempeval.methods.staged_sparse import StagedSparse
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.stages import Chosen, Eviction, ScoredPrune, ScoreRequest
from tempeval.verification.dense import dense_generate, dense_logits
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.video.clip import Sampling, VideoRef

FAMILIES = (
    "qwen2_5_vl",
    "qwen2_vl",
    "llava_onevision",
    "video_llava",
    "video_llava_original",
)
QUESTIONS = ("What happens first?", "up", "Is it faster? yes no")
STEPS = 3  # the prompt's end and two decode steps
FASTV = KeepAttended()
QUANT = KVQuant(nbits=4, group_size=8, residual_length=8)
CHAINS = {
    "static": [EverySecond()],
    "fastv": [FASTV],
    "pyramid": [KeepAttended(layers=(1, 3), at="own", numbering="renumbered")],
    "first_layer": [KeepAttended(layers=(0, 2), at="own", rows="question")],
    "heads": [KeepAttended(layers=(1, 2), rows="question", per_head=True, numbering="renumbered")],
    "frames": [KeepAttended(layers=(1,), rows="frames")],
    "frames_then_last": [
        KeepAttended(layers=(1,), rows="prefix", at="own"),
        KeepAttendedToo(layers=(2,), rows="last", merge=True),
    ],
    "frames_after_last": [
        KeepAttended(layers=(1,)),
        KeepAttendedToo(layers=(2, 3), rows="frames"),
    ],
    "fastv+pas": [FASTV, PAS(offsets=(0.0, 0.5, 1.0), unit="position", rows="all")],
    "own+pas": [
        KeepAttended(layers=(1,), at="own"),
        PAS(offsets=(0.0, 0.5, 1.0), unit="position", rows="all"),
    ],
    "fastv+exit": [FASTV, TemporalExit(layer=3)],
    "fastv+sparse": [FASTV, StagedSparse((1, 2), question_layers=(0, 3), frame_layer=1)],
    "fastv+int8": [FASTV, Int8Store()],
    "fastv+kv_quant": [FASTV, QUANT],
    "norms": [KeepKeys()],
    "norms_of_heads": [KeepKeys(per_head=True)],
    "norms_of_heads+last_frame": [KeepKeys(per_head=True), LastFrameOnly()],
    "norms+int8": [KeepKeys(), Int8Store()],
    "norms_of_heads+kv_quant": [KeepKeys(per_head=True), QUANT],
    "snapkv": [KeepKeys(rows="question", per_head=True)],
    "queries": [KeepKeys(rows="question", by_queries=True)],
    "snapkv+kv_quant": [KeepKeys(rows="last"), QUANT],
    "frames_evict": [KeepKeys(rows="frames", per_head=True)],
    "fastv+norms": [FASTV, KeepKeys(per_head=True)],
    "fastv+snapkv+exact": [
        FASTV,
        KeepKeys(rows="question", per_head=True),
        KVQuant(nbits=4, group_size=8, residual_length=8, prefill="exact"),
    ],
}
#: Chains that meet what families differ in: axes, newlines, CLS tokens, grouped heads.
ON_ALL = ("fastv", "pyramid", "fastv+pas", "fastv+exit", "norms_of_heads", "snapkv")
CASES = [
    (family, name) for family in FAMILIES for name in (CHAINS if family == "qwen2_5_vl" else ON_ALL)
]


def build(family, make_clip, message):
    return laid_out(family, message, [family.encode(make_clip(8, 84, 112))], QUESTIONS)


@torch.no_grad()
@pytest.mark.parametrize(("family_name", "name"), CASES)
def test_shared_prefix_batch_and_decode_steps_equal_a_dense_forward(
    request, make_clip, message, family_name, name
):
    family = request.getfixturevalue(f"tiny_{family_name}")
    chain = Chain(CHAINS[name])
    layout, embeddings, tails = build(family, make_clip, message)
    # Differences of float32 flip codes at rounding boundaries, so codes are compared in float64.
    wide = any(part in name for part in ("int8", "quant", "exact"))
    if wide:
        family.model.double()
        embeddings = embeddings.double()
    try:
        references = [dense_generate(family, chain, layout, embeddings, t, STEPS) for t in tails]
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            shared = prefill(attachment, embeddings)
            for tail, (ids, expected) in zip(tails, references, strict=True):
                own = shared
                if shared.unshared is not None:
                    own = finish(attachment, shared, tail)
                got = stepwise_logits(attachment, own, tail, ids)
                assert (got - expected).abs().max() < 1e-4
                assert torch.equal(got.argmax(-1), expected.argmax(-1))
            if shared.unshared is None:
                together = generate(attachment, shared, tails, {"max_new_tokens": STEPS})
                end = family.model.generation_config.eos_token_id
                for (ids, _), answer in zip(references, together, strict=True):
                    cut = ids[: ids.index(end) + 1] if end in ids else ids
                    assert list(answer.token_ids) == cut
    finally:
        if wide:
            family.model.float()


@torch.no_grad()
def test_what_a_question_decides_is_its_own_and_the_rest_is_shared(
    tiny_qwen2_5_vl, make_clip, message
):
    family, chain = tiny_qwen2_5_vl, Chain([KeepAttended(layers=(2,))])
    layout, embeddings, tails = build(family, make_clip, message)
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        shared = prefill(attachment, embeddings)
        first, _, third = (finish(attachment, shared, tail) for tail in tails)
    assert (shared.shared_layers, shared.layers[2], shared.layers[3]) == (2, (), ())
    for layer in range(2):
        assert first.layers[layer] is third.layers[layer]
    rows = [prefix.plan.layers[2].rows.tolist() for prefix in (first, third)]
    assert rows[0] != rows[1]
    visual = layout.num_visual_tokens
    text = layout.length - visual
    assert [len(found) for found in rows] == [text + visual // 2] * 2
    assert first.plan.token_layers == (2 * visual + 2 * (visual // 2)) / 4
    assert [piece.tokens for (piece,) in first.layers] == [layout.length] * 2 + [len(rows[0])] * 2


@torch.no_grad()
@pytest.mark.parametrize("name", ["pyramid", "snapkv"])
def test_choices_are_scored_on_the_prefix_of_their_question(
    tiny_qwen2_5_vl, make_clip, message, name
):
    family, chain = tiny_qwen2_5_vl, Chain(CHAINS[name])
    layout, embeddings, tails = build(family, make_clip, message)
    choices = [torch.tensor(family.tokenizer.encode(text)) for text in ("up", "slower than")]
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        own = finish(attachment, prefill(attachment, embeddings), tails[2])
        scores = score_choices(attachment, own, tails[2], choices)
    prompt = layout.length + len(tails[2])
    for ids, score in zip(choices, scores, strict=True):
        whole = torch.cat([tails[2], ids])
        logits = dense_logits(family, chain, layout, embeddings, whole, prompt)
        rows = logits[prompt - 1 : -1].log_softmax(-1)
        expected = float(rows.gather(1, ids.unsqueeze(1)).sum())
        assert score.log_likelihood == pytest.approx(expected, abs=1e-4)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Frame folder of a little video."""
    folder = tmp_path_factory.mktemp("frames")
    draw = np.random.default_rng(0)
    for number in range(8):
        pixels = draw.integers(0, 256, (84, 112, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return VideoRef(str(folder), fps=2.0)


def ask(number, video, text, **about):
    content = [{"type": "video"}, {"type": "text", "text": text}]
    about.setdefault("gen_kwargs", {"max_new_tokens": 3})
    return Question(number, ({"role": "user", "content": content},), (video,), **about)


@pytest.mark.parametrize("name", ["fastv", "snapkv", "frames", "fastv+snapkv+exact"])
def test_a_batch_is_one_by_one_and_its_usage_is_exact(
    load_family, tiny_qwen2_5_vl_folder, video, name
):
    family = load_family(tiny_qwen2_5_vl_folder, min_pixels=784, max_pixels=9408)
    chain = Chain(CHAINS[name])
    questions = [ask(number, video, text) for number, text in enumerate(QUESTIONS)]
    labels = Continuations(("up", "slower than"))
    questions.append(ask(3, video, "up", kind="score", continuations=labels, gen_kwargs={}))
    found = []
    for size in (3, 1):
        inference = Inference(family, Sampling("uniform", 8), batch_size=size)
        answered = inference.run(inference.plan(questions), [chain])
        found.append({one.question.number: one.outcome for one in answered})
    for number, outcome in found[0].items():
        other, usage = found[1][number], outcome.usage
        assert usage.error is None
        visual = usage.visual_tokens
        if number < 3:
            assert outcome.answer.token_ids == other.answer.token_ids
        else:
            pairs = zip(outcome.answer.log_likelihoods, other.answer.log_likelihoods, strict=True)
            assert all(a == pytest.approx(b, abs=1e-4) for a, b in pairs)
        for field in ("token_layers", "kv_bytes", "prefill_flops", "shared_layers"):
            assert getattr(usage, field) == getattr(other.usage, field), field
        width = 2 * 2 * 32 * 4  # keys and values of two heads in float32
        tail = outcome.answer.tail_tokens
        prefix = usage.input_tokens - len_of_question(family, questions[number])
        if name == "fastv":
            assert usage.token_layers == visual * 0.75
            assert (usage.prefix_shared, usage.shared_layers) == (False, 2)
            held = 2 * prefix + 2 * (prefix - visual // 2) + 4 * tail
            assert usage.kv_bytes == held * width
        elif name == "snapkv":
            assert usage.token_layers == visual
            assert (usage.prefix_shared, usage.shared_layers) == (False, 4)
            assert usage.kv_bytes == (4 * (prefix // 2) + 4 * tail) * width
        elif name == "frames":
            assert (usage.prefix_shared, usage.shared_layers) == (True, 4)
            assert usage.token_layers == visual * (1 + 3 * 0.5) / 4


def len_of_question(family, question):
    """Tokens after the last placeholder."""
    ids = family.tokenize(question.messages)
    return len(ids) - 1 - max(i for i, t in enumerate(ids) if t in family.placeholder_ids)


class Asking(Method):
    """Returns what it is given, in layer 1."""

    name = "asking"

    def __init__(self, found):
        object.__setattr__(self, "found", found)

    def prune(self, kept, layer, prefix):
        return self.found if isinstance(self.found, ScoredPrune) and layer == 1 else kept

    def kv_cache(self, layer, geometry):
        return self.found if isinstance(self.found, Eviction) and layer == 1 else None


def every(measured):
    return torch.ones_like(measured.is_visual)


def first_rows(keys, values, measured):
    return torch.arange(4)


@torch.no_grad()
@pytest.mark.parametrize(
    ("found", "words"),
    [
        (ScoredPrune(every, ScoreRequest(queries=True)), "queries are of named rows"),
        (Eviction(first_rows, ScoreRequest(rows="last")), "its own layer"),
        (ScoredPrune(lambda m: torch.ones(3, dtype=torch.bool)), r"must return bool \["),
        (ScoredPrune(lambda m: every(m).long()), "int64"),
        (ScoredPrune(lambda m: Chosen(every(m), m.hidden)), None),
        (
            ScoredPrune(lambda m: Chosen(every(m), m.hidden[:2]), ScoreRequest(hidden=True)),
            "hidden states",
        ),
        (Eviction(lambda k, v, m: torch.zeros(2, dtype=torch.long)), "each once"),
        (Eviction(lambda k, v, m: torch.tensor([k.shape[1]])), "below"),
        (Eviction(lambda k, v, m: torch.zeros(0, dtype=torch.long)), "at least one"),
        (Eviction(lambda k, v, m: torch.zeros(3, 4, dtype=torch.long)), "for each head"),
    ],
)
def test_impossible_requests_and_decisions_are_refused(
    tiny_qwen2_5_vl, make_clip, message, found, words
):
    family = tiny_qwen2_5_vl
    layout, embeddings, _ = build(family, make_clip, message)

    def run():
        plan = make_plan(Chain([Asking(found)]), layout, family.geometry)
        with Attachment(family, plan) as attachment:
            prefill(attachment, embeddings)

    if words is None:
        run()
        return
    with pytest.raises(InvalidSetting, match=words):
        run()


def test_no_layer_comes_before_the_first(tiny_qwen2_5_vl, make_clip, message):
    layout, _, _ = build(tiny_qwen2_5_vl, make_clip, message)
    chain = Chain([KeepAttended(layers=(0,))])
    with pytest.raises(InvalidSetting, match="no layer comes before"):
        make_plan(chain, layout, tiny_qwen2_5_vl.geometry)


@pytest.mark.parametrize("block", [1, 40, 1 << 24])
def test_weights_do_not_depend_on_how_rows_are_cut(monkeypatch, block):
    monkeypatch.setattr(weights_module, "_BLOCK_SCORES", block)
    torch.manual_seed(0)
    query, key = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 9, 8)
    allowed = torch.rand(6, 9) < 0.7
    allowed[:, 0] = True
    repeated = key[0].repeat_interleave(2, 0)
    scores = (query[0] @ repeated.transpose(-1, -2) * 0.3).masked_fill(~allowed, -torch.inf)
    expected = scores.softmax(-1)[..., :7]
    for per_head in (False, True):
        for per_row in (False, True):
            wanted = expected if per_row else expected.mean(1)
            wanted = wanted if per_head else wanted.mean(0)
            got = weights_module.attention_weights(
                query, key, allowed, columns=7, scale=0.3, per_head=per_head, per_row=per_row
            )
            assert got.shape == wanted.shape
            assert torch.allclose(got, wanted, atol=1e-6)
