"""Sampled answers: the same seed gives them again, another one others; greedy ones know no seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import tempeval.engine.session as session_module
from tempeval.engine.continuations import Continuations
from tempeval.engine.inference import Inference
from tempeval.engine.question import Question
from tempeval.engine.store import Memory
from tempeval.methods.base import Chain
from tempeval.methods.pas import PAS
from tempeval.model_wrappers.chain import Tempeval
from tempeval.video.clip import Sampling, VideoRef

SAMPLED = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.5}
GREEDY = {"max_new_tokens": 6}
BASELINE = (Chain(),)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    refs = []
    for number in range(2):
        folder = root / f"video{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(4):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame}.png")
        refs.append(VideoRef(str(folder), fps=5.0))
    return refs


@pytest.fixture
def build(load_family, tiny_qwen2_5_vl_folder):
    family = load_family(tiny_qwen2_5_vl_folder, min_pixels=784, max_pixels=9408)

    def make(seed=0, batch_size=2):
        return Inference(family, Sampling(num_frames=4), batch_size=batch_size, seed=seed)

    return make


def questions(videos, gen_kwargs, repeats=1):
    made = []
    for text in ("What happens first?", "up", "left"):
        for v, ref in enumerate(videos):
            content = [{"type": "video"}, {"type": "text", "text": text}]
            for _ in range(repeats):
                made.append(
                    Question(
                        len(made),
                        ({"role": "user", "content": content},),
                        (ref,),
                        gen_kwargs=gen_kwargs,
                        sample=f"task/{text}-{v}",
                    )
                )
    return made


def answers(inference, asked, store=None, chains=BASELINE):
    run = inference.run(inference.plan(asked), chains, store)
    return {(a.question.sample, a.question.number, a.chain.spec): a.outcome.answer for a in run}


def replays(inference, asked, store):
    return [a.replayed for a in inference.run(inference.plan(asked), [Chain()], store)]


def test_the_same_seed_gives_the_same_answers_again(build, videos):
    asked = questions(videos, SAMPLED)
    torch.manual_seed(1)
    first = answers(build(), asked)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    assert answers(build(), asked) == first
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's numbers are used up
    other = answers(build(seed=1), asked)
    assert {k for k in first if first[k] != other[k]}
    assert len({a.token_ids for a in first.values()}) > 1


def test_an_interrupted_run_and_other_ranks_repeat_the_answers(build, videos):
    asked = questions(videos, SAMPLED)
    chains = (Chain(), Chain([PAS()]))
    whole = answers(build(), asked, chains=chains)
    store = Memory()
    run = build().run(build().plan(asked), chains, store)
    for _ in range(5):
        next(run)
    run.close()
    assert answers(build(), asked, store, chains) == whole
    work = build().plan(asked)
    by_rank = {}
    for video in reversed(work):  # each rank takes whole videos
        for a in build().run([video], chains):
            by_rank[a.question.sample, a.question.number, a.chain.spec] = a.outcome.answer
    assert by_rank == whole


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_question_asked_several_times_is_sampled_several_times(build, videos, batch_size):
    found = answers(build(batch_size=batch_size), questions(videos[:1], SAMPLED, repeats=4))
    texts = {}
    for (sample, _, _), answer in found.items():
        texts.setdefault(sample, set()).add(answer.token_ids)
    assert all(len(several) > 1 for several in texts.values())


@pytest.mark.parametrize("sampling", [{"do_sample": True}, {"temperature": 0.7}])
def test_sampled_answers_are_kept_per_seed_and_batch_size(build, videos, sampling):
    asked = questions(videos, {"max_new_tokens": 2, **sampling})
    store = Memory()
    answers(build(seed=3), asked, store)
    assert all(replays(build(seed=3), asked, store))
    assert not any(replays(build(seed=4), asked, store))
    assert not any(replays(build(seed=3, batch_size=3), asked, store))


def test_greedy_answers_and_scores_are_kept_across_seeds(build, videos):
    asked = questions(videos, GREEDY)
    one = asked[0]
    up = Continuations(("up",))
    label = Question(len(asked), one.messages, one.visuals, kind="score", continuations=up)
    store = Memory()
    first = answers(build(), [*asked, label], store)
    assert all(replays(build(seed=4, batch_size=3), [*asked, label], store))
    assert answers(build(seed=4), [*asked, label]) == first


def test_a_halved_batch_is_seeded_too(build, videos, monkeypatch):
    answer = session_module._answer

    def tight(attachment, prefix, items, tails):
        if len(items) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return answer(attachment, prefix, items, tails)

    monkeypatch.setattr(session_module, "_answer", tight)
    asked = questions(videos, SAMPLED)
    assert answers(build(), asked) == answers(build(), asked)


def test_the_hosts_seed_reaches_the_model(tiny_qwen2_5_vl_folder):
    given = f"pretrained={tiny_qwen2_5_vl_folder},min_pixels=784,max_pixels=9408"
    torch.manual_seed(77)  # what lmms-eval does with --seed before it makes the model
    host = {"batch_size": 1, "max_batch_size": None, "device": "cpu"}
    assert Tempeval.create_from_arg_string(given, host).inference.seed == 77
    assert Tempeval.create_from_arg_string(f"{given},seed=5", host).inference.seed == 5
    assert Tempeval(str(tiny_qwen2_5_vl_folder), device="cpu").inference.seed == 0
