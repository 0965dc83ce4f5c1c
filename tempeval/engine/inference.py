"""The way of one question: decoded ahead, encoded once, prefilled once, answered in batches."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.answer import generate
from tempeval.engine.attach import Attachment
from tempeval.engine.choices import score_choices
from tempeval.engine.feature_cache import Encoded, FeatureCache
from tempeval.engine.ledger import Ledger, distinct_temporal_ids, prefill_flops
from tempeval.engine.plan import make_plan
from tempeval.engine.prefix import prefill
from tempeval.engine.question import Outcome, Picture, Question
from tempeval.errors import BadVideo, UnknownName
from tempeval.video.clip import Clip, FramePlan, Sampling, VideoRef
from tempeval.video.decode import DECODERS
from tempeval.video.pool import ClipRequest, ClipStream

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from tempeval.engine.answer import Answer, Score
    from tempeval.engine.cache import SharedPrefix
    from tempeval.families.base import Family
    from tempeval.methods.base import Chain
    from tempeval.video.decode import Decoder

GIB = 2**30


@dataclass(frozen=True)
class _Prepared:
    question: Question
    tail: torch.Tensor
    continuation: torch.Tensor | None


class Inference:
    """Answers questions with one loaded base model under a chain of methods.

    Args:
        family: the loaded base model.
        chain: the methods; may be replaced between calls of `run`.
        sampling: the base frame policy, before stage `frames`.
        batch_size: questions of one video answered together.
        decoder: see `tempeval.video.decode.read_clip`.
        decode_workers: processes; None for the default, 0 for this process (debugging only).
        decode_timeout: seconds per clip.
        decode_memory: bytes of decoded frames held ahead of compute.
        feature_cache: encoded videos shared between methods.
    """

    def __init__(
        self,
        family: Family,
        chain: Chain,
        sampling: Sampling,
        *,
        batch_size: int = 8,
        decoder: Decoder = "auto",
        decode_workers: int | None = None,
        decode_timeout: float = 30.0,
        decode_memory: int = 2 * GIB,
        feature_cache: FeatureCache | None = None,
    ) -> None:
        if decoder not in DECODERS:
            raise UnknownName("decoder", decoder, DECODERS)
        self.family = family
        self.chain = chain
        self.sampling = sampling
        self.batch_size = batch_size
        self.decoder: Decoder = decoder
        self.decode_workers = decode_workers
        self.decode_timeout = decode_timeout
        self.decode_memory = decode_memory
        self.features = feature_cache if feature_cache is not None else FeatureCache(GIB)
        self.kernels: set[str] = set()
        self.vision_runs = 0

    @property
    def frame_plan(self) -> FramePlan:
        """The frame plan after stage `frames`."""
        return self.chain.frames(FramePlan(self.sampling))

    def run(self, questions: Sequence[Question]) -> Iterator[tuple[Question, Outcome]]:
        """Answer questions video by video; yields in that order, batch by batch.

        Raises:
            TempevalError: for what is wrong with the settings or the model rather than with one
                video. A bad video is an outcome with an error.
        """
        self.chain.resolve(self.family.geometry)
        plan = self.frame_plan
        self.family.check_sampling(plan.sampling)
        groups: dict[tuple[Hashable, ...], list[Question]] = {}
        for question in questions:
            groups.setdefault(_visual_key(question), []).append(question)
        requests = self._decode_requests(list(groups.values()), plan)
        with ClipStream(
            requests,
            workers=self.decode_workers,
            timeout_s=self.decode_timeout,
            memory_limit=self.decode_memory,
        ) as stream:
            # Requests are made in the order of use, so the next clip is always the wanted one.
            clips = iter(stream)
            fresh = {request.key for request in requests}
            for members in groups.values():
                yield from self._run_group(members, plan, clips, fresh)

    def _decode_requests(
        self, groups: Sequence[Sequence[Question]], plan: FramePlan
    ) -> list[ClipRequest[Hashable]]:
        requests: dict[Hashable, ClipRequest[Hashable]] = {}
        for members in groups:
            videos = [v for v in members[0].visuals if isinstance(v, VideoRef)]
            for ref in videos:
                key = self._video_key(ref, plan, len(videos))
                if key not in requests and key not in self.features:
                    resize = self.family.resize(len(videos))
                    requests[key] = ClipRequest(key, ref, plan.sampling, resize, self.decoder)
        return list(requests.values())

    def _video_key(self, ref: VideoRef, plan: FramePlan, videos: int) -> Hashable:
        # The size rule depends on how many videos share the budget.
        return (ref, _content_stamp(ref.path), plan, self.family.resize(videos), self.decoder)

    def _run_group(
        self,
        members: Sequence[Question],
        plan: FramePlan,
        clips: Iterator[tuple[Hashable, Clip | BadVideo]],
        fresh: set[Hashable],
    ) -> Iterator[tuple[Question, Outcome]]:
        encoded: list[Encoded] = []
        problem: str | None = None
        videos = sum(isinstance(v, VideoRef) for v in members[0].visuals)
        for visual in members[0].visuals:
            if isinstance(visual, Picture):
                encoded.append(self._encode_picture(visual))
                continue
            key = self._video_key(visual, plan, videos)
            entry = self.features.get(key)
            if key in fresh:
                fresh.discard(key)
                _, clip = next(clips)
                if isinstance(clip, BadVideo):
                    problem = str(clip)
                    continue
                entry = self._encode(clip, plan)
                self.features.put(key, entry)
            elif entry is None:
                entry, problem = self._again(visual, plan, videos, problem)
                if entry is None:
                    continue
            encoded.append(entry)
        if problem is not None:
            for question in members:
                yield question, Outcome(None, Ledger(error=problem))
            return
        yield from self._answer_group(members, encoded)

    def _again(
        self, ref: VideoRef, plan: FramePlan, videos: int, problem: str | None
    ) -> tuple[Encoded | None, str | None]:
        """Decode a video whose features were dropped since, or that failed earlier in this call."""
        request = ClipRequest(
            self._video_key(ref, plan, videos),
            ref,
            plan.sampling,
            self.family.resize(videos),
            self.decoder,
        )
        with ClipStream([request], workers=self.decode_workers) as stream:
            _, clip = next(iter(stream))
        if isinstance(clip, BadVideo):
            return None, str(clip)
        entry = self._encode(clip, plan)
        self.features.put(request.key, entry)
        return entry, problem

    @torch.no_grad()
    def _encode(self, clip: Clip, plan: FramePlan) -> Encoded:
        clip = clip.reordered(plan.permutation(clip.num_frames))
        start = self._now()
        tokens = self.family.encode(clip, num_groups=plan.num_groups)
        self.vision_runs += 1
        return Encoded(
            tokens=tokens,
            decode_ms=clip.decode_ms,
            encode_ms=(self._now() - start) * 1e3,
            flags=clip.flags,
            vision_flops=self.family.vision_flops([tokens]),
        )

    @torch.no_grad()
    def _encode_picture(self, picture: Picture) -> Encoded:
        entry = self.features.get(picture.key)
        if entry is None:
            start = self._now()
            tokens = self.family.encode_image(picture.image)
            self.vision_runs += 1
            entry = Encoded(
                tokens, 0.0, (self._now() - start) * 1e3, (), self.family.vision_flops([tokens])
            )
            self.features.put(picture.key, entry)
        return entry

    def _answer_group(
        self, members: Sequence[Question], encoded: Sequence[Encoded]
    ) -> Iterator[tuple[Question, Outcome]]:
        family = self.family
        start = self._now()
        visuals = [self.chain.encode(entry.tokens) for entry in encoded]
        fold_ms = (self._now() - start) * 1e3
        shared = Ledger(
            frames=sum(entry.tokens.frames for entry in encoded),
            decode_ms=sum(entry.decode_ms for entry in encoded),
            encode_ms=sum(entry.encode_ms for entry in encoded) + fold_ms,
            flags=tuple(sorted({flag for entry in encoded for flag in entry.flags})),
        )
        vision_flops = sum(entry.vision_flops for entry in encoded)
        # One attachment serves one layout: questions whose prompts differ before the last visual
        # (another system prompt, say) do not share a prefix.
        layouts: dict[tuple[int, ...], Any] = {}
        prepared: dict[tuple[int, ...], list[_Prepared]] = {}
        for question in members:
            ids = family.tokenize(question.messages)
            layout, tail = family.layout(ids, visuals)
            key = tuple(layout.input_ids.tolist())
            layouts.setdefault(key, layout)
            continuation = None
            if question.kind == "score":
                continuation = self._continuation_ids(question.continuation)
            prepared.setdefault(key, []).append(_Prepared(question, tail, continuation))
        for key, layout in layouts.items():
            engine_plan = make_plan(self.chain, layout, family.geometry)
            with Attachment(family, engine_plan) as attachment:
                self._reset_peak()
                start = self._now()
                prefix = prefill(attachment, family.embed(layout, visuals))
                prefill_ms = (self._now() - start) * 1e3
                base = replace(
                    shared,
                    visual_tokens=layout.num_visual_tokens,
                    token_layers=engine_plan.token_layers,
                    quantised_fraction=prefix.quantised_fraction,
                    distinct_temporal_ids=distinct_temporal_ids(engine_plan),
                    prefill_ms=prefill_ms,
                )
                for batch in _batches(prepared[key], self.batch_size):
                    start = self._now()
                    answers = _answer_batch(attachment, prefix, batch)
                    answer_ms = (self._now() - start) * 1e3 / len(batch)
                    for item, answer in zip(batch, answers, strict=True):
                        ledger = replace(
                            base,
                            input_tokens=layout.length + len(item.tail),
                            output_tokens=answer.num_tokens,
                            kv_bytes=prefix.nbytes + answer.tail_bytes,
                            prefill_flops=prefill_flops(
                                engine_plan, family.geometry, len(item.tail), vision_flops
                            ),
                            answer_ms=answer_ms,
                            peak_memory_bytes=self._peak(),
                        )
                        yield item.question, Outcome(answer, ledger)
                self.kernels |= attachment.kernels

    def _continuation_ids(self, text: str) -> torch.Tensor:
        ids = self.family.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids, dtype=torch.long)

    def _now(self) -> float:
        if self.family.device.type == "cuda":
            torch.cuda.synchronize(self.family.device)
        return time.perf_counter()

    def _reset_peak(self) -> None:
        if self.family.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.family.device)

    def _peak(self) -> int | None:
        if self.family.device.type != "cuda":
            return None
        return int(torch.cuda.max_memory_allocated(self.family.device))


def _answer_batch(
    attachment: Attachment, prefix: SharedPrefix, batch: Sequence[_Prepared]
) -> Sequence[Answer | Score]:
    if batch[0].question.kind == "score":
        continuations = [item.continuation for item in batch if item.continuation is not None]
        return score_choices(attachment, prefix, batch[0].tail, continuations)
    tails = [item.tail for item in batch]
    return generate(attachment, prefix, tails, batch[0].question.gen_kwargs or {})


def _batches(items: Sequence[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    """Split into batches, in order: all choices of a question, or like generation requests."""
    groups: dict[Hashable, list[_Prepared]] = {}
    for item in items:
        if item.question.kind == "score":
            key: Hashable = ("score", tuple(item.tail.tolist()))
        else:
            key = ("generate", str(sorted((item.question.gen_kwargs or {}).items())))
        groups.setdefault(key, []).append(item)
    for members in groups.values():
        step = len(members) if members[0].question.kind == "score" else size
        for start in range(0, len(members), step):
            yield members[start : start + step]


def _visual_key(question: Question) -> tuple[Hashable, ...]:
    return tuple(v.key if isinstance(v, Picture) else v for v in question.visuals)


def _content_stamp(path: str) -> tuple[int, int] | None:
    """Size and modification time, so that a replaced file is decoded again."""
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns
