"""KV quantisation on models: dense reference, sharing, exact prefill, usage, calibration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from probes import LastFrameOnly, LastNotQuestion

import tempeval.engine.session as session_module
from tempeval.cli import main
from tempeval.engine.answer import generate, score
from tempeval.engine.attach import Attachment
from tempeval.engine.cache import PlainKV
from tempeval.engine.calibrate import bounds_of, measure_bounds
from tempeval.engine.choices import score_choices
from tempeval.engine.continuations import Continuations
from tempeval.engine.inference import Inference
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.engine.question import Question
from tempeval.errors import BadVideo, CannotStore, InvalidSetting, TempevalError, UnsupportedModel
from tempeval.families.base import LoadOptions
from tempeval.families.registry import family_class, family_of
from tempeval.methods.base import Chain
from tempeval.methods.kv_calibration import read_calibration, write_calibration
from tempeval.methods.kv_codecs import KiviCodec, QuantisedKV
from tempeval.methods.kv_quantization import KVQuant
from tempeval.methods.pas import PAS
from tempeval.methods.registry import parse_chain
from tempeval.methods.temporal_exit import TemporalExit
from tempeval.run.calibrate import CalibrateOptions, calibrate, with_calibration
from tempeval.run.calibration_clips import find_clips
from tempeval.run.spec import RunSpec
from tempeval.verification.dense import dense_generate, dense_logits
from tempeval.verification.through_engine import batched_stepwise_logits
from tempeval.video.clip import Sampling, VideoRef

QUESTIONS = ("What happens first?", "Is it faster? yes no", "up", "What happens last? A. left B.")
SMALL = {"group_size": 8, "residual_length": 12}
STEPS = 8


@dataclass
class Case:
    """A prompt about one clip with several questions, on a model in float64."""

    family: Any
    layout: Any
    embeddings: torch.Tensor
    tails: list[torch.Tensor]
    calibration: str


@pytest.fixture(scope="module", params=["qwen2_5_vl"])
def case(request, make_clip, message, tmp_path_factory):
    folder = str(request.getfixturevalue(f"tiny_{request.param}_folder"))
    family = family_class(family_of(folder)).load(folder, LoadOptions(dtype="float32"))
    tokens = [family.encode(make_clip(8, 84, 112))]
    layout, _ = family.layout(family.tokenize(message("<video>", "x")), tokens)
    tails = [
        family.layout(family.tokenize(message("<video>", text)), tokens)[1] for text in QUESTIONS
    ]
    embeddings = family.embed(layout, tokens).double()
    # Ranges of another clip, so that some numbers lie outside them.
    other = [family.encode(make_clip(8, 84, 112, seed=1))]
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        bounds = bounds_of(prefill(attachment, family.embed(layout, other)))
    path = tmp_path_factory.mktemp("ranges") / "ranges.safetensors"
    write_calibration(path, bounds, {"model_revision": family.revision})
    family.model.double()
    return Case(family, layout, embeddings, tails, str(path))


def method(case, scheme="kivi", nbits=2, prefill="quantized"):
    if scheme == "static":
        window = {"residual_length": 12, "calibration": case.calibration}
        return KVQuant(nbits=nbits, scheme=scheme, prefill=prefill, **window)
    return KVQuant(nbits=nbits, scheme=scheme, prefill=prefill, **SMALL)


def attached(case, chain):
    return Attachment(case.family, make_plan(chain, case.layout, case.family.geometry))


def until_end(family, ids):
    end = family.model.generation_config.eos_token_id
    return ids[: ids.index(end) + 1] if end in ids else ids


OTHERS = {"alone": (), "more": (PAS(), TemporalExit(layer=2), LastFrameOnly())}
FAMILIES = ("qwen2_vl", "llava_onevision", "video_llava", "video_llava_original")
MATRIX = [
    *product(["qwen2_5_vl"], ["kivi", "static"], [2, 4, 8], ["quantized", "exact"], OTHERS),
    *product(FAMILIES, ["kivi", "static"], [2], ["quantized"], ["more"]),
    *product(FAMILIES, ["kivi"], [2], ["exact"], ["alone"]),
]


@torch.no_grad()
@pytest.mark.parametrize(
    ("case", "scheme", "nbits", "prefill_rule", "others"), MATRIX, indirect=["case"]
)
def test_equals_dense_reference_shared_and_alone(case, scheme, nbits, prefill_rule, others):
    """Prefill and 8 steps, one question and two or four, on one prefix or each on its own."""
    chain = Chain([*OTHERS[others], method(case, scheme, nbits, prefill_rule)])
    whole = nbits == 2 and case.family.name == "qwen_vl"  # a dense step of the others takes longer
    few = case.tails if whole else case.tails[:2]
    wanted = [
        dense_generate(case.family, chain, case.layout, case.embeddings, tail, STEPS)
        for tail in few
    ]
    with attached(case, chain) as attachment:
        for tail, (ids, logits) in zip(few, wanted, strict=True):
            got = batched_stepwise_logits(
                attachment, prefill(attachment, case.embeddings), [tail], [ids]
            )[0]
            assert (got - logits).abs().max() < 1e-4
            assert logits.std() > 0.1
        # All questions in one batch, padded, on one prefix.
        settings = {"max_new_tokens": STEPS}
        together = generate(attachment, prefill(attachment, case.embeddings), few, settings)
    for answer, (ids, _) in zip(together, wanted, strict=True):
        assert list(answer.token_ids) == until_end(case.family, ids)


@torch.no_grad()
@pytest.mark.parametrize("prefill_rule", ["quantized", "exact"])
def test_a_batch_of_four_has_the_logits_of_one(case, prefill_rule):
    chain = Chain([method(case, prefill=prefill_rule)])
    size = min(len(tail) for tail in case.tails)
    tails = [tail[-size:] for tail in case.tails[:3]] + [case.tails[0].roll(1)[-size:]]
    tokens = [[5 + row, 9, 11 + row, 7] for row in range(4)]
    with attached(case, chain) as attachment:
        together = batched_stepwise_logits(
            attachment, prefill(attachment, case.embeddings), tails, tokens
        )
        for row in range(4):
            alone = batched_stepwise_logits(
                attachment, prefill(attachment, case.embeddings), [tails[row]], [tokens[row]]
            )
            assert (together[row] - alone[0]).abs().max() < 1e-9


@torch.no_grad()
@pytest.mark.parametrize("prefill_rule", ["quantized", "exact"])
@pytest.mark.parametrize("scheme", ["kivi", "static"])
def test_scores_and_choices_equal_dense_reference(case, scheme, prefill_rule):
    """Under exact prefill a label's first token comes from an exact row, later ones do not."""
    chain = Chain([TemporalExit(layer=3), method(case, scheme, 2, prefill_rule)])
    tail = case.tails[0]
    labels = [torch.tensor(ids) for ids in ([5, 6, 7], [9], [11, 12, 30, 31], [3, 4])]
    prompt = case.layout.length + len(tail)
    with attached(case, chain) as attachment:
        choices = score_choices(attachment, prefill(attachment, case.embeddings), tail, labels)
        batch = score(
            attachment, prefill(attachment, case.embeddings), [tail] * len(labels), labels
        )
    for choice, one, label in zip(choices, batch, labels, strict=True):
        ids = torch.cat([tail, label])
        logits = dense_logits(case.family, chain, case.layout, case.embeddings, ids, prompt)
        log_probs = logits[prompt - 1 : -1].float().log_softmax(-1)
        wanted = float(log_probs.gather(1, label.unsqueeze(1)).sum())
        assert choice.log_likelihood == pytest.approx(wanted, abs=1e-4)
        assert one.log_likelihood == pytest.approx(wanted, abs=1e-4)


