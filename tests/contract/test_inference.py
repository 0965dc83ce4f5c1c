"""The way of one question: sharing, order, failures, usage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from probes import PoolTokens, ReverseOrder

import tempeval.engine.encoder as encoder_module
import tempeval.engine.inference as inference_module
import tempeval.engine.session as session_module
from tempeval.engine.continuations import Continuations
from tempeval.engine.feature_cache import FeatureCache
from tempeval.engine.inference import Inference
from tempeval.engine.journal import Journal
from tempeval.engine.question import Picture, Question
from tempeval.engine.store import Memory
from tempeval.errors import InfeasibleBudget
from tempeval.methods.base import Chain
from tempeval.methods.pas import PAS
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.video.clip import Sampling, VideoRef
from tempeval.video.stamp import content_stamp


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Frame folders of three little videos, 12 frames each, and one that is not a video."""
    root = tmp_path_factory.mktemp("videos")
    refs = []
    for number in range(3):
        folder = root / f"video{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(12):
            coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame + 1}.png")
        refs.append(VideoRef(str(folder), fps=6.0))
    broken = root / "broken.mp4"
    broken.write_bytes(b"not a video")
    return [*refs, VideoRef(str(broken))]


class Runner:
    """One inference under one chain at a time."""

    def __init__(self, inference, chain):
        self.inference, self.chain = inference, chain
        self.family = inference.family

    def run(self, questions):
        for a in self.inference.run(self.inference.plan(questions), [self.chain]):
            yield a.question, a.outcome

    @property
    def vision_runs(self):
        return self.inference.encoder.vision_runs


@pytest.fixture
def build(load_family, tiny_qwen2_5_vl_folder):
    def make(chain=None, **options):
        pixels = {} if "visual_token_budget" in options else {"min_pixels": 784, "max_pixels": 9408}
        family = load_family(tiny_qwen2_5_vl_folder, **pixels, **options)
        return Runner(Inference(family, Sampling(num_frames=8), batch_size=2), chain or Chain())

    return make


def ask(number, ref, text, **kwargs):
    content = [] if ref is None else [{"type": "video"}]
    messages = ({"role": "user", "content": [*content, {"type": "text", "text": text}]},)
    kwargs.setdefault("gen_kwargs", {"max_new_tokens": 4})
    return Question(number, messages, () if ref is None else (ref,), **kwargs)


def interleaved(videos, questions=5):
    texts = ["What happens first?", "up", "Is it faster? yes no", "left", "What happens last?"]
    return [ask(q * 3 + v, videos[v], texts[q % 5]) for q in range(questions) for v in range(3)]


@pytest.fixture
def counts(monkeypatch):
    """How often the expensive steps run."""
    seen = {"decode": 0, "prefill": 0}
    stream, prefill = encoder_module.ClipStream, session_module.prefill

    def counting_stream(requests, **kwargs):
        seen["decode"] += len(requests)
        return stream(requests, **kwargs)

    def counting_prefill(*args):
        seen["prefill"] += 1
        return prefill(*args)

    monkeypatch.setattr(encoder_module, "ClipStream", counting_stream)
    monkeypatch.setattr(session_module, "prefill", counting_prefill)
    return seen


def test_everything_expensive_happens_once(build, videos, counts):
    inference = build()
    questions = interleaved(videos)
    first = dict_of(inference.run(questions))
    assert counts == {"decode": 3, "prefill": 3}
    assert inference.vision_runs == 3
    for chain in (Chain([PAS()]), Chain([TemporalExit(layer=2)])):
        inference.chain = chain
        list(inference.run(questions))
    assert counts == {"decode": 3, "prefill": 9}  # decoded and encoded once across methods
    assert inference.vision_runs == 3
    inference.chain = Chain()
    again = dict_of(inference.run(questions))
    assert {k: o.answer for k, o in again.items()} == {k: o.answer for k, o in first.items()}
    costs = {k: (o.usage.decode_ms, o.usage.encode_ms) for k, o in first.items()}
    assert all(c[0] > 0 and c[1] > 0 for c in costs.values())
    # The standalone cost is charged in full to whoever uses the features.
    for number, outcome in again.items():
        assert outcome.usage.decode_ms == costs[number][0]
        assert outcome.usage.encode_ms == pytest.approx(costs[number][1], abs=1.0)


