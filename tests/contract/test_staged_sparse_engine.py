"""Staged sparse attention through the engine, against dense models masked as the paper says."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tempeval.bench.checkpoint import Shape, save_random
from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.errors import InvalidSetting
from tempeval.methods.base import Chain
from tempeval.methods.kv_quantization import KVQuant
from tempeval.methods.pas import PAS
from tempeval.methods.staged_sparse import StagedSparse
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.model_wrappers.staged_sparse import TempevalStagedSparse
from tempeval.verification import dense
from tempeval.verification.dense import dense_logits

COMBINATIONS = [(1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)]
QUESTIONS = ("What happens first?", "Is it faster? yes no", "up", "What happens last? A. left B.")
STEPS = 9  # the prompt's end and 8 decode steps

#: Ranges of a 4-layer model in which every strategy is felt: nobody reads frames in the last layer.
SHALLOW = {"question_layers": (1, 3), "frame_layer": 1, "exit_layer": 3}


def sparse(strategies):
    settings = dict(zip(SHALLOW.items(), (1, 2, 3), strict=True))
    return StagedSparse(
        strategies, **{name: v for (name, v), needs in settings.items() if needs in strategies}
    )


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl", "llava_onevision", "video_llava"])
def family(request):
    return request.getfixturevalue(f"tiny_{request.param}")


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen2_vl"])
def qwen(request):
    """A family whose chat template leaves visuals where they stand, and has one grid per image."""
    return request.getfixturevalue(f"tiny_{request.param}")


@pytest.fixture(scope="module")
def deep_family(tmp_path_factory, load_family):
    shape = Shape("deep", 28, hidden=128, vision_depth=2, vision_hidden=64, vocabulary=1024)
    family = load_family(save_random(tmp_path_factory.mktemp("deep"), shape))
    with torch.no_grad():
        for weight in family.model.parameters():
            if weight.ndim > 1:
                weight *= 3  # so that logits depend on positions and on the video
    return family


def build(family, make_clip, message, questions=QUESTIONS, parts=("<video>",)):
    """Layout, prefix embeddings and question tails of prompts about the same visuals."""
    visuals = []
    for number, part in enumerate(p for p in parts if p.startswith("<")):
        clip = make_clip(8, 84, 112, seed=number)
        if part == "<image>":
            from PIL import Image

            visuals.append(family.encode_image(Image.fromarray(clip.frames[0])))
        else:
            visuals.append(family.encode(clip))
    tails = []
    for question in questions:
        layout, tail = family.layout(family.tokenize(message(*parts, question)), visuals)
        tails.append(tail)
    return layout, family.embed(layout, visuals), tails


def paper_masks(strategies, ranges):
    """Stand in for `dense.token_mask`: the paper's words, token by token."""

    def masks(chain, layout, num_layers, total, prompt):
        frame = torch.zeros(total, dtype=torch.long)  # 0: no visual token
        frame[: layout.length] = layout.segment
        from_frame, asks = frame > 0, torch.arange(total) >= layout.length
        every = []
        for layer in range(num_layers):
            mask = torch.ones(total, total, dtype=torch.bool).tril()
            if 1 in strategies and layer in ranges[1]:
                mask &= ~(asks[:, None] & (from_frame & (frame < frame.max()))[None, :])
            if 2 in strategies and layer in ranges[2]:
                other = frame[:, None] != frame[None, :]
                mask &= ~(from_frame[:, None] & from_frame[None, :] & other)
            if 3 in strategies and layer in ranges[3]:
                mask &= ~from_frame[None, :]
            every.append(mask | torch.eye(total, dtype=torch.bool))
        return every

    return masks


@pytest.fixture
def as_the_paper_says(monkeypatch):
    """`as_the_paper_says(strategies, ranges)` gives the dense reference its masks."""
    return lambda strategies, ranges: monkeypatch.setattr(
        dense, "token_mask", paper_masks(strategies, ranges)
    )


SHALLOW_RANGES = {1: range(1, 3), 2: range(1, 4), 3: range(3, 4)}
PAPER_RANGES = {1: range(10, 20), 2: range(20, 28), 3: range(20, 28)}


