"""The sound of a video keeps its own times, and what cannot be heard fails by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from sound_files import RATE, tone, write_sounding
from video_files import write_audio, write_video

from tempeval.engine.encoder import DecodeOptions
from tempeval.errors import BadSideChannel, InvalidSetting
from tempeval.side_channels.align import frame_spans, neighbors
from tempeval.side_channels.audio import FFT, FLOOR, HOP, WINDOW, _filters, log_mel
from tempeval.side_channels.registry import build_side_channel, parse_side_spec
from tempeval.video.clip import Clip, Sampling, VideoRef
from tempeval.video.decode import read_clip
from tempeval.video.sound import SoundJob, read_sound

if TYPE_CHECKING:
    from tempeval.stages import SideFeatures

HERE = DecodeOptions(workers=0)


def clip_of(path: Path, **part: float) -> Clip:
    return read_clip(VideoRef(str(path), **part), Sampling(num_frames=8))


def heard(path: Path, spec: str = "audio", **part: float) -> SideFeatures:
    channel = build_side_channel(parse_side_spec(spec), None, HERE)
    return channel.features({"video": str(path), **part}, clip_of(path, **part))


def loud(side: SideFeatures) -> tuple[float, float]:
    """When the loudest sound begins and ends, to a step."""
    assert side.spans is not None
    level = side.features.amax(dim=(1, 2, 3))
    steps = (level > level.max() - 0.25).nonzero().flatten().tolist()
    return float(side.spans[steps[0], 0]), float(side.spans[steps[-1], 1])


def reference_log_mel(samples: np.ndarray, step: float, mels: int) -> np.ndarray:
    """Window by window, step by step."""
    padded = np.pad(samples.astype(np.float64), WINDOW // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    powers: dict[int, list[np.ndarray]] = {}
    for n in range(-(-len(samples) // HOP)):
        piece = padded[n * HOP : n * HOP + WINDOW]
        spectrum = np.abs(np.fft.rfft(window[: len(piece)] * piece, FFT)) ** 2
        power = np.maximum(FLOOR, spectrum @ _filters(mels))
        powers.setdefault(int(n * HOP / RATE / step + 1e-9), []).append(power)
    rows = [np.mean(powers[n], axis=0) for n in sorted(powers)]
    return (np.log10(np.stack(rows)) + 4) / 4


@pytest.mark.parametrize(("seconds", "step"), [(1.0, 0.1), (0.73, 0.1), (0.5, 0.015), (0.004, 0.1)])
def test_log_mel_equals_the_slow_way(seconds: float, step: float) -> None:
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(round(seconds * RATE))).astype(np.float32)
    made = log_mel(samples, step, 32)
    expected = reference_log_mel(samples, step, 32)
    assert made.shape == expected.shape
    np.testing.assert_allclose(made, expected, atol=1e-4)


def test_a_tone_is_in_its_band() -> None:
    low, high = (
        log_mel(tone(1.0, 0.0, 1.0, pitch), 0.1, 64)[5].argmax() for pitch in (300.0, 3000.0)
    )
    filters = _filters(64)
    for band, pitch in ((low, 300.0), (high, 3000.0)):
        assert filters[:, band].argmax() * RATE / FFT == pytest.approx(pitch, rel=0.1)


def test_shapes_and_times(tmp_path: Path) -> None:
    path = write_sounding(tmp_path / "a.mkv", [(0.0, tone(4.0, 1.0))])
    side = heard(path, "audio[step=0.2;mels=32]")
    assert side.features.shape == (20, 1, 1, 32)
    assert side.features.dtype == torch.float32
    assert side.spans is not None
    assert side.spans.dtype == torch.float64
    np.testing.assert_allclose(side.spans[:, 0], 0.2 * np.arange(20), atol=2e-3)
    begin, end = loud(side)
    assert (begin, end) == (pytest.approx(1.0, abs=0.01), pytest.approx(1.2, abs=0.21))


# Sound before time zero would make the container shift all times.
@pytest.mark.parametrize(
    ("late", "first_ms"), [(0.0, 0), (1.5, 0), (0.0, 5000), (1.5, 5000), (-0.5, 5000)]
)
def test_sound_is_on_the_clock_of_the_first_frame(
    tmp_path: Path, late: float, first_ms: int
) -> None:
    path = write_sounding(tmp_path / "a.mkv", [(late, tone(2.0, 1.0))], first_ms=first_ms)
    side = heard(path)
    assert side.spans is not None
    assert float(side.spans[0, 0]) == pytest.approx(late, abs=2e-3)
    assert float(side.spans[-1, 1]) == pytest.approx(late + 2.0, abs=2e-3)
    assert loud(side)[0] == pytest.approx(1.0 + late, abs=0.01)


def test_late_sound_moves_the_neighbourhood_of_frames(tmp_path: Path) -> None:
    """The tone belongs to the frames that are shown while it sounds, a late track's too."""
    shown = {}
    for name, late in (("on_time", 0.0), ("late", 1.5)):
        path = write_sounding(tmp_path / f"{name}.mkv", [(late, tone(4.0 - late, 0.6))])
        side, spans = heard(path), frame_spans(clip_of(path), 8)
        found = neighbors(spans, side.spans)
        if found is None:
            assert name == "on_time"
            found = [range(5 * n, 5 * n + 5) for n in range(8)]
        level = side.features.amax(dim=(1, 2, 3))
        by_frame = [float(level[list(own)].max()) if len(own) else -9.0 for own in found]
        shown[name] = int(np.argmax(by_frame))
        assert [len(own) for own in found] == ([5] * 8 if not late else [0, 0, 0] + [5] * 5)
    assert shown == {"on_time": 1, "late": 4}  # 0.6 s and 2.1 s, in frames of half a second


