"""Tiny random Qwen-VL checkpoints from real configs; the host's own wrapper on given frames.

Fixtures of session scope hand out one loaded family; a test that changes a model must undo it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tempeval.families.llava_onevision import LlavaOnevision
    from tempeval.families.qwen_vl import QwenVL
    from tempeval.families.video_llava import VideoLlava
    from tempeval.video.clip import Clip

# One thread: the models are tiny, and thread pools of parallel workers would fight over two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ.setdefault(variable, "1")

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)

#: The text that the byte-level BPE is trained on; other text falls back to bytes.
CORPUS = (
    "system user assistant You are a helpful assistant. Please answer with the letter only.",
    "Which way does the red square move? Does the blue square move to the left or to the right?",
    "What happens first? What happens last? How fast is it? Is it faster or slower than before?",
    "A. left B. right C. up D. down yes no true false option question video image frame time",
)

#: As Qwen2.5-VL's own: default system turn, one placeholder between vision marks per visual.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer() -> Any:
    """Train a 400-token byte-level BPE on `CORPUS`; any text round-trips through it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, additional_special_tokens=list(SPECIAL_TOKENS[1:]), **named
    )


def save_tiny_qwen_vl(
    folder: Path, model_type: str, *, seed: int = 0, weight_scale: float = 4.0, **text: Any
) -> Path:
    """Save a random Qwen2-VL or Qwen2.5-VL with tokenizer, processors and chat template.

    Args:
        folder: where to save.
        model_type: `qwen2_vl` or `qwen2_5_vl`.
        seed: of the random weights.
        weight_scale: factor on every weight of two or more dimensions, so that logits depend on
            positions and on the video (with the default initialisation they hardly do).
        text: overrides of the text config.
    """
    import torch
    import transformers

    tokenizer = build_tokenizer()
    token_id = tokenizer.convert_tokens_to_ids
    vision: dict[str, Any] = {
        "depth": 2,
        "num_heads": 4,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    if model_type == "qwen2_5_vl":
        config_class = transformers.Qwen2_5_VLConfig
        model_class = transformers.Qwen2_5_VLForConditionalGeneration
        processor_class = transformers.Qwen2_5_VLProcessor
        vision |= {
            "hidden_size": 64,
            "intermediate_size": 128,
            "out_hidden_size": 128,
            "window_size": 56,  # windows of 2 x 2 merged tokens in block 0
            "fullatt_block_indexes": [1],
            "tokens_per_second": 2,
        }
    else:
        config_class = transformers.Qwen2VLConfig
        model_class = transformers.Qwen2VLForConditionalGeneration
        processor_class = transformers.Qwen2VLProcessor
        vision |= {"embed_dim": 64, "hidden_size": 128, "mlp_ratio": 2}
    text_config = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1000.0,
            "mrope_section": [4, 6, 6],
        },
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    } | text
    config = config_class(
        text_config=text_config,
        vision_config=vision,
        image_token_id=token_id("<|image_pad|>"),
        video_token_id=token_id("<|video_pad|>"),
        vision_start_token_id=token_id("<|vision_start|>"),
        vision_end_token_id=token_id("<|vision_end|>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                weight *= weight_scale
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    processor = processor_class(
        image_processor=transformers.Qwen2VLImageProcessor(),
        tokenizer=tokenizer,
        video_processor=transformers.Qwen2VLVideoProcessor(cap_pixels_per_frame=False),
        chat_template=CHAT_TEMPLATE,
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_qwen2_5_vl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Qwen2.5-VL."""
    return save_tiny_qwen_vl(tmp_path_factory.mktemp("qwen2_5_vl"), "qwen2_5_vl")


@pytest.fixture(scope="session")
def tiny_qwen2_vl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Qwen2-VL."""
    return save_tiny_qwen_vl(tmp_path_factory.mktemp("qwen2_vl"), "qwen2_vl")


@pytest.fixture(scope="session")
def tiny_qwen2_5_vl(tiny_qwen2_5_vl_folder: Path) -> QwenVL:
    """A loaded tiny Qwen2.5-VL in float32 (position_rule=original)."""
    return load_qwen_vl(tiny_qwen2_5_vl_folder)


@pytest.fixture(scope="session")
def tiny_qwen2_vl(tiny_qwen2_vl_folder: Path) -> QwenVL:
    """A loaded tiny Qwen2-VL in float32 (position_rule=original)."""
    return load_qwen_vl(tiny_qwen2_vl_folder)


@pytest.fixture(scope="session")
def tiny_llava_onevision_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random LLaVA-OneVision."""
    from tiny_llava_onevision import save_tiny_llava_onevision

    return save_tiny_llava_onevision(tmp_path_factory.mktemp("llava_onevision"), build_tokenizer())


@pytest.fixture(scope="session")
def tiny_llava_onevision(tiny_llava_onevision_folder: Path) -> LlavaOnevision:
    """A loaded tiny LLaVA-OneVision in float32 (mm_newline_position=one_token)."""
    from tiny_llava_onevision import load_llava_onevision

    return load_llava_onevision(tiny_llava_onevision_folder)


@pytest.fixture(scope="session")
def tiny_video_llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Video-LLaVA in the port's layout, without a chat template."""
    from tiny_video_llava import save_tiny_port

    return save_tiny_port(tmp_path_factory.mktemp("video_llava"))


@pytest.fixture(scope="session")
def tiny_video_llava(tiny_video_llava_folder: Path) -> VideoLlava:
    """A loaded tiny Video-LLaVA, the port, in float32."""
    from tiny_video_llava import load_video_llava

    return load_video_llava(tiny_video_llava_folder)


@pytest.fixture(scope="session")
def tiny_video_llava_original_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Video-LLaVA as it was released: two PyTorch shards."""
    from tiny_video_llava import save_tiny_original

    return save_tiny_original(tmp_path_factory.mktemp("video_llava_original"))


@pytest.fixture(scope="session")
def tiny_video_llava_original(tiny_video_llava_original_folder: Path) -> VideoLlava:
    """A loaded tiny Video-LLaVA, the original layout, in float32."""
    from tiny_video_llava import load_video_llava

    return load_video_llava(tiny_video_llava_original_folder)


def load_qwen_vl(folder: Path, **options: Any) -> QwenVL:
    """Load a folder in float32 on the CPU."""
    from tempeval.families.base import LoadOptions
    from tempeval.families.qwen_vl import QwenVL

    return QwenVL.load(str(folder), LoadOptions(**{"dtype": "float32", **options}))


@pytest.fixture(scope="session")
def load_family() -> Callable[..., QwenVL]:
    """`load_qwen_vl`, for tests that need other options (`position_rule`, a budget)."""
    return load_qwen_vl


def random_clip(
    num_frames: int = 8,
    height: int = 84,
    width: int = 84,
    *,
    seconds_per_frame: float | None = 0.5,
    seed: int = 0,
) -> Clip:
    """Smooth random frames that differ in time; no timestamps when `seconds_per_frame` is None."""
    from tempeval.video.clip import Clip

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_frames, height // 14, width // 14, 3), dtype=np.uint8)
    frames = coarse.repeat(14, axis=1).repeat(14, axis=2)
    step = np.nan if seconds_per_frame is None else seconds_per_frame
    return Clip(
        frames=frames,
        timestamps=np.arange(num_frames) * step,
        indices=np.arange(num_frames),
        source=f"random-{seed}",
        source_frames=num_frames,
        source_size=(height, width),
        source_fps=None if seconds_per_frame is None else 1 / seconds_per_frame,
    )


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    """`random_clip(num_frames, height, width, *, seconds_per_frame, seed)`."""
    return random_clip


def user_message(*parts: str) -> list[dict[str, Any]]:
    """One user turn; the parts `<video>` and `<image>` are placeholders, the rest is text."""
    kinds = {"<video>": {"type": "video"}, "<image>": {"type": "image"}}
    content = [kinds.get(part, {"type": "text", "text": part}) for part in parts]
    return [{"role": "user", "content": content}]


@pytest.fixture(scope="session")
def message() -> Callable[..., Sequence[dict[str, Any]]]:
    """`user_message("<video>", "What happens?")`."""
    return user_message


class StockWrapper:
    """lmms-eval's own `qwen2_5_vl` chat wrapper on the CPU (bfloat16), on frames that are given.

    Decoding and resizing are replaced: `process_vision_info` returns the clip's frames, with
    metadata from which the processor derives the clip's own seconds per frame. All else (chat
    template, processor, positions, generation) is the host's code, so its answers are what
    `position_rule=native` has to reproduce on the same frames.

    Args:
        folder: checkpoint folder.
        monkeypatch: puts `process_vision_info` back.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import lmms_eval.models.chat.qwen2_5_vl as host

        self._clips: dict[str, Clip] = {}
        monkeypatch.setattr(host, "process_vision_info", self._process_vision_info)
        # Any frame size that is a multiple of 28 lies within these limits and stays as it is.
        limits = {"min_pixels": 28 * 28, "max_pixels": 1 << 24}
        self.lm = host.Qwen2_5_VL(pretrained=str(folder), device="cpu", device_map="cpu", **limits)

    def answer(
        self, samples: Sequence[tuple[Clip, str]], max_new_tokens: int = 8, **gen_kwargs: Any
    ) -> list[str]:
        """Answer (clip, question) pairs greedily, one sample per batch.

        Clips are told apart by `source`: one clip per source.
        """
        from lmms_eval.api.instance import Instance

        self._clips = {clip.source: clip for clip, _ in samples}
        docs = [{"clip": clip.source, "question": question} for clip, question in samples]
        self.lm.task_dict = {"injected": {"test": docs}}
        gen_kwargs = {"max_new_tokens": max_new_tokens, **gen_kwargs}
        requests = [
            Instance(
                request_type="generate_until",
                arguments=(doc["question"], _stock_messages, gen_kwargs, i, "injected", "test"),
                idx=0,
                metadata={"task": "injected", "doc_id": i, "repeats": 1},
            )
            for i, doc in enumerate(docs)
        ]
        return [result.text for result in self.lm.generate_until(requests)]

    def _process_vision_info(self, conversations: Any, **_: Any) -> tuple[Any, Any, Any]:
        import torch

        videos = []
        for messages in conversations:
            for part in (p for m in messages for p in m["content"] if p["type"] == "video"):
                clip = self._clips[part["video"]]
                seconds = clip.seconds_per_frame
                metadata = {
                    "fps": None if seconds is None else 1 / seconds,
                    "frames_indices": list(range(clip.num_frames)),
                    "total_num_frames": clip.num_frames,
                }
                frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float()
                videos.append((frames, metadata))
        return None, videos or None, {"do_sample_frames": False}


def _stock_messages(doc: dict[str, str]) -> list[dict[str, Any]]:
    content = [{"type": "video", "url": doc["clip"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


@pytest.fixture
def stock_qwen2_5_vl(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], StockWrapper]:
    """`stock_qwen2_5_vl(folder).answer([(clip, "Which way?")])`; see `StockWrapper`."""
    return lambda folder: StockWrapper(folder, monkeypatch)
