"""LLaVA-OneVision through the engine against the dense reference, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from probes import (
    DropEarlyFrames,
    FramesApart,
    Int8Store,
    KnockOutPositions,
    LastFrameOnly,
    LastNotQuestion,
)

from tempeval.engine.answer import generate, score
from tempeval.engine.attach import Attachment
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.methods.base import Chain, Method
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.verification.dense import dense_generate, dense_logits
from tempeval.verification.through_engine import laid_out, stepwise_logits
from tempeval.verification.tiny_llava_onevision import load_llava_onevision


@dataclass(frozen=True)
class QuestionBlind(Method):
    """`attention`: the question sees no frame, the last token sees all."""

    name: ClassVar[str] = "question_blind"

    def attention(self, visible, layer, segments):
        if layer == 1:
            visible[segments.question, list(segments.frames)] = False
        return visible


CHAINS = {
    "baseline": Chain(),
    "exit": Chain([TemporalExit(layer=2)]),
    "knock_out": Chain([KnockOutPositions()]),
    "last_frame_only": Chain([LastFrameOnly()]),
    "last_not_question": Chain([LastNotQuestion()]),
    "question_blind": Chain([QuestionBlind()]),
    "frames_apart": Chain([FramesApart()]),
    "drop_early_frames": Chain([DropEarlyFrames()]),
    "int8": Chain([Int8Store()]),
    "several": Chain([KnockOutPositions(layer=2), LastFrameOnly(), FramesApart(), Int8Store()]),
}

QUESTIONS = ("What happens first?", "Is it faster? yes no", "up", "What happens last? A. left B.")


@pytest.fixture(scope="module", params=["one_token", "grid"])
def family(request, tiny_llava_onevision_folder):
    return load_llava_onevision(tiny_llava_onevision_folder, mm_newline_position=request.param)


def build(family, make_clip, message):
    """Layout, prefix embeddings and question tails of four prompts about one clip."""
    visuals = [family.encode(make_clip(6, 84, 112))]
    return laid_out(family, message, visuals, QUESTIONS)


@torch.no_grad()
@pytest.mark.parametrize("name", CHAINS)
def test_chain_equals_dense_reference(family, make_clip, message, name):
    """Prefill and 8 decoding steps; one-shot (each its own prefix), shared, batch 1 and 4."""
    chain = CHAINS[name]
    layout, embeddings, tails = build(family, make_clip, message)
    wide = any("kv_cache" in method.modifies for method in chain.methods)
    if wide:  # fp32 differences flip codes at rounding boundaries
        family.model.double()
        embeddings = embeddings.double()
    end = family.model.generation_config.eos_token_id
    try:
        plan = make_plan(chain, layout, family.geometry)
        references = [
            dense_generate(family, chain, layout, embeddings, tail, 8) for tail in tails[:2]
        ]
        with Attachment(family, plan) as attachment:
            shared = prefill(attachment, embeddings)
            for tail, (ids, expected) in zip(tails, references, strict=False):
                assert expected.std() > 0.1  # a degenerate model would agree about anything
                for prefix in (shared, prefill(attachment, embeddings)):
                    got = stepwise_logits(attachment, prefix, tail, ids)
                    assert (got - expected).abs().max() < 1e-4
            together = generate(attachment, shared, tails, {"max_new_tokens": 8})
            for number, tail in enumerate(tails):
                (alone,) = generate(attachment, shared, [tail], {"max_new_tokens": 8})
                assert alone.token_ids == together[number].token_ids
        for (ids, _), answer in zip(references, together, strict=False):
            assert list(answer.token_ids) == (ids[: ids.index(end) + 1] if end in ids else ids)
    finally:
        if wide:
            family.model.float()


@torch.no_grad()
def test_scores_equal_full_forwards(family, make_clip, message):
    chain = CHAINS["last_frame_only"]
    layout, embeddings, tails = build(family, make_clip, message)
    continuations = [torch.tensor(ids) for ids in ([5, 6, 7], [9], [11, 12], [3, 4])]
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        scored = score(attachment, prefill(attachment, embeddings), tails, continuations)
    for got, tail, continuation in zip(scored, tails, continuations, strict=True):
        prompt = layout.length + len(tail)
        ids = torch.cat([tail, continuation])
        logits = dense_logits(family, chain, layout, embeddings, ids, prompt)
        log_probs = logits[prompt - 1 : -1].log_softmax(-1)
        expected = log_probs.gather(1, continuation.unsqueeze(1)).sum()
        assert got.log_likelihood == pytest.approx(float(expected), abs=1e-4)


@torch.no_grad()
def test_each_chain_changes_the_logits(family, make_clip, message):
    """A stage that did nothing would pass every equality above."""
    layout, embeddings, tails = build(family, make_clip, message)
    baseline = dense_logits(family, Chain(), layout, embeddings, tails[0])[-1]
    for name, chain in CHAINS.items():
        logits = dense_logits(family, chain, layout, embeddings, tails[0])[-1]
        assert ((logits - baseline).abs().max() > 1e-3) == (name != "baseline"), name


@torch.no_grad()
def test_exit_removes_frames_and_newlines(family, make_clip, message):
    chain = CHAINS["exit"]
    layout, embeddings, _ = build(family, make_clip, message)
    with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
        prefix = prefill(attachment, embeddings)
    text = int((~layout.is_visual).sum())
    rows = [len(piece.segment) for (piece,) in prefix.layers]
    assert rows == [layout.length, layout.length, text, text]
