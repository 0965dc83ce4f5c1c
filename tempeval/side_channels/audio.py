"""Side channel `audio`: the log-mel spectrum of the video's own sound track."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.side_channels.base import Channel, video_part, video_path
from tempeval.side_channels.decoding import SideDecoder
from tempeval.side_channels.shuffle import VideoSiblings, check_shuffle
from tempeval.stages import SideFeatures
from tempeval.video.stamp import content_stamp

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from tempeval.engine.encoder import DecodeOptions
    from tempeval.families.base import Family
    from tempeval.side_channels.base import Doc
    from tempeval.video.clip import Clip

RATE = 16_000
"""Samples per second (1/s)."""
WINDOW, HOP, FFT = 400, 160, 1024
"""Samples: 25 ms windows every 10 ms; bins narrow enough for 128 filters."""
FLOOR = 1e-10
"""Least power, before the logarithm."""


@dataclass(frozen=True)
class AudioSettings:
    """Settings of `audio`.

    Attributes:
        step: seconds per step.
        mels: filters, and width of the features.
        shuffle: seed that gives each video the sound of another one in its folder; None for none.
    """

    step: float = 0.1
    mels: int = 64
    shuffle: int | None = None

    def __post_init__(self) -> None:
        if not HOP / RATE <= self.step <= 60:
            raise InvalidSetting(f"audio.step={self.step}; accepted: {HOP / RATE} to 60 seconds")
        if not 8 <= self.mels <= 128:
            raise InvalidSetting(f"audio.mels={self.mels}; accepted: 8 to 128 filters")
        check_shuffle(self.shuffle)


class Audio(Channel):
    """Log-mel features `[T_k, 1, 1, mels]` with the times of the sound track itself.

    A track that starts late, or ends early, keeps its times. Of a part of a video, steps begin
    with the part.

    Args:
        settings: an `AudioSettings`.
        family: not used.
        decoding: how the sound track is read.
    """

    settings_type: ClassVar[type[Any]] = AudioSettings

    def __init__(
        self, settings: AudioSettings, family: Family | None, decoding: DecodeOptions
    ) -> None:
        self.settings = settings
        self._decoder = SideDecoder(decoding)
        self._siblings = VideoSiblings()

    def features(self, doc: Doc, clip: Clip) -> SideFeatures:
        """Return the spectrum of a video's sound, step by step.

        Raises:
            BadSideChannel: if there is no sound track, or it is empty, damaged or hangs.
        """
        path = self._source(doc)
        track = self._decoder.sound(path, RATE)
        start, end = video_part(doc)
        if clip.span is not None and (start is not None or end is not None):
            start, end = clip.span
        begin = track.start
        if self.settings.shuffle is not None and start is not None:
            begin += start  # another clip has no such part: its sound starts with this one's
        samples, begin = _part(track.samples, begin, start, end)
        if not len(samples):
            raise BadSideChannel(path, f"it has no sound between {start} and {end} s")
        mel = log_mel(samples, self.settings.step, self.settings.mels)
        starts = np.arange(len(mel)) * self.settings.step
        ends = np.minimum(starts + self.settings.step, len(samples) / RATE)
        return SideFeatures(
            features=torch.from_numpy(mel)[:, None, None],
            spans=torch.from_numpy(np.stack([starts, ends], axis=1) + begin),
            source=path,
        )

    def stamp(self, doc: Doc) -> str:
        """Name the other video when sound is shuffled; else there is nothing but the video."""
        if self.settings.shuffle is None:
            return ""
        try:
            path = self._source(doc)
        except BadSideChannel as error:
            return f"missing: {error.reason}"
        return f"{path}: {content_stamp(path)}"

    def _source(self, doc: Doc) -> str:
        path, seed = video_path(doc), self.settings.shuffle
        return path if seed is None else self._siblings.another(path, seed)


def log_mel(samples: NDArray[np.float32], step: float, mels: int) -> NDArray[np.float32]:
    """Return the loudness of each frequency band, step by step.

    The power of 25 ms windows is averaged over a step before the logarithm is taken, so that a
    short sound counts wherever in the step it lies. Loudness is not set in relation to the rest of
    the clip: `log10` of the power, at least 1e-10, plus 4, over 4.

    Args:
        samples: float32 `[N]`, full scale is 1, `RATE` per second.
        step: seconds.
        mels: filters on the Slaney scale, up to half of `RATE`.

    Returns:
        float32 `[T, mels]`, T = N / (`RATE` x `step`), rounded up.
    """
    power = spectrogram(
        samples,
        window_function(WINDOW, "hann"),
        frame_length=WINDOW,
        hop_length=HOP,
        fft_length=FFT,
        power=2.0,
        pad_mode="constant",  # a track may be shorter than a window
        mel_filters=_filters(mels),
        mel_floor=FLOOR,
    ).T  # [windows, mels]; window j has its middle at j * HOP samples
    power = power[: math.ceil(len(samples) / HOP)]
    hops = step * RATE / HOP
    count = max(1, math.ceil(len(power) / hops - 1e-9))
    firsts = np.ceil(np.arange(count) * hops - 1e-9).astype(np.int64)
    firsts = firsts[firsts < len(power)]
    sizes = np.diff(np.append(firsts, len(power)))
    means = np.add.reduceat(power, firsts, axis=0) / sizes[:, None]
    loudness: NDArray[np.float32] = ((np.log10(means) + 4) / 4).astype(np.float32)
    return loudness


def _part(
    samples: NDArray[np.float32], begin: float, start: float | None, end: float | None
) -> tuple[NDArray[np.float32], float]:
    """Cut samples that begin at `begin` to a part, all in seconds; return the new begin too."""
    first = 0 if start is None else max(0, round((start - begin) * RATE))
    last = len(samples) if end is None else max(first, round((end - begin) * RATE))
    return samples[first:last], begin + first / RATE


@cache
def _filters(mels: int) -> NDArray[np.float64]:
    filters: NDArray[np.float64] = mel_filter_bank(
        num_frequency_bins=FFT // 2 + 1,
        num_mel_filters=mels,
        min_frequency=0.0,
        max_frequency=RATE / 2,
        sampling_rate=RATE,
        norm="slaney",
        mel_scale="slaney",
    )
    return filters