def dict_of(outcomes):
    return {question.number: outcome for question, outcome in outcomes}


def test_the_kernels_that_ran_are_recorded(build, videos):
    outcomes = list(build().run(interleaved(videos)))
    assert outcomes
    assert all(outcome.usage.attention_kernel for _, outcome in outcomes)


def test_a_run_that_is_left_leaves_the_model_as_it_was(build, videos):
    """An interrupted run's model answers again: nothing stays attached until it is collected."""
    runner = build()
    before = runner.family.text_model.config._attn_implementation
    questions = interleaved(videos)
    answers = runner.inference.run(runner.inference.plan(questions), [runner.chain])
    next(answers)
    answers.close()
    assert runner.family.text_model.config._attn_implementation == before
    assert len(list(runner.run(questions))) == len(questions)


def test_questions_are_answered_video_by_video(build, videos):
    order = [question.number % 3 for question, _ in build().run(interleaved(videos))]
    assert order == sorted(order)


def test_one_question_alone_gives_the_same_answer(build, videos):
    inference = build(Chain([PAS()]))
    together = dict_of(inference.run(interleaved(videos)))
    for question in interleaved(videos):
        ((_, alone),) = inference.run([question])
        assert alone.answer == together[question.number].answer


def test_a_bad_video_fails_its_own_questions_only(build, videos):
    questions = [
        ask(0, videos[3], "up"),
        ask(1, videos[0], "up"),
        ask(2, videos[3], "left"),
        ask(3, VideoRef("/nowhere.mp4"), "up"),
        ask(4, videos[1], "up"),
    ]
    outcomes = dict_of(build().run(questions))
    assert len(outcomes) == 5
    for number in (0, 2):
        assert outcomes[number].answer is None
        assert "broken.mp4" in outcomes[number].usage.error
    assert "/nowhere.mp4" in outcomes[3].usage.error
    for number in (1, 4):
        assert outcomes[number].answer is not None
        assert outcomes[number].usage.error is None


def test_usage_states_what_was_used(build, videos):
    inference = build(Chain([TemporalExit(layer=2)]))
    ((question, outcome),) = inference.run([ask(0, videos[0], "What happens first?")])
    usage = outcome.usage
    geometry = inference.family.geometry
    assert usage.frames == 8
    assert usage.visual_tokens == 4 * 3 * 4  # 8 frames of 84 x 112: 4 grids of 3 x 4
    assert usage.token_layers == usage.visual_tokens / 2  # gone in 2 of 4 layers
    assert usage.distinct_temporal_ids == 4
    assert usage.positions_per_grid > 0
    assert usage.sub_nyquist == (usage.positions_per_grid > 3.1416)
    assert usage.output_tokens == outcome.answer.num_tokens
    per_token = 2 * geometry.num_kv_heads * geometry.head_dim * 4
    fed = usage.input_tokens + usage.output_tokens - 1
    kept = fed * geometry.num_layers - 2 * usage.visual_tokens
    assert usage.kv_bytes == kept * per_token
    assert usage.quantised_fraction == 0.0
    assert usage.prefill_flops > 0
    assert min(usage.decode_ms, usage.encode_ms, usage.prefill_ms, usage.answer_ms) > 0
    assert usage.peak_memory_bytes is None
    assert question.number == 0


def test_exit_costs_fewer_operations_than_baseline(build, videos):
    flops = {}
    for name, chain in (("baseline", Chain()), ("exit", Chain([TemporalExit(layer=2)]))):
        inference = build(chain)
        ((_, outcome),) = inference.run([ask(0, videos[0], "up")])
        flops[name] = outcome.usage.prefill_flops
    assert flops["exit"] < flops["baseline"]


