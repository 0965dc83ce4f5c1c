"""LLaVA-OneVision through the engine against stock transformers and hand-made references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.errors import UnsupportedModel
from tempeval.families.llava_onevision_tiles import Anyres
from tempeval.methods.base import Chain
from tempeval.verification.through_engine import question_logits
from tempeval.verification.tiny_llava_onevision import TILE, load_llava_onevision

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def family(tiny_llava_onevision):
    return tiny_llava_onevision


@pytest.fixture(scope="module")
def gridded(tiny_llava_onevision_folder):
    return load_llava_onevision(tiny_llava_onevision_folder, mm_newline_position="grid")


def stock_inputs(family, messages, clips=(), images=()):
    """What the processor makes of a prompt, called as its documentation says."""
    text = family.processor.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    return family.processor(
        text=[text],
        images=list(images) or None,
        videos=[clip.frames for clip in clips] or None,
        return_tensors="pt",
    )


@torch.no_grad()
def engine_logits(family, messages, visuals):
    """`[Q, V]`: logits of the question's rows, by prefill and question; and the whole ids."""
    layout, tail = family.layout(family.tokenize(messages), visuals)
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, family.embed(layout, visuals))
        logits = question_logits(attachment, prefix, tail)
    return logits, torch.cat([layout.input_ids, tail])


@torch.no_grad()
def check_against_stock(family, messages, clips=(), images=(), in_order=None):
    """Compare logits, and eight greedy tokens, with stock transformers."""
    inputs = stock_inputs(family, messages, clips, images)
    visuals = in_order or [
        *(family.encode_image(image, num_visuals=len(images) + len(clips)) for image in images),
        *(family.encode(clip) for clip in clips),
    ]
    got, ids = engine_logits(family, messages, visuals)
    assert torch.equal(ids, inputs["input_ids"][0])
    expected = family.model(**inputs, use_cache=False).logits[0]
    assert expected.std() > 0.1  # a degenerate model would agree about anything
    assert (got - expected[-len(got) :]).abs().max() < TOLERANCE
    wanted = family.model.generate(**inputs, max_new_tokens=8, do_sample=False)
    layout, tail = family.layout(family.tokenize(messages), visuals)
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, family.embed(layout, visuals))
        (answer,) = generate(attachment, prefix, [tail], {"max_new_tokens": 8})
    assert list(answer.token_ids) == wanted[0, inputs["input_ids"].shape[1] :].tolist()
    return visuals


VIDEOS = {
    "at the tile's size": (["<video>", "Which way?"], [(8, TILE, TILE)]),
    "wide": (["<video>", "What happens first?"], [(7, 84, 154)]),
    "tall and small": (["<video>", "up"], [(3, 56, 42)]),
    "one frame": (["<video>", "What is it?"], [(1, 84, 84)]),
    "two": (
        ["First", "<video>", "then", "<video>", "which is faster?"],
        [(4, 84, 84), (4, 42, 70)],
    ),
}


@pytest.mark.parametrize("case", VIDEOS)
def test_videos_equal_stock(family, make_clip, message, case):
    parts, shapes = VIDEOS[case]
    clips = [make_clip(*shape, seed=seed) for seed, shape in enumerate(shapes)]
    visuals = check_against_stock(family, message(*parts), clips)
    assert [v.grid for v in visuals] == [(shape[0], 3, 3) for shape in shapes]