def test_a_gap_is_silence_and_later_sound_keeps_its_time(tmp_path: Path) -> None:
    path = write_sounding(tmp_path / "a.mkv", [(0.0, tone(0.5, 9.0)), (2.0, tone(1.0, 0.3))])
    track = read_sound(SoundJob(str(path), RATE))
    assert len(track.samples) == pytest.approx(3 * RATE, abs=40)
    assert not track.samples[RATE : 2 * RATE - 40].any()
    assert np.flatnonzero(np.abs(track.samples) > 0.1)[0] / RATE == pytest.approx(2.3, abs=0.005)


@pytest.mark.parametrize(
    ("rate", "channels", "codec"), [(44_100, 2, "aac"), (8000, 1, "pcm_s16le")]
)
def test_other_rates_channels_and_codecs(
    tmp_path: Path, rate: int, channels: int, codec: str
) -> None:
    wave = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    wave[:rate] = 0
    name = "a.mkv" if codec.startswith("pcm") else "a.mp4"
    path = write_sounding(
        tmp_path / name, [(0.0, wave.astype(np.float32))], rate=rate, channels=channels, codec=codec
    )
    track = read_sound(SoundJob(str(path), RATE))
    assert track.start == pytest.approx(0.0, abs=0.03)
    assert track.end == pytest.approx(2.0, abs=0.1)
    first = np.flatnonzero(np.abs(track.samples) > 0.1)[0] / RATE + track.start
    assert first == pytest.approx(1.0, abs=0.03)
    # As loud as each channel.
    assert np.std(track.samples[int(1.2 * RATE) : int(1.8 * RATE)]) == pytest.approx(
        0.5 / 2**0.5, rel=0.05
    )


def test_a_part_of_a_video_is_heard_alone(tmp_path: Path) -> None:
    path = write_sounding(tmp_path / "a.mkv", [(0.0, tone(4.0, 2.6))])
    side = heard(path, start=2.0, end=3.0)
    assert side.spans is not None
    assert float(side.spans[0, 0]) == pytest.approx(2.0, abs=0.01)
    assert float(side.spans[-1, 1]) == pytest.approx(3.1, abs=0.01)  # its last frame included
    assert loud(side)[0] == pytest.approx(2.6, abs=0.11)
    spans = frame_spans(clip_of(path, start=2.0, end=3.0), 8)
    near = neighbors(spans, side.spans)
    assert near is not None
    assert [step for own in near for step in own] == list(range(11))
    assert (near[0], near[4]) == (range(1), range(5, 7))  # 2.55 s to 2.6875 s: the tone