def test_frames_stage_reaches_the_decoder(build, videos):
    inference = build()
    (((_, forward)),) = inference.run(
        [
            ask(
                0,
                videos[0],
                "What happens first?",
                kind="score",
                continuations=Continuations(("up",)),
            )
        ]
    )
    inference.chain = Chain([ReverseOrder()])
    (((_, backward)),) = inference.run(
        [
            ask(
                0,
                videos[0],
                "What happens first?",
                kind="score",
                continuations=Continuations(("up",)),
            )
        ]
    )
    one, other = (outcome.answer.log_likelihoods[0] for outcome in (forward, backward))
    assert one != pytest.approx(other, abs=1e-4)
    assert inference.vision_runs == 2


def test_encode_stage_changes_the_measured_tokens(build, videos):
    ((_, outcome),) = build(Chain([PoolTokens()])).run([ask(0, videos[0], "up")])
    assert outcome.usage.visual_tokens == 4 * 3


@pytest.mark.parametrize("budget", [36, 48, 64])
def test_budget_is_met_for_every_video(build, videos, budget):
    inference = build(visual_token_budget=budget)
    for _, outcome in inference.run(interleaved(videos, 1)):
        assert 0.98 * budget <= outcome.usage.visual_tokens <= budget


def test_an_infeasible_budget_is_refused_before_decoding(build, videos, counts):
    with pytest.raises(InfeasibleBudget, match="Nearest feasible: 4"):
        list(build(visual_token_budget=3).run(interleaved(videos)))
    assert counts["decode"] == 0


def test_text_and_pictures(build, videos, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(np.zeros((84, 84, 3), np.uint8)).save(path)
    messages = ({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "up"}]},)
    picture = Question(1, messages, (Picture("p", str(path)),), gen_kwargs={"max_new_tokens": 2})
    outcomes = dict_of(build(Chain([PAS()])).run([ask(0, None, "What?"), picture]))
    assert outcomes[0].usage.visual_tokens == 0
    assert outcomes[0].answer.num_tokens > 0
    assert outcomes[1].usage.visual_tokens == 9


def test_features_dropped_from_a_small_cache_are_made_again(build, videos, counts):
    inference = build()
    questions = [*interleaved(videos)]
    reference = {k: o.answer for k, o in dict_of(inference.run(questions)).items()}
    small = build()
    small.inference.encoder.cache = FeatureCache(limit_bytes=1)
    for _ in range(2):
        got = {k: o.answer for k, o in dict_of(small.run(questions)).items()}
        assert got == reference
    assert len(small.inference.encoder.cache) == 1


def test_two_videos_in_one_prompt_share_a_repeat(build, videos):
    content = [{"type": "video"}, {"type": "video"}, {"type": "text", "text": "up"}]
    messages = ({"role": "user", "content": content},)
    both = Question(0, messages, (videos[0], videos[1]), gen_kwargs={"max_new_tokens": 2})
    same = Question(1, messages, (videos[0], videos[0]), gen_kwargs={"max_new_tokens": 2})
    outcomes = dict_of(build().run([both, same]))
    assert [o.usage.error for o in outcomes.values()] == [None, None]
    assert outcomes[0].usage.frames == 16


def ask_picture(number, *images):
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": "up"}]
    pictures = tuple(Picture(str(image), str(image)) for image in images)
    messages = ({"role": "user", "content": content},)
    return Question(number, messages, pictures, gen_kwargs={"max_new_tokens": 2})


def test_pictures_share_the_budget_and_follow_its_changes(build, tmp_path):
    paths = []
    for number in range(2):
        rng = np.random.default_rng(number)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)).save(paths[-1])
    runner = build(visual_token_budget=16)
    used = []
    for budget in (16, 36, 64, 16):
        runner.family.options = replace(runner.family.options, visual_token_budget=budget)
        ((_, outcome),) = runner.run([ask_picture(0, paths[0])])
        used.append(outcome.usage.visual_tokens)
    assert used == [16, 36, 64, 16]
    runner.family.options = replace(runner.family.options, visual_token_budget=32)
    ((_, both),) = runner.run([ask_picture(0, *paths)])
    assert both.usage.visual_tokens == 32


