"""LLaVA-OneVision as it was released, against a forward pass by hand from the original weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from original_onevision import (
    POOLED,
    SYSTEM,
    TILE,
    TOWER,
    encoded,
    load_original_onevision,
    original_config,
    original_shapes,
    original_state,
    save_original_onevision,
    save_tokenizer,
    square,
    text_reference,
    video_logits,
    video_tokens,
    vision_reference,
)
from PIL import Image

from tempeval.errors import InvalidSetting, UnsupportedModel
from tempeval.families.llava_onevision_config import SO400M, build_config, pinpoints
from tempeval.families.llava_onevision_keys import checked_weights, renamed
from tempeval.families.registry import family_of
from tempeval.verification.tiny_llava_onevision import load_llava_onevision
from tempeval.video.clip import Sampling

QUESTION = "Which way does the red square move?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_original_onevision(tmp_path_factory.mktemp("original"), mm_newline_position="grid")


@pytest.fixture(scope="module")
def family(folder):
    return load_original_onevision(folder)


@pytest.fixture(scope="module")
def state():
    return original_state()


@torch.no_grad()
def our_logits(family, messages, visuals):
    layout, question = family.layout(family.tokenize(messages), visuals)
    tail = family.model.get_input_embeddings()(question)[None]
    embeddings = torch.cat([family.embed(layout, visuals), tail], dim=1)
    return family.model(inputs_embeds=embeddings).logits[0], layout, question


def test_registry_finds_the_family(folder):
    assert family_of(str(folder)) == "llava_onevision"


@pytest.mark.parametrize("newline", ["grid", "one_token"])
@pytest.mark.parametrize("weights", ["single", "sharded", "bin"])
def test_logits_equal_the_reference(tmp_path, state, make_clip, message, newline, weights):
    folder = save_original_onevision(tmp_path, weights=weights, mm_newline_position=newline)
    family = load_original_onevision(folder)
    assert family.settings == {"mm_newline_position": newline}
    clip = square(make_clip(4))
    got, layout, _ = our_logits(family, message("<video>", QUESTION), [family.encode(clip)])
    expected = video_logits(state, clip.frames, QUESTION, newline)
    per_frame = POOLED * (POOLED + 1) if newline == "grid" else POOLED**2
    assert layout.num_visual_tokens == 4 * per_frame + (newline == "one_token")
    assert family.planned_tokens(Sampling(num_frames=4)) == layout.num_visual_tokens
    assert expected.std() > 0.1
    assert (got - expected).abs().max() < 1e-3 * expected.abs().max()


def test_features_are_those_before_the_final_norm(family, state, make_clip):
    clip = square(make_clip(2))
    visual = family.encode(clip, with_features=True)
    features, tokens = vision_reference(state, clip.frames)
    assert (visual.features.flatten(1, 2) - features).abs().max() < 1e-4
    assert (visual.embeddings.view(2, POOLED**2, -1) - tokens).abs().max() < 1e-4
    width = features.shape[-1]
    norm = [state[f"{TOWER}post_layernorm.{name}"] for name in ("weight", "bias")]
    normed = torch.nn.functional.layer_norm(features, (width,), *norm)
    assert (normed - features).abs().max() > 0.1


@torch.no_grad()
def test_two_videos_and_a_system_prompt(folder, state, make_clip, message):
    family = load_original_onevision(folder, system_prompt="Answer with the letter.")
    clips = [square(make_clip(2, seed=1)), square(make_clip(3, seed=2))]
    visuals = [family.encode(clip) for clip in clips]
    got, _, _ = our_logits(family, message("<video>", "<video>", QUESTION), visuals)
    tokens = [video_tokens(state, vision_reference(state, c.frames)[1], "grid") for c in clips]
    before = "<|im_start|>system\nAnswer with the letter.<|im_end|>\n<|im_start|>user\n"
    after = f"\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    parts = [encoded(before), tokens[0], encoded(" "), tokens[1], encoded(after)]
    expected = text_reference(state, parts)
    assert (got - expected).abs().max() < 1e-3 * expected.abs().max()


def test_prompts_without_visuals_and_without_a_system_turn(family, folder):
    messages = [
        {"role": "user", "content": "yes?"},
        {"role": "assistant", "content": "no"},
        {"role": "user", "content": [{"type": "text", "text": "What"}, {"type": "image"}]},
    ]
    ids = family.tokenize(messages)
    text = (
        f"{SYSTEM}<|im_start|>user\nyes?<|im_end|>\n<|im_start|>assistant\nno<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhat<|im_end|>\n<|im_start|>assistant\n"
    )
    assert family.tokenizer.decode(ids) == text
    silent = load_original_onevision(folder, system_prompt="")
    assert silent.tokenizer.decode(silent.tokenize(messages[:1])) == (
        "<|im_start|>user\nyes?<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(InvalidSetting, match="<video>"):
        family.tokenize([{"role": "user", "content": "what is <video>?"}])


@pytest.mark.parametrize("newline", ["grid", "one_token"])
def test_the_transformers_format_gives_the_same(family, tmp_path, make_clip, message, newline):
    """Saved by transformers and loaded again: same numbers, for videos and for tiled images."""
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    port = load_llava_onevision(tmp_path, mm_newline_position=newline)
    original = load_original_onevision(family.pretrained, mm_newline_position=newline)
    assert family_of(str(tmp_path)) == "llava_onevision"
    clip = make_clip(3, 60, 90)
    image = Image.fromarray(clip.frames[0]).resize((200, 90))
    for part, visual in (("<video>", lambda f: f.encode(clip)), ("<image>", encode_of(image))):
        ours, theirs = (
            our_logits(f, message(part, QUESTION), [visual(f)])[0] for f in (original, port)
        )
        assert torch.equal(ours, theirs)
    assert list(port.model.generation_config.eos_token_id) == list(
        original.model.generation_config.eos_token_id
    )


def encode_of(image):
    return lambda family: family.encode_image(image)


def test_frames_are_resized_as_the_official_processor_does(family, make_clip):
    clip = make_clip(2, 130, 170)
    pixels = family.processor.video_processor(
        videos=[torch.from_numpy(clip.frames).permute(0, 3, 1, 2)],
        do_sample_frames=False,
        return_tensors="pt",
    )["pixel_values_videos"][0]
    for frame, got in zip(clip.frames, pixels, strict=True):
        resized = Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.BICUBIC)
        expected = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 127.5 - 1
        # Pillow and torchvision round differently, by a level or two of 255.
        assert (got - expected).abs().max() <= 2.01 / 127.5


def test_tied_heads(tmp_path, state, make_clip, message):
    without = {key: value for key, value in state.items() if key != "lm_head.weight"}
    folder = save_original_onevision(tmp_path / "a", state=without, tie_word_embeddings=True)
    family = load_original_onevision(folder)
    clip = square(make_clip(2))
    got, _, _ = our_logits(family, message("<video>", QUESTION), [family.encode(clip)])
    expected = video_logits(without, clip.frames, QUESTION, "one_token")
    assert (got - expected).abs().max() < 1e-3 * expected.abs().max()
    twice = without | {"lm_head.weight": without["model.embed_tokens.weight"].clone()}
    save_original_onevision(tmp_path / "b", state=twice, tie_word_embeddings=True)
    load_original_onevision(tmp_path / "b")
    save_original_onevision(tmp_path / "c", state=state, tie_word_embeddings=True)
    with pytest.raises(UnsupportedModel, match=r"lm_head\.weight is not"):
        load_original_onevision(tmp_path / "c")


def test_buffers_are_skipped_and_dtypes_kept(tmp_path, state):
    buffers = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        TOWER + "embeddings.position_ids": torch.arange(25)[None],
    }
    half = {key: value.bfloat16() for key, value in state.items()}
    save_original_onevision(tmp_path, state=half | buffers)
    assert load_original_onevision(tmp_path).model.dtype == torch.float32
    assert load_original_onevision(tmp_path, dtype="bfloat16").model.dtype == torch.bfloat16


def drop(*names):
    return lambda state: [state.pop(name) for name in names]


def drop_tower(state):
    for name in [name for name in state if name.startswith(TOWER)]:
        del state[name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("model.layers.1.mlp.up_proj.weight"), r"such as model\.layers\.1\.mlp\.up_proj"),
        (drop("model.image_newline"), r"such as model\.image_newline"),
        (drop("model.mm_projector.2.bias"), r"such as model\.mm_projector\.2\.bias"),
        (drop("lm_head.weight"), r"such as lm_head\.weight"),
        (drop(TOWER + "post_layernorm.bias"), r"vision tower, such as model\.vision_tower\.vis"),
        (drop_tower, r"the tower must be inside the checkpoint"),
        (
            lambda s: s.update({TOWER + "encoder.layers.2.layer_norm1.bias": torch.ones(48)}),
            r"does not have, such as model\.vision_tower\..*layers\.2\.",
        ),
        (lambda s: s.update({"model.faster_token": torch.ones(64)}), r"model\.faster_token"),
        (
            lambda s: s.update({"model.norm.weight": torch.ones(65)}),
            r"model\.norm\.weight \(65,\), not \(64,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path, change, message):
    state = original_state()
    change(state)
    save_original_onevision(tmp_path, state=state)
    with pytest.raises(UnsupportedModel, match=message):
        load_original_onevision(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_type": "linear"}, "mm_projector_type='linear'"),
        ({"mm_spatial_pool_mode": "average"}, "mm_spatial_pool_mode='average'"),
        ({"mm_patch_merge_type": "flat"}, "mm_patch_merge_type='flat'"),
        ({"mm_patch_merge_type": None}, "mm_patch_merge_type=None"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end=True"),
        ({"add_faster_video": True}, "add_faster_video=True"),
        ({"mm_resampler_type": "qformer"}, "mm_resampler_type='qformer'"),
        ({"image_aspect_ratio": "pad"}, "image_aspect_ratio='pad'"),
        ({"image_grid_pinpoints": "all"}, "image_grid_pinpoints 'all'"),
        ({"vision_config": None}, r"google/tiny-siglip.*vision_config"),
        ({"num_key_value_heads": None}, "lacks num_key_value_heads"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "sliding"),
        ({"vocab_size": 300}, "tokenizer has .* tokens, the model 300"),
    ],
)
def test_configs_that_do_not_fit_are_named(tmp_path, changes, message):
    save_original_onevision(tmp_path, **changes)
    with pytest.raises(UnsupportedModel, match=message):
        load_original_onevision(tmp_path)


def test_newlines_that_are_not_supported(tmp_path):
    save_original_onevision(tmp_path, mm_newline_position="frame")
    with pytest.raises(InvalidSetting, match="'frame' is not one of one_token, grid"):
        load_original_onevision(tmp_path)


@pytest.mark.parametrize("name", ["vocab.json", "model.safetensors", "config.json"])
def test_missing_files_are_named(tmp_path, name):
    save_original_onevision(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UnsupportedModel, match=name.split(".", maxsplit=1)[0]):
        load_original_onevision(tmp_path)


def test_broken_files_are_named(tmp_path):
    save_original_onevision(tmp_path)
    (tmp_path / "generation_config.json").write_text("{")
    with pytest.raises(UnsupportedModel, match="generation_config"):
        load_original_onevision(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    family = load_original_onevision(tmp_path)
    assert family.model.generation_config.eos_token_id == family.tokenizer.eos_token_id
    (tmp_path / "vocab.json").write_text("[]")
    with pytest.raises(UnsupportedModel, match="tokenizer"):
        load_original_onevision(tmp_path)


def test_another_tokenizer_is_refused(tmp_path):
    save_original_onevision(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"].popitem()
    settings |= {"additional_special_tokens": [], "eos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    for name in ("added_tokens.json", "special_tokens_map.json"):
        (tmp_path / name).unlink()
    with pytest.raises(UnsupportedModel, match=r"no token <\|im_end\|>"):
        load_original_onevision(tmp_path)


def test_other_classes_are_not_onevision(tmp_path):
    config = original_config(architectures=["LlavaMistralForCausalLM"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="LlavaQwenForCausalLM"):
        family_of(str(tmp_path))


@pytest.mark.parametrize(
    ("width", "wide", "layers", "heads", "kv", "vocab", "tied"),
    [(896, 4864, 24, 14, 2, 151936, True), (3584, 18944, 28, 28, 4, 152064, False)],
)
def test_published_sizes(tmp_path, width, wide, layers, heads, kv, vocab, tied):
    """Every weight of the 0.5B and 7B checkpoints has its place; no numbers are needed for that."""
    text = {
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": wide,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": tied,
    }
    given = original_config(
        **text,
        mm_vision_tower="google/siglip-so400m-patch14-384",
        vision_config=None,
        image_aspect_ratio="anyres_max_9",
        image_grid_pinpoints=[[384 * w, 384 * h] for w in range(1, 7) for h in range(1, 7)],
    )

    class Tokenizer:
        def convert_tokens_to_ids(self, token):
            return {"<image>": 151646, "<video>": 151647}[token]

    config = build_config(given, Tokenizer())
    assert config.text_config.rope_parameters["rope_theta"] == 1000000.0
    assert (config.image_token_id, config.video_token_id) == (151646, 151647)
    assert len(config.image_grid_pinpoints) == 36
    shapes = original_shapes(text, SO400M, head=not tied)
    weights = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    taken = checked_weights(config, renamed(weights.items()), "published")
    assert len(taken) == len(shapes)
    del weights["model.layers.7.mlp.up_proj.weight"]
    with pytest.raises(UnsupportedModel, match=r"model\.layers\.7\.mlp\.up_proj\.weight"):
        checked_weights(config, renamed(weights.items()), "published")


def test_pinpoints_turn_from_width_height_to_height_width():
    assert pinpoints([[384, 768]], 384) == [[768, 384]]
    assert pinpoints("[[384, 768]]", 384) == [[768, 384]]
    assert pinpoints("(1x1),...,(2x3)", 10) == [
        [10, 10], [20, 10], [30, 10], [10, 20], [20, 20], [30, 20]
    ]  # fmt: skip
    for wrong in (None, [], [[1]], [[0, 1]], "[1", [["a", "b"]]):
        with pytest.raises(UnsupportedModel, match="image_grid_pinpoints"):
            pinpoints(wrong, 384)


def test_the_tokenizer_of_the_helper_is_the_folders(tmp_path):
    import transformers

    save_tokenizer(tmp_path)
    loaded = transformers.Qwen2Tokenizer.from_pretrained(tmp_path)
    text = f"{SYSTEM}<|im_start|>user\n{QUESTION}<|im_end|>\n"
    assert loaded(text)["input_ids"] == encoded(text)