def test_shuffled_sound_is_that_of_another_video(tmp_path: Path) -> None:
    for number in range(4):
        write_sounding(tmp_path / f"{number}.mkv", [(0.0, tone(4.0, number + 0.2))])
    own = {n: loud(heard(tmp_path / f"{n}.mkv"))[0] for n in range(4)}
    assert [round(own[n], 1) for n in range(4)] == [0.2, 1.2, 2.2, 3.2]
    given = [int(loud(heard(tmp_path / f"{n}.mkv", "audio[shuffle=0]"))[0]) for n in range(4)]
    assert sorted(given) == [0, 1, 2, 3]
    assert all(got != n for n, got in enumerate(given))
    channel = build_side_channel(parse_side_spec("audio[shuffle=0]"), None, HERE)
    stamp = channel.stamp({"video": str(tmp_path / "0.mkv")})
    assert f"{given[0]}.mkv" in stamp
    plain = build_side_channel(parse_side_spec("audio"), None, HERE)
    assert plain.stamp({"video": str(tmp_path / "0.mkv")}) == ""
    (tmp_path / f"{given[0]}.mkv").write_bytes(b"other")
    assert channel.stamp({"video": str(tmp_path / "0.mkv")}) != stamp


def _without_sound(path: Path) -> None:
    write_video(path, range(30))


def _no_samples(path: Path) -> None:
    write_sounding(path, [], seconds=1.0)


def _damaged(path: Path) -> None:
    """Every packet of the sound is noise; the picture is whole."""
    rng = np.random.default_rng(0)
    noise = (0.3 * rng.standard_normal(2 * RATE)).astype(np.float32)
    source = path.with_name("whole.mkv")
    write_sounding(source, [(0.0, noise)], seconds=2.0, codec="flac")
    import av

    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        streams = {s.index: out.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if not packet.size:
                continue
            stream = streams[packet.stream_index]
            if packet.stream.type == "audio":
                fresh = av.Packet(rng.bytes(packet.size))
                fresh.pts, fresh.dts = packet.pts, packet.dts
                fresh.time_base = packet.time_base
                packet = fresh
            packet.stream = stream
            out.mux(packet)


BAD: dict[str, tuple[Any, str]] = {
    "silent.mp4": (_without_sound, "the file has no sound track"),
    "empty.mkv": (_no_samples, "its sound track is empty"),
    "damaged.mkv": (_damaged, "packets of its sound track are damaged"),
    "missing.mp4": (lambda path: None, "no such file or folder"),
    "zero.mp4": (Path.touch, r"the file is empty \(0 bytes\)"),
    "sound_only.mp4": (write_audio, "has no video stream"),
    "folder": (Path.mkdir, "a folder of images has no sound track"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_heard_fails_by_name(tmp_path: Path, name: str) -> None:
    make, reason = BAD[name]
    make(tmp_path / name)
    with pytest.raises(BadSideChannel, match=reason) as caught:
        read_sound(SoundJob(str(tmp_path / name), RATE))
    assert str(tmp_path / name) in str(caught.value)


def test_a_file_that_hangs_costs_one_sample(tmp_path: Path) -> None:
    """The process is replaced, and the next video is read."""
    os.mkfifo(tmp_path / "hangs.mp4")
    path = write_sounding(tmp_path / "a.mkv", [(0.0, tone(1.0, 0.5))], seconds=1.0)
    clip = clip_of(path)
    channel = build_side_channel(
        parse_side_spec("audio"), None, DecodeOptions(workers=1, timeout_s=3.0)
    )
    before = channel.features({"video": str(path)}, clip)
    begun = time.monotonic()
    with pytest.raises(BadSideChannel, match="decoder timed out after 3 s"):
        channel.features({"video": str(tmp_path / "hangs.mp4")}, clip)
    assert time.monotonic() - begun < 30
    after = channel.features({"video": str(path)}, clip)
    torch.testing.assert_close(before.features, after.features)
    with pytest.raises(BadSideChannel, match="no such file"):
        channel.features({"video": str(tmp_path / "gone.mp4")}, clip)


@pytest.mark.parametrize("spec", ["audio[step=0.001]", "audio[mels=4]", "audio[shuffle=-1]"])
def test_bad_settings_are_refused(spec: str) -> None:
    with pytest.raises(InvalidSetting, match=r"audio\.|shuffle=-1"):
        parse_side_spec(spec)
