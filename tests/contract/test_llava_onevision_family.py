"""Loading, tokenizing, counting, budgets and costs of the LLaVA-OneVision family."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoTokenizer

from tempeval.engine.inference import Inference
from tempeval.errors import InfeasibleBudget, InvalidSetting, UnsupportedModel, UnusableText
from tempeval.families.registry import family_class, family_of
from tempeval.stages import Pathway
from tempeval.verification.tiny_llava_onevision import (
    TILE,
    load_llava_onevision,
    save_tiny_llava_onevision,
)
from tempeval.video.clip import Sampling


@pytest.fixture
def folder(tiny_llava_onevision_folder, tmp_path):
    return shutil.copytree(tiny_llava_onevision_folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def published_sizes(tiny_llava_onevision_folder, tmp_path_factory):
    """Folder of a model with the published tiles: 384 px in patches of 14."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_llava_onevision_folder)
    folder = tmp_path_factory.mktemp("published")
    return save_tiny_llava_onevision(folder, tokenizer, tile=384)


def edit_json(path, **changes):
    content = json.loads(path.read_text())
    for dotted, value in changes.items():
        *way, last = dotted.split("__")
        place = content
        for name in way:
            place = place[name]
        place[last] = value
    path.write_text(json.dumps(content))


def edit_config(folder, **changes):
    edit_json(folder / "config.json", **changes)


def test_registry_finds_the_family(tiny_llava_onevision_folder):
    assert family_of(str(tiny_llava_onevision_folder)) == "llava_onevision"
    assert family_class("llava_onevision").model_types == ("llava_onevision",)


def test_loaded_state(tiny_llava_onevision):
    family = tiny_llava_onevision
    assert family.revision.startswith("sha256:")
    assert not family.model.training
    assert family.model.config._attn_implementation == "sdpa"
    geometry = family.geometry
    assert (geometry.num_layers, geometry.num_heads, geometry.num_kv_heads) == (4, 4, 2)
    assert geometry.head_dim == family.layers[0].self_attn.head_dim == 32
    assert [layer.self_attn.layer_idx for layer in family.layers] == [0, 1, 2, 3]
    assert family.text_model.layers is family.layers


def test_facts(tiny_llava_onevision):
    facts = tiny_llava_onevision.facts(Sampling(num_frames=5))
    assert (facts.axes, facts.frames_per_block, facts.frames_per_grid) == (False, 1, 1)
    assert (facts.num_frames, facts.visual_tokens, facts.context_length) == (5, 46, 4096)


@pytest.mark.parametrize(("position", "tokens"), [("one_token", 6273), ("grid", 6720)])
def test_tokens_of_32_frames_at_published_sizes(
    published_sizes, make_clip, message, position, tokens
):
    family = load_llava_onevision(published_sizes, mm_newline_position=position)
    assert family.planned_tokens(Sampling(num_frames=32)) == tokens
    visual = family.encode(make_clip(2, 84, 112))
    assert visual.grid == (2, 14, 14)
    whole = type(visual)(visual.embeddings.repeat(16, 1), (32, 14, 14), frames=32)
    layout, _ = family.layout(family.tokenize(message("<video>", "?")), [whole])
    assert layout.num_visual_tokens == tokens
    family.options = type(family.options)(visual_token_budget=tokens)
    assert family.frames_for_budget(8) == 32
    family.check_sampling(Sampling(num_frames=32))


@pytest.mark.parametrize("size", [(384, 384), (480, 640), (2000, 700)])
def test_tokens_of_images_at_published_sizes(published_sizes, message, size):
    family = load_llava_onevision(published_sizes)
    image = Image.fromarray(np.zeros((*size, 3), np.uint8))
    messages = message("<image>", "?")
    text = family.processor.apply_chat_template(messages, add_generation_prompt=True)
    stock = family.processor(text=[text], images=[image])["input_ids"][0]
    layout, tail = family.layout(family.tokenize(messages), [family.encode_image(image)])
    assert [*layout.input_ids.tolist(), *tail.tolist()] == list(stock)


