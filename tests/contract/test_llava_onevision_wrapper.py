"""LLaVA-OneVision through tempeval's lmms-eval models, from rendered clips to usages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lmms_eval.api.instance import Instance
from PIL import Image

from tempeval.errors import InfeasibleBudget, InvalidSetting
from tempeval.model_wrappers.baseline import TempevalBaseline, TempevalBaselineSimple
from tempeval.model_wrappers.chain import Tempeval
from tempeval.verification.tiny_llava_onevision import TILE
from tempeval.video.clip import VideoPath


@pytest.fixture(scope="module")
def docs(tmp_path_factory):
    """Two clips in folders of pictures, larger than the model's square; three questions each."""
    root = tmp_path_factory.mktemp("docs")
    found = []
    for number in range(2):
        folder = root / f"v{number}"
        folder.mkdir()
        rng = np.random.default_rng(number)
        for frame in range(8):
            coarse = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
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
    gen_kwargs = {"max_new_tokens": 4, "temperature": 0}
    made = []
    for i, doc in enumerate(docs):
        if kind == "loglikelihood":
            arguments = (doc["text"], " left", doc_to_visual, i, "task", "test")
        elif model.is_simple:
            arguments = (doc["text"], gen_kwargs, doc_to_visual, i, "task", "test")
        else:
            arguments = (doc["text"], doc_to_messages, gen_kwargs, i, "task", "test")
        made.append(Instance(kind, arguments, 0, {"task": "task", "doc_id": i, "repeats": 1}))
    return made


@pytest.mark.parametrize(("position", "tokens"), [("one_token", 73), ("grid", 96)])
def test_answers_equal_stock_generation(tiny_llava_onevision_folder, docs, position, tokens):
    texts = []
    for cls in (TempevalBaseline, TempevalBaselineSimple):
        model = cls(str(tiny_llava_onevision_folder), device="cpu", mm_newline_position=position)
        results = model.generate_until(instances(model, docs))
        usages = [result.token_counts.to_dict() for result in results]
        assert all(usage["error"] is None for usage in usages)
        assert {usage["visual_tokens"] for usage in usages} == {tokens}
        assert {usage["frames"] for usage in usages} == {8}
        texts.append([result.text for result in results])
    assert texts[0] == texts[1]
    facts = model.run_facts()
    assert facts.family == "llava_onevision"
    assert facts.family_settings["mm_newline_position"] == position
    assert facts.min_pixels == facts.max_pixels == TILE * TILE
    if position == "one_token":
        assert texts[0] == [stock_answer(model.family, doc) for doc in docs]


@torch.no_grad()
def stock_answer(family, doc):
    """What transformers alone answers, from the pictures on disk to the text."""
    names = [f"{doc['path']}/{frame:02d}.png" for frame in range(8)]
    frames = np.stack([np.asarray(Image.open(name).convert("RGB")) for name in names])
    content = [{"type": "video"}, {"type": "text", "text": doc["text"]}]
    text = family.processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    inputs = family.processor(text=[text], videos=[frames], return_tensors="pt")
    output = family.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return family.tokenizer.decode(
        output[0, inputs["input_ids"].shape[1] :],
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )


def test_choices_are_scored(tiny_llava_onevision_folder, docs):
    model = TempevalBaselineSimple(str(tiny_llava_onevision_folder), device="cpu")
    results = model.loglikelihood(instances(model, docs, "loglikelihood"))
    assert len({float(loss) for loss, _ in results}) == len(docs)
    assert results[0].token_counts.to_dict()["visual_tokens"] == 73


def test_a_budget_chooses_the_frames(tiny_llava_onevision_folder, docs):
    folder = str(tiny_llava_onevision_folder)
    model = TempevalBaseline(folder, device="cpu", visual_token_budget=56)
    assert model.run_facts().frame_policy.num_frames == 6
    (result,) = model.generate_until(instances(model, docs[:1]))
    assert result.token_counts.to_dict()["visual_tokens"] == 55
    with pytest.raises(InfeasibleBudget, match=r"Nearest feasible: 55"):
        TempevalBaseline(folder, device="cpu", visual_token_budget=53)


def test_other_families_refuse_newline_positions(tiny_qwen2_5_vl_folder):
    with pytest.raises(InvalidSetting, match="family qwen_vl have no newline tokens"):
        Tempeval(str(tiny_qwen2_5_vl_folder), device="cpu", mm_newline_position="grid")
