"""The engine on Video-LLaVA, port and original, against a dense reference; the lmms-eval models."""

from __future__ import annotations

import pytest
import torch
from lmms_eval.api.instance import Instance
from probes import (
    DropEarlyFrames,
    FramesApart,
    Int8Store,
    KnockOutPositions,
    LastFrameOnly,
    ReverseOrder,
)
from video_files import write_video

from tempeval.engine.answer import generate, score
from tempeval.engine.attach import Attachment
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.errors import TempevalError
from tempeval.methods.base import Chain
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.model_wrappers.chain import Tempeval, TempevalSimple
from tempeval.verification.dense import dense_generate
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.verification.tiny_video_llava import PER_FRAME
from tempeval.video.clip import FramePlan

CHAINS = {
    "baseline": Chain(),
    "exit": Chain([TemporalExit(layer=2)]),
    "reverse_order": Chain([ReverseOrder()]),
    "knock_out": Chain([KnockOutPositions()]),
    "last_frame_only": Chain([LastFrameOnly()]),
    "frames_apart": Chain([FramesApart()]),
    "int8": Chain([Int8Store()]),
    "everything": Chain(
        [
            KnockOutPositions(layer=2),
            LastFrameOnly(),
            FramesApart(),
            DropEarlyFrames(),
            Int8Store(),
        ]
    ),
}
STEPS = 8
QUESTIONS = ("What happens first?", "Is it faster? yes no", "up", "What happens last? A. left B.")


@pytest.fixture(scope="module", params=["tiny_video_llava", "tiny_video_llava_original"])
def family(request):
    return request.getfixturevalue(request.param)


def build(family, make_clip, message, chain):
    """Layout, prefix embeddings and question tails of prompts about one clip."""
    clip = make_clip(8, 84, 112)
    clip = clip.reordered(chain.frames(FramePlan()).permutation(clip.num_frames))
    tokens = [chain.tokens(family.encode(clip))]
    return laid_out(family, message, tokens, QUESTIONS)


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_chain_equals_dense_reference_alone_and_in_a_batch(family, make_clip, message, name):
    chain = CHAINS[name]
    layout, embeddings, tails = build(family, make_clip, message, chain)
    assert layout.num_visual_tokens == 8 * PER_FRAME
    assert len({len(tail) for tail in tails}) > 1
    plan = make_plan(chain, layout, family.geometry)
    wide = name in ("int8", "everything")  # fp32 differences flip codes at rounding boundaries
    if wide:
        family.model.double()
        embeddings = embeddings.double()
    try:
        references = [
            dense_generate(family, chain, layout, embeddings, tail, STEPS) for tail in tails[:2]
        ]
        end = family.model.generation_config.eos_token_id
        with Attachment(family, plan) as attachment:
            prefix = prefill(attachment, embeddings)
            together = generate(attachment, prefix, tails, {"max_new_tokens": STEPS})
            for tail, answer in zip(tails, together, strict=True):
                (alone,) = generate(attachment, prefix, [tail], {"max_new_tokens": STEPS})
                assert answer.token_ids == alone.token_ids
            for tail, (ids, logits), answer in zip(tails, references, together, strict=False):
                got = stepwise_logits(attachment, prefix, tail, ids)
                assert (got - logits).abs().max() < 1e-4
                assert logits.std() > 0.1  # a degenerate model would agree about anything
                wanted = ids[: ids.index(end) + 1] if end in ids else ids
                assert list(answer.token_ids) == wanted
    finally:
        if wide:
            family.model.float()


@torch.no_grad()
def test_shared_prefix_equals_one_shot(family, make_clip, message):
    """The whole prompt through plain transformers, without an engine."""
    layout, embeddings, tails = build(family, make_clip, message, Chain())
    continuation = torch.tensor([5, 6, 7])
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
        scored = score(attachment, prefix, tails, [continuation] * len(tails))
    for tail, got in zip(tails, scored, strict=True):
        rest = family.model.get_input_embeddings()(torch.cat([tail, continuation]))[None]
        whole = torch.cat([embeddings, rest], dim=1)
        logits = family.model(inputs_embeds=whole).logits[0, -4:-1].log_softmax(-1)
        expected = float(logits.gather(1, continuation[:, None]).sum())
        assert got.log_likelihood == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_each_chain_changes_the_logits(family, make_clip, message):
    """A stage that did nothing would pass every equality above."""
    logits = {}
    for name, chain in CHAINS.items():
        layout, embeddings, tails = build(family, make_clip, message, chain)
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            prefix = prefill(attachment, embeddings)
            logits[name] = stepwise_logits(attachment, prefix, tails[0], [0])[0]
    for name in set(CHAINS) - {"baseline"}:
        assert (logits[name] - logits["baseline"]).abs().max() > 1e-3, name


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    video = write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", range(30))
    return [{"path": str(video), "text": text} for text in QUESTIONS]


def doc_to_messages(doc):
    content = [{"type": "video", "url": doc["path"]}, {"type": "text", "text": doc["text"]}]
    return [{"role": "user", "content": content}]


def doc_to_visual(doc):
    return [doc["path"]]


def requests(model, docs, kind="generate_until"):
    model.task_dict = {"task": {"test": docs}}
    gen_kwargs = {"max_new_tokens": 4, "until": ["\n\n"], "temperature": 0}
    made = []
    for i, doc in enumerate(docs):
        if kind == "loglikelihood":
            arguments = (doc["text"], " left", doc_to_visual, i, "task", "test")
        else:
            arguments = (doc["text"], doc_to_messages, gen_kwargs, i, "task", "test")
        metadata = {"task": "task", "doc_id": i, "repeats": 1}
        made.append(Instance(kind, arguments, 0, metadata))
    return made


@pytest.mark.parametrize("name", ["tiny_video_llava_folder", "tiny_video_llava_original_folder"])
def test_the_lmms_eval_model_end_to_end(request, docs, name):
    folder = str(request.getfixturevalue(name))
    losses = {}
    for method in ("baseline", "temporal_exit"):
        model = Tempeval(folder, method=method, device="cpu", num_frames=16)
        results = model.generate_until(requests(model, docs))
        assert all(r.token_counts.usage.error is None for r in results)
        assert {r.token_counts.usage.visual_tokens for r in results} == {16 * PER_FRAME}
        facts = model.run_facts()
        assert (facts.family, facts.min_pixels) == ("video_llava", 56 * 56)
        simple = TempevalSimple(
            folder, method=method, device="cpu", num_frames=16, decode_workers=0
        )
        scored = simple.loglikelihood(requests(simple, docs, "loglikelihood"))
        losses[method] = [loss for loss, _ in scored]
    assert losses["baseline"] != pytest.approx(losses["temporal_exit"], abs=1e-4)


def test_a_budget_chooses_frames_or_refuses_before_any_decoding(
    tiny_video_llava_folder, tiny_video_llava_original_folder
):
    settings = {"method": "baseline", "device": "cpu"}
    model = Tempeval(str(tiny_video_llava_folder), visual_token_budget=11 * PER_FRAME, **settings)
    assert model.inference.sampling.num_frames == 11
    original = str(tiny_video_llava_original_folder)
    model = Tempeval(original, visual_token_budget=16 * PER_FRAME, **settings)
    assert model.inference.sampling.num_frames == 16
    for wrong in ({"visual_token_budget": 11 * PER_FRAME}, {"num_frames": 12}, {"fps": 2.0}):
        with pytest.raises(TempevalError):
            Tempeval(original, **wrong, **settings)
