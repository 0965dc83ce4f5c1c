from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from tempeval.families.base import LoadOptions
from tempeval.families.qwen_vl import QwenVL
from tempeval.mini.checkpoint import kind_of, save_checkpoint
from tempeval.mini.models import MINI_MODELS, mini_model
from tempeval.mini.models.qwen2_5_vl import SPECIAL, MiniQwen
from tempeval.mini.pack import Packer, answer_logits
from tempeval.mini.paint import paint_frames
from tempeval.mini.paths import checkpoint
from tempeval.mini.questions import KINDS, prompt
from tempeval.mini.scene import SIZES
from tempeval.mini.suite import suite_clips

ANSWERS = sorted({choice for kind in KINDS for choice in kind.choices})
SECONDS = 0.41
QWEN = MiniQwen()


@pytest.fixture(scope="module")
def folder() -> Path:
    return checkpoint("qwen2_5_vl")


@pytest.fixture(scope="module")
def processor(folder: Path) -> Any:
    return AutoProcessor.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype="float32").eval()


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    scene = suite_clips()[1].scene
    return paint_frames(scene, np.linspace(0, scene.num_frames - 1, 8, dtype=np.int64).tolist())


def inputs_of(processor: Any, frames: np.ndarray, prompt: str) -> Any:
    """Make inputs as any user of transformers would."""
    content = [{"type": "video"}, {"type": "text", "text": prompt}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    metadata = VideoMetadata(
        total_num_frames=len(frames), fps=1 / SECONDS, frames_indices=list(range(len(frames)))
    )
    return processor(
        text=[text],
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        video_metadata=[metadata],
        return_tensors="pt",
    )


def test_the_folder_is_small_and_safe(folder: Path) -> None:
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sum(files.values()) < 3_000_000
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]


def test_the_classes_are_the_real_ones(model: Any, processor: Any) -> None:
    assert type(model).__name__ == "Qwen2_5_VLForConditionalGeneration"
    assert type(processor).__name__ == "Qwen2_5_VLProcessor"
    assert type(processor.video_processor).__name__ == "Qwen2VLVideoProcessor"
    assert processor.video_processor.do_sample_frames is False
    assert model.config.vision_config.tokens_per_second == 2
    assert 1.0e6 < sum(weight.numel() for weight in model.parameters()) < 1.2e6


def test_the_folder_is_what_the_builders_make(model: Any, processor: Any) -> None:
    built = QWEN.build_processor()
    expected, found = QWEN.build_config(built.tokenizer), model.config
    for part in ("text_config", "vision_config"):
        ours, theirs = getattr(expected, part).to_dict(), getattr(found, part).to_dict()
        assert {**theirs, "dtype": None} == {**ours, "dtype": None}
    assert found.tempeval == expected.tempeval
    assert processor.video_processor.to_dict() == built.video_processor.to_dict()
    assert processor.tokenizer.get_vocab() == built.tokenizer.get_vocab()
    assert processor.chat_template == built.chat_template


def test_the_family_takes_frames_as_they_are(folder: Path) -> None:
    family = QwenVL.load(str(folder), LoadOptions())
    for width, height in SIZES:
        assert tuple(family.resize()(height, width, 8)) == (height, width)


def test_the_tokenizer_knows_the_suite(processor: Any) -> None:
    tokenizer = processor.tokenizer
    for token in SPECIAL:
        assert tokenizer.convert_ids_to_tokens(tokenizer.convert_tokens_to_ids(token)) == token
    for kind in KINDS:
        ids = tokenizer(kind.prompt)["input_ids"]
        assert tokenizer.unk_token_id not in ids
    for word in ANSWERS:
        (token,) = tokenizer(word)["input_ids"]
        assert tokenizer.decode([token, tokenizer.eos_token_id], skip_special_tokens=True) == word
    assert tokenizer("zebra")["input_ids"] == [tokenizer.unk_token_id]


def test_the_chat_template_is_chatml(processor: Any) -> None:
    content = [{"type": "video"}, {"type": "text", "text": "Which?"}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|video_pad|><|vision_end|>Which?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_training_inputs_are_the_processors(processor: Any, frames: np.ndarray) -> None:
    inputs = inputs_of(processor, frames, KINDS[0].prompt)
    pack = Packer(QWEN, processor).pack(frames[None], [SECONDS], [KINDS[0].prompt], [["grow"]])
    torch.testing.assert_close(pack.pixels, inputs["pixel_values_videos"], atol=1e-6, rtol=0)
    grid = (pack.grid.grids, 2 * pack.grid.rows, 2 * pack.grid.columns)
    assert [grid] == [tuple(row) for row in inputs["video_grid_thw"].tolist()]
    assert torch.equal(pack.input_ids[:, :-1], inputs["input_ids"])
    assert inputs["second_per_grid_ts"][0] == pytest.approx(2 * SECONDS)


def test_packed_questions_are_independent(model: Any, processor: Any, frames: np.ndarray) -> None:
    packer = Packer(QWEN, processor)
    answers = [kind.choices[0] for kind in KINDS]
    with torch.inference_mode():
        pack = packer.pack(frames[None], [SECONDS], [k.prompt for k in KINDS], [answers])
        packed = answer_logits(QWEN, model, pack)
        for index, kind in enumerate(KINDS):
            alone = packer.pack(frames[None], [SECONDS], [kind.prompt], [[answers[index]]])
            inputs = inputs_of(processor, frames, kind.prompt)
            plain = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                pixel_values_videos=inputs["pixel_values_videos"],
                video_grid_thw=inputs["video_grid_thw"],
                position_ids=alone.position_ids[:, :, :-1],
            ).logits[:, -1]
            torch.testing.assert_close(packed[:, index], plain, atol=2e-4, rtol=0)


def test_generate_says_one_word(model: Any, processor: Any, frames: np.ndarray) -> None:
    for kind in KINDS:
        inputs = inputs_of(processor, frames, prompt(kind.text, kind.choices))
        made = model.generate(**inputs, max_new_tokens=4)[0, inputs["input_ids"].shape[1] :]
        assert made[-1] == processor.tokenizer.eos_token_id
        assert processor.tokenizer.decode(made, skip_special_tokens=True) in kind.choices


@pytest.mark.parametrize("name", MINI_MODELS)
def test_a_checkpoint_survives_saving(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind = mini_model(name)
    processor = kind.build_processor()
    model = kind.build_model(processor.tokenizer)
    weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    save_checkpoint(tmp_path, model, processor)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype="float32")
    for name, weight in loaded.state_dict().items():
        torch.testing.assert_close(weight, weights[name], atol=1e-3, rtol=1e-3)
    again = AutoProcessor.from_pretrained(tmp_path)
    assert again.chat_template == processor.chat_template
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert type(kind_of(tmp_path)) is type(kind)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4e6