def test_newlines_are_where_the_checkpoint_says(folder):
    assert load_llava_onevision(folder).settings == {"mm_newline_position": "one_token"}
    edit_config(folder, tempeval={"mm_newline_position": "grid"})
    assert load_llava_onevision(folder).mm_newline_position == "grid"
    edit_config(folder, tempeval={}, mm_newline_position="grid")
    assert load_llava_onevision(folder).mm_newline_position == "grid"
    chosen = load_llava_onevision(folder, mm_newline_position="one_token")
    assert chosen.mm_newline_position == "one_token"
    edit_config(folder, mm_newline_position="frame")
    with pytest.raises(InvalidSetting, match=r"'frame' is not one of one_token, grid"):
        load_llava_onevision(folder)


def test_newlines_are_in_the_fingerprint(folder):
    families = [load_llava_onevision(folder, mm_newline_position=p) for p in ("one_token", "grid")]
    prints = {Inference(family, Sampling()).fingerprint() for family in families}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype='int8' is not one of auto"),
        ({"device": "gpu"}, "device='gpu' is not a device"),
        ({"position_rule": "new"}, "position_rule='new' is not one of original"),
        ({"min_pixels": 784}, f"min_pixels=784: .* the only value is {TILE * TILE}"),
        ({"max_pixels": 99999}, "max_pixels=99999: every frame is resized to 70 x 70"),
        ({"visual_token_budget": 0}, "visual_token_budget=0"),
        ({"mm_newline_position": "row"}, "mm_newline_position='row' is not one of"),
    ],
)
def test_bad_options(tiny_llava_onevision_folder, options, message):
    with pytest.raises(InvalidSetting, match=message):
        load_llava_onevision(tiny_llava_onevision_folder, **options)


def test_the_squares_own_pixels_are_accepted(tiny_llava_onevision_folder):
    area = TILE * TILE
    family = load_llava_onevision(tiny_llava_onevision_folder, min_pixels=area, max_pixels=area)
    assert family.pixel_limits() == {"min_pixels": area, "max_pixels": area}


def test_truncated_weights(folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UnsupportedModel, match="cannot load"):
        load_llava_onevision(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {
                "text_config__num_hidden_layers": 5,
                "text_config__layer_types": ["full_attention"] * 5,
            },
            r"no weights.*layers\.4\.",
        ),
        ({"text_config__intermediate_size": 64}, "another shape.*mlp"),
        ({"model_type": "llava"}, "model_type 'llava'; family llava_onevision loads"),
        ({"vision_feature_select_strategy": "default"}, "select_strategy 'default'"),
        ({"vision_aspect_ratio": "square"}, "vision_aspect_ratio 'square'"),
        ({"image_grid_pinpoints": [[70, 70], [70, 140]]}, "other image_grid_pinpoints"),
        (
            {
                "text_config__rope_parameters": {
                    "rope_type": "dynamic",
                    "rope_theta": 1e3,
                    "factor": 2.0,
                }
            },
            "rope_type 'dynamic'",
        ),
        (
            {
                "text_config__use_sliding_window": True,
                "text_config__sliding_window": 64,
                "text_config__layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2,
            },
            "sliding-window",
        ),
    ],
)
def test_checkpoints_that_cannot_work_are_refused(folder, changes, message):
    edit_config(folder, **changes)
    with pytest.raises(UnsupportedModel, match=message):
        load_llava_onevision(folder)


@pytest.mark.parametrize("part", ["image_processor", "video_processor"])
def test_processors_of_another_size_are_refused(folder, part):
    edit_json(folder / "processor_config.json", **{f"{part}__size": {"height": 84, "width": 84}})
    with pytest.raises(UnsupportedModel, match=r"resizes to .*84.*takes 70 x 70"):
        load_llava_onevision(folder)


def test_missing_files_are_refused(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UnsupportedModel, match="no chat template"):
        load_llava_onevision(folder)


