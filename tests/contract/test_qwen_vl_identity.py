"""Our pixels, embeddings and positions feed the text model what stock inference feeds it."""

import numpy as np
import pytest
import torch
from PIL import Image

FAMILIES = ["qwen2_vl", "qwen2_5_vl"]
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=FAMILIES)
def native(request, load_family):
    folder = request.getfixturevalue(f"tiny_{request.param}_folder")
    return load_family(folder, position_rule="native", min_pixels=784, max_pixels=100 * 784)


def video_metadata(clip) -> dict:
    return {
        "fps": 1 / clip.seconds_per_frame,
        "frames_indices": list(range(clip.num_frames)),
        "total_num_frames": clip.num_frames,
    }


def stock_inputs(family, messages, clips=(), images=()) -> dict:
    """What the processor makes of the same frames, called as lmms-eval's chat wrapper does."""
    text = family.processor.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    videos = [torch.from_numpy(c.frames).permute(0, 3, 1, 2).float() for c in clips]
    limits = {"shortest_edge": 784, "longest_edge": 1 << 24}
    return family.processor(
        text=[text],
        images=list(images) or None,
        videos=videos or None,
        video_metadata=[video_metadata(c) for c in clips] or None,
        images_kwargs={"size": limits},
        videos_kwargs={"size": limits},
        return_tensors="pt",
    )


@torch.no_grad()
def our_logits(family, input_ids, visuals) -> torch.Tensor:
    """`[1, L, V]`: the text model on our embeddings at our positions, without an engine."""
    layout, question = family.layout(input_ids, visuals)
    tail = family.model.get_input_embeddings()(question)[None]
    embeddings = torch.cat([family.embed(layout, visuals), tail], dim=1)
    plan = layout.rotary
    first = [int((plan.axis == axis).nonzero()[0]) for axis in range(3)]
    after = plan.next_position + torch.arange(len(question), dtype=torch.float64)
    positions = torch.cat([plan.positions[:, first].T, after.expand(3, -1)], dim=1)
    hidden = family.text_model(
        inputs_embeds=embeddings, position_ids=positions.long()[:, None], use_cache=False
    ).last_hidden_state
    return family.model.lm_head(hidden)


@torch.no_grad()
def stock_logits(family, inputs) -> torch.Tensor:
    family.model.model.rope_deltas = None
    return family.model(**inputs, use_cache=False).logits


