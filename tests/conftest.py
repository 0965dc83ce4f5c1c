"""Tiny random Qwen-VL checkpoints from real configs; the host's own wrapper on given frames.

Fixtures of session scope hand out one loaded family; a test that changes a model must undo it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tempeval.verification.inputs import random_clip, user_message
from tempeval.verification.tiny_qwen_vl import build_tokenizer, save_tiny_qwen_vl

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
    from tempeval.verification.tiny_llava_onevision import save_tiny_llava_onevision

    return save_tiny_llava_onevision(tmp_path_factory.mktemp("llava_onevision"), build_tokenizer())


@pytest.fixture(scope="session")
def tiny_llava_onevision(tiny_llava_onevision_folder: Path) -> LlavaOnevision:
    """A loaded tiny LLaVA-OneVision in float32 (mm_newline_position=one_token)."""
    from tempeval.verification.tiny_llava_onevision import load_llava_onevision

    return load_llava_onevision(tiny_llava_onevision_folder)


@pytest.fixture(scope="session")
def tiny_video_llava_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Video-LLaVA in the port's layout, without a chat template."""
    from tempeval.verification.tiny_video_llava import save_tiny_port

    return save_tiny_port(tmp_path_factory.mktemp("video_llava"))


@pytest.fixture(scope="session")
def tiny_video_llava(tiny_video_llava_folder: Path) -> VideoLlava:
    """A loaded tiny Video-LLaVA, the port, in float32."""
    from tempeval.verification.tiny_video_llava import load_video_llava

    return load_video_llava(tiny_video_llava_folder)


@pytest.fixture(scope="session")
def tiny_video_llava_original_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Video-LLaVA as it was released: two PyTorch shards."""
    from tempeval.verification.tiny_video_llava import save_tiny_original

    return save_tiny_original(tmp_path_factory.mktemp("video_llava_original"))


@pytest.fixture(scope="session")
def tiny_video_llava_original(tiny_video_llava_original_folder: Path) -> VideoLlava:
    """A loaded tiny Video-LLaVA, the original layout, in float32."""
    from tempeval.verification.tiny_video_llava import load_video_llava

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


@pytest.fixture(scope="session")
def make_clip() -> Callable[..., Clip]:
    """`random_clip(num_frames, height, width, *, seconds_per_frame, seed)`."""
    return random_clip


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