def test_files_as_the_hub_has_them(folder, tiny_llava_onevision, make_clip):
    """Published names, a flat processor configuration, and rotary settings of transformers 4."""
    # transformers 5 writes the published names, but for one level of the tower's.
    weights = load_file(folder / "model.safetensors")
    assert {"image_newline", "language_model.lm_head.weight"} <= set(weights)
    weights = {
        key.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for key, tensor in weights.items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    del text["rope_parameters"], text["layer_types"]
    text |= {"rope_theta": 1000.0, "rope_scaling": None, "use_sliding_window": False}
    (folder / "config.json").write_text(json.dumps(config))
    nested = json.loads((folder / "processor_config.json").read_text())
    for part, file in (("image", "preprocessor_config"), ("video", "video_preprocessor_config")):
        own = nested.pop(f"{part}_processor")
        (folder / f"{file}.json").write_text(json.dumps(own))
    (folder / "processor_config.json").write_text(json.dumps(nested))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    (folder / "chat_template.jinja").unlink()

    family, clip = load_llava_onevision(folder), make_clip(3)
    assert torch.equal(family.encode(clip).embeddings, tiny_llava_onevision.encode(clip).embeddings)
    for key, tensor in tiny_llava_onevision.model.state_dict().items():
        assert torch.equal(family.model.state_dict()[key], tensor), key
    rotary = family.model.model.language_model.rotary_emb.inv_freq
    assert torch.equal(rotary, tiny_llava_onevision.model.model.language_model.rotary_emb.inv_freq)
    assert family.tokenize([{"role": "user", "content": "up"}]) == (
        tiny_llava_onevision.tokenize([{"role": "user", "content": "up"}])
    )


def test_placeholders_in_a_text_are_refused(tiny_llava_onevision, message):
    for token in ("<video>", "<image>"):
        with pytest.raises(UnusableText, match="stands for a visual"):
            tiny_llava_onevision.tokenize(message("<video>", f"What is {token} here?"))
        with pytest.raises(UnusableText, match="a choice contains"):
            tiny_llava_onevision.check_text(token)
    with pytest.raises(InvalidSetting, match="type 'audio'"):
        tiny_llava_onevision.tokenize([{"role": "user", "content": [{"type": "audio"}]}])


def test_template_without_placeholders(folder, message):
    (folder / "chat_template.jinja").write_text("{{ messages[0]['role'] }}")
    with pytest.raises(UnsupportedModel, match="one placeholder for each of the 1 visuals"):
        load_llava_onevision(folder).tokenize(message("<video>", "?"))


def test_prompts(tiny_llava_onevision, tiny_llava_onevision_folder, message):
    family, chat = tiny_llava_onevision, message("<video>", "left or right?")
    text = family.tokenizer.decode(family.tokenize(chat))
    assert text == "<|im_start|>user <video>\nleft or right?<|im_end|><|im_start|>assistant\n"
    assert family.tokenize([{"role": "user", "content": "up"}]) == family.tokenize(message("up"))
    led = load_llava_onevision(tiny_llava_onevision_folder, system_prompt="Answer yes or no.")
    assert led.tokenizer.decode(led.tokenize(chat)) == (
        "<|im_start|>system \nAnswer yes or no.<|im_end|>" + text
    )
    own = [{"role": "system", "content": "Mine."}, *chat]
    assert "Answer yes" not in led.tokenizer.decode(led.tokenize(own))


def test_layout_of_a_mixed_prompt(tiny_llava_onevision, make_clip, message):
    family = tiny_llava_onevision
    visuals = [family.encode(make_clip(3)), family.encode_image(Image.new("RGB", (140, 70)))]
    layout, question = family.layout(
        family.tokenize(message("<video>", "and", "<image>", "same?")), visuals
    )
    # The image comes first: 25 tokens of the base image, then 5 rows of 10 and a newline.
    assert layout.visuals == ((1, 5, 5), (1, 5, 10), (3, 3, 3))
    pathway, column = layout.grid_index[:, 0], layout.grid_index[:, 3]
    assert [int((pathway == number).sum()) for number in range(3)] == [25, 55, 27]
    assert int((column == 10).sum()) == 5
    assert layout.num_frames == 5
    counts = torch.bincount(layout.segment).tolist()
    assert counts[1:] == [25, 55, 9, 9, 10]
    assert layout.is_visual[-1]
    assert layout.grid_index[-1].tolist() == [-1] * 4  # the newline that ends the video
    assert family.tokenizer.decode(question).startswith("\nand\nsame?<|im_end|>")


@pytest.mark.parametrize(("position", "columns", "ends"), [("one_token", 3, [3]), ("grid", 4, [])])
def test_newlines_of_a_video_with_two_pathways(
    tiny_llava_onevision_folder, make_clip, message, position, columns, ends
):
    """A slow and a fast path are one video: it ends once."""
    family = load_llava_onevision(tiny_llava_onevision_folder, mm_newline_position=position)
    slow = family.encode(make_clip(2))
    both = replace(
        slow,
        embeddings=torch.cat([slow.embeddings, slow.embeddings[:3]]),
        pathways=(Pathway((2, 3, 3)), Pathway((1, 1, 3))),
    )
    layout, _ = family.layout(family.tokenize(message("<video>", "?")), [both])
    segments = layout.segment[layout.is_visual].tolist()
    assert segments == [1] * 3 * columns + [2] * 3 * columns + [3] * columns + ends
    newline = family.model.model.image_newline
    is_newline = (family.embed(layout, [both])[0, layout.is_visual] == newline).all(-1)
    assert is_newline.tolist() == ([False] * 3 + [True] * (columns > 3)) * 7 + [True] * len(ends)


def test_time_of_a_grid(tiny_llava_onevision, make_clip):
    assert tiny_llava_onevision.encode(make_clip(4, seconds_per_frame=0.4)).seconds_per_grid == (
        pytest.approx(0.4)
    )
    assert tiny_llava_onevision.encode(make_clip(4, seconds_per_frame=None)).seconds_per_grid == 1.0


def test_groups_that_do_not_divide(tiny_llava_onevision, make_clip):
    for groups in (3, 0):
        with pytest.raises(InvalidSetting, match=f"num_groups={groups}: 8 frames"):
            tiny_llava_onevision.encode(make_clip(8), num_groups=groups)


def test_read_only_frames(tiny_llava_onevision, make_clip):
    clip = make_clip(2)
    clip.frames.flags.writeable = False
    tiny_llava_onevision.encode(clip)


def test_images(tiny_llava_onevision, tmp_path):
    Image.new("RGBA", (84, 84), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    white = tiny_llava_onevision.encode_image(Image.new("RGB", (84, 84), (255, 255, 255)))
    read = tiny_llava_onevision.encode_image(tmp_path / "clear.png")
    assert torch.equal(white.embeddings, read.embeddings)
    with pytest.raises(InvalidSetting, match="PIL image or a path"):
        tiny_llava_onevision.encode_image(7)


def test_budget_through_the_family(tiny_llava_onevision_folder):
    family = load_llava_onevision(tiny_llava_onevision_folder, visual_token_budget=145)
    assert family.frames_for_budget(8) == 16
    family.check_sampling(Sampling(num_frames=16))
    with pytest.raises(InfeasibleBudget, match=r"Nearest feasible budget: 74; 16 frames"):
        family.check_sampling(Sampling(num_frames=8))
    family.resize()(480, 640, 16)
    with pytest.raises(InfeasibleBudget, match="2 times 16 frames"):
        family.resize(num_visuals=2)(480, 640, 16)
    with pytest.raises(InfeasibleBudget, match="an image of 70 x 70 px with 55 tokens"):
        family.encode_image(Image.new("RGB", (70, 70)))
    exact = load_llava_onevision(tiny_llava_onevision_folder, visual_token_budget=55)
    assert exact.encode_image(Image.new("RGB", (70, 70))).num_tokens == 50  # and 5 newlines


def test_vision_flops_equal_counted_ones(tiny_llava_onevision, make_clip):
    family = tiny_llava_onevision
    family.model.set_attn_implementation("eager")  # the counter sees its matrix products
    try:
        for make in (
            lambda: family.encode(make_clip(5)),
            lambda: family.encode_image(Image.new("RGB", (140, 210))),
        ):
            with FlopCounterMode(display=False) as counter:
                tokens = make()
            assert family.vision_flops([tokens]) == counter.get_total_flops()
            assert family.vision_flops([tokens, tokens]) == 2 * family.vision_flops([tokens])
    finally:
        family.model.set_attn_implementation("sdpa")


def test_bfloat16(tiny_llava_onevision_folder, tiny_llava_onevision, make_clip, message):
    half = load_llava_onevision(tiny_llava_onevision_folder, dtype="bfloat16")
    visual = half.encode(make_clip(4))
    assert visual.embeddings.dtype == torch.bfloat16
    layout, _ = half.layout(half.tokenize(message("<video>", "?")), [visual])
    assert half.embed(layout, [visual]).dtype == torch.bfloat16
    full = tiny_llava_onevision.model.model.language_model.rotary_emb.inv_freq
    assert torch.equal(layout.rotary.inv_freq, full)