def picture(height, width, seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(coarse)


IMAGES = {
    "tile": ((70, 70), (5, 5)),
    "small": ((20, 31), (3, 5)),
    "wide": ((70, 140), (5, 10)),
    "very wide": ((50, 200), (3, 15)),
    "tall": ((210, 71), (15, 6)),
    "larger than anything": ((640, 480), (11, 8)),  # 3 x 3 tiles, scaled down to 4's worth
}


@pytest.mark.parametrize("case", IMAGES)
def test_images_equal_stock(family, message, case):
    size, grid = IMAGES[case]
    messages = message("<image>", "What is it?")
    (visual,) = check_against_stock(family, messages, images=[picture(*size)])
    assert [p.grid for p in visual.runs] == [(1, 5, 5), (1, *grid)]


def test_mixed_prompts_equal_stock(family, gridded, make_clip, message):
    image, clip = picture(90, 120), make_clip(4, 84, 112)
    check_against_stock(family, message("<image>", "and", "<video>", "same?"), [clip], [image])
    # The template puts images first, wherever they are in the message.
    visuals = [family.encode(clip), family.encode_image(image)]
    messages = message("<video>", "and", "<image>", "same?")
    check_against_stock(family, messages, [clip], [image], in_order=visuals)
    # Newlines in images are the same for every newline position of videos.
    check_against_stock(gridded, message("<image>", "What?"), images=[image])


def test_several_images_equal_stock(family, message):
    images = [picture(90, 120), picture(140, 60, seed=1)]
    check_against_stock(family, message("<image>", "<image>", "Which is larger?"), images=images)


def test_text_alone_equals_stock(family, message):
    messages = message("Which way is up?")
    layout, question = family.layout(family.tokenize(messages), [])
    assert (layout.length, layout.num_frames, layout.rotary.next_position) == (0, 0, 0)
    assert family.embed(layout, []).shape == (1, 0, family.geometry.hidden_size)
    assert question.tolist() == family.tokenize(messages)
    check_against_stock(family, messages)


def test_pixel_values_equal_the_processors(family, make_clip, message, monkeypatch):
    clip, image = make_clip(5, 98, 140), picture(150, 110)
    seen = {}
    base = family.model.model

    def spy(name):
        original = getattr(base, name)

        def call(pixels, *rest, **kwargs):
            seen[name] = pixels
            return original(pixels, *rest, **kwargs)

        monkeypatch.setattr(base, name, call)

    spy("get_video_features")
    spy("get_image_features")
    family.encode(clip)
    family.encode_image(image)
    inputs = stock_inputs(family, message("<image>", "<video>", "?"), [clip], [image])
    assert torch.equal(seen["get_video_features"], inputs["pixel_values_videos"])
    assert torch.equal(seen["get_image_features"], inputs["pixel_values"])


def pooled_by_hand(features):
    """Bilinear 5 x 5 -> 3 x 3, weight by weight: `[T, 25, C]` -> `[T, 3, 3, C]`."""
    frames = features.view(len(features), 5, 5, -1)
    weights = torch.zeros(3, 5)
    for i in range(3):
        centre = (i + 0.5) * 5 / 3 - 0.5
        low = int(centre)
        weights[i, low] += 1 - (centre - low)
        weights[i, min(low + 1, 4)] += centre - low
    return torch.einsum("ih,jw,thwc->tijc", weights, weights, frames)


@torch.no_grad()
def by_hand(family, clip):
    """Features before the projector and tokens after it, pooled, from the tower's own modules."""
    base = family.model.model
    pixels = family.processor.video_processor(videos=[clip.frames], return_tensors="pt")
    pixels = pixels["pixel_values_videos"][0]
    # The published checkpoints take the last layer without the tower's final norm.
    hidden = base.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
    return pooled_by_hand(hidden), pooled_by_hand(base.multi_modal_projector(hidden))


@torch.no_grad()
def test_grid_newlines_equal_a_handmade_prompt(family, gridded, make_clip, message):
    clip, messages = make_clip(4, 84, 112), message("<video>", "What happens first?")
    _, tokens = by_hand(gridded, clip)
    model = gridded.model
    embed = model.get_input_embeddings()
    pieces = []
    for token in gridded.tokenize(messages):
        if token == model.config.video_token_id:
            for frame in tokens:
                for row in frame:
                    pieces += [*row, model.model.image_newline]
        else:
            pieces.append(embed(torch.tensor(token)))
    hidden = model.model.language_model(inputs_embeds=torch.stack(pieces)[None]).last_hidden_state
    expected = model.lm_head(hidden)[0]
    visual = gridded.encode(clip)
    got, ids = engine_logits(gridded, messages, [visual])
    assert len(ids) == len(expected)
    assert (got - expected[-len(got) :]).abs().max() < TOLERANCE
    other, _ = engine_logits(family, messages, [visual])
    assert (got - other)[-1].abs().max() > 0.01  # newlines matter

    layout, _ = gridded.layout(gridded.tokenize(messages), [visual])
    assert layout.num_visual_tokens == 4 * 3 * 4
    newline = layout.grid_index[:, 3] == 3
    assert newline.sum() == 12
    assert layout.segment[newline].tolist() == [f for f in (1, 2, 3, 4) for _ in range(3)]


@torch.no_grad()
def test_features_are_the_projectors_input_pooled(family, make_clip):
    clip = make_clip(6, 84, 140)
    features, tokens = by_hand(family, clip)
    got = family.encode(clip, with_features=True)
    assert got.features.shape == (6, 3, 3, 64)
    assert torch.allclose(got.features, features, rtol=1e-4, atol=1e-4)
    assert torch.allclose(got.embeddings.view(6, 3, 3, -1), tokens, rtol=1e-4, atol=1e-4)
    assert family.encode(clip).features is None


def test_logits_depend_on_the_video_and_on_its_order(family, make_clip, message):
    messages, clip = message("<video>", "Which way?"), make_clip(8)
    first, _ = engine_logits(family, messages, [family.encode(clip)])
    for changed in (make_clip(8, seed=1), clip.reordered(np.arange(7, -1, -1))):
        other, _ = engine_logits(family, messages, [family.encode(changed)])
        assert (first - other)[-1].abs().max() > 0.05


def test_position_rules_are_the_same(tiny_llava_onevision_folder, family, make_clip, message):
    native = load_llava_onevision(tiny_llava_onevision_folder, position_rule="native")
    messages, clip = message("<video>", "Which way?"), make_clip(3)
    results = [engine_logits(f, messages, [f.encode(clip)])[0] for f in (family, native)]
    assert torch.equal(*results)


def test_groups_change_nothing(family, make_clip):
    clip = make_clip(8)
    whole = family.encode(clip)
    assert torch.equal(family.encode(clip, num_groups=4).embeddings, whole.embeddings)
    single = family.encode(clip.reordered(np.array([5])))
    assert torch.allclose(single.embeddings, whole.embeddings[5 * 9 : 6 * 9], atol=1e-5)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 900), st.integers(1, 900))
def test_image_grids_equal_what_transformers_packs(family, height, width):
    packing = Anyres.from_config(family.model.config).pack(height, width)
    (packed,), _ = family.model.model.pack_image_features(
        [torch.zeros(packing.tiles, 25, 2)],
        torch.tensor([[height, width]]),
        image_newline=torch.ones(2),
        vision_aspect_ratio=family.model.config.vision_aspect_ratio,
    )
    newlines = (packed[:, 0] == 1).nonzero().squeeze(1)
    assert len(packed) == 25 + packing.rows * (packing.columns + 1)
    assert newlines.tolist() == [
        25 + packing.columns + row * (packing.columns + 1) for row in range(packing.rows)
    ]


def test_images_of_which_nothing_is_left_are_refused():
    """With an even number of rows per tile, the padding can take them all."""
    with pytest.raises(UnsupportedModel, match="an image of 4 x 900 px is too long"):
        Anyres(tile=84, side=6, pinpoints=((84, 84),), max_tiles=9).pack(4, 900)
