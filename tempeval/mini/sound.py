"""Sound tracks of rendered clips: tones of three voices over faint noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

RATE = 16_000
"""Samples per second (1/s)."""
RAMP = 0.008
"""Seconds in which a tone rises and falls, so that it does not click."""
LEVEL = (0.06, 0.28)
"""Amplitude of a tone, on a logarithmic scale; full scale is 1, so three tones never clip."""
HISS = (0.003, 0.012)
"""Standard deviation of the noise, on a logarithmic scale."""


@dataclass(frozen=True)
class Voice:
    """What a kind of tone sounds like.

    Attributes:
        pitch: lowest and highest frequency in hertz; ranges of different voices lie far apart.
        seconds: shortest and longest duration.
    """

    pitch: tuple[float, float]
    seconds: tuple[float, float]


VOICES = {
    "hum": Voice(pitch=(180.0, 260.0), seconds=(0.25, 0.35)),
    "horn": Voice(pitch=(600.0, 850.0), seconds=(0.25, 0.35)),
    "beep": Voice(pitch=(1900.0, 2600.0), seconds=(0.07, 0.09)),
}


@dataclass(frozen=True)
class Sound:
    """One channel of sound.

    Attributes:
        samples: float32 `[N]`, -1 to 1.
        rate: samples per second (1/s).
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.rate


@dataclass(frozen=True)
class Tone:
    """One tone of a track.

    Attributes:
        voice: one of `VOICES`.
        start: seconds from the start of the clip.
        seconds: duration.
        pitch: frequency in hertz.
        level: amplitude, full scale is 1.
    """

    voice: str
    start: float
    seconds: float
    pitch: float
    level: float


@dataclass(frozen=True)
class Track:
    """Everything needed to synthesise the sound of a clip.

    Attributes:
        tones: in order of voice and time.
        hiss: standard deviation of the noise, full scale is 1.
        noise: seed of the noise.
    """

    tones: tuple[Tone, ...]
    hiss: float
    noise: int


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from a range on a logarithmic scale, to four decimals."""
    return round(float(low * (high / low) ** rng.uniform()), 4)


def draw_tones(
    rng: np.random.Generator, voice: str, windows: Sequence[tuple[float, float]]
) -> tuple[Tone, ...]:
    """Draw tones of one voice, of one pitch and level, each within its window.

    Args:
        rng: source of all randomness.
        voice: one of `VOICES`.
        windows: earliest start and latest end of each tone in seconds, longer than any tone of the
            voice.
    """
    low, high = VOICES[voice].pitch
    pitch, level = round(float(rng.uniform(low, high)), 1), log_uniform(rng, *LEVEL)
    tones = []
    for begin, end in windows:
        seconds = round(float(rng.uniform(*VOICES[voice].seconds)), 4)
        start = round(float(rng.uniform(begin, end - seconds)), 4)
        tones.append(Tone(voice, start, seconds, pitch, level))
    return tuple(tones)


def synthesise(track: Track, seconds: float) -> Sound:
    """Return the sound of a track.

    Args:
        track: what sounds.
        seconds: duration of the clip.
    """
    rng = np.random.default_rng(track.noise)
    samples = track.hiss * rng.standard_normal(round(seconds * RATE))  # [N]
    for tone in track.tones:
        first, count = round(tone.start * RATE), round(tone.seconds * RATE)
        time = np.arange(count) / RATE
        ramp = np.clip(np.minimum(time, time[::-1]) / RAMP, 0, 1)
        samples[first : first + count] += (
            tone.level * ramp * np.sin(2 * np.pi * tone.pitch * time)[: len(samples) - first]
        )
    return Sound(np.clip(samples, -1, 1).astype(np.float32), RATE)
