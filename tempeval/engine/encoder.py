"""From a video to visual tokens: decoded once, encoded once, kept for the methods that follow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from tempeval.engine.clock import now
from tempeval.engine.feature_cache import Encoded, FeatureCache, Heard
from tempeval.engine.question import Picture, read_picture
from tempeval.errors import BadVideo, UnknownName
from tempeval.side_channels.align import frame_spans
from tempeval.side_channels.base import doc_of
from tempeval.video.clip import Clip, FramePlan, VideoRef
from tempeval.video.decode import DECODERS
from tempeval.video.pool import ClipRequest, ClipStream
from tempeval.video.stamp import content_stamp

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from tempeval.engine.feature_cache import SideKey
    from tempeval.families.base import Family
    from tempeval.side_channels.base import SideChannel
    from tempeval.video.clip import SideSpec
    from tempeval.video.decode import Decoder

GIB = 2**30
Visuals = tuple["VideoRef | Picture", ...]


@dataclass(frozen=True)
class DecodeOptions:
    """How videos are decoded.

    Attributes:
        decoder: see `tempeval.video.decode.read_clip`.
        workers: processes; None for the default, 0 for this process (debugging only).
        timeout_s: seconds per clip; more for many frames or a large file.
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
        # What the current video lacks, so that not every method looks for it again.
        self._unheard: dict[Hashable, BadVideo] = {}
        self._channels: dict[SideSpec, SideChannel] = {}
        # Of which videos some method wants the features: then the tower runs once for all methods.
        self._with_features: set[Hashable] = set()

    def prefetch(self, wanted: Sequence[tuple[Visuals, Sequence[FramePlan]]]) -> ClipStream[Any]:
        """Start decoding ahead; the stream is a context manager that ends the processes.

        Args:
            wanted: visuals with the frame plans they are needed under, in order of use.
        """
        requests: dict[Hashable, ClipRequest[Hashable]] = {}
        self._with_features.clear()
        for visuals, plans in wanted:
            videos = [v for v in visuals if isinstance(v, VideoRef)]
            for plan in plans:
                for ref in videos:
                    if plan.features:
                        self._with_features.add(self._encode_key(ref, plan, len(visuals)))
                    if not self._is_held(ref, plan, len(visuals)):
                        request = self._request(ref, plan, len(visuals))
                        requests.setdefault(request.key, request)
        self._expected = set(requests)
        self.forget_clips()
        self._stream = self._open(list(requests.values()))
        return self._stream

    def encode(self, visuals: Visuals, plan: FramePlan) -> list[Encoded]:
        """Return the encoded visuals of a prompt under a frame plan.

        Raises:
            BadVideo: if one of them cannot be decoded.
            BadSideChannel: if one of them lacks a side channel that is asked for.
        """
        share = len(visuals)
        return [
            self._picture(v, share) if isinstance(v, Picture) else self._video(v, plan, share)
            for v in visuals
        ]

    def forget_clips(self) -> None:
        """Drop the decoded frames of the video that is done."""
        self._clips.clear()
        self._unheard.clear()

    def channel(self, spec: SideSpec) -> SideChannel:
        """Return a side channel, made when it is first asked for.

        Raises:
            TempevalError: if there is none of that name, or a setting of it is not accepted.
        """
        if spec not in self._channels:
            from tempeval.side_channels.registry import build_side_channel

            self._channels[spec] = build_side_channel(spec, self.family, self.options)
        return self._channels[spec]

    def side_stamps(self, visuals: Visuals, plan: FramePlan) -> tuple[str, ...]:
        """Name the content of the side channels of a prompt's videos, apart from the videos."""
        videos = [v for v in visuals if isinstance(v, VideoRef)]
        return tuple(stamp for ref in videos for _, stamp in self._side_keys(ref, plan))

    def _video(self, ref: VideoRef, plan: FramePlan, visuals: int) -> Encoded:
        key = self._encode_key(ref, plan, visuals)
        entry = self.cache.get(key)
        if entry is None or (plan.features and entry.tokens.features is None):
            clip = self._clip(ref, plan, visuals)
            with_features = plan.features or key in self._with_features
            made = self._run_tower(clip, plan, with_features)
            entry = made if entry is None else made.with_all_heard(entry)
            self.cache.put(key, entry)
        side = self._side_keys(ref, plan)
        for one in side:
            if one not in entry.heard:
                clip = self._clip(ref, plan, visuals)
                spans = frame_spans(
                    clip.reordered(plan.permutation(clip.num_frames)),
                    entry.tokens.grid[0],
                    num_groups=plan.num_groups,
                )
                entry = entry.with_heard(one, self._hear(ref, clip, one), spans)
                self.cache.put(key, entry)
        return entry.asked(features=plan.features, side=side)

    @torch.no_grad()
    def _hear(self, ref: VideoRef, clip: Clip, key: SideKey) -> Heard:
        if (ref, key) in self._unheard:
            raise self._unheard[ref, key]
        channel = self.channel(key[0])
        start = now(self.family.device)
        try:
            side = channel.features(doc_of(ref), clip)
        except BadVideo as error:
            self._unheard[ref, key] = error
            raise
        elapsed = (now(self.family.device) - start) * 1e3
        return Heard(side if side.source else replace(side, source=ref.path), elapsed)

    def _side_keys(self, ref: VideoRef, plan: FramePlan) -> tuple[SideKey, ...]:
        return tuple((spec, self.channel(spec).stamp(doc_of(ref))) for spec in plan.side)

    def _is_held(self, ref: VideoRef, plan: FramePlan, visuals: int) -> bool:
        """Say whether the cache has all that a plan asks of a video; makes nothing recent."""
        entry = self.cache.peek(self._encode_key(ref, plan, visuals))
        if entry is None or (plan.features and entry.tokens.features is None):
            return False
        return all(key in entry.heard for key in self._side_keys(ref, plan))

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
    def _run_tower(self, clip: Clip, plan: FramePlan, with_features: bool) -> Encoded:
        clip = clip.reordered(plan.permutation(clip.num_frames))
        start = now(self.family.device)
        tokens = self.family.encode(clip, num_groups=plan.num_groups, with_features=with_features)
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
