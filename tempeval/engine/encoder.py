"""From a video to visual tokens: decoded once, encoded once, kept for the methods that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.clock import now
from tempeval.engine.feature_cache import Encoded, FeatureCache
from tempeval.engine.question import Picture, content_stamp, read_picture
from tempeval.errors import BadVideo, UnknownName
from tempeval.video.clip import Clip, FramePlan, VideoRef
from tempeval.video.decode import DECODERS
from tempeval.video.pool import ClipRequest, ClipStream

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from tempeval.families.base import Family
    from tempeval.video.decode import Decoder

GIB = 2**30
Visuals = tuple["VideoRef | Picture", ...]


@dataclass(frozen=True)
class DecodeOptions:
    """How videos are decoded.

    Attributes:
        decoder: see `tempeval.video.decode.read_clip`.
        workers: processes; None for the default, 0 for this process (debugging only).
        timeout_s: seconds per clip.
        memory_limit: bytes of decoded frames held ahead of compute.
    """

    decoder: Decoder = "auto"
    workers: int | None = None
    timeout_s: float = 30.0
    memory_limit: int = 2 * GIB

    def __post_init__(self) -> None:
        if self.decoder not in DECODERS:
            raise UnknownName("decoder", self.decoder, DECODERS)


class Encoder:
    """Decodes and encodes the visuals of a run, in the order in which they are wanted.

    Args:
        family: the loaded base model.
        options: how videos are decoded.
        cache: encoded videos shared between methods.

    Attributes:
        vision_runs: how often the vision tower ran.
    """

    def __init__(self, family: Family, options: DecodeOptions, cache: FeatureCache) -> None:
        self.family = family
        self.options = options
        self.cache = cache
        self.vision_runs = 0
        self._stream: ClipStream[Hashable] | None = None
        self._expected: set[Hashable] = set()
        # Clips of the current video, so that methods that only re-order frames share its decoding.
        self._clips: dict[Hashable, Clip | BadVideo] = {}

    def prefetch(self, wanted: Sequence[tuple[Visuals, Sequence[FramePlan]]]) -> ClipStream[Any]:
        """Start decoding ahead; the stream is a context manager that ends the processes.

        Args:
            wanted: visuals with the frame plans they are needed under, in order of use.
        """
        requests: dict[Hashable, ClipRequest[Hashable]] = {}
        for visuals, plans in wanted:
            videos = [v for v in visuals if isinstance(v, VideoRef)]
            for plan in plans:
                for ref in videos:
                    if self._encode_key(ref, plan, len(visuals)) not in self.cache:
                        request = self._request(ref, plan, len(visuals))
                        requests.setdefault(request.key, request)
        self._expected = set(requests)
        self._clips.clear()
        self._stream = self._open(list(requests.values()))
        return self._stream

    def encode(self, visuals: Visuals, plan: FramePlan) -> list[Encoded]:
        """Return the encoded visuals of a prompt under a frame plan.

        Raises:
            BadVideo: if one of them cannot be decoded.
        """
        share = len(visuals)
        return [
            self._picture(v, share) if isinstance(v, Picture) else self._video(v, plan, share)
            for v in visuals
        ]

    def forget_clips(self) -> None:
        """Drop the decoded frames of the video that is done."""
        self._clips.clear()

    def _video(self, ref: VideoRef, plan: FramePlan, visuals: int) -> Encoded:
        key = self._encode_key(ref, plan, visuals)
        entry = self.cache.get(key)
        if entry is None:
            clip = self._clip(ref, plan, visuals)
            entry = self._run_tower(clip, plan)
            self.cache.put(key, entry)
        return entry

    def _clip(self, ref: VideoRef, plan: FramePlan, visuals: int) -> Clip:
        request = self._request(ref, plan, visuals)
        if request.key not in self._clips:
            self._clips[request.key] = self._fetch(request)
        clip = self._clips[request.key]
        if isinstance(clip, BadVideo):
            raise clip
        return clip

    def _fetch(self, request: ClipRequest[Hashable]) -> Clip | BadVideo:
        if request.key in self._expected and self._stream is not None:
            # Requests were made in the order of use, so the next clips are the wanted ones; the
            # clips of one prompt may come in before they are asked for.
            for key, clip in self._stream:
                self._expected.discard(key)
                if key == request.key:
                    return clip
                self._clips[key] = clip
        # Features dropped from a full cache are made again.
        with self._open([request]) as stream:
            _, clip = next(iter(stream))
        return clip

    @torch.no_grad()
    def _run_tower(self, clip: Clip, plan: FramePlan) -> Encoded:
        clip = clip.reordered(plan.permutation(clip.num_frames))
        start = now(self.family.device)
        tokens = self.family.encode(clip, num_groups=plan.num_groups)
        self.vision_runs += 1
        return Encoded(
            tokens=tokens,
            decode_ms=clip.decode_ms,
            encode_ms=(now(self.family.device) - start) * 1e3,
            flags=clip.flags,
            vision_flops=self.family.vision_flops([tokens]),
        )

    @torch.no_grad()
    def _picture(self, picture: Picture, visuals: int) -> Encoded:
        key = (picture.key, self.family.resize(visuals), visuals)
        entry = self.cache.get(key)
        if entry is None:
            image = read_picture(picture)
            start = now(self.family.device)
            tokens = self.family.encode_image(image, num_visuals=visuals)
            self.vision_runs += 1
            encode_ms = (now(self.family.device) - start) * 1e3
            entry = Encoded(tokens, 0.0, encode_ms, (), self.family.vision_flops([tokens]))
            self.cache.put(key, entry)
        return entry

    def _open(self, requests: list[ClipRequest[Hashable]]) -> ClipStream[Hashable]:
        return ClipStream(
            requests,
            workers=self.options.workers,
            timeout_s=self.options.timeout_s,
            memory_limit=self.options.memory_limit,
        )

    def _request(self, ref: VideoRef, plan: FramePlan, visuals: int) -> ClipRequest[Hashable]:
        # The size rule depends on how many visuals share the budget, and on what methods make of
        # a video's grids.
        resize = self.family.resize(visuals, plan.grid_rules)
        key = (ref, content_stamp(ref.path), plan.sampling, resize, self.options.decoder)
        return ClipRequest(key, ref, plan.sampling, resize, self.options.decoder)

    def _encode_key(self, ref: VideoRef, plan: FramePlan, visuals: int) -> Hashable:
        return (self._request(ref, plan, visuals).key, plan.orders, plan.num_groups)