CASES = {
    "video": (["<video>", "Which way does the red square move?"], [(8, 84, 84, 0.5)]),
    "odd frames": (["<video>", "What happens?"], [(7, 84, 112, 0.3)]),
    "fast video": (["<video>", "What happens?"], [(12, 56, 84, 0.05)]),
    "slow video": (["<video>", "What happens?"], [(6, 84, 56, 4.0)]),
    "two videos": (
        ["First", "<video>", "then", "<video>", "which is faster?"],
        [(8, 84, 84, 0.5), (4, 56, 112, 1.1)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_videos_equal_stock(native, make_clip, message, case):
    parts, shapes = CASES[case]
    clips = [
        make_clip(t, h, w, seconds_per_frame=s, seed=i) for i, (t, h, w, s) in enumerate(shapes)
    ]
    messages = message(*parts)
    inputs = stock_inputs(native, messages, clips)
    visuals = [native.encode(clip) for clip in clips]
    ids = native.tokenize(messages)
    layout, question = native.layout(ids, visuals)
    assert torch.equal(torch.cat([layout.input_ids, question]), inputs["input_ids"][0])
    expected = stock_logits(native, inputs)
    actual = our_logits(native, ids, visuals)
    assert (actual - expected).abs().max() < TOLERANCE
    assert expected.std() > 0.1


def test_image_equals_stock(native, message):
    pixels = np.random.default_rng(0).integers(0, 256, (84, 112, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    messages = message("<image>", "What is it?")
    visual = native.encode_image(image)
    assert visual.kind == "image"
    assert visual.grid == (1, 3, 4)
    expected = stock_logits(native, stock_inputs(native, messages, images=[image]))
    actual = our_logits(native, native.tokenize(messages), [visual])
    assert (actual - expected).abs().max() < TOLERANCE


def test_image_and_video_equal_stock(native, make_clip, message):
    image = Image.fromarray(make_clip(1, 56, 84, seed=5).frames[0])
    clip = make_clip(4)
    messages = message("<image>", "and", "<video>", "same?")
    inputs = stock_inputs(native, messages, [clip], [image])
    visuals = [native.encode_image(image), native.encode(clip)]
    actual = our_logits(native, native.tokenize(messages), visuals)
    assert (actual - stock_logits(native, inputs)).abs().max() < TOLERANCE


def test_text_only_equals_stock(native, message):
    messages = message("Which way is up?")
    ids = native.tokenize(messages)
    layout, question = native.layout(ids, [])
    assert layout.length == 0
    assert layout.num_frames == 0
    assert layout.rotary.next_position == 0
    assert layout.grid_index.shape == (0, 4)
    assert native.embed(layout, []).shape == (1, 0, native.geometry.hidden_size)
    assert question.tolist() == ids
    expected = stock_logits(native, stock_inputs(native, messages))
    assert (our_logits(native, ids, []) - expected).abs().max() < TOLERANCE


def test_pixel_values_equal_the_processors(native, make_clip, message, monkeypatch):
    clip = make_clip(7, 84, 112)
    seen = {}
    tower = native.model.model.get_video_features

    def spy(pixels, grid, **kwargs):
        seen.update(pixels=pixels, grid=grid)
        return tower(pixels, grid, **kwargs)

    monkeypatch.setattr(native.model.model, "get_video_features", spy)
    native.encode(clip)
    inputs = stock_inputs(native, message("<video>", "?"), [clip])
    assert torch.equal(seen["pixels"], inputs["pixel_values_videos"])
    assert torch.equal(seen["grid"], inputs["video_grid_thw"])


def test_logits_depend_on_positions_and_on_the_video(native, make_clip, message):
    ids = native.tokenize(message("<video>", "Which way does the red square move?"))
    visual = native.encode(make_clip(8))
    logits = our_logits(native, ids, [visual])
    other = our_logits(native, ids, [native.encode(make_clip(8, seed=1))])
    assert (logits - other)[0, -1].abs().max() > 0.05
    if native.model_type == "qwen2_5_vl":
        slow = our_logits(native, ids, [native.encode(make_clip(8, seconds_per_frame=3.0))])
        assert (logits - slow)[0, -1].abs().max() > 0.05


def test_position_rule_changes_logits(request, native, load_family, make_clip, message):
    family = load_family(native.pretrained, position_rule="original")
    ids = family.tokenize(message("<video>", "Which way?"))
    visual = family.encode(make_clip(16))
    difference = our_logits(family, ids, [visual]) - our_logits(native, ids, [visual])
    assert difference[0, -1].abs().max() > 0.01


def test_strided_groups_are_encoded_apart(native, make_clip):
    clip = make_clip(8)
    whole = native.encode(clip, num_groups=2)
    parts = [native.encode(clip.reordered(np.arange(g, 8, 2))) for g in range(2)]
    rows = whole.embeddings.view(4, 9, -1)
    for g, part in enumerate(parts):
        assert torch.allclose(rows[g::2], part.embeddings.view(2, 9, -1), atol=1e-5)
    assert whole.seconds_per_grid == native.encode(clip).seconds_per_grid


def test_features_are_the_mergers_input(native, make_clip):
    clip = make_clip(6, 84, 140)
    tokens = native.encode(clip, with_features=True)
    assert tokens.features.shape == (3, 3, 5, 4 * 64)
    merged = native.model.model.visual.merger(tokens.features.reshape(-1, 64))
    assert torch.allclose(merged, tokens.embeddings, atol=1e-5)
    assert native.encode(clip).features is None


def test_first_token_equals_the_stock_wrappers(
    stock_qwen2_5_vl, load_family, tiny_qwen2_5_vl_folder, make_clip, message
):
    stock = stock_qwen2_5_vl(tiny_qwen2_5_vl_folder)
    family = load_family(tiny_qwen2_5_vl_folder, position_rule="native", dtype="bfloat16")
    clips = [make_clip(8, seed=seed, seconds_per_frame=0.5 + seed) for seed in range(6)]
    answers = stock.answer([(clip, "Which way?") for clip in clips], max_new_tokens=1)
    ids = family.tokenize(message("<video>", "Which way?"))
    tokens = [our_logits(family, ids, [family.encode(clip)])[0, -1].argmax() for clip in clips]
    assert family.tokenizer.batch_decode([[t] for t in tokens], skip_special_tokens=True) == answers