def generated(attachment, prefix, tails):
    """Generate `STEPS` tokens for each tail; return ids, and the logits `[B, STEPS, V]`."""
    model = attachment.family.model
    end, rows = model.generation_config.eos_token_id, []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _module, _args, out: rows.append(out[:, -1]))
    # An end of sequence that no row comes to, so that all make every step.
    model.generation_config.eos_token_id = model.config.get_text_config().vocab_size - 1
    try:
        answers = generate(attachment, prefix, tails, {"max_new_tokens": STEPS})
    finally:
        handle.remove()
        model.generation_config.eos_token_id = end
    assert [answer.num_tokens for answer in answers] == [STEPS] * len(tails)
    return [list(answer.token_ids) for answer in answers], torch.stack(rows, dim=1)


def check_against_dense(family, chain, layout, embeddings, tails):
    """One question at a time on a prefix of its own, and all together on one, against dense."""
    plan = make_plan(chain, layout, family.geometry)
    with Attachment(family, plan) as attachment:
        ids, logits = generated(attachment, prefill(attachment, embeddings), tails)
    for number, tail in enumerate(tails):
        with Attachment(family, plan) as attachment:
            (own,), own_logits = generated(attachment, prefill(attachment, embeddings), [tail])
        prompt = layout.length + len(tail)
        fed = torch.cat([tail, torch.tensor(own[:-1])])
        rows = dense_logits(family, chain, layout, embeddings, fed, prompt)[prompt - 1 :]
        assert rows.shape == own_logits[0].shape
        assert rows.std() > 0.1  # a degenerate model would agree about anything
        assert (own_logits[0] - rows).abs().max() < 1e-4
        assert (logits[number] - rows).abs().max() < 1e-4
        assert ids[number] == own == rows.argmax(-1).tolist()


@torch.no_grad()
@pytest.mark.parametrize("with_pas", [False, True], ids=["alone", "pas"])
@pytest.mark.parametrize("strategies", COMBINATIONS)
def test_equals_the_masked_dense_model(
    family, make_clip, message, as_the_paper_says, strategies, with_pas
):
    chain = Chain([sparse(strategies), *([PAS()] if with_pas else [])])
    layout, embeddings, tails = build(family, make_clip, message)
    assert len({len(tail) for tail in tails}) > 1
    as_the_paper_says(strategies, SHALLOW_RANGES)
    check_against_dense(family, chain, layout, embeddings, tails)


@torch.no_grad()
@pytest.mark.parametrize("strategies", [(1, 2), (1, 2, 3)])
def test_in_a_chain_with_pas_and_a_quantised_prefix(
    family, make_clip, message, as_the_paper_says, strategies
):
    store = KVQuant(nbits=4, group_size=8, residual_length=8)
    chain = Chain([PAS(), sparse(strategies), store])
    layout, embeddings, tails = build(family, make_clip, message, QUESTIONS[:2])
    as_the_paper_says(strategies, SHALLOW_RANGES)
    family.model.double()  # fp32 differences flip codes at rounding boundaries
    try:
        check_against_dense(family, chain, layout, embeddings.double(), tails)
    finally:
        family.model.float()


@torch.no_grad()
@pytest.mark.parametrize("strategies", COMBINATIONS)
def test_28_layers_with_the_papers_ranges(
    deep_family, make_clip, message, as_the_paper_says, strategies
):
    layout, embeddings, tails = build(deep_family, make_clip, message, QUESTIONS[:1])
    as_the_paper_says(strategies, PAPER_RANGES)
    chain = Chain([StagedSparse(strategies)])
    check_against_dense(deep_family, chain, layout, embeddings, tails)


@torch.no_grad()
@pytest.mark.parametrize("strategies", [(1,), (2,), (1, 2, 3)])
def test_several_visuals_with_text_between(qwen, make_clip, message, as_the_paper_says, strategies):
    parts = ("<video>", "Which way?", "<image>", "<video>", "How fast is it?", "<video>")
    layout, embeddings, tails = build(qwen, make_clip, message, QUESTIONS[:2], parts)
    assert layout.num_frames == 4 + 1 + 4 + 4
    as_the_paper_says(strategies, SHALLOW_RANGES)
    check_against_dense(qwen, Chain([sparse(strategies)]), layout, embeddings, tails)


