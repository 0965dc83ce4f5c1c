"""`tempeval_baseline` against lmms-eval's own Qwen2.5-VL wrapper and plain transformers calls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lmms_eval.api.instance import Instance

import tempeval.tasks
import tempeval.tasks.mini as mini_task
from tempeval.engine.attach import Attachment
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.families.base import LoadOptions
from tempeval.families.registry import family_class
from tempeval.methods.base import Chain
from tempeval.mini.paths import checkpoint
from tempeval.model_wrappers.baseline import TempevalBaseline
from tempeval.verification.through_engine import question_logits
from tempeval.video.clip import Sampling, VideoRef
from tempeval.video.decode import read_clip

CLIPS = 30


def mini_docs():
    lines = (Path(tempeval.tasks.__path__[0]) / "mini" / "annotations.jsonl").read_text()
    docs = [json.loads(line) for line in lines.splitlines()]
    names = sorted({doc["video_id"] for doc in docs})[:CLIPS]
    return [doc for doc in docs if doc["video_id"] in names]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_answers_as_the_stock_wrapper_on_mini_tasks(stock_qwen2_5_vl, message, dtype):
    """Stock loads bfloat16 only; for float32 it is handed our very model.

    Where bfloat16 leaves two answers closer than its rounding, machines differ in which one wins.
    """
    docs = mini_docs()
    ours = TempevalBaseline("mini", device="cpu", dtype=dtype, position_rule="native", batch_size=8)
    ours.task_dict = {"mini": {"test": docs}}
    settings = {"max_new_tokens": 4, "temperature": 0}
    requests = [
        Instance(
            "generate_until",
            ("", mini_task.doc_to_messages, settings, i, "mini", "test"),
            0,
            {"task": "mini", "doc_id": i, "repeats": 1},
        )
        for i in range(len(docs))
    ]
    mine = [result.text for result in ours.generate_until(requests)]

    stock = stock_qwen2_5_vl(checkpoint())
    if dtype == "float32":
        stock.lm._model = ours.family.model
    clips = {}
    for doc in docs:
        ref = VideoRef(mini_task.doc_to_visual(doc)[0], fps=doc["fps"])
        if ref not in clips:
            clips[ref] = read_clip(ref, Sampling(num_frames=8), resize=ours.family.resize())
    pairs = [
        (clips[VideoRef(mini_task.doc_to_visual(d)[0], fps=d["fps"])], mini_task.doc_to_text(d))
        for d in docs
    ]
    theirs = stock.answer(pairs, max_new_tokens=4)
    assert len(set(theirs)) > 5  # a model that always says the same would agree about anything
    differing = [i for i, pair in enumerate(zip(mine, theirs, strict=True)) if len(set(pair)) > 1]
    if dtype == "float32":
        assert differing == []
        return
    assert len(differing) <= 0.02 * len(docs)
    exact = family_class("qwen_vl").load(
        str(checkpoint()), LoadOptions(dtype="float32", position_rule="native")
    )
    exact.model.to(torch.bfloat16).float()  # the same weights, computed without bfloat16
    for i in differing:
        rows = [prompt_end(family, message, *pairs[i]) for family in (ours.family, exact)]
        noise = (rows[0] - rows[1]).abs().max()
        one, other = (ours.family.tokenizer.convert_tokens_to_ids(x[i]) for x in (mine, theirs))
        assert (rows[1][one] - rows[1][other]).abs() <= 2 * noise


@torch.no_grad()
def prompt_end(family, message, clip, text):
    """Logits `[V]` of the answer's first token, in float32."""
    visuals = [family.encode(clip)]
    layout, tail = family.layout(family.tokenize(message("<video>", text)), visuals)
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, family.embed(layout, visuals))
        return question_logits(attachment, prefix, tail)[-1].float()


CASES = {
    "video": ("<video>", "What happens first?"),
    "two videos": ("<video>", "What happens first?", "<video>", "Which way?"),
    "image": ("<image>", "What happens first?"),
    "image and video": ("<image>", "up", "<video>", "Is it faster?"),
    "text": ("What happens first?",),
}


@torch.no_grad()
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen2_vl"])
def test_engine_logits_equal_a_plain_model_call(
    request, load_family, make_clip, message, case, name
):
    """Shared prefix and tail against one `model(...)` call with pixels and the model's own rule."""
    import numpy as np
    from PIL import Image

    folder = request.getfixturevalue(f"tiny_{name}_folder")
    family = load_family(
        folder, position_rule="native", min_pixels=28 * 28, max_pixels=28 * 28 * 64
    )
    parts = CASES[case]
    visuals, pixels, grids = [], {"image": [], "video": []}, {"image": [], "video": []}
    seconds = []
    for number, part in enumerate(parts):
        if part == "<video>":
            clip = make_clip(8, 84, 112, seconds_per_frame=0.4 + number / 4, seed=number)
            visuals.append(family.encode(clip))
            frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2)
            out = family.processor.video_processor(
                [frames], do_resize=False, do_sample_frames=False, return_tensors="pt"
            )
            pixels["video"].append(out["pixel_values_videos"])
            grids["video"].append(out["video_grid_thw"])
            seconds.append(clip.seconds_per_frame * 2)
        elif part == "<image>":
            rng = np.random.default_rng(number)
            array = rng.integers(0, 256, (84, 112, 3), dtype=np.uint8)
            visuals.append(family.encode_image(Image.fromarray(array)))
            out = family.processor.image_processor(
                Image.fromarray(array), do_resize=False, return_tensors="pt"
            )
            pixels["image"].append(out["pixel_values"])
            grids["image"].append(out["image_grid_thw"])
    layout, tail = family.layout(family.tokenize(message(*parts)), visuals)
    with Attachment(family, make_plan(Chain(), layout, family.geometry)) as attachment:
        prefix = prefill(attachment, family.embed(layout, visuals))
        got = question_logits(attachment, prefix, tail)
    ids = torch.cat([layout.input_ids, tail]).unsqueeze(0)
    config = family.model.config
    kinds = torch.zeros_like(ids)
    kinds[ids == config.image_token_id] = 1
    kinds[ids == config.video_token_id] = 2
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds}
    if pixels["video"]:
        inputs["pixel_values_videos"] = torch.cat(pixels["video"])
        inputs["video_grid_thw"] = torch.cat(grids["video"])
        if name == "qwen2_5_vl":
            inputs["second_per_grid_ts"] = torch.tensor(seconds)
    if pixels["image"]:
        inputs["pixel_values"] = torch.cat(pixels["image"])
        inputs["image_grid_thw"] = torch.cat(grids["image"])
    plain = family.model(**inputs).logits[0, layout.length :]
    assert plain.std() > 0.1
    assert (got - plain).abs().max() < 1e-4
