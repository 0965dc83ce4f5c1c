"""Video-LLaVA as it was released: shards, prompt, tower and language model, against references."""

from __future__ import annotations

import json
import logging
import math
import shutil

import numpy as np
import pytest
import sentencepiece
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from languagebind_reference import tower_reference
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tempeval.errors import InfeasibleBudget, InvalidSetting, UnsupportedModel, UnusableText
from tempeval.families.registry import family_of
from tempeval.families.video_llava_pixels import official_pixels
from tempeval.verification.tiny_video_llava import (
    LAYERS,
    PER_FRAME,
    load_video_llava,
    original_config,
    original_state,
    save_original_weights,
    save_tiny_original,
    text_sizes,
)
from tempeval.video.clip import Sampling

TOWER = "model.video_tower.video_tower."
SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions."
)
QUESTION = "Which way does the red square move?"


@pytest.fixture(scope="module")
def family(tiny_video_llava_original):
    return tiny_video_llava_original


@pytest.fixture(scope="module")
def pieces(tiny_video_llava_original_folder):
    path = tiny_video_llava_original_folder / "tokenizer.model"
    return sentencepiece.SentencePieceProcessor(model_file=str(path))


@pytest.fixture(scope="module")
def state(pieces):
    return original_state(pieces.get_piece_size())


@pytest.fixture
def folder(tiny_video_llava_original_folder, tmp_path):
    return shutil.copytree(tiny_video_llava_original_folder, tmp_path / "copy")


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def rewrite_weights(folder, change):
    """Put other weights into a folder, as one file."""
    for path in (*folder.glob("*.bin"), *folder.glob("*.index.json")):
        path.unlink()
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    state = original_state(pieces.get_piece_size())
    change(state)
    save_original_weights(folder, state, "single")


def projected_reference(state, clip, order=None, heads=2):
    """`[T, N, D]` by hand: official pixels, slow tower, projector with exact GELU."""
    pixels = official_pixels(clip.frames, 56)
    if order is not None:
        pixels = pixels[:, order]
    tower = {k.removeprefix(TOWER): v for k, v in state.items() if k.startswith(TOWER)}
    features = tower_reference(tower, pixels[None], heads=heads)[0]
    p = {k.removeprefix("model.mm_projector."): v for k, v in state.items() if "projector" in k}
    inner = features @ p["0.weight"].T + p["0.bias"]
    inner = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    return inner @ p["2.weight"].T + p["2.bias"]


@torch.no_grad()
def reference_logits(state, pieces, clips, chunks):
    """Logits of a plain `LlamaForCausalLM` on text chunks with the clips' frames between them."""
    import transformers

    config = transformers.LlamaConfig(**text_sizes(pieces.get_piece_size()))
    model = transformers.LlamaForCausalLM(config).eval()
    names = ("model.embed", "model.layers", "model.norm", "lm_head")
    weights = {k: v for k, v in state.items() if k.startswith(names) and "inv_freq" not in k}
    model.load_state_dict(weights)
    table = model.get_input_embeddings()
    ids = [[1, *pieces.encode(chunks[0])], *(pieces.encode(chunk) for chunk in chunks[1:])]
    parts = [table(torch.tensor(ids[0]))]
    for clip, after in zip(clips, ids[1:], strict=True):
        parts += [projected_reference(state, clip).flatten(0, 1), table(torch.tensor(after))]
    return model(inputs_embeds=torch.cat(parts)[None]).logits, ids


@torch.no_grad()
def our_logits(family, messages, visuals):
    layout, question = family.layout(family.tokenize(messages), visuals)
    tail = family.model.get_input_embeddings()(question)[None]
    embeddings = torch.cat([family.embed(layout, visuals), tail], dim=1)
    positions = torch.arange(embeddings.shape[1])[None]
    hidden = family.text_model(inputs_embeds=embeddings, position_ids=positions)
    return family.model.lm_head(hidden.last_hidden_state), layout, question


