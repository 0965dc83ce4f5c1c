"""Video-LLaVA, the Hugging Face port: the same pixels, prompts and logits as stock transformers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from tempeval.errors import InfeasibleBudget, InvalidSetting, UnsupportedModel, UnusableText
from tempeval.families.registry import family_class, family_of
from tempeval.stages import AXIS_ALL, VisualTokens
from tempeval.verification.tiny_video_llava import (
    CHAT_TEMPLATE,
    PER_FRAME,
    load_video_llava,
    save_tiny_port,
)
from tempeval.video.clip import Sampling

TOLERANCE = 1e-4
QUESTION = "Which way does the red square move?"


@pytest.fixture(scope="module")
def templated(tmp_path_factory):
    """The port with a chat template."""
    folder = save_tiny_port(tmp_path_factory.mktemp("templated"), chat_template=CHAT_TEMPLATE)
    return load_video_llava(folder)


@pytest.fixture
def folder(tiny_video_llava_folder, tmp_path):
    return shutil.copytree(tiny_video_llava_folder, tmp_path / "copy")


def processor_of(family):
    return family._vision._processor


def picture(height=70, width=90, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
    return Image.fromarray(coarse.repeat(10, 0).repeat(10, 1))


def stock_logits(family, text, clips=(), images=()):
    """What transformers makes of a prompt text and the same frames."""
    inputs = processor_of(family)(
        text=[text],
        images=list(images) or None,
        videos=[torch.from_numpy(c.frames).permute(0, 3, 1, 2) for c in clips] or None,
        images_kwargs={"return_legacy_image_output": False},
        return_tensors="pt",
    )
    with torch.no_grad():
        return family.model(**inputs, use_cache=False).logits, inputs["input_ids"][0]


@torch.no_grad()
def our_logits(family, messages, visuals):
    """Logits `[1, L, V]` and ids of our layout, without an engine."""
    ids = family.tokenize(messages)
    layout, question = family.layout(ids, visuals)
    tail = family.model.get_input_embeddings()(question)[None]
    embeddings = torch.cat([family.embed(layout, visuals), tail], dim=1)
    rows = layout.rotary.positions[:, 0]
    after = layout.rotary.next_position + torch.arange(len(question), dtype=torch.float64)
    hidden = family.text_model(
        inputs_embeds=embeddings, position_ids=torch.cat([rows, after]).long()[None]
    ).last_hidden_state
    return family.model.lm_head(hidden), torch.cat([layout.input_ids, question])


VIDEOS = {
    "one": ([(8, 84, 84)], "USER: <video>\n{q} ASSISTANT:", ["<video>", QUESTION]),
    "other sizes": ([(5, 70, 126)], "USER: <video>\n{q} ASSISTANT:", ["<video>", QUESTION]),
    "tall, one frame": ([(1, 140, 42)], "USER: <video>\n{q} ASSISTANT:", ["<video>", QUESTION]),
    "two": (
        [(8, 84, 84), (8, 56, 98)],
        "USER: <video>\n<video>\n{q} ASSISTANT:",
        ["<video>", "<video>", QUESTION],
    ),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_videos_equal_stock(tiny_video_llava, make_clip, message, case):
    family = tiny_video_llava
    shapes, text, parts = VIDEOS[case]
    clips = [make_clip(*shape, seed=n) for n, shape in enumerate(shapes)]
    expected, ids = stock_logits(family, text.format(q=QUESTION), clips)
    actual, ours = our_logits(family, message(*parts), [family.encode(clip) for clip in clips])
    assert torch.equal(ours, ids)
    assert (actual - expected).abs().max() < TOLERANCE
    assert expected.std() > 0.1


def test_image_video_and_image_equal_stock(tiny_video_llava, make_clip, message):
    family = tiny_video_llava
    clip, images = make_clip(4), [picture(), picture(140, 60, seed=1)]
    text = f"USER: <image>\nand <video>\n<image>\n{QUESTION} ASSISTANT:"
    expected, ids = stock_logits(family, text, [clip], images)
    visuals = [family.encode_image(images[0]), family.encode(clip), family.encode_image(images[1])]
    parts = ["<image>", "and ", "<video>", "<image>", QUESTION]
    actual, ours = our_logits(family, message(*parts), visuals)
    assert torch.equal(ours, ids)
    assert (actual - expected).abs().max() < TOLERANCE
    assert [visual.lead for visual in visuals] == [0, 1, 0]


def test_text_alone_equals_stock(tiny_video_llava, message):
    expected, ids = stock_logits(tiny_video_llava, f"USER: {QUESTION} ASSISTANT:")
    actual, ours = our_logits(tiny_video_llava, message(QUESTION), [])
    assert torch.equal(ours, ids)
    assert (actual - expected).abs().max() < TOLERANCE


def test_chat_template_is_used_where_there_is_one(templated, make_clip, message):
    image, clip = picture(), make_clip(3)
    # The template puts images first: the n-th placeholder of a kind is the n-th visual of it.
    text = f"USER: <image>\n<video>\n{QUESTION} ASSISTANT:"
    expected, ids = stock_logits(templated, text, [clip], [image])
    visuals = [templated.encode(clip), templated.encode_image(image)]
    actual, ours = our_logits(templated, message("<video>", "<image>", QUESTION), visuals)
    assert torch.equal(ours, ids)
    assert (actual - expected).abs().max() < TOLERANCE


def test_a_full_image_keeps_its_cls_token(tmp_path, message):
    folder = save_tiny_port(tmp_path, vision_feature_select_strategy="full")
    family, image = load_video_llava(folder), picture()
    visual = family.encode_image(image)
    assert (visual.lead, visual.num_tokens) == (1, PER_FRAME)
    expected, _ = stock_logits(family, f"USER: <image>\n{QUESTION} ASSISTANT:", images=[image])
    actual, _ = our_logits(family, message("<image>", QUESTION), [visual])
    assert (actual - expected).abs().max() < TOLERANCE


def test_bos_comes_once(tiny_video_llava, templated, message):
    for family in (tiny_video_llava, templated):
        ids = family.tokenize(message("<video>", QUESTION))
        assert ids[0] == family.tokenizer.bos_token_id
        assert ids.count(family.tokenizer.bos_token_id) == 1
    template = templated._prompt.processor.chat_template
    templated._prompt.processor.chat_template = "<s>" + template
    try:
        ids = templated.tokenize(message("<video>", QUESTION))
        assert ids[0] == templated.tokenizer.bos_token_id
        assert ids.count(templated.tokenizer.bos_token_id) == 1
    finally:
        templated._prompt.processor.chat_template = template


def test_turns_and_system_text(tiny_video_llava, tiny_video_llava_folder):
    chat = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "up?"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "down?"},
    ]

    def text(family, chat=chat):
        return family.tokenizer.decode(family.tokenize(chat), skip_special_tokens=False)

    plain = "USER: <video>\nup? ASSISTANT: yes USER: down? ASSISTANT:"
    assert text(tiny_video_llava).replace("<s>", "").strip() == plain
    family = load_video_llava(tiny_video_llava_folder, system_prompt="Be brief.")
    assert text(family).replace("<s>", "").strip() == "Be brief. " + plain
    own = [{"role": "system", "content": "Mine."}, *chat]
    assert text(family, own).replace("<s>", "").strip() == "Mine. " + plain
    with pytest.raises(InvalidSetting, match="role 'tool'"):
        family.tokenize([*chat, {"role": "tool", "content": "x"}])


@pytest.mark.parametrize("text", ["what is <video>", "<image>?"])
def test_placeholders_in_a_text_are_refused(tiny_video_llava, message, text):
    with pytest.raises(UnusableText, match="stands for a visual"):
        tiny_video_llava.tokenize(message("<video>", text))
    with pytest.raises(UnusableText, match="a choice contains"):
        tiny_video_llava.check_text(text)


def test_registry_and_facts(tiny_video_llava, tiny_video_llava_folder):
    assert family_of(str(tiny_video_llava_folder)) == "video_llava"
    assert family_class("video_llava").name == "video_llava"
    facts = tiny_video_llava.facts(Sampling(num_frames=16))
    assert (facts.axes, facts.frames_per_block, facts.frames_per_grid) == (False, 1, 1)
    assert (facts.context_length, facts.visual_tokens) == (4096, 16 * PER_FRAME)
    geometry = tiny_video_llava.geometry
    assert (geometry.num_layers, geometry.num_heads, geometry.num_kv_heads) == (4, 4, 4)
    assert [layer.self_attn.layer_idx for layer in tiny_video_llava.layers] == [0, 1, 2, 3]
    assert not tiny_video_llava.is_original


def test_layout(tiny_video_llava, make_clip, message):
    family = tiny_video_llava
    visuals = [family.encode(make_clip(3)), family.encode_image(picture())]
    layout, question = family.layout(
        family.tokenize(message("<video>", "and", "<image>", "?")), visuals
    )
    video, image = (layout.segment > 0) & (layout.segment < 4), layout.segment == 4
    assert (int(video.sum()), int(image.sum())) == (3 * PER_FRAME, PER_FRAME - 1)
    assert layout.num_visual_tokens == 4 * PER_FRAME - 1
    first = layout.grid_index[video]
    assert first[0].tolist() == [-1, -1, -1, -1]  # CLS has no place in the grid
    assert first[1 + 6].tolist() == [0, 0, 1, 2]
    assert first[PER_FRAME + 16].tolist() == [0, 1, 3, 3]
    assert layout.grid_index[image][:, 0].tolist() == [1] * 16
    assert layout.visuals == ((3, 4, 4), (1, 4, 4))
    assert layout.is_visual[-1]
    assert family.tokenizer.decode(question).strip() == "? ASSISTANT:"
    assert layout.rotary.positions[:, 0].tolist() == list(range(layout.length))
    assert layout.rotary.next_position == layout.length
    assert set(layout.rotary.axis.tolist()) == {AXIS_ALL}
    assert set(layout.rotary.step[video].tolist()) == {float(PER_FRAME)}
    with pytest.raises(UnsupportedModel, match="17 tokens"):
        family.layout(
            family.tokenize(message("<video>", "?")),
            [VisualTokens(torch.zeros(17, 128), (2, 4, 4))],
        )


def test_groups_change_nothing_and_features_are_the_projectors_input(tiny_video_llava, make_clip):
    family, clip = tiny_video_llava, make_clip(6, seconds_per_frame=0.5)
    tokens = family.encode(clip, with_features=True)
    assert torch.equal(family.encode(clip, num_groups=3).embeddings, tokens.embeddings)
    assert family.encode(clip).features is None
    assert tokens.features.shape == (6, 4, 4, 64)
    projected = family.model.model.multi_modal_projector(tokens.features)
    cells = tokens.embeddings.view(6, PER_FRAME, -1)[:, 1:]
    assert torch.allclose(projected.flatten(1, 2), cells, atol=1e-5)
    assert (tokens.grid, tokens.lead, tokens.frames) == ((6, 4, 4), 1, 6)
    assert tokens.seconds_per_grid == pytest.approx(0.5)
    assert family.encode(make_clip(1)).seconds_per_grid == 1.0


def test_read_only_frames(tiny_video_llava, make_clip):
    clip = make_clip(2)
    clip.frames.flags.writeable = False
    tiny_video_llava.encode(clip)


def test_decoded_size_is_the_sources(tiny_video_llava):
    assert tiny_video_llava.resize()(361, 641, 8) == (361, 641)
    assert tiny_video_llava.pixel_limits() == {"min_pixels": 56 * 56, "max_pixels": 56 * 56}


def test_budget(tiny_video_llava_folder, make_clip):
    family = load_video_llava(tiny_video_llava_folder, visual_token_budget=100)
    with pytest.raises(InfeasibleBudget, match=r"Nearest feasible: 102"):
        family.frames_for_budget(8)
    family = load_video_llava(tiny_video_llava_folder, visual_token_budget=12 * PER_FRAME + 3)
    assert family.frames_for_budget(8) == 12
    family.check_sampling(Sampling(num_frames=12))
    assert family.encode(make_clip(12)).num_tokens == 12 * PER_FRAME
    with pytest.raises(InfeasibleBudget, match=f"Nearest feasible budget: {16 * PER_FRAME}.*12"):
        family.check_sampling(Sampling(num_frames=16))
    with pytest.raises(InvalidSetting, match="leave fps out"):
        family.check_sampling(Sampling("fps", 12, 1.0))
    with pytest.raises(InfeasibleBudget, match="2 times 12 frames"):
        family.resize(num_visuals=2)(90, 90, 12)
    with pytest.raises(InfeasibleBudget, match="an image"):
        family.encode_image(picture())
    # A wide budget leaves a choice: the nearest to what was asked for.
    family = load_video_llava(tiny_video_llava_folder, visual_token_budget=200 * PER_FRAME)
    assert [family.frames_for_budget(n) for n in (8, 198, 300)] == [196, 198, 200]


def test_any_number_of_frames_without_a_budget(tiny_video_llava):
    for frames in (1, 5, 8, 33):
        tiny_video_llava.check_sampling(Sampling(num_frames=frames))
        assert tiny_video_llava.frames_for_budget(frames) == frames
    tiny_video_llava.check_sampling(Sampling("fps", 32, 2.0))


@pytest.mark.parametrize("visual", ["video", "image"])
def test_vision_flops_equal_counted_ones(tiny_video_llava, make_clip, visual):
    family = tiny_video_llava
    family.model.set_attn_implementation("eager")  # the counter sees its matrix products
    try:
        with FlopCounterMode(display=False) as counter:
            if visual == "video":
                tokens = family.encode(make_clip(3))
            else:
                tokens = family.encode_image(picture())
    finally:
        family.model.set_attn_implementation("sdpa")
    assert family.vision_flops([tokens]) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"min_pixels": 784}, "min_pixels=784"),
        ({"position_rule": "new"}, "position_rule='new'"),
        ({"visual_token_budget": 0}, "visual_token_budget=0"),
        ({"dtype": "int8"}, "dtype='int8'"),
    ],
)
def test_bad_options(tiny_video_llava_folder, options, match):
    with pytest.raises(InvalidSetting, match=match):
        load_video_llava(tiny_video_llava_folder, **options)


def test_processor_and_tower_must_agree(folder, make_clip):
    path = folder / "processor_config.json"
    config = json.loads(path.read_text())
    config["video_processor"]["crop_size"] = {"height": 42, "width": 42}
    path.write_text(json.dumps(config))
    family = load_video_llava(folder)
    with pytest.raises(UnsupportedModel, match=r"42 x 42 px, but its vision tower takes 56 x 56"):
        family.encode(make_clip(2))


def test_missing_layer_is_refused(folder):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["num_hidden_layers"] = 5
    path.write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match=r"no weights.*layers\.4\."):
        load_video_llava(folder)
