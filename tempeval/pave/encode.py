"""Run the frozen parts over all videos once: tower, projector, side channel, neighbours."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch

from tempeval.engine.encoder import DecodeOptions
from tempeval.errors import BadVideo, InvalidSetting, RunFailed
from tempeval.pave.features import DiskStore, MemoryStore, NoStore, Seen, video_key
from tempeval.side_channels.align import frame_spans, neighbors
from tempeval.side_channels.base import doc_of
from tempeval.side_channels.content import content_key
from tempeval.side_channels.decoding import SideDecoder
from tempeval.side_channels.registry import build_side_channel, side_spec
from tempeval.video.clip import Sampling
from tempeval.video.pool import ClipRequest, ClipStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tempeval.families.base import Family
    from tempeval.pave.config import SideSettings
    from tempeval.pave.features import Store
    from tempeval.stages import SideFeatures
    from tempeval.video.clip import Clip, VideoRef

Key = TypeVar("Key")


class Eyes:
    """Everything frozen that looks at a video, and where its results are kept.

    Args:
        family: the base model.
        frames: sampled per video.
        side: the side channel and how it is matched to frames.
        store: keeps what was encoded.
        decoding: how videos are decoded.
    """

    def __init__(
        self,
        family: Family,
        frames: int,
        side: SideSettings,
        store: Store,
        decoding: DecodeOptions | None = None,
    ) -> None:
        self._family, self._store = family, store
        self._sampling = Sampling(num_frames=frames)
        family.check_sampling(self._sampling)
        self._neighborhood = side.neighborhood
        self.spec = side_spec(side.name, side.settings)
        self._decoding = decoding or DecodeOptions()
        self._channel = build_side_channel(self.spec, family, self._decoding)
        self._keys: dict[tuple[VideoRef, str], str] = {}
        self._decoder = SideDecoder(self._decoding)
        # Videos that are decoded ahead of use, in this order, and the stream of their clips.
        self._coming: deque[tuple[VideoRef, str]] = deque()
        self._ahead: ClipStream[int] | None = None

    def key(self, ref: VideoRef, video_id: str) -> str:
        """Name what a video's entry depends on; looked up once."""
        if (ref, video_id) not in self._keys:
            self._keys[ref, video_id] = self._key(ref, video_id)
        return self._keys[ref, video_id]

    def _key(self, ref: VideoRef, video_id: str) -> str:
        family = self._family
        settings = [
            family.revision,
            str(family.model.dtype),
            family.pixel_limits(),
            family.settings,
            family.options.visual_token_budget,
            self._sampling.num_frames,
            self.spec.name,
            [list(pair) for pair in self.spec.settings],
            self._neighborhood,
            self._channel.stamp(doc_of(ref, video_id)),
        ]
        return video_key(ref, settings)

    def get(self, ref: VideoRef, video_id: str) -> Seen | None:
        """Return a video as it was encoded, or without a cache encode it now.

        Returns:
            None if it is gone from the cache, or was changed.

        Raises:
            BadVideo: if it is encoded now and cannot be used any more.
        """
        if self._store.keeps:
            return self._store.get(self.key(ref, video_id))
        return self._seen(self._clip(ref, video_id), ref, video_id)

    @contextlib.contextmanager
    def ahead(self, videos: Sequence[tuple[VideoRef, str]]) -> Iterator[None]:
        """Without a cache, decode ahead of use in processes of their own.

        Args:
            videos: in the order in which they will be asked for.
        """
        if self._store.keeps or not videos:
            yield
            return
        with self._stream(list(enumerate(ref for ref, _ in videos))) as stream:
            self._ahead, self._coming = stream, deque(videos)
            try:
                yield
            finally:
                self._ahead, self._coming = None, deque()

    def content(self, videos: Sequence[tuple[VideoRef, str]]) -> str:
        """Name the content of videos and their side channels, wherever they lie."""
        whole = hashlib.sha256()
        for ref, video_id in videos:
            heard = self._channel.content(doc_of(ref, video_id))
            part = [video_id, ref.start, ref.end, ref.fps, content_key(ref.path), heard]
            whole.update(json.dumps(part).encode())
        return whole.hexdigest()[:16]

    def origin(self, ref: VideoRef, video_id: str) -> str | None:
        """Return how the file of a video's features was made; None where there is none."""
        return self._channel.origin(doc_of(ref, video_id))

    def encode_all(
        self,
        videos: Sequence[tuple[VideoRef, str]],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[int, BadVideo]:
        """Encode the videos that are not known yet; without a cache, see that they can be.

        Args:
            videos: files with their ids.
            progress: called with the number of videos done and their total.

        Returns:
            What is wrong with those that cannot be used, by number.
        """
        keys = [self.key(*video) for video in videos]
        missing = [n for n, key in enumerate(keys) if key not in self._store]
        bad: dict[int, BadVideo] = {}
        with self._stream([(n, videos[n][0]) for n in missing]) as stream:
            for done, (number, clip) in enumerate(stream, start=1):
                try:
                    if isinstance(clip, BadVideo):
                        raise clip
                    self._put(keys[number], clip, *videos[number])
                except BadVideo as error:
                    bad[number] = error
                if progress is not None:
                    progress(len(videos) - len(missing) + done, len(videos))
        return bad

    def _put(self, key: str, clip: Clip, ref: VideoRef, video_id: str) -> None:
        if isinstance(self._store, NoStore):
            self._heard(clip, ref, video_id)  # the tower takes what can be decoded
            self._store.put(key)
        else:
            self._store.put(key, self._seen(clip, ref, video_id))

    def _stream(self, videos: Sequence[tuple[Key, VideoRef]]) -> ClipStream[Key]:
        resize, options = self._family.resize(), self._decoding
        return ClipStream(
            [ClipRequest(key, ref, self._sampling, resize) for key, ref in videos],
            workers=options.workers,
            timeout_s=options.timeout_s,
            memory_limit=options.memory_limit,
        )

    def _clip(self, ref: VideoRef, video_id: str) -> Clip:
        if self._ahead is not None and self._coming and self._coming[0] == (ref, video_id):
            self._coming.popleft()
            _, clip = next(self._ahead)
            if isinstance(clip, BadVideo):
                raise clip
            return clip
        return self._decoder.clip(ref, self._sampling, self._family.resize())

    @torch.no_grad()
    def _heard(self, clip: Clip, ref: VideoRef, video_id: str) -> SideFeatures:
        return self._channel.features(doc_of(ref, video_id), clip)

    @torch.no_grad()
    def _seen(self, clip: Clip, ref: VideoRef, video_id: str) -> Seen:
        tokens = self._family.encode(clip, with_features=True)
        if tokens.pathways or tokens.features is None:
            raise InvalidSetting(
                f"family {self._family.name} gives no features before the projector for one run "
                "of tokens; PAVE needs them"
            )
        side = self._heard(clip, ref, video_id)
        matched = neighbors(
            frame_spans(clip, tokens.grid[0]),
            side.spans,
            neighborhood=self._neighborhood,
            steps=len(side.features),
        )
        on_cpu = replace(tokens, embeddings=tokens.embeddings.cpu(), features=tokens.features.cpu())
        return Seen(on_cpu, side.features.cpu(), None if matched is None else tuple(matched))


def open_store(place: str, default: Path) -> Store:
    """Return where encoded videos are kept.

    Args:
        place: `memory`, `disk`, `none`, or a folder.
        default: the folder that `disk` means.
    """
    from pathlib import Path

    if place == "memory":
        return MemoryStore()
    if place == "none":
        return NoStore(default / "usable.txt")
    return DiskStore(default if place == "disk" else Path(place).expanduser())


def refuse_too_many(bad: dict[int, BadVideo], total: int, most: float) -> None:
    """Stop when more videos cannot be used than is allowed.

    Args:
        bad: what is wrong with each.
        total: number of videos.
        most: a number of videos, or a ratio below 1.

    Raises:
        RunFailed: naming the first.
    """
    allowed = most * total if most < 1 else most
    if len(bad) > allowed:
        first = next(iter(bad.values()))
        raise RunFailed(
            f"{len(bad)} of {total} videos cannot be used (data.max_failures={most:g}); the first: "
            f"{first}"
        )