@pytest.mark.parametrize("weights", ["bin", "bin_no_index", "safetensors", "single"])
def test_every_form_of_weights_equals_the_reference(
    tmp_path, state, pieces, make_clip, message, weights
):
    family = load_video_llava(save_tiny_original(tmp_path, weights=weights))
    clip = make_clip(8, 70, 98)
    chunks = [f"{SYSTEM} USER: ", f"\n{QUESTION} ASSISTANT:"]
    expected, ids = reference_logits(state, pieces, [clip], chunks)
    actual, layout, question = our_logits(
        family, message("<video>", QUESTION), [family.encode(clip)]
    )
    assert (actual - expected).abs().max() < 1e-4
    assert expected.std() > 0.1
    assert layout.input_ids[~layout.is_visual].tolist() == ids[0]
    assert question.tolist() == ids[1]
    assert int(layout.is_visual.sum()) == 8 * PER_FRAME


def test_two_videos_and_sixteen_frames_equal_the_reference(
    family, state, pieces, make_clip, message
):
    clips = [make_clip(16, 56, 84, seed=1), make_clip(8, 112, 56, seed=2)]
    chunks = [f"{SYSTEM} USER: first ", "\nthen ", f"\n{QUESTION} ASSISTANT:"]
    expected, _ = reference_logits(state, pieces, clips, chunks)
    messages = message("first ", "<video>", "then ", "<video>", QUESTION)
    actual, layout, _ = our_logits(family, messages, [family.encode(clip) for clip in clips])
    assert (actual - expected).abs().max() < 1e-4
    assert layout.num_frames == 24
    assert layout.grid_index[:, 0].unique().tolist() == [-1, 0, 1]


def test_the_tower_sees_time_and_not_quick_gelu(family, make_clip):
    """What the port lost: the order of frames within a block matters, in every layer."""
    clip = make_clip(8)
    tokens = family.encode(clip).embeddings.view(8, PER_FRAME, -1)
    mirrored = family.encode(clip.reordered(np.arange(8)[::-1])).embeddings.view(8, PER_FRAME, -1)
    assert (mirrored.flip(0) - tokens).abs().max() > 1e-2
    # ... and blocks do not see one another.
    both = family.encode(make_clip(16)).embeddings.view(16, PER_FRAME, -1)
    alone = family.encode(make_clip(16).reordered(np.arange(8))).embeddings
    assert torch.allclose(both[:8].flatten(0, 1), alone, atol=1e-5)


@pytest.mark.parametrize(("frames", "groups"), [(16, 2), (32, 4), (32, 2)])
def test_groups_are_strided_and_come_back_in_order(family, state, make_clip, frames, groups):
    clip = make_clip(frames)
    got = family.encode(clip, num_groups=groups).embeddings.view(frames, PER_FRAME, -1)
    for group in range(groups):
        own = list(range(group, frames, groups))
        expected = projected_reference(state, clip, order=own)
        assert (got[own] - expected).abs().max() < 1e-4
    plain = family.encode(clip).embeddings.view(frames, PER_FRAME, -1)
    assert (got - plain).abs().max() > 1e-2


def test_frames_that_are_not_blocks_name_the_nearest(family, make_clip):
    for frames, nearest in ((7, 8), (12, 16), (27, 24)):
        with pytest.raises(InvalidSetting, match=f"nearest that is: {nearest}$"):
            family.check_sampling(Sampling(num_frames=frames))
        with pytest.raises(InvalidSetting, match=f"nearest number of frames is {nearest}$"):
            family.encode(make_clip(frames))
    with pytest.raises(InvalidSetting, match="leave fps out"):
        family.check_sampling(Sampling("fps", 32, 1.0))
    with pytest.raises(InvalidSetting, match=r"nearest number of frames is 32$"):
        family.encode(make_clip(24), num_groups=2)
    family.check_sampling(Sampling(num_frames=64))
    assert [family.frames_for_budget(n) for n in (1, 8, 13, 30)] == [8, 8, 16, 32]