@torch.no_grad()
@pytest.mark.parametrize("strategies", COMBINATIONS)
def test_choices_equal_full_forwards(family, make_clip, message, as_the_paper_says, strategies):
    chain = Chain([sparse(strategies)])
    layout, embeddings, (tail, *_) = build(family, make_clip, message)
    labels = [torch.tensor(ids) for ids in ([5, 6, 7], [9], [11, 12], [3, 4, 8, 20, 21])]
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        scores = score_choices(
            attachment, prefill(attachment, embeddings), tail, labels, batch_tokens=6
        )
    as_the_paper_says(strategies, SHALLOW_RANGES)
    for got, label in zip(scores, labels, strict=True):
        prompt = layout.length + len(tail)
        ids = torch.cat([tail, label])
        logits = dense_logits(family, chain, layout, embeddings, ids, prompt)
        rows = logits[prompt - 1 : -1].log_softmax(-1)
        expected = float(rows.gather(1, label.unsqueeze(1)).sum())
        assert got.log_likelihood == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_every_strategy_is_felt_and_3_is_the_exit(family, make_clip, message):
    """Strategies that did nothing, or the same, would pass every equality above."""
    layout, embeddings, (tail, *_) = build(family, make_clip, message)
    labels = [torch.tensor([5, 6, 7])]
    scores = {}
    chains = {(): Chain(), "exit": Chain([TemporalExit(layer=3)])}
    chains |= {strategies: Chain([sparse(strategies)]) for strategies in COMBINATIONS}
    for name, chain in chains.items():
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            (one,) = score_choices(attachment, prefill(attachment, embeddings), tail, labels)
        scores[name] = one.log_likelihood
    assert scores.pop("exit") == scores[(3,)]
    values = sorted(scores.values())
    assert min(b - a for a, b in itertools.pairwise(values)) > 1e-4


@torch.no_grad()
def test_one_image_is_one_frame_and_unchanged_by_1_and_2(qwen, make_clip, message):
    layout, embeddings, (tail, *_) = build(qwen, make_clip, message, parts=("<image>",))
    scores = []
    for chain in (Chain(), Chain([sparse((1, 2))]), Chain([sparse((1, 2, 3))])):
        with Attachment(qwen, make_plan(chain, layout, qwen.geometry)) as attachment:
            prefix = prefill(attachment, embeddings)
            scores += score_choices(attachment, prefix, tail, [torch.tensor([5, 6])])
    assert scores[0].log_likelihood == scores[1].log_likelihood
    assert scores[0].log_likelihood != pytest.approx(scores[2].log_likelihood, abs=1e-4)


def test_the_wrapper_takes_strategies(tiny_qwen2_5_vl_folder):
    folder = str(tiny_qwen2_5_vl_folder)
    assert TempevalStagedSparse(folder, device="cpu").chain == Chain([StagedSparse((2,))])
    chosen = TempevalStagedSparse(folder, device="cpu", strategies="1/3")
    assert chosen.chain.spec == "staged_sparse[strategies=1/3]"
    resolved = chosen.inference.resolve(chosen.chain).settings["staged_sparse"]
    assert resolved["strategy_1_layers"] == [1, 3]
    with pytest.raises(InvalidSetting, match="strategies=4"):
        TempevalStagedSparse(folder, device="cpu", strategies=4)


class LargestTensor(TorchDispatchMode):
    """Remembers the largest storage, in bytes, that an operation returned."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.nbytes = max(self.nbytes, tensor.untyped_storage().nbytes())
        return out


@torch.no_grad()
@pytest.mark.parametrize("strategies", [(), *COMBINATIONS])
def test_no_mask_over_the_whole_prefix(tiny_qwen2_5_vl, make_clip, message, strategies):
    family = tiny_qwen2_5_vl
    visual = family.encode(make_clip(24, 336, 336))
    layout, tail = family.layout(family.tokenize(message("<video>", "up?")), [visual])
    embeddings = family.embed(layout, [visual])
    chain = Chain([sparse(strategies)]) if strategies else Chain()
    geometry = family.geometry
    widest = max(geometry.intermediate_size, geometry.num_heads * geometry.head_dim)
    assert layout.length > 4 * widest
    plan = make_plan(chain, layout, geometry)
    with Attachment(family, plan) as attachment, LargestTensor() as largest:
        prefix = prefill(attachment, embeddings)
        generate(attachment, prefix, [tail], {"max_new_tokens": 2})
    # Less than a bool mask of prefix by prefix would take.
    assert largest.nbytes < layout.length**2
