"""Run the frozen parts over all videos once: tower, projector, side channel, neighbours."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from tempeval.engine.encoder import DecodeOptions
from tempeval.errors import BadVideo, InvalidSetting, RunFailed
from tempeval.pave.features import DiskStore, MemoryStore, Seen, video_key
from tempeval.side_channels.align import frame_spans, neighbors
from tempeval.side_channels.base import doc_of
from tempeval.side_channels.registry import build_side_channel, side_spec
from tempeval.video.clip import Sampling
from tempeval.video.pool import ClipRequest, ClipStream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tempeval.families.base import Family
    from tempeval.pave.config import SideSettings
    from tempeval.pave.features import Store
    from tempeval.video.clip import Clip, VideoRef


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

    def get(self, key: str) -> Seen | None:
        """Return what is known under a key."""
        return self._store.get(key)

    def encode_all(
        self,
        videos: Sequence[tuple[VideoRef, str]],
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[int, BadVideo]:
        """Encode the videos that are not known yet.

        Args:
            videos: files with their ids.
            progress: called with the number of videos done and their total.

        Returns:
            What is wrong with those that cannot be used, by number.
        """
        keys = [self.key(*video) for video in videos]
        missing = [n for n, key in enumerate(keys) if key not in self._store]
        resize = self._family.resize()
        requests = [ClipRequest(n, videos[n][0], self._sampling, resize) for n in missing]
        bad: dict[int, BadVideo] = {}
        options = self._decoding
        with ClipStream(
            requests,
            workers=options.workers,
            timeout_s=options.timeout_s,
            memory_limit=options.memory_limit,
        ) as stream:
            for done, (number, clip) in enumerate(stream, start=1):
                try:
                    if isinstance(clip, BadVideo):
                        raise clip
                    self._store.put(keys[number], self._seen(clip, *videos[number]))
                except BadVideo as error:
                    bad[number] = error
                if progress is not None:
                    progress(len(videos) - len(missing) + done, len(videos))
        return bad

    @torch.no_grad()
    def _seen(self, clip: Clip, ref: VideoRef, video_id: str) -> Seen:
        tokens = self._family.encode(clip, with_features=True)
        if tokens.pathways or tokens.features is None:
            raise InvalidSetting(
                f"family {self._family.name} gives no features before the projector for one run "
                "of tokens; PAVE needs them"
            )
        side = self._channel.features(doc_of(ref, video_id), clip)
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
        place: `memory`, `disk`, or a folder.
        default: the folder that `disk` means.
    """
    from pathlib import Path

    if place == "memory":
        return MemoryStore()
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