def test_a_bad_picture_fails_its_own_question_only(build, videos, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not an image")
    questions = [
        ask_picture(0, bad),
        ask_picture(1, tmp_path / "none.png"),
        ask(2, videos[0], "up"),
    ]
    outcomes = dict_of(build().run(questions))
    assert "bad.png" in outcomes[0].usage.error
    assert "none.png" in outcomes[1].usage.error
    assert outcomes[2].answer is not None


def test_a_folder_rewritten_in_place_is_another_video(tmp_path):
    for number in range(2):
        Image.new("RGB", (28, 28), (number, 0, 0)).save(tmp_path / f"{number}.png")
    before = content_stamp(str(tmp_path))
    Image.new("RGB", (28, 28), (9, 9, 9)).save(tmp_path / "1.png")
    assert content_stamp(str(tmp_path)) != before


def test_other_code_of_a_part_is_another_answer(build, monkeypatch):
    inference = build().inference
    before = inference.fingerprint()
    monkeypatch.setattr(inference_module, "answer_code", lambda _family: {"engine": "sha256:1"})
    assert inference.fingerprint() != before


def test_answers_of_an_earlier_run_keep_their_kernel(build, videos, tmp_path):
    runner = build()
    work = runner.inference.plan(interleaved(videos, questions=1))
    found = []
    for _ in range(2):
        with Journal(tmp_path) as journal:
            found.append(list(runner.inference.run(work, [runner.chain], journal)))
    assert [{a.earlier for a in run} for run in found] == [{False}, {True}]
    kernels = [[a.outcome.usage.attention_kernel for a in run] for run in found]
    assert kernels[0] == kernels[1]
    assert all(kernels[0])


def test_another_version_is_another_answer(build, monkeypatch):
    runner = build()
    before = runner.inference.fingerprint()
    monkeypatch.setattr(inference_module, "versions", lambda: {"tempeval": "9.9.9"})
    assert runner.inference.fingerprint() != before


def test_a_chain_that_misses_its_budget_stops_after_the_first_clip(build, videos, counts):
    """Both numbers are named, other chains go on, and what was journalled says it again at once."""
    pooled, plain, store = Chain([PoolTokens()]), Chain(), Memory()
    inference = build(visual_token_budget=48).inference
    questions = interleaved(videos)
    work = inference.plan(questions)
    answered = list(inference.run(work, [plain, pooled], store))
    assert sum(one.chain == plain for one in answered) == len(questions)
    assert sum(one.chain == pooled for one in answered) == 1
    assert list(inference.missed) == [pooled]
    said = str(inference.missed[pooled])
    assert "12 of the 48 visual tokens" in said
    assert "accepted: 48" in said
    assert counts["prefill"] == 4
    again = list(inference.run(work, [plain, pooled], store))
    assert sum(one.chain == plain for one in again) == len(questions)
    assert sum(one.chain == pooled for one in again) == 0
    assert list(inference.missed) == [pooled]
    assert counts["prefill"] == 4, "nothing is computed to be told again"
    # Without a visual there is nothing to hold against the budget.
    words = [ask(0, None, "up")]
    assert len(list(inference.run(inference.plan(words), [plain, pooled]))) == 2
    assert not inference.missed


@pytest.mark.parametrize("budget", [48, 64, 100])
def test_no_clip_of_the_planner_misses_a_budget(build, videos, budget):
    """Of clips of other lengths and shapes: each is sized by itself, or fails by itself."""
    inference = build(visual_token_budget=budget).inference
    answered = list(inference.run(inference.plan(interleaved(videos)), [Chain()]))
    assert not inference.missed
    made = {one.outcome.usage.visual_tokens for one in answered if one.outcome.answer}
    assert all(0.98 * budget <= tokens <= budget for tokens in made)
