"""The two sides of a comparison: lmms-eval's own wrapper and this one, on one loaded model."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

from lmms_eval.api.instance import Instance
from loguru import logger

from tempeval.engine.clock import now
from tempeval.engine.feature_cache import FeatureCache
from tempeval.errors import TempevalError, UnsupportedModel
from tempeval.families.qwen_vl import QwenVL
from tempeval.model_wrappers.baseline import TempevalBaseline

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tempeval.bench.options import Settings
    from tempeval.engine.usage import Usage

#: Pixels per frame: the range in which lmms-eval, qwen-vl-utils and this package leave sizes alone.
MIN_PIXELS, MAX_PIXELS = 28 * 28, 768 * 28 * 28
_TASK = "bench"


class BenchMismatch(TempevalError):
    """The two sides did not get, or do, the same work; their times cannot be compared."""


class Sides:
    """Both wrappers on one model, asked the same questions about the same files.

    The stock wrapper's constructor and `generate_until` run as released. Only the loading of
    weights is replaced: it hard-codes bfloat16, and it gets this package's loaded model instead.
    Both generate exactly `max_new_tokens` tokens: the model's generation config forbids an
    earlier end.

    Args:
        pretrained: checkpoint folder or hub id.
        settings: of the benchmark.

    Raises:
        UnsupportedModel: if the checkpoint is no Qwen2.5-VL.
    """

    def __init__(self, pretrained: str, settings: Settings) -> None:
        self.settings = settings
        self.ours = TempevalBaseline(
            pretrained,
            device=settings.device,
            dtype=settings.dtype,
            position_rule="native",
            num_frames=settings.frames,
            batch_size=settings.batch_size,
            min_pixels=MIN_PIXELS,
            max_pixels=MAX_PIXELS,
        )
        if not isinstance(self.ours.family, QwenVL) or self.ours.family.model_type != "qwen2_5_vl":
            raise UnsupportedModel(
                f"{pretrained!r} is no Qwen2.5-VL, whose stock wrapper is what is compared"
            )
        self.family: QwenVL = self.ours.family
        self.stock = _stock_wrapper(self.family.model, pretrained, settings)

    def ask_stock(self, videos: Sequence[str], texts: Sequence[str]) -> tuple[float, list[Any]]:
        """Return the seconds of stock's `generate_until`, and its results."""
        return self._ask(self.stock, videos, texts)

    def ask_ours(self, videos: Sequence[str], texts: Sequence[str]) -> tuple[float, list[Any]]:
        """Return the seconds of our `generate_until`, and its results; nothing is remembered."""
        encoder = self.ours.inference.encoder
        encoder.cache = FeatureCache(encoder.cache.limit_bytes)
        return self._ask(self.ours, videos, texts)

    def _ask(
        self, wrapper: Any, videos: Sequence[str], texts: Sequence[str]
    ) -> tuple[float, list[Any]]:
        docs = [{"video": video, "text": text} for video in videos for text in texts]
        wrapper.task_dict = {_TASK: {"test": docs}}
        settings = {"max_new_tokens": self.settings.max_new_tokens, "temperature": 0}
        requests = [
            Instance(
                request_type="generate_until",
                arguments=(doc["text"], messages_of, settings, number, _TASK, "test"),
                idx=0,
                metadata={"task": _TASK, "doc_id": number, "repeats": 1},
            )
            for number, doc in enumerate(docs)
        ]
        with quiet(), exact_length(self.family.model, self.settings.max_new_tokens):
            start = now(self.family.device)
            results = wrapper.generate_until(requests)
            seconds = now(self.family.device) - start
        for result in results:
            made = result.token_counts.output_tokens
            if made != self.settings.max_new_tokens:
                raise BenchMismatch(
                    f"{type(wrapper).__name__} made {made} tokens for an answer, not "
                    f"{self.settings.max_new_tokens}; the times would not be comparable"
                )
        return seconds, results


def usage_of(result: Any) -> Usage:
    """Return the usage of one of our results.

    Raises:
        BenchMismatch: if the sample failed.
    """
    usage: Usage = result.token_counts.usage
    if usage.error is not None:
        raise BenchMismatch(f"a question of the benchmark failed: {usage.error}")
    return usage


@contextlib.contextmanager
def exact_length(model: Any, tokens: int) -> Iterator[None]:
    """Make `generate` produce exactly `max_new_tokens` tokens, on both sides alike."""
    config = model.generation_config
    before = config.min_new_tokens
    config.min_new_tokens = tokens
    try:
        yield
    finally:
        config.min_new_tokens = before


def messages_of(doc: dict[str, str]) -> list[dict[str, Any]]:
    """Return the chat of a benchmark document: the video, then the question."""
    content = [{"type": "video", "url": doc["video"]}, {"type": "text", "text": doc["text"]}]
    return [{"role": "user", "content": content}]


def _stock_wrapper(model: Any, pretrained: str, settings: Settings) -> Any:
    """Construct lmms-eval's chat wrapper, handing it the loaded model in place of loading one."""
    import lmms_eval.models.chat.qwen2_5_vl as chat
    import lmms_eval.models.simple.qwen2_5_vl as simple

    loader = simple.Qwen2_5_VLForConditionalGeneration
    simple.Qwen2_5_VLForConditionalGeneration = _Loaded(model)
    try:
        return chat.Qwen2_5_VL(
            pretrained=pretrained,
            device=settings.device,
            device_map=settings.device,
            max_num_frames=settings.frames,
            min_pixels=MIN_PIXELS,
            max_pixels=MAX_PIXELS,
        )
    finally:
        simple.Qwen2_5_VLForConditionalGeneration = loader


class _Loaded:
    """Stands for a model class whose `from_pretrained` returns what is loaded already."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def from_pretrained(self, *_: Any, **__: Any) -> Any:
        return self._model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars, deprecations, and the host's debug lines, which quote every question."""
    logger.disable("lmms_eval")
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logger.enable("lmms_eval")