def test_budget_in_blocks(tiny_video_llava_original_folder):
    family = load_video_llava(
        tiny_video_llava_original_folder, visual_token_budget=16 * PER_FRAME + 2
    )
    assert family.frames_for_budget(8) == 16
    family.check_sampling(Sampling(num_frames=16))
    for budget, nearest in ((13 * PER_FRAME, 16 * PER_FRAME), (9 * PER_FRAME, 8 * 1700 // 98)):
        family = load_video_llava(tiny_video_llava_original_folder, visual_token_budget=budget)
        with pytest.raises(InfeasibleBudget, match=f"blocks of 8.*Nearest feasible: {nearest}$"):
            family.frames_for_budget(8)


def test_facts_and_context(family, tiny_video_llava_original_folder):
    assert family_of(str(tiny_video_llava_original_folder)) == "video_llava"
    assert family.is_original
    facts = family.facts(Sampling(num_frames=32))
    assert (facts.axes, facts.frames_per_block, facts.frames_per_grid) == (False, 8, 1)
    # Not tokenizer_model_max_length (3072), at which the released loader cuts.
    assert (facts.context_length, facts.visual_tokens) == (4096, 32 * PER_FRAME)
    assert facts.revision.startswith("sha256:")
    assert facts.trained_with == frozenset()
    assert [layer.self_attn.layer_idx for layer in family.layers] == list(range(LAYERS))
    assert not family.model.training
    frequencies = family.text_model.rotary_emb.inv_freq  # not the shards' old buffer of ones
    assert torch.allclose(frequencies, 10_000.0 ** -(torch.arange(0, 32, 2) / 32))


def test_nothing_is_cut_from_a_long_prompt(family, message):
    text = "up down left right " * 900
    tail = family.tokenize(message("<video>", text))
    assert len(tail) > 3072
    assert family.tokenizer.decode(tail).endswith("right  ASSISTANT:")


def test_the_revision_sees_pytorch_shards(folder):
    before = load_video_llava(folder).revision
    shard = next(iter(sorted(folder.glob("*.bin"))))
    content = torch.load(shard, weights_only=True)
    content[next(iter(content))].view(-1)[0] += 1
    torch.save(content, shard)
    assert load_video_llava(folder).revision != before


def test_bfloat16(tiny_video_llava_original_folder, make_clip, message):
    family = load_video_llava(tiny_video_llava_original_folder, dtype="bfloat16")
    visual = family.encode(make_clip(8))
    assert visual.embeddings.dtype == family.model.dtype == torch.bfloat16
    layout, _ = family.layout(family.tokenize(message("<video>", "?")), [visual])
    assert family.embed(layout, [visual]).dtype == torch.bfloat16
    assert layout.rotary.inv_freq.dtype == torch.float32


def test_which_tower_was_loaded_is_logged(tiny_video_llava_original_folder, caplog):
    with caplog.at_level(logging.INFO, "tempeval"):
        load_video_llava(tiny_video_llava_original_folder)
    assert "copy inside the checkpoint" in caplog.text
    assert "pytorch_model-00001-of-00002.bin" in caplog.text
    assert "image tower was skipped" in caplog.text


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_the_tokenizer_is_sentencepieces_own(family, pieces, text):
    assume(not text.startswith((" ", "\u2581")))  # the prompt never begins a chunk so
    assume(not any(token in text for token in ("<s>", "</s>", "<unk>")))
    assert family.tokenizer(text, add_special_tokens=False)["input_ids"] == pieces.encode(text)


def test_turns_system_and_chunks(tiny_video_llava_original_folder, family, pieces):
    chat = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "up?"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "down?"},
    ]
    ids = family.tokenize(chat)
    place = ids.index(0)
    assert ids[:place] == [1, *pieces.encode(f"{SYSTEM} USER: ")]
    text = "\nup? ASSISTANT: yes</s>USER: down? ASSISTANT:"
    assert family.tokenizer.decode(ids[place + 1 :]).strip() == text.strip()
    assert ids.count(2) == ids.count(1) == 1
    brief = load_video_llava(tiny_video_llava_original_folder, system_prompt="Be brief.")
    assert brief.tokenize(chat)[1 : len(pieces.encode("Be brief. USER: ")) + 1] == pieces.encode(
        "Be brief. USER: "
    )
    alone = family.tokenize([{"role": "user", "content": "up?"}])
    assert alone == [1, *pieces.encode(f"{SYSTEM} USER: up? ASSISTANT:")]


