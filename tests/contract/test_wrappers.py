"""The lmms-eval models: arguments, both paths of the host, order, choices, failures."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from lmms_eval.api.instance import Instance, unwrap_generation_output
from lmms_eval.evaluator import _clone_padding_request

import tempeval.engine.session as session_module
from tempeval.engine.continuations import Continuations
from tempeval.engine.store import Memory
from tempeval.errors import InvalidSetting, UnknownName
from tempeval.methods.base import Chain
from tempeval.model_wrappers.baseline import TempevalBaseline, TempevalBaselineSimple
from tempeval.model_wrappers.chain import Tempeval, TempevalMatrix, TempevalSimple
from tempeval.model_wrappers.pas import TempevalPAS
from tempeval.model_wrappers.requests import visuals_of
from tempeval.model_wrappers.results import ChoiceLoss
from tempeval.model_wrappers.staged_sparse import TempevalStagedSparse
from tempeval.run.record import FramePolicy
from tempeval.tasks.choice_task import choose
from tempeval.tasks.failed import Failure
from tempeval.video.clip import VideoPath

PIXELS = {"min_pixels": 784, "max_pixels": 9408, "device": "cpu"}


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    import numpy as np
    from PIL import Image

    root = tmp_path_factory.mktemp("docs")
    found = []
    for number in range(2):
        folder = root / f"v{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(8):
            coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame:02d}.png")
        for text in ("What happens first?", "up", "Is it faster?"):
            found.append({"path": str(folder), "text": text})
    return found


def doc_to_messages(doc):
    video = {"type": "video", "url": doc["path"], "fps": 4.0}
    return [{"role": "user", "content": [video, {"type": "text", "text": doc["text"]}]}]


def doc_to_visual(doc):
    return [VideoPath(doc["path"], fps=4.0)]


def instances(model, docs, kind="generate_until"):
    model.task_dict = {"task": {"test": docs}}
    gen_kwargs = {"max_new_tokens": 4, "until": ["\n\n"], "temperature": 0}
    made = []
    for i, doc in enumerate(docs):
        if kind == "loglikelihood":
            arguments = (doc["text"], " left", doc_to_visual, i, "task", "test")
        elif model.is_simple:
            arguments = (doc["text"], gen_kwargs, doc_to_visual, i, "task", "test")
        else:
            arguments = (doc["text"], doc_to_messages, gen_kwargs, i, "task", "test")
        metadata = {"task": "task", "doc_id": i, "repeats": 1}
        made.append(Instance(kind, arguments, 0, metadata))
    return made


def test_chat_and_simple_paths_agree(tiny_qwen2_5_vl_folder, docs):
    texts = {}
    for cls in (TempevalBaseline, TempevalBaselineSimple):
        model = cls(str(tiny_qwen2_5_vl_folder), **PIXELS)
        mixed = [docs[i] for i in (4, 0, 3, 1, 5, 2)]
        results = model.generate_until(instances(model, mixed))
        texts[cls] = [(r.text, r.token_counts.usage.visual_tokens) for r in results]
        singles = [model.generate_until([one])[0].text for one in instances(model, mixed)]
        assert [r.text for r in results] == singles  # in the order of the requests
        assert all(r.token_counts.to_dict()["error"] is None for r in results)
        recorded = model.run_facts().generation
        assert (recorded["max_new_tokens"], recorded["until"]) == (4, ["\n\n"])
        assert recorded["do_sample"] is False
        assert model.family.tokenizer.eos_token_id in recorded["eos_token_id"]
    assert texts[TempevalBaseline] == texts[TempevalBaselineSimple]


def test_a_text_with_a_visual_s_token_fails_its_own_sample(tiny_qwen2_5_vl_folder, docs):
    """In a question, in two parts that a template joins, in a choice; the run goes on."""
    model = Tempeval(str(tiny_qwen2_5_vl_folder), **PIXELS)
    marked = [dict(docs[0]), dict(docs[0], text="a <|video_pad|> b"), dict(docs[1])]
    requests = instances(model, marked)
    results = model.generate_until(requests)
    errors = [result.token_counts.to_dict()["error"] for result in results]
    assert errors[0] is errors[2] is None
    assert "a prompt text contains '<|video_pad|>'" in errors[1]
    assert list(model.failures) == ["task/1"]
    asked = list(instances(model, docs[:3], "loglikelihood"))
    choices = Continuations((" up", " <|vision_start|>"))
    asked[1].arguments = (*asked[1].args[:1], choices, *asked[1].args[2:])
    scored = model.loglikelihood(asked)
    errors = [result.token_counts.to_dict()["error"] for result in scored]
    assert errors[0] is errors[2] is None
    assert "a choice contains '<|vision_start|>'" in errors[1]
    requests = instances(model, marked)
    for memory in (None, Memory()):  # the answers of a run are found again
        model.store = memory
        answered = list(model.answer_all({"generate_until": requests}, ["baseline", "pas"]))
        assert [bool(a.outcome.usage.error) for a in answered].count(True) == 2
        assert len(answered) == 6


def test_methods_differ_and_set_method_equals_a_fresh_model(tiny_qwen2_5_vl_folder, docs):
    folder = str(tiny_qwen2_5_vl_folder)
    shared = Tempeval(folder, **PIXELS)
    losses = {}
    # Of 4 layers, (2) alone would begin in the last, where nothing reads what it changes.
    for cls, spec, settings in (
        (TempevalPAS, "pas", {}),
        (TempevalStagedSparse, "staged_sparse", {"strategies": 3}),
        (TempevalBaseline, "baseline", {}),
    ):
        fresh = cls(folder, **PIXELS, **settings)
        assert fresh.chain.name == spec
        shared.set_method("staged_sparse[strategies=3]" if settings else spec)
        got = [
            [loss for loss, _ in model.loglikelihood(instances(model, docs, "loglikelihood"))]
            for model in (fresh, shared)
        ]
        assert got[0] == pytest.approx(got[1], abs=1e-5)
        losses[spec] = got[0]
    assert losses["pas"] != pytest.approx(losses["baseline"], abs=1e-4)
    assert losses["staged_sparse"] != pytest.approx(losses["baseline"], abs=1e-4)
    shared.set_method("temporal_exit")
    again = shared.loglikelihood(instances(shared, docs, "loglikelihood"))
    assert [loss for loss, _ in again] == pytest.approx(losses["staged_sparse"], abs=1e-5)


def test_loglikelihood_survives_the_host(tiny_qwen2_5_vl_folder, docs):
    model = TempevalSimple(str(tiny_qwen2_5_vl_folder), method="baseline", **PIXELS)
    results = model.loglikelihood(instances(model, docs, "loglikelihood"))
    for result in results:
        loss, greedy = result
        assert isinstance(loss, ChoiceLoss)
        assert loss == pytest.approx(-loss.log_likelihood / loss.num_tokens)
        copy = deepcopy(loss)  # ranks gather samples by pickling, which goes the same way
        assert (copy, copy.log_likelihood, copy.num_tokens) == (
            loss,
            loss.log_likelihood,
            loss.num_tokens,
        )
        pair, counts = unwrap_generation_output(result)
        assert pair == (loss, greedy)
        assert counts.to_dict()["visual_tokens"] == 36


def test_choices_of_a_question_have_one_usage(tiny_qwen2_5_vl_folder, docs):
    model = TempevalSimple(str(tiny_qwen2_5_vl_folder), method="baseline", **PIXELS)
    requests = []
    for idx, label in enumerate((" left", " right", " up and down")):
        for one in instances(model, docs[:2], "loglikelihood"):
            one.arguments = (one.arguments[0], label, *one.arguments[2:])
            one.idx = idx
            requests.append(one)
    results = model.loglikelihood(requests)
    assert [r.token_counts is not None for r in results] == [True, True] + [False] * 4
    singles = [model.loglikelihood([one])[0] for one in requests]
    assert [r[0] for r in results] == pytest.approx([r[0] for r in singles], abs=1e-4)
    tokens = sum(s.token_counts.usage.output_tokens for s in singles[::2])
    assert results[0].token_counts.usage.output_tokens == tokens


def labelled(model, docs, labels):
    requests = []
    for idx, label in enumerate(labels):
        for one in instances(model, docs, "loglikelihood"):
            one.arguments = (one.arguments[0], label, *one.arguments[2:])
            one.idx = idx
            requests.append(one)
    return requests


def chosen(model, docs, labels):
    requests = instances(model, docs, "loglikelihood")
    for one in requests:
        one.arguments = (one.arguments[0], Continuations(labels), *one.arguments[2:])
    return requests


def test_one_request_for_all_choices_gives_what_one_for_each_gives(tiny_qwen2_5_vl_folder, docs):
    model = TempevalSimple(str(tiny_qwen2_5_vl_folder), method="baseline", **PIXELS)
    labels = (" left", " right", " up and down")
    asked = [docs[0], docs[3], {"path": "/nowhere", "text": "up"}, docs[1]]
    each = model.loglikelihood(labelled(model, asked, labels))
    model.failures.clear()
    found = model.loglikelihood(chosen(model, asked, labels))
    assert len(found) == len(asked)
    for number, result in enumerate(found):
        scores, counts = unwrap_generation_output(result)
        of_each = each[number :: len(asked)]
        assert counts.usage.error == of_each[0].token_counts.usage.error
        if number == 2:  # the one that is nowhere
            assert scores == Failure(counts.usage.error)
            assert [r.text for r in of_each] == [scores] * 3
            continue
        assert list(scores) == [r.text for r in of_each]
        usage, expected = counts.usage, of_each[0].token_counts.usage
        for name in ("input_tokens", "output_tokens", "visual_tokens", "kv_bytes", "error"):
            assert getattr(usage, name) == getattr(expected, name)
        assert choose(scores, labels) == choose(of_each, labels)
    assert list(model.failures) == ["task/2"]
    assert list(each[2]) == [float("inf"), False]


def test_the_hosts_padding_of_all_choices_is_not_asked(tiny_qwen2_5_vl_folder, docs):
    model = TempevalSimple(str(tiny_qwen2_5_vl_folder), method="baseline", **PIXELS)
    requests = chosen(model, docs[:2], (" left", " up and down"))
    model.store = Memory()
    padded = model.loglikelihood([*requests, *[_clone_padding_request(requests[-1])] * 2])
    assert len(model.store._outcomes) == len(requests)
    assert [list(r) for r in padded[2:]] == [list(padded[1])] * 2


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_the_hosts_padding_changes_nothing(tiny_qwen2_5_vl_folder, docs, kind):
    """Ranks with fewer requests repeat their last one; it is no second sample."""
    model = Tempeval(str(tiny_qwen2_5_vl_folder), method="baseline", **PIXELS)
    if kind == "loglikelihood":
        requests = labelled(model, docs[:2], (" left", " up and down"))
    else:
        requests = instances(model, docs[:2])
    plain = getattr(model, kind)(requests)
    model.store = Memory()
    padded = getattr(model, kind)([*requests, *[_clone_padding_request(requests[-1])] * 3])
    assert len(padded) == len(requests) + 3
    assert len(model.store._outcomes) == len(requests)  # nor is it computed
    for one, other in zip(plain, padded, strict=False):
        assert one.text == other.text
        counts = [r.token_counts and r.token_counts.usage for r in (one, other)]
        assert (counts[0] and counts[0].output_tokens) == (counts[1] and counts[1].output_tokens)
    assert [r.text for r in padded[len(requests) :]] == [plain[-1].text] * 3
    if kind == "loglikelihood":
        assert [r.token_counts for r in padded[len(requests) :]] == [None] * 3


@pytest.mark.parametrize("kind", ["loglikelihood", "generate_until"])
def test_a_rank_with_padding_only_answers_it(tiny_qwen2_5_vl_folder, docs, kind):
    model = Tempeval(str(tiny_qwen2_5_vl_folder), method="baseline", **PIXELS)
    padding = [_clone_padding_request(one) for one in instances(model, docs[:1], kind)]
    results = getattr(model, kind)([*padding, padding[0]])
    assert [type(r.text) for r in results] == [tuple if kind == "loglikelihood" else str] * 2


def test_one_choice_that_fails_fails_its_sample(tiny_qwen2_5_vl_folder, docs, monkeypatch):
    answer = session_module._answer

    def tight(attachment, prefix, items, tails):
        if len(items) > 1 or items[0].question.continuations == Continuations((" up and down",)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return answer(attachment, prefix, items, tails)

    monkeypatch.setattr(session_module, "_answer", tight)
    model = TempevalSimple(str(tiny_qwen2_5_vl_folder), method="baseline", **PIXELS)
    labels = (" left", " up and down")
    results = model.loglikelihood(labelled(model, docs[:1], labels))
    assert "out of memory" in results[0].token_counts.to_dict()["error"]
    assert choose(results, labels) == (None, None, False)


def test_failures_are_recorded_per_sample(tiny_qwen2_5_vl_folder, docs):
    model = TempevalBaseline(str(tiny_qwen2_5_vl_folder), **PIXELS)
    bad = [docs[0], {"path": "/nowhere", "text": "up"}, docs[1]]
    results = model.generate_until(instances(model, bad))
    assert results[1].text == Failure(results[1].token_counts.usage.error)
    assert "/nowhere" in results[1].token_counts.to_dict()["error"]
    assert list(model.failures) == ["task/1"]
    assert results[0].token_counts.to_dict()["error"] is None


@pytest.mark.parametrize(
    ("cls", "arguments", "error", "message"),
    [
        (Tempeval, {"method": "pass"}, UnknownName, "did you mean 'pas'"),
        (Tempeval, {"num_frame": 4}, UnknownName, "did you mean 'num_frames'"),
        (Tempeval, {"max_num_frames": 4}, UnknownName, "did you mean 'num_frames'"),
        (Tempeval, {"unit": "bin"}, UnknownName, "no model argument 'unit'"),
        (TempevalPAS, {"unitt": "bin"}, UnknownName, "did you mean 'unit'"),
        (TempevalPAS, {"layer": 3}, UnknownName, "no model argument 'layer'"),
        (TempevalPAS, {"method": "baseline"}, InvalidSetting, "--model tempeval"),
        (TempevalPAS, {"temporal_exit.layer": 3}, UnknownName, "temporal_exit"),
        (Tempeval, {"method": "temporal_exit", "layer": 9}, InvalidSetting, "layer"),
        (Tempeval, {"num_frames": 0}, InvalidSetting, "num_frames is 0"),
        (Tempeval, {"batch_size": "auto"}, InvalidSetting, "batch_size='auto'"),
        (Tempeval, {"batch_size": 0}, InvalidSetting, "batch_size is 0"),
        (Tempeval, {"max_batch_size": 64}, InvalidSetting, "max_batch_size"),
        (Tempeval, {"position_rule": "natve"}, UnknownName, "did you mean .native."),
        (Tempeval, {"family": "qwen"}, UnknownName, "did you mean 'qwen_vl'"),
        (Tempeval, {"dtype": "float8"}, UnknownName, "float8"),
        (Tempeval, {"seed": "one"}, InvalidSetting, "seed='one'"),
        (Tempeval, {"decoder": "decrod"}, UnknownName, "did you mean 'decord'"),
    ],
)
def test_bad_arguments_are_named(tiny_qwen2_5_vl_folder, cls, arguments, error, message):
    with pytest.raises(error, match=message):
        cls(str(tiny_qwen2_5_vl_folder), **{**PIXELS, **arguments})


def test_settings_reach_the_method(tiny_qwen2_5_vl_folder):
    folder = str(tiny_qwen2_5_vl_folder)
    one = TempevalPAS(folder, unit="position", **PIXELS)
    two = Tempeval(folder, method="pas[unit=position]", **PIXELS)
    three = Tempeval(folder, method="pas", **PIXELS, **{"pas.unit": "position"})
    prints = {m.chain.fingerprint for m in (one, two, three)}
    assert len(prints) == 1


def test_clean_keeps_the_weights(tiny_qwen2_5_vl_folder, docs):
    model = TempevalBaseline(str(tiny_qwen2_5_vl_folder), **PIXELS)
    before = [r.text for r in model.generate_until(instances(model, docs[:1]))]
    model.clean()
    assert [r.text for r in model.generate_until(instances(model, docs[:1]))] == before


def test_a_rate_without_a_number_of_frames_is_not_cut_to_eight(tiny_qwen2_5_vl_folder):
    model = TempevalBaseline(str(tiny_qwen2_5_vl_folder), fps=4.0, **PIXELS)
    assert model.run_facts().frame_policy == FramePolicy(rule="fps", num_frames=32, fps=4.0)


def test_palette_images_of_equal_bytes_are_told_apart():
    from PIL import Image

    pictures = []
    for colour in ((255, 0, 0), (0, 0, 255)):
        image = Image.new("P", (28, 28))
        image.putpalette(list(colour) * 256)
        pictures.append(
            visuals_of([{"role": "user", "content": [{"type": "image", "url": image}]}])
        )
    assert pictures[0][0].key != pictures[1][0].key


def test_a_name_that_lmms_eval_cannot_save_under_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Its tracker logs "File name too long" after the run, and the command exits 0."""
    name = f"{'a' * 200}/{'b' * 60}"
    with pytest.raises(SystemExit) as ended:
        Tempeval.create_from_arg_string(f"pretrained=/models/{name}")
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert "262 bytes, and file systems take 255" in error
    assert error.count("\n") == 1


def test_a_run_is_resolved_once(tiny_qwen2_5_vl_folder, docs, monkeypatch):
    """Chains are bound and prompts tokenised when answers are made, and not to score them."""
    model = TempevalMatrix(str(tiny_qwen2_5_vl_folder), **PIXELS)
    model.store = Memory()
    bound, tokenized = [], []
    bind, tokenize = Chain.bind, model.family.tokenize
    monkeypatch.setattr(Chain, "bind", lambda *given: bound.append(1) or bind(*given))
    monkeypatch.setattr(
        model.family, "tokenize", lambda given: tokenized.append(1) or tokenize(given)
    )
    requests = instances(model, docs)
    assert len(list(model.answer_all({"generate_until": requests}, ["baseline", "pas"]))) == 12
    assert len(tokenized) == len({doc["text"] for doc in docs}) == 3
    bindings = len(bound)
    assert bindings <= 6
    for method in ("baseline", "pas"):
        model.set_method(method)
        model.generate_until(instances(model, docs))
        model.run_facts()
    assert (len(bound), len(tokenized)) == (bindings, 3)