@torch.no_grad()
def test_what_is_felt_when(case):
    """Quantised prefill changes the first token's logits; exact prefill changes only later ones."""
    tail, tokens = case.tails[0], [[5, 6, 7]]
    got = {}
    for name, chain in {
        "none": Chain(),
        "quantized": Chain([method(case)]),
        "exact": Chain([method(case, prefill="exact")]),
    }.items():
        with attached(case, chain) as attachment:
            got[name] = batched_stepwise_logits(
                attachment, prefill(attachment, case.embeddings), [tail], tokens
            )[0]
    change = {name: (got[name] - got["none"]).abs().amax(-1) for name in ("quantized", "exact")}
    assert (change["quantized"] > 1e-3).all()
    assert change["exact"][0] < 1e-9
    assert (change["exact"][1:] > 1e-3).all()


@torch.no_grad()
def test_more_bits_come_closer(case):
    errors = []
    for nbits in (2, 4, 8):
        with attached(case, Chain([method(case, nbits=nbits)])) as attachment:
            prefix = prefill(attachment, case.embeddings)
        with attached(case, Chain()) as attachment:
            plain = prefill(attachment, case.embeddings)
        # Layer 0 sees the same inputs whatever is stored.
        held, as_it_is = prefix.layers[0][0].held.opened(), plain.layers[0][0].held
        pairs = (held.keys, as_it_is.keys), (held.values, as_it_is.values)
        errors.append(max(float((a - b[:, :, : a.shape[2]]).abs().max()) for a, b in pairs))
    assert errors[0] > 3 * errors[1] > 3 * 10 * errors[2] > 0