@pytest.mark.parametrize("text", ["what is <video>", "<image>?", "an <unk> token"])
def test_placeholders_in_a_text_are_refused(family, message, text):
    with pytest.raises(UnusableText, match="stands for a visual"):
        family.tokenize(message("<video>", text))
    with pytest.raises(UnusableText, match="a choice contains"):
        family.check_text(text)


def test_images_are_refused(family, message):
    with pytest.raises(InvalidSetting, match="type 'image' is not one of text, video"):
        family.tokenize(message("<image>", "?"))
    with pytest.raises(UnsupportedModel, match="use the Hugging Face port"):
        family.encode_image(Image.new("RGB", (50, 50)))


def test_features_are_the_projectors_input(family, make_clip):
    tokens = family.encode(make_clip(8), with_features=True)
    assert tokens.features.shape == (8, 4, 4, 128)
    cells = tokens.embeddings.view(8, PER_FRAME, -1)[:, 1:]
    projected = family._vision.projector(tokens.features).flatten(1, 2)
    assert torch.allclose(projected, cells, atol=1e-5)


def test_vision_flops_equal_counted_ones(family, make_clip):
    # The counter sees the matrix products of plain attention.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tokens = family.encode(make_clip(16), num_groups=2)
    assert family.vision_flops([tokens]) == counter.get_total_flops()


@pytest.mark.parametrize("place", ["config.json", "own folder"])
def test_a_towers_own_configuration_is_read_where_there_is_one(
    family, folder, state, make_clip, place
):
    sizes = {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 3, "patch_size": 14}
    sizes |= {"num_attention_heads": 4, "image_size": 56, "num_frames": 8, "add_time_attn": True}
    if place == "config.json":
        edit_config(folder, vision_config={"num_attention_heads": 4})  # the rest by the shapes
    else:
        (folder / "LanguageBind_Video_merge").mkdir()
        content = json.dumps({"model_type": "LanguageBindVideo", "vision_config": sizes})
        (folder / "LanguageBind_Video_merge" / "config.json").write_text(content)
    clip = make_clip(8)
    got = load_video_llava(folder).encode(clip).embeddings
    expected = projected_reference(state, clip, heads=4).flatten(0, 1)
    assert (got - expected).abs().max() < 1e-4
    assert (got - family.encode(clip).embeddings).abs().max() > 1e-2  # two heads by the shapes


MISSING = {
    f"{TOWER}encoder.layers.1.temporal_embedding": "missing: .*temporal_embedding",
    f"{TOWER}encoder.layers.2.temporal_attn.v_proj.bias": "missing: .*v_proj.bias",
    "model.mm_projector.2.bias": "projector has weights",
    "model.layers.3.mlp.up_proj.weight": "model.layers.3.mlp.up_proj.weight",
    "lm_head.weight": "lm_head.weight",
}


@pytest.mark.parametrize("key", MISSING)
def test_missing_weights_are_named(folder, key):
    rewrite_weights(folder, lambda state: state.pop(key))
    with pytest.raises(UnsupportedModel, match=MISSING[key]):
        load_video_llava(folder)


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (f"{TOWER}encoder.layers.0.temporal_layer_norm2.weight", "unexpected: .*layer_norm2"),
        ("model.mm_projector.4.weight", "projector has weights"),
        ("model.layers.0.self_attn.q_proj.bias", "q_proj.bias"),
        ("model.vision_resampler.weight", "no part of Video-LLaVA takes.*vision_resampler"),
    ],
)
def test_unexpected_weights_are_named(folder, key, match):
    rewrite_weights(folder, lambda state: state.update({key: torch.zeros(3)}))
    with pytest.raises(UnsupportedModel, match=match):
        load_video_llava(folder)


