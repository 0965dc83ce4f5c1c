"""Loading, tokenizing, layouts, budgets and costs of the Qwen-VL family on tiny models."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from tempeval.errors import InfeasibleBudget, InvalidSetting, UnsupportedModel, UnusableText
from tempeval.families.registry import family_class, family_of
from tempeval.stages import VisualTokens
from tempeval.video.clip import Sampling


@pytest.fixture
def folder(tiny_qwen2_5_vl_folder, tmp_path):
    return shutil.copytree(tiny_qwen2_5_vl_folder, tmp_path / "copy")


def edit_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["text_config"].update(changes)
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("model", ["qwen2_vl", "qwen2_5_vl"])
def test_registry_finds_the_family(request, model):
    folder = request.getfixturevalue(f"tiny_{model}_folder")
    assert family_of(str(folder)) == "qwen_vl"
    assert family_class("qwen_vl").name == "qwen_vl"
    assert model in family_class("qwen_vl").model_types


def test_package_is_light():
    code = (
        "import sys, tempeval.families, tempeval.families.registry\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loaded_state(tiny_qwen2_5_vl):
    family = tiny_qwen2_5_vl
    assert family.revision.startswith("sha256:")
    assert not family.model.training
    assert family.model.dtype == torch.float32
    assert family.model.config._attn_implementation == "sdpa"
    geometry = family.geometry
    assert (geometry.num_layers, geometry.num_heads, geometry.num_kv_heads) == (4, 4, 2)
    assert geometry.head_dim == family.layers[0].self_attn.head_dim == 32
    assert [layer.self_attn.layer_idx for layer in family.layers] == [0, 1, 2, 3]


def test_bfloat16_keeps_rotary_frequencies_in_float32(load_family, folder, make_clip, message):
    full, half = load_family(folder), load_family(folder, dtype="bfloat16")
    visual = half.encode(make_clip(4))
    assert visual.embeddings.dtype == torch.bfloat16
    layout, _ = half.layout(half.tokenize(message("<video>", "?")), [visual])
    assert half.embed(layout, [visual]).dtype == torch.bfloat16
    expected, _ = full.layout(full.tokenize(message("<video>", "?")), [visual])
    assert layout.rotary.inv_freq.dtype == torch.float32
    assert torch.equal(layout.rotary.inv_freq, expected.rotary.inv_freq)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype='int8' is not one of auto"),
        ({"device": "gpu"}, "device='gpu' is not a device"),
        ({"position_rule": "new"}, "position_rule='new' is not one of original"),
        ({"min_pixels": 10, "max_pixels": 5}, "min_pixels=10 and max_pixels=5"),
        ({"visual_token_budget": 0}, "visual_token_budget=0"),
    ],
)
def test_bad_options(load_family, tiny_qwen2_5_vl_folder, options, message):
    with pytest.raises(InvalidSetting, match=message):
        load_family(tiny_qwen2_5_vl_folder, **options)


def test_auto_dtype_is_float32_on_cpu(load_family, tiny_qwen2_vl_folder):
    assert load_family(tiny_qwen2_vl_folder, dtype="auto").model.dtype == torch.float32


def test_truncated_weights(load_family, folder):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UnsupportedModel, match="cannot load"):
        load_family(folder)


def test_missing_and_mismatched_parameters(load_family, folder):
    edit_config(folder, num_hidden_layers=5, layer_types=["full_attention"] * 5)
    with pytest.raises(UnsupportedModel, match=r"no weights.*layers\.4\."):
        load_family(folder)


def test_other_model_type(load_family, folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(UnsupportedModel, match="model_type 'llama'"):
        load_family(folder)


def test_dynamic_rope_is_refused_by_name(load_family, folder):
    rope = {
        "rope_type": "dynamic",
        "factor": 2.0,
        "rope_theta": 1000.0,
        "mrope_section": [4, 6, 6],
    }
    edit_config(folder, rope_parameters=rope)
    with pytest.raises(UnsupportedModel, match="rope_type 'dynamic'"):
        load_family(folder)


def test_sliding_window_is_refused(load_family, folder):
    kinds = ["full_attention"] * 2 + ["sliding_attention"] * 2
    edit_config(folder, use_sliding_window=True, sliding_window=64, layer_types=kinds)
    with pytest.raises(UnsupportedModel, match="sliding-window"):
        load_family(folder)


def test_placeholder_in_a_text_is_refused(tiny_qwen2_5_vl, message):
    for token in ("<|video_pad|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>"):
        with pytest.raises(UnusableText, match="stands for a visual"):
            tiny_qwen2_5_vl.tokenize(message("<video>", f"What is {token}?"))
        with pytest.raises(UnusableText, match="a choice contains"):
            tiny_qwen2_5_vl.check_text(token)
    with pytest.raises(UnusableText, match="stands for a visual"):
        tiny_qwen2_5_vl.tokenize(message("<video>", "What is <|video", "_pad|>?"))
    tiny_qwen2_5_vl.tokenize(message("<video>", "video_pad, <image 1> and |vision|"))


def test_a_placeholder_in_the_system_prompt_is_refused(load_family, folder):
    """It is a setting: every sample would fail."""
    with pytest.raises(InvalidSetting, match=r"system_prompt='see <\|image_pad\|>' contains"):
        load_family(folder, system_prompt="see <|image_pad|>")


def test_other_message_parts_are_refused(tiny_qwen2_5_vl):
    messages = [{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}]
    with pytest.raises(InvalidSetting, match="type 'audio'"):
        tiny_qwen2_5_vl.tokenize(messages)


def test_template_without_placeholders(load_family, folder, message):
    (folder / "chat_template.jinja").write_text("{{ messages[0]['role'] }}")
    with pytest.raises(UnsupportedModel, match="chat template"):
        load_family(folder).tokenize(message("<video>", "?"))


def test_system_prompt(load_family, tiny_qwen2_5_vl, tiny_qwen2_5_vl_folder, message):
    chat = message("<video>", "left or right?")
    default = tiny_qwen2_5_vl.tokenizer.decode(tiny_qwen2_5_vl.tokenize(chat))
    assert default.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>")
    family = load_family(tiny_qwen2_5_vl_folder, system_prompt="Answer yes or no.")
    text = family.tokenizer.decode(family.tokenize(chat))
    assert text.startswith("<|im_start|>system\nAnswer yes or no.<|im_end|>\n<|im_start|>user")
    own = [{"role": "system", "content": "Mine."}, *chat]
    assert "Mine." in family.tokenizer.decode(family.tokenize(own))
    assert "Answer yes" not in family.tokenizer.decode(family.tokenize(own))


def test_layout_of_a_mixed_prompt(tiny_qwen2_5_vl, make_clip, message):
    family = tiny_qwen2_5_vl
    image = Image.fromarray(np.full((400, 400, 3), 90, np.uint8))
    visuals = [
        family.encode(make_clip(6, 56, 84, seconds_per_frame=1.25)),
        family.encode_image(image),
    ]
    ids = family.tokenize(message("<video>", "and", "<image>", "same?"))
    layout, question = family.layout(ids, visuals)
    video = layout.grid_index[:, 0] == 0
    still = layout.grid_index[:, 0] == 1
    assert layout.num_frames == 4
    assert layout.visuals == ((3, 2, 3), visuals[1].grid)
    assert layout.segment[video].tolist() == [1] * 6 + [2] * 6 + [3] * 6
    assert set(layout.segment[still].tolist()) == {4}
    assert set(layout.segment[~layout.is_visual].tolist()) == {0}
    assert layout.grid_index[video][7].tolist() == [0, 1, 0, 1]
    assert torch.equal(layout.is_visual, video | still)
    assert layout.is_visual[-1]
    # tokens_per_second 2 x 2 frames x 1.25 s
    assert set(layout.rotary.step[video].tolist()) == {5.0}
    assert set(layout.rotary.step[still].tolist()) == {1.0}
    assert set(layout.rotary.step[~layout.is_visual].tolist()) == {0.0}
    assert family.tokenizer.decode(question).startswith("<|vision_end|>same?<|im_end|>")
    assert layout.rotary.axis.tolist() == [0] * 4 + [1] * 6 + [2] * 6


def test_layout_refuses_other_visuals_than_the_prompts(tiny_qwen2_5_vl, message):
    family = tiny_qwen2_5_vl
    ids = family.tokenize(message("<video>", "?"))
    with pytest.raises(UnsupportedModel, match="no visuals"):
        family.layout(ids, [])
    with pytest.raises(UnsupportedModel, match=r"\['video'\].*\['image'\]"):
        family.layout(ids, [VisualTokens(torch.zeros(4, 128), (1, 2, 2), kind="image")])
    with pytest.raises(UnsupportedModel, match="3 tokens"):
        family.layout(ids, [VisualTokens(torch.zeros(3, 128), (1, 2, 2))])


def test_time_of_a_grid(tiny_qwen2_5_vl, tiny_qwen2_vl, make_clip, message):
    timed = tiny_qwen2_5_vl.encode(make_clip(4, seconds_per_frame=0.4))
    assert timed.seconds_per_grid == pytest.approx(0.8)
    unknown = make_clip(4, seconds_per_frame=None)
    assert unknown.seconds_per_frame is None
    assert tiny_qwen2_5_vl.encode(unknown).seconds_per_grid == 1.0
    assert tiny_qwen2_5_vl.encode(make_clip(1)).grid == (1, 3, 3)
    slow = tiny_qwen2_vl.encode(make_clip(4, seconds_per_frame=9.0))
    layout, _ = tiny_qwen2_vl.layout(tiny_qwen2_vl.tokenize(message("<video>", "?")), [slow])
    assert layout.rotary.step.max() == 1.0


def test_frames_of_a_wrong_size(tiny_qwen2_5_vl, make_clip):
    with pytest.raises(InvalidSetting, match="84 x 98 px are not multiples of 28"):
        tiny_qwen2_5_vl.encode(make_clip(4, 84, 98))


def test_groups_that_do_not_divide(tiny_qwen2_5_vl, make_clip):
    with pytest.raises(InvalidSetting, match="use a multiple of 8 frames"):
        tiny_qwen2_5_vl.encode(make_clip(12), num_groups=4)


def test_read_only_frames(tiny_qwen2_5_vl, make_clip):
    clip = make_clip(4)
    clip.frames.flags.writeable = False
    tiny_qwen2_5_vl.encode(clip)


def test_images_from_files_with_transparency(tiny_qwen2_vl, tmp_path):
    clear = Image.new("RGBA", (84, 84), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    white = tiny_qwen2_vl.encode_image(Image.new("RGB", (84, 84), (255, 255, 255)))
    read = tiny_qwen2_vl.encode_image(tmp_path / "clear.png")
    assert torch.equal(white.embeddings, read.embeddings)
    with pytest.raises(InvalidSetting, match="PIL image or a path"):
        tiny_qwen2_vl.encode_image(7)


def test_budget_through_the_family(load_family, tiny_qwen2_5_vl_folder, make_clip):
    family = load_family(tiny_qwen2_5_vl_folder, visual_token_budget=64)
    family.check_sampling(Sampling(num_frames=8))
    height, width = family.resize()(360, 640, 8)
    tokens = family.encode(make_clip(8, height, width)).num_tokens
    assert 0.98 * 64 <= tokens <= 64
    half = family.resize(num_visuals=2)(360, 640, 8)
    assert 2 * family.encode(make_clip(8, *half)).num_tokens <= 64
    with pytest.raises(InfeasibleBudget, match=r"Nearest feasible: 128"):
        family.check_sampling(Sampling(num_frames=256))
    image = Image.new("RGB", (300, 300))
    assert family.encode_image(image).num_tokens == 64


@pytest.mark.parametrize("model", ["tiny_qwen2_vl", "tiny_qwen2_5_vl"])
@pytest.mark.parametrize("shape", [(8, 84, 84), (4, 140, 196)])
def test_vision_flops_equal_counted_ones(request, make_clip, model, shape):
    family = request.getfixturevalue(model)
    family.model.set_attn_implementation("eager")  # the counter sees its matrix products
    try:
        with FlopCounterMode(display=False) as counter:
            tokens = family.encode(make_clip(*shape))
    finally:
        family.model.set_attn_implementation("sdpa")
    assert family.vision_flops([tokens]) == counter.get_total_flops()
    assert family.vision_flops([tokens, tokens]) == 2 * family.vision_flops([tokens])


def test_stock_wrapper_answers_on_given_frames(stock_qwen2_5_vl, tiny_qwen2_5_vl_folder, make_clip):
    stock = stock_qwen2_5_vl(tiny_qwen2_5_vl_folder)
    clips = [make_clip(8, seed=seed) for seed in range(2)]
    samples = [(clip, "Which way does the red square move?") for clip in clips]
    answers = stock.answer(samples, max_new_tokens=6)
    assert len(answers) == 2
    assert answers == [stock.answer([sample], max_new_tokens=6)[0] for sample in samples]