@torch.no_grad()
def test_encoded_once_and_decoded_once_per_layer_and_forward(case, monkeypatch):
    counts = {"encode": 0, "opened": 0}

    def counted(cls, name):
        original = getattr(cls, name)

        def call(self, *args):
            counts[name] += 1
            return original(self, *args)

        monkeypatch.setattr(cls, name, call)

    counted(KiviCodec, "encode")
    counted(QuantisedKV, "opened")
    # Question and last token see different columns: two runs of rows in one layer.
    chain = Chain([LastNotQuestion(layer=1), method(case)])
    depth = case.family.geometry.num_layers
    with attached(case, chain) as attachment:
        prefix = prefill(attachment, case.embeddings)
        assert counts == {"encode": depth, "opened": 0}
        batched_stepwise_logits(attachment, prefix, case.tails[:1], [[5, 6, 7]])
        assert counts == {"encode": depth, "opened": 3 * depth}
        counts["opened"] = 0  # a row per token of a continuation, each with a window of its own
        score(attachment, prefix, case.tails[:2], [torch.tensor([5, 6, 7])] * 2)
    assert counts == {"encode": depth, "opened": depth}


@torch.no_grad()
def test_an_exact_prefix_serves_one_question_and_is_let_go(case):
    with attached(case, Chain([method(case, prefill="exact")])) as attachment:
        prefix = prefill(attachment, case.embeddings)
        generate(attachment, prefix, case.tails[:1], {"max_new_tokens": 2})
        with pytest.raises(UnsupportedModel, match="serves one question"):
            generate(attachment, prefix, case.tails[:1], {"max_new_tokens": 2})
        again = prefill(attachment, case.embeddings)
    for pieces in (prefix.layers, again.layers):
        assert not any(isinstance(piece.held, PlainKV) for (piece,) in pieces)
    assert all(pieces is None for pieces in prefix.exact._layers)