@pytest.mark.parametrize(
    ("key", "match"),
    [
        ("model.norm.weight", "norm.weight"),
        ("model.mm_projector.0.weight", "projector"),
        (f"{TOWER}post_layernorm.weight", "of another shape: .*post_layernorm.weight"),
    ],
)
def test_weights_of_another_shape_are_named(folder, key, match):
    rewrite_weights(folder, lambda state: state.update({key: state[key][:-1].clone()}))
    with pytest.raises(UnsupportedModel, match=match):
        load_video_llava(folder)


def test_a_missing_shard_and_a_missing_key_are_named(folder):
    second = folder / "pytorch_model-00002-of-00002.bin"
    kept = torch.load(second, weights_only=True)
    second.unlink()
    with pytest.raises(UnsupportedModel, match=r"lacks pytorch_model-00002-of-00002\.bin"):
        load_video_llava(folder)
    (folder / "pytorch_model.bin.index.json").rename(folder / "index.json")
    with pytest.raises(UnsupportedModel, match=r"lacks pytorch_model-00002-of-00002\.bin"):
        load_video_llava(folder)
    (folder / "index.json").rename(folder / "pytorch_model.bin.index.json")
    kept.pop("model.norm.weight", None) if "model.norm.weight" in kept else kept.popitem()
    torch.save(kept, second)
    with pytest.raises(UnsupportedModel, match="are in no shard"):
        load_video_llava(folder)


def test_an_index_may_not_name_files_elsewhere(folder):
    path = folder / "pytorch_model.bin.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "../copy/pytorch_model-00001-of-00002.bin"
    path.write_text(json.dumps(index))
    with pytest.raises(UnsupportedModel, match=r"lacks \.\./copy"):
        load_video_llava(folder)


class Harm:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def test_shards_run_no_code(folder):
    shard = folder / "pytorch_model-00001-of-00002.bin"
    torch.save({"model.norm.weight": Harm()}, shard)
    with pytest.raises(UnsupportedModel, match="cannot read"):
        load_video_llava(folder)
    shard.write_bytes(b"not a checkpoint")
    with pytest.raises(UnsupportedModel, match="cannot read"):
        load_video_llava(folder)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"max_position_embeddings": None}, "lacks max_position_embeddings"),
        ({"mm_projector_type": "linear"}, "mm_projector_type='linear'"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end is true"),
        ({"mm_vision_select_layer": -7}, "select_layer=-7"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_type 'dynamic'"),
        ({"num_hidden_layers": 5}, r"layers\.4\."),
        ({"hidden_size": 256}, "the language model"),
    ],
)
def test_configurations_that_cannot_be(folder, changes, match):
    edit_config(folder, **changes)
    with pytest.raises(UnsupportedModel, match=match):
        load_video_llava(folder)


def test_a_folder_without_tokenizer_or_weights(folder):
    (folder / "tokenizer.model").unlink()
    with pytest.raises(UnsupportedModel, match="no tokenizer"):
        load_video_llava(folder)
    for path in (*folder.glob("*.bin"), *folder.glob("*.index.json")):
        path.unlink()
    (folder / "tokenizer.model").write_bytes(b"")
    with pytest.raises(UnsupportedModel, match=r"no weights|tokenizer"):
        load_video_llava(folder)


@pytest.mark.parametrize(
    "changes",
    [{"mm_video_tower": None}, {"architectures": ["LlavaForConditionalGeneration"]}],
)
def test_other_llavas_are_refused_by_name(tmp_path, changes):
    config = original_config(420) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="only Video-LLaVA's"):
        family_of(str(tmp_path))
    with pytest.raises(UnsupportedModel):
        load_video_llava(tmp_path)


def test_exact_gelu_projector(family):
    projector = family._vision.projector
    x = torch.linspace(-3, 3, 128)[None]
    inner = F.linear(x, projector[0].weight, projector[0].bias)
    exact = F.linear(F.gelu(inner), projector[2].weight, projector[2].bias)
    assert torch.allclose(projector(x), exact, atol=1e-6)
    tanh = F.linear(F.gelu(inner, approximate="tanh"), projector[2].weight, projector[2].bias)
    assert (projector(x) - tanh).abs().max() > 1e-4
