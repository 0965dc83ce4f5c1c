"""One pass over the videos for all methods; journalled, killed, resumed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from probes import ReverseOrder

import tempeval.engine.encoder as encoder_module
import tempeval.engine.session as session_module
from tempeval.engine.continuations import Continuations
from tempeval.engine.inference import Inference
from tempeval.engine.journal import Journal
from tempeval.engine.question import Question
from tempeval.engine.store import Memory
from tempeval.engine.usage import combined
from tempeval.errors import InvalidSetting
from tempeval.methods.base import Chain
from tempeval.methods.kv_quantization import KVQuant
from tempeval.methods.pas import PAS
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.video.clip import Sampling, VideoRef

CHAINS = (Chain(), Chain([PAS()]), Chain([TemporalExit(layer=2)]), Chain([ReverseOrder()]))
#: A prefix that serves one question only.
QUANTISED = KVQuant(group_size=16, residual_length=0, prefill="exact")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    refs = []
    for number in range(3):
        folder = root / f"video{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(10):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame + 1}.png")
        refs.append(VideoRef(str(folder), fps=5.0))
    return refs


@pytest.fixture
def inference(load_family, tiny_qwen2_5_vl_folder):
    family = load_family(tiny_qwen2_5_vl_folder, min_pixels=784, max_pixels=9408)
    return Inference(family, Sampling(num_frames=8), batch_size=2)


def questions(videos):
    texts = ["What happens first?", "up", "Is it faster? yes no", "left", "What happens last?"]
    made = []
    for q, text in enumerate(texts):
        for v, ref in enumerate(videos):
            content = [{"type": "video"}, {"type": "text", "text": text}]
            messages = ({"role": "user", "content": content},)
            made.append(
                Question(
                    len(made),
                    messages,
                    (ref,),
                    gen_kwargs={"max_new_tokens": 3},
                    sample=f"task/{q}-{v}",
                )
            )
    return made


def answers(run):
    return {(a.question.number, a.chain.spec): a.outcome.answer for a in run}


def test_one_pass_serves_all_methods(inference, videos, monkeypatch):
    decoded = []
    stream = encoder_module.ClipStream

    def counting(requests, **kwargs):
        decoded.extend(requests)
        return stream(requests, **kwargs)

    monkeypatch.setattr(encoder_module, "ClipStream", counting)
    work = inference.plan(questions(videos))
    run = list(inference.run(work, CHAINS))
    assert len(run) == 15 * 4
    assert len(decoded) == 3  # the reversed clip is the same clip, permuted
    assert inference.encoder.vision_runs == 6  # but its tubelets are others
    order = [a.question.number % 3 for a in run]
    assert order == sorted(order)  # video by video
    for chain in CHAINS:
        alone = answers(inference.run(work, [chain]))
        assert all(answers(run)[key] == value for key, value in alone.items())


def test_costs_are_charged_in_full_and_amortised_apart(inference, videos, monkeypatch):
    """Four chains decode each video once; the reversed one alone encodes it again."""
    encoded = {}
    encode = inference.encoder.encode

    def recorded(visuals, plan):
        entries = encode(visuals, plan)
        encoded[visuals, plan] = entries[0]
        return entries

    monkeypatch.setattr(inference.encoder, "encode", recorded)
    run = list(inference.run(inference.plan(questions(videos)), CHAINS))
    assert len(encoded) == 2 * len(videos)
    spent = 0.0
    for ref in videos:
        spent += max(e.decode_ms for (visuals, _), e in encoded.items() if visuals == (ref,))
        spent += sum(e.encode_ms for (visuals, _), e in encoded.items() if visuals == (ref,))
        for chain in CHAINS:
            usages = [
                a.outcome.usage for a in run if a.chain == chain and a.question.visuals == (ref,)
            ]
            entry = encoded[(ref,), inference.resolve(chain).frames]
            for usage in usages:
                assert usage.decode_ms == entry.decode_ms
                assert usage.encode_ms >= entry.encode_ms
                whole = usage.decode_ms + usage.encode_ms + usage.prefill_ms + usage.answer_ms
                assert usage.amortised_ms < whole
            spent += usages[0].encode_ms - entry.encode_ms + usages[0].prefill_ms
            spent += sum(usage.answer_ms for usage in usages)
    assert sum(a.outcome.usage.amortised_ms for a in run) == pytest.approx(spent)


class Killed(Exception):
    pass


def stop_after(run, count):
    for number, _ in enumerate(run):
        if number == count:
            raise Killed


@pytest.mark.parametrize("after", range(0, 60, 7))
def test_a_run_that_stops_anywhere_goes_on(inference, videos, tmp_path, after, monkeypatch):
    """Stopped after any answer: the same answers, and at most one batch computed twice."""
    work = inference.plan(questions(videos))
    whole = answers(inference.run(work, CHAINS))
    computed = []
    answer = session_module._answer

    def counting(attachment, prefix, items, tails):
        computed.append(tuple(item.question.number for item in items))
        return answer(attachment, prefix, items, tails)

    monkeypatch.setattr(session_module, "_answer", counting)
    with Journal(tmp_path) as journal, pytest.raises(Killed):
        stop_after(inference.run(work, CHAINS, journal), after)
    with Journal(tmp_path) as journal:
        kept = len(journal)
        assert answers(inference.run(work, CHAINS, journal)) == whole
    batches = 3 * 3 * 4  # per video: 2 + 2 + 1 questions, 4 chains
    assert len(computed) <= batches + 1
    assert kept >= after


def test_a_finished_run_computes_nothing(inference, videos, tmp_path, monkeypatch):
    work = inference.plan(questions(videos))
    with Journal(tmp_path) as journal:
        first = answers(inference.run(work, CHAINS, journal))

    def never(*_args, **_kwargs):
        raise AssertionError("nothing is left to decode or to compute")

    monkeypatch.setattr(encoder_module, "ClipStream", never)
    monkeypatch.setattr(session_module, "prefill", never)
    with Journal(tmp_path) as journal:
        run = list(inference.run(work, CHAINS, journal))
    assert all(a.replayed for a in run)
    assert answers(run) == first


def test_another_model_method_frames_or_file_is_another_answer(
    inference, load_family, tiny_qwen2_5_vl_folder, videos, tmp_path
):
    with Journal(tmp_path) as journal:
        list(inference.run(inference.plan(questions(videos)), [Chain()], journal))
        other = load_family(
            tiny_qwen2_5_vl_folder, min_pixels=784, max_pixels=9408, position_rule="native"
        )
        cases = [
            (Inference(other, Sampling(num_frames=8)), Chain()),
            (Inference(inference.family, Sampling(num_frames=4)), Chain()),
            (inference, Chain([PAS()])),
        ]
        for changed, chain in cases:
            run = list(changed.run(changed.plan(questions(videos)), [chain], journal))
            assert not any(a.replayed for a in run)
        same = list(inference.run(inference.plan(questions(videos)), [Chain()], journal))
        assert all(a.replayed for a in same)
        Image.new("RGB", (84, 84)).save(f"{videos[0].path}/99.png")
        run = list(inference.run(inference.plan(questions(videos)), [Chain()], journal))
        assert [a.replayed for a in run] == [a.question.number % 3 != 0 for a in run]


@pytest.mark.parametrize("limit", [0, 1])
def test_out_of_memory_is_halved_then_recorded(inference, videos, limit, monkeypatch):
    """A batch that does not fit is split; one question that does not fit alone fails alone."""
    answer = session_module._answer
    sizes = []

    def tight(attachment, prefix, items, tails):
        sizes.append(len(items))
        if len(items) > limit or items[0].question.number == 7:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return answer(attachment, prefix, items, tails)

    work = inference.plan(questions(videos))
    expected = answers(inference.run(work, [Chain()]))
    monkeypatch.setattr(session_module, "_answer", tight)
    run = list(inference.run(work, [Chain()]))
    assert sizes[:3] == [2, 1, 1]
    for answered in run:
        if limit == 0 or answered.question.number == 7:
            assert "out of memory" in answered.outcome.usage.error
            assert answered.outcome.answer is None
        else:
            key = (answered.question.number, "baseline")
            assert answered.outcome.answer == expected[key]


def test_out_of_memory_on_the_cpu_is_out_of_memory(inference, videos, monkeypatch):
    answer = session_module._answer
    halved = []

    def tight(attachment, prefix, items, tails):
        if items[0].question.number == 0 and len(items) > 1:
            halved.append(len(items))
            torch.empty(2**62, dtype=torch.uint8)
        return answer(attachment, prefix, items, tails)

    work = inference.plan(questions(videos))
    expected = answers(inference.run(work, [Chain()]))
    monkeypatch.setattr(session_module, "_answer", tight)
    assert answers(inference.run(work, [Chain()])) == expected
    assert halved == [2]


def test_what_did_not_fit_is_said_as_it_was(inference, videos, monkeypatch):
    def full(*_args, **_kwargs):
        torch.empty(2**62, dtype=torch.uint8)

    work = inference.plan(questions(videos)[:2])
    with monkeypatch.context() as patch:
        patch.setattr(session_module, "prefill", full)
        errors = [a.outcome.usage.error for a in inference.run(work, [Chain()])]
    assert all("out of memory in the prefill of the prompt: [enforce fail" in e for e in errors)
    with monkeypatch.context() as patch:
        patch.setattr(inference.family, "encode", full, raising=False)
        inference.encoder.cache._entries.clear()
        errors = [a.outcome.usage.error for a in inference.run(work, [Chain()])]
    assert all("out of memory while encoding the video" in e for e in errors)
    with monkeypatch.context() as patch:
        patch.setattr(session_module, "_answer", full)
        errors = [a.outcome.usage.error for a in inference.run(work, [Chain()])]
    assert all("out of memory, also with one question at a time" in e for e in errors)


@pytest.mark.parametrize("place", ["prefill", "_answer"])
def test_another_runtime_error_ends_the_run(inference, videos, monkeypatch, place):
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    def broken(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(session_module, place, broken)
    with pytest.raises(RuntimeError) as raised:
        list(inference.run(inference.plan(questions(videos)), [Chain()]))
    assert raised.value is error


def scored(video, number, texts, asked="Where?"):
    content = [{"type": "video"}, {"type": "text", "text": asked}]
    return Question(
        number,
        ({"role": "user", "content": content},),
        (video,),
        kind="score",
        continuations=Continuations(tuple(texts)),
        sample=f"task/{asked}/{video.path}/{'/'.join(texts)}",
    )


def labelled(videos, texts=("up", "left", "down and up")):
    """Ask for each text in a question of its own."""
    pairs = [(video, text) for video in videos for text in texts]
    return [scored(video, number, (text,)) for number, (video, text) in enumerate(pairs)]


@pytest.mark.parametrize("chain", [Chain(), Chain([QUANTISED])])
def test_the_shares_of_choices_add_up_to_what_was_spent(inference, videos, chain):
    run = list(inference.run(inference.plan(labelled(videos)), [chain]))
    for number in range(3):
        usages = [a.outcome.usage for a in run][3 * number : 3 * number + 3]
        assert [x.error for x in usages] == [None] * 3
        one = usages[0]
        spent = one.decode_ms + one.encode_ms + one.prefill_ms + sum(x.answer_ms for x in usages)
        assert sum(x.amortised_ms for x in usages) == pytest.approx(spent)
        whole = combined(usages)
        assert whole.amortised_ms == pytest.approx(spent)


def together(videos, texts=("up", "left", "down and up"), questions=("Where?",)):
    """Ask for all texts at once, question by question."""
    pairs = [(asked, video) for asked in questions for video in videos]
    return [scored(video, number, texts, asked) for number, (asked, video) in enumerate(pairs)]


def without_times(usage):
    return {k: v for k, v in usage.to_dict().items() if not k.endswith("_ms")}


@pytest.mark.parametrize("chain", [Chain(), Chain([PAS()]), Chain([QUANTISED])])
def test_all_choices_at_once_score_as_one_by_one(inference, videos, chain):
    one_by_one = list(inference.run(inference.plan(labelled(videos)), [chain]))
    at_once = list(inference.run(inference.plan(together(videos)), [chain]))
    assert len(at_once) == 3
    for number, answered in enumerate(at_once):
        parts = [a.outcome for a in one_by_one[3 * number : 3 * number + 3]]
        expected = parts[0].answer + parts[1].answer + parts[2].answer
        assert answered.outcome.answer == expected
        usage, whole = answered.outcome.usage, combined([part.usage for part in parts])
        assert without_times(usage) == without_times(whole)
        spent = usage.decode_ms + usage.encode_ms + usage.prefill_ms + usage.answer_ms
        assert usage.amortised_ms == pytest.approx(spent)


def test_documents_on_one_video_share_its_prefix_and_a_question_its_pass(
    inference, videos, monkeypatch
):
    """Other questions share the prefill; other choices of the same question, also its tokens."""
    asked = together(videos[:1], questions=("Where?", "What happens first?"))
    asked += [replace(q, number=2, sample="other") for q in together(videos[:1], ("up", "right"))]
    alone = {q.number: next(inference.run(inference.plan([q]), [Chain()])) for q in asked}
    counts = {"prefill": 0, "score_choices": 0}
    for name in counts:
        original = getattr(session_module, name)

        def counted(*arguments, name=name, original=original):
            counts[name] += 1
            return original(*arguments)

        monkeypatch.setattr(session_module, name, counted)
    run = list(inference.run(inference.plan(asked), [Chain()]))
    assert counts == {"prefill": 1, "score_choices": 2}
    for answered in run:
        found, expected = answered.outcome.answer, alone[answered.question.number].outcome.answer
        assert list(found.log_likelihoods) == pytest.approx(list(expected.log_likelihoods))
    usages = [a.outcome.usage for a in run]
    spent = usages[0].decode_ms + usages[0].encode_ms + usages[0].prefill_ms
    spent += sum(usage.answer_ms for usage in usages)
    assert sum(usage.amortised_ms for usage in usages) == pytest.approx(spent)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_choices_out_of_memory_are_halved_then_fail_together(inference, videos, limit, monkeypatch):
    answer = session_module._answer
    sizes = []

    def tight(attachment, prefix, items, tails):
        rows = sum(item.num_rows for item in items)
        sizes.append(rows)
        if rows > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return answer(attachment, prefix, items, tails)

    work = inference.plan(together(videos[:1], ("up", "left", "down", "right and up", "no")))
    (whole,) = inference.run(work, [Chain()])
    monkeypatch.setattr(session_module, "_answer", tight)
    (run,) = inference.run(work, [Chain()])
    assert sizes[:3] == [5, 2, 3 if limit == 2 else 1]
    found, usage = run.outcome.answer, run.outcome.usage
    if limit == 0:
        assert found is None
        assert "out of memory, also with one choice at a time" in usage.error
        return
    expected = whole.outcome.answer
    assert found.lengths == expected.lengths
    assert list(found.log_likelihoods) == pytest.approx(list(expected.log_likelihoods), abs=1e-4)
    assert without_times(usage) == without_times(whole.outcome.usage)
    spent = usage.decode_ms + usage.encode_ms + usage.prefill_ms + usage.answer_ms
    assert usage.amortised_ms == pytest.approx(spent)


def test_choices_asked_one_by_one_before_are_asked_again_together(inference, videos, tmp_path):
    """A journal of single choices has no answer to all of them, nor the other way round."""
    chain = [Chain()]
    asked = [replace(q, sample="task/0/0") for q in labelled(videos[:1])]
    with Journal(tmp_path) as journal:
        list(inference.run(inference.plan(asked), chain, journal))
        at_once = inference.plan([replace(q, sample="task/0/0") for q in together(videos[:1])])
        (first,) = inference.run(at_once, chain, journal)
        assert not first.replayed
        assert len(journal) == 3 + 1
    with Journal(tmp_path) as journal:
        (again,) = inference.run(at_once, chain, journal)
        assert again.replayed
        assert again.outcome == first.outcome
        assert all(a.replayed for a in inference.run(inference.plan(asked), chain, journal))


@pytest.mark.parametrize("kind", ["score", "choices", "greedy", "sampled"])
def test_scores_that_are_no_numbers_fail_their_sample(inference, videos, monkeypatch, kind):
    """NaN would pick the first label, or token 0, and look like an answer."""
    ask = {"score": labelled, "choices": together}.get(kind, questions)
    asked = ask(videos[:1])
    if kind == "sampled":
        asked = [replace(q, gen_kwargs={"max_new_tokens": 3, "do_sample": True}) for q in asked]
    forward = inference.family.model.forward

    def poisoned(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits[-1] = float("nan")  # the last row of each batch
        return output

    work = inference.plan(asked)
    before = list(inference.run(work, [Chain()]))
    monkeypatch.setattr(inference.family.model, "forward", poisoned)
    run = list(inference.run(work, [Chain()]))
    bad = [a.question.number for a in run if a.outcome.usage.error is not None]
    assert bad == {"score": [0, 1, 2], "choices": [0]}.get(kind, [1, 3, 4])
    for was, now in zip(before, run, strict=True):
        if now.question.number in bad:
            assert "NaN" in now.outcome.usage.error
            assert now.outcome.answer is None
        elif kind == "greedy":
            assert now.outcome.answer == was.outcome.answer


def test_an_empty_label_is_named(inference, videos):
    with pytest.raises(InvalidSetting, match=r"task/.*video1/.*no token"):
        inference.plan(labelled(videos[:1]) + labelled(videos[1:2], ("up", "")))
    with pytest.raises(InvalidSetting, match=r"task/.*video1.*the choice '' has no token"):
        inference.plan(together(videos[:1]) + together(videos[1:2], ("up", "")))
    with pytest.raises(InvalidSetting, match=r"task/.*video1.*no choices to score"):
        inference.plan(together(videos[1:2], ()))


def test_the_same_question_twice_has_two_answers(inference, videos):
    one = questions(videos)[0]
    twice = [
        one,
        Question(1, one.messages, one.visuals, gen_kwargs=one.gen_kwargs, sample=one.sample),
    ]
    store = Memory()
    run = list(inference.run(inference.plan(twice), [Chain()], store))
    assert len(run) == 2
    assert not any(a.replayed for a in run)
    assert all(a.replayed for a in inference.run(inference.plan(twice), [Chain()], store))