@torch.no_grad()
def test_fraction_counts_the_rows_of_every_layer(case):
    chain = Chain([TemporalExit(layer=2), method(case)])
    with attached(case, chain) as attachment:
        prefix = prefill(attachment, case.embeddings)
    text = int((~case.layout.is_visual).sum())
    rows = [case.layout.length] * 2 + [text] * 2
    for after in (1, 5, 30):
        keys = sum(min((n + after) // 8 * 8, n) for n in rows) / sum(rows)
        values = sum(min(max(n + after - 12, 0), n) for n in rows) / sum(rows)
        assert prefix.quantised(after) == pytest.approx((keys, values))
    assert 0 < values <= keys <= 1


@torch.no_grad()
def test_a_prefix_inside_the_window_is_an_error_and_text_alone_is_not(case, message):
    length = case.layout.length
    method = KVQuant(group_size=32, residual_length=128)
    plan = make_plan(Chain([method]), case.layout, case.family.geometry)
    # Of 128 tokens KIVI quantises all keys; of fewer, nothing.
    assert plan.inert_store(128 - length) is None
    found = plan.inert_store(127 - length)
    words = f"inert: {length} tokens of prefix and {127 - length} of question, group 32, "
    assert found.startswith(f"{words}residual 128: ")
    leaving = Chain([TemporalExit(layer=2), replace(method, residual_length=64)])
    assert make_plan(leaving, case.layout, case.family.geometry).inert_store(1) is None
    family = case.family
    layout, tail = family.layout(family.tokenize(message("What happens first?")), [])
    answers = []
    for chain in (Chain(), Chain([method]), Chain([replace(method, prefill="exact")])):
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            prefix = prefill(attachment, family.embed(layout, []))
            answers += generate(attachment, prefix, [tail], {"max_new_tokens": 4})
    assert answers[0] == answers[1] == answers[2]


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("scheme", ["kivi", "static"])
def test_bytes_in_half_precision(
    tiny_qwen2_5_vl_folder, load_family, make_clip, message, tmp_path, dtype, scheme
):
    family = load_family(tiny_qwen2_5_vl_folder, dtype=dtype)
    tokens = [family.encode(make_clip(16, 112, 112))]
    layout, tail = family.layout(family.tokenize(message("<video>", "Which way?")), tokens)
    embeddings = family.embed(layout, tokens)
    sizes = {}
    chain = Chain()
    for name in ("plain", scheme):
        with Attachment(family, make_plan(chain, layout, family.geometry)) as attachment:
            prefix = prefill(attachment, embeddings)
            generate(attachment, prefix, [tail], {"max_new_tokens": 2})
        sizes[name] = prefix.nbytes(len(tail))
        if name == "plain":
            path = tmp_path / "ranges.safetensors"
            write_calibration(path, bounds_of(prefix), {})
            more = {"calibration": str(path)} if scheme == "static" else {"group_size": 32}
            chain = Chain([KVQuant(scheme=scheme, residual_length=40, **more)])
    g = family.geometry
    # Keys and values of the whole sequence, each token once.
    total, numbers = layout.length + len(tail), g.num_kv_heads * g.head_dim
    assert sizes["plain"] == g.num_layers * 2 * total * numbers * 2
    old = total - 40
    few = total // 32 * 32 + old if scheme == "kivi" else 2 * min(old, layout.length)
    scales = few / 32 if scheme == "kivi" else 2
    assert sizes[scheme] == g.num_layers * numbers * (few / 4 + (2 * scales + 2 * total - few) * 2)
    assert sizes[scheme] < 0.6 * sizes["plain"]


@torch.no_grad()
def test_numbers_that_are_not_finite_fail_the_sample(case):
    embeddings = case.embeddings.clone()
    embeddings[0, 3] = float("nan")
    with (
        pytest.raises(CannotStore, match="not finite"),
        attached(case, Chain([method(case)])) as attachment,
    ):
        prefill(attachment, embeddings)


# ---------------------------------------------------------------- the way of one question


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Frame folders of two little videos, and one whose frames are half as large."""
    root, refs = tmp_path_factory.mktemp("videos"), []
    for number, rows in enumerate((6, 6, 2)):
        folder = root / f"video{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(12):
            coarse = rng.integers(0, 256, (rows, rows, 3), dtype=np.uint8)
            Image.fromarray(coarse.repeat(14, 0).repeat(14, 1)).save(folder / f"{frame + 1}.png")
        refs.append(VideoRef(str(folder), fps=6.0))
    return refs


@pytest.fixture
def inference(load_family, tiny_qwen2_5_vl_folder):
    family = load_family(tiny_qwen2_5_vl_folder, min_pixels=784, max_pixels=9408)
    return Inference(family, Sampling(num_frames=8), batch_size=2)


def ask(number, ref, text, **more):
    parts = [] if ref is None else [{"type": "video"}]
    messages = ({"role": "user", "content": [*parts, {"type": "text", "text": text}]},)
    more.setdefault("gen_kwargs", {"max_new_tokens": 4})
    return Question(number, messages, () if ref is None else (ref,), **more)


def outcomes(inference, questions, chain):
    found = inference.run(inference.plan(questions), [chain])
    return {answered.question.number: answered.outcome for answered in found}


def test_usage_of_shared_and_exact_prefixes(inference, videos, monkeypatch):
    prefills = []
    original = session_module.prefill

    def counted(*args):
        prefills.append(1)
        return original(*args)

    monkeypatch.setattr(session_module, "prefill", counted)
    texts = ("What happens first?", "up", "Is it faster? yes no")
    questions = [ask(i, videos[0], text) for i, text in enumerate(texts)]
    questions += [
        ask(
            3 + i,
            videos[0],
            "up",
            kind="score",
            continuations=Continuations((label,)),
            gen_kwargs={},
        )
        for i, label in enumerate((" left or right", " yes"))
    ]
    questions.append(ask(5, None, "up"))
    got = {}
    for rule, count in (("quantized", 2 + 1), ("exact", 3 + 1 + 1)):
        prefills.clear()
        chain = Chain([KVQuant(prefill=rule, **SMALL)])
        got[rule] = outcomes(inference, questions, chain)
        # Video prefixes (all choices of a question are one question), and the text prompt.
        assert len(prefills) == count - (rule == "quantized")
        for number, outcome in got[rule].items():
            usage = outcome.usage
            assert usage.error is None
            if number == 5:
                assert (usage.prefix_shared, usage.quantised_fraction) == (None, 0.0)
                held = usage.input_tokens + usage.output_tokens - 1
                codec = chain.kv_cache(0, inference.family.geometry)
                nothing = torch.zeros(1, 2, 0, inference.family.geometry.head_dim)
                layers = inference.family.geometry.num_layers
                assert usage.kv_bytes == layers * codec.encode(nothing, nothing).nbytes(held)
            else:
                assert usage.prefix_shared == (rule == "quantized")
                assert 0.3 < usage.quantised_values <= usage.quantised_keys <= 1
                mean = (usage.quantised_keys + usage.quantised_values) / 2
                assert usage.quantised_fraction == mean
                assert usage.kv_bytes < 0.8 * plain_bytes(inference, outcome)
                if rule == "exact":  # charged in full, also in the amortised time
                    assert usage.amortised_ms >= usage.prefill_ms
    for number in got["exact"]:
        one, other = (got[rule][number].usage.kv_bytes for rule in ("quantized", "exact"))
        if number in (3, 4, 5):
            assert one == other


def plain_bytes(inference, outcome):
    """Bytes of the prompt in full precision."""
    g = inference.family.geometry
    return outcome.usage.input_tokens * g.num_layers * 2 * g.num_kv_heads * g.head_dim * 4


def test_exact_answers_do_not_depend_on_batches(inference, videos):
    questions = [ask(i, videos[i % 2], text) for i, text in enumerate(QUESTIONS)]
    chain = Chain([KVQuant(prefill="exact", **SMALL)])
    together = outcomes(inference, questions, chain)
    for number, question in enumerate(questions):
        alone = outcomes(inference, [question], chain)[number]
        assert alone.answer == together[number].answer


def test_an_inert_video_fails_alone_and_by_name(inference, videos):
    questions = [ask(i, ref, "up") for i, ref in enumerate(videos)]
    got = outcomes(inference, questions, Chain([KVQuant(group_size=16, residual_length=64)]))
    assert got[0].usage.error is None
    assert got[1].usage.error is None
    assert got[2].answer is None
    assert "inert: " in got[2].usage.error
    assert "group 16, residual 64" in got[2].usage.error


# ---------------------------------------------------------------- calibration


@pytest.fixture
def calibrated(tiny_qwen2_5_vl_folder, tmp_path):
    def make(name="ranges.safetensors", overwrite=False, **more):
        options = CalibrateOptions(
            out=tmp_path / name,
            clips="mini",
            limit=2,
            overwrite=overwrite,
            run=RunSpec(
                pretrained=str(tiny_qwen2_5_vl_folder), min_pixels=784, max_pixels=9408, **more
            ),
        )
        lines = []
        return calibrate(options, lines.append), lines

    return make


def test_calibrate_writes_what_prefill_gives(calibrated, inference, tmp_path):
    made, lines = calibrated(method="pas")
    assert [line.split(":")[0] for line in lines] == ["clip 1/2", "clip 2/2"]
    found = read_calibration(str(made.path))
    family, g = inference.family, inference.family.geometry
    assert found.shape == (g.num_layers, g.num_kv_heads, g.head_dim)
    assert found.facts["model_revision"] == family.revision
    assert found.facts["chain"] == "pas"
    assert found.facts["num_frames"] == 8
    assert len(found.facts["clips"]) == 2
    assert found.digest == made.digest
    # The same ranges from each clip alone.
    refs = [clip.ref for clip in find_clips("mini", 2, 0, tmp_path / "again")]
    parts = [measure_bounds(inference, Chain([PAS()]), [ref]) for ref in refs]
    for name, value in vars(parts[0].joined(parts[1])).items():
        assert torch.equal(getattr(found.bounds, name), value)
    assert (found.bounds.keys_low < found.bounds.keys_high).all()


def test_a_calibration_is_checked_before_any_compute(
    calibrated, inference, videos, tiny_qwen2_vl_folder, load_family
):
    made, _ = calibrated()
    text = f"kv_quant[scheme=static;residual_length=8;nbits=8;calibration={made.path}]"
    chain = parse_chain(text)
    resolved = inference.resolve(chain).settings["kv_quant"]
    assert resolved["calibration_num_clips"] == 2
    got = outcomes(inference, [ask(0, videos[0], "up")], chain)[0]
    assert got.usage.error is None
    assert got.usage.quantised_fraction > 0.5
    with pytest.raises(InvalidSetting, match="under method 'baseline'"):
        inference.resolve(parse_chain(f"pas+{text}"))
    other = Inference(load_family(tiny_qwen2_vl_folder), Sampling(num_frames=8))
    with pytest.raises(InvalidSetting, match="model revision"):
        other.resolve(chain)


def test_calibrate_refuses(calibrated, inference, tmp_path):
    calibrated()
    with pytest.raises(InvalidSetting, match=r"exists.*--overwrite"):
        calibrated()
    calibrated(overwrite=True, seed=1)
    with pytest.raises(InvalidSetting, match="no clips"):
        measure_bounds(inference, Chain(), [])
    with pytest.raises(InvalidSetting, match="without stage kv_cache"):
        measure_bounds(inference, Chain([KVQuant()]), [VideoRef("x")])
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_bytes(b"not a video")
    with pytest.raises(BadVideo, match=r"a\.mp4"):
        calibrate_folder(tmp_path / "bad", tmp_path / "none.safetensors")
    assert not (tmp_path / "none.safetensors").exists()
    with pytest.raises(TempevalError, match="pass --clips"):
        calibrate(CalibrateOptions(out=tmp_path / "x", run=RunSpec(pretrained="somewhere/else")))


def calibrate_folder(folder, out):
    return calibrate(CalibrateOptions(out=out, clips=str(folder)))


def test_calibrate_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "ranges.safetensors"
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["calibrate", "-o", str(out), "--limit", "1", "--device", "cpu"])
    said = capsys.readouterr().out
    assert "clip 1/1" in said
    assert f"next: --methods 'kv_quant[scheme=static;calibration={out}]'" in said
    assert read_calibration(str(out)).facts["source"] == "mini"


@pytest.mark.parametrize(
    ("method", "hint"),
    [
        ("baseline", "kv_quant[scheme=static;calibration=PATH]"),
        ("pas+temporal_exit", "pas+temporal_exit+kv_quant[scheme=static;calibration=PATH]"),
        (
            "kv_quant[nbits=4;group_size=8]+pas",
            "kv_quant[nbits=4;scheme=static;calibration=PATH]+pas",
        ),
        ("intp", "intp[kv_bits=2;calibration=PATH]"),
        ("intp[kv_bits=4]+pas", "intp[kv_bits=4;calibration=PATH]+pas"),
        ("intp[kind=linear]", "intp[kv_bits=2;calibration=PATH;kind=linear]"),
    ],
)
def test_the_hint_is_the_chain_that_was_calibrated(method, hint):
    chain = with_calibration(parse_chain(method), "PATH")
    assert chain.spec == hint
    # Its ranges are taken under what the file is checked against.
    around = parse_chain(method).without_kv_cache().fingerprint
    assert chain.without_kv_cache().fingerprint == around


def test_what_the_hint_says_runs_on_a_short_prompt(calibrated, inference, videos):
    made, _ = calibrated()
    chain = with_calibration(parse_chain("baseline"), str(made.path))
    got = outcomes(inference, [ask(0, videos[0], "up")], chain)[0]
    assert got.usage.error is None
    assert got.usage.quantised_fraction == 1.0


def test_newline_tokens_are_an_option_of_a_calibration(
    tiny_llava_onevision_folder, tiny_qwen2_5_vl_folder, tmp_path
):
    made = calibrate(
        CalibrateOptions(
            tmp_path / "ranges.safetensors",
            "mini",
            1,
            run=RunSpec(pretrained=str(tiny_llava_onevision_folder), mm_newline_position="grid"),
        )
    )
    assert read_calibration(str(made.path)).facts["mm_newline_position"] == "grid"
    with pytest.raises(InvalidSetting, match="no newline tokens"):
        calibrate(
            CalibrateOptions(
                tmp_path / "other.safetensors",
                "mini",
                1,
                run=RunSpec(pretrained=str(tiny_qwen2_5_vl_folder), mm_newline_position="grid"),
            )
        )


def test_a_path_that_no_chain_can_spell_is_refused_before_any_work(tmp_path, capsys):
    out = tmp_path / "a,b.safetensors"
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["calibrate", "-o", str(out), "--limit", "1", "--device", "cpu"])
    assert "use a path without" in capsys.readouterr().err
    assert not out.exists()
