"""Clips with a sound track: what is heard, what is seen, and that what is seen tells no answer."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tempeval.errors import InvalidSetting
from tempeval.mini.encode import write_video
from tempeval.mini.scene import LAMP_COLOURS, PHASES
from tempeval.mini.side_render import render_here
from tempeval.mini.sound import RATE, VOICES, Sound, Tone, Track, synthesise
from tempeval.mini.sound_picture import draw_sound_picture
from tempeval.mini.sound_scene import (
    SoundFacts,
    SoundScene,
    draw_sound_scene,
    draw_track,
    random_sound_facts,
)
from tempeval.mini.sound_suite import SUITE

CLIPS = SUITE.test.clips[::2]
seeds = st.integers(0, 2**32 - 1)


def scene_of(seed: int) -> SoundScene:
    return draw_sound_scene(np.random.default_rng(seed))


def decode(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 `[T, H, W, 3]` and the samples as they were stored, int16 `[N]`."""
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray() for frame in container.decode(audio=0)]
    return np.stack(frames), np.concatenate(sound, axis=1)[0]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder = tmp_path_factory.mktemp("audio")
    render_here(replace(SUITE.test, clips=CLIPS), folder)
    return {clip.name: decode(folder / clip.path) for clip in CLIPS}


def loud(samples: np.ndarray, low: float, high: float) -> list[tuple[float, float]]:
    """Return when a band of frequencies is heard: (start, end) of each tone in seconds."""
    window, hop = 512, 80
    starts = range(0, len(samples) - window, hop)
    pieces = np.stack([samples[start : start + window] for start in starts]) * np.hanning(window)
    power = np.abs(np.fft.rfft(pieces, axis=1)) ** 2
    hertz = np.fft.rfftfreq(window, 1 / RATE)
    band = power[:, (hertz >= low) & (hertz <= high)].max(axis=1)
    edges = np.flatnonzero(np.diff(np.r_[0, band > 0.1 * band.max(), 0].astype(int)))
    return [
        ((a * hop + window / 2) / RATE, (b * hop + window / 2) / RATE)
        for a, b in zip(edges[::2], edges[1::2], strict=True)
    ]


def seen_in_the_middle(frame: np.ndarray, scene: SoundScene) -> str:
    """Return which colour lies over the background in the middle of a frame."""
    x, y = (round(value) for value in scene.picture.middle)
    tint = frame[y - 1 : y + 1, x - 1 : x + 1].reshape(-1, 3).mean(axis=0) - 105
    alike = {
        name: tint @ (np.array(colour) - 105) / np.linalg.norm(np.array(colour) - 105)
        for name, colour in LAMP_COLOURS.items()
    }
    return max(alike, key=lambda name: float(alike[name]))


def test_a_listener_who_sees_8_frames_answers_test_questions(
    files: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    """With picture and sound as decoded, and nothing else but where to look."""
    for clip in CLIPS:
        scene = clip.scene
        assert isinstance(scene, SoundScene)
        frames, samples = files[clip.name]
        sampled = frames[np.linspace(0, len(frames) - 1, 8, dtype=np.int64)]
        beeps = loud(samples, 1800, 2700)
        ((horn, _),), ((hum, _),) = loud(samples, 580, 900), loud(samples, 150, 300)
        slots = (np.arange(8) + 1) * len(frames) / scene.fps / 8  # ends of each frame's share
        mover = seen_in_the_middle(sampled[np.searchsorted(slots, horn)], scene)
        x, y = (round(value) for value in scene.picture.scene.phases[0].ball)
        ball = sampled[:, y - 2 : y + 3, x - 2 : x + 3].reshape(8, -1, 3).mean(axis=1)
        change = np.abs(np.diff(ball, axis=0)).sum(axis=1).argmax()
        before = np.searchsorted(slots, hum) <= change
        found = [str(len(beeps)), mover, "yes" if before else "no"]
        assert found == SUITE.answers(scene), clip.name


def test_the_sound_of_a_file_is_that_of_its_scene(
    files: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    for clip in CLIPS[::7]:
        sound, (frames, samples) = clip.scene.sound(), files[clip.name]
        assert sound is not None
        assert np.array_equal(samples, np.rint(sound.samples * 32767).astype(np.int16))
        assert len(frames) == clip.scene.num_frames
        assert abs(len(samples) / RATE - len(frames) / clip.scene.fps) < 1 / RATE


def test_the_decoded_picture_is_the_same_whatever_sounds(tmp_path: Path) -> None:
    for seed in range(3):
        scene, pictures, tracks = scene_of(seed), [], []
        for other in range(4):
            rng = np.random.default_rng([seed, other])
            facts = random_sound_facts(rng)
            changed = SoundScene(scene.picture, facts, draw_track(rng, scene.picture, facts))
            path = tmp_path / f"{seed}-{other}.mp4"
            write_video(path, changed.paint(), changed.fps, "mp4", changed.sound())
            frames, samples = decode(path)
            pictures.append(frames)
            tracks.append(samples)
        assert all(np.array_equal(pictures[0], frames) for frames in pictures[1:])
        assert not any(np.array_equal(tracks[0], samples) for samples in tracks[1:])


@given(seeds)
def test_a_picture_is_drawn_without_knowing_the_answers(seed: int) -> None:
    found = [
        draw_sound_scene(np.random.default_rng(seed), facts).picture
        for facts in (None, SoundFacts(1, "white", True), SoundFacts(4, "orange", False))
    ]
    assert found[0] == found[1] == found[2]
    assert found[0] == draw_sound_picture(np.random.default_rng(seed))


def test_drawn_answers_do_not_go_with_what_is_seen() -> None:
    """Each answer given each thing seen, among 2000 scenes: as often as by chance."""
    scenes = [scene for scene, _ in zip(SUITE.training_scenes(5), range(2000), strict=False)]
    drawn = [scene for scene in scenes if isinstance(scene, SoundScene)]
    assert len(drawn) == 2000
    for phase in range(PHASES):
        share = np.mean([scene.picture.order[phase] == scene.facts.box for scene in drawn])
        assert abs(share - 1 / 4) < 0.04, phase
    for change in (1, 2, 3):
        seen = [scene.facts for scene in drawn if scene.picture.change == change]
        assert abs(np.mean([facts.before for facts in seen]) - 1 / 2) < 0.08, change
        counts = Counter(facts.beeps for facts in seen)
        assert all(abs(count / len(seen) - 1 / 4) < 0.07 for count in counts.values()), counts


@given(seeds)
def test_tones_say_what_the_facts_say(seed: int) -> None:
    """By the clock: which frame is shown when a tone begins and when it ends."""
    scene = scene_of(seed)
    picture, mini, seconds = scene.picture, scene.picture.scene, scene.num_frames / scene.fps
    by_voice = {voice: [t for t in scene.track.tones if t.voice == voice] for voice in VOICES}
    assert len(by_voice["beep"]) == scene.facts.beeps
    ((horn,), (hum,)) = by_voice["horn"], by_voice["hum"]
    for tone in scene.track.tones:
        assert tone.start > 0
        assert tone.start + tone.seconds < seconds
        low, high = VOICES[tone.voice].pitch
        assert low <= tone.pitch <= high
    for tone, parts in [(horn, 4), (hum, 4), *((beep, 8) for beep in by_voice["beep"])]:
        share = {int((tone.start + part * tone.seconds) / seconds * parts) for part in (0, 1)}
        assert len(share) == 1, "a sound belongs to the frames of one share of the clip"
    phases = {
        name: {
            mini.phase_of_frame(int((tone.start + part * tone.seconds) * scene.fps))
            for part in (0, 1)
        }
        for name, tone in (("horn", horn), ("hum", hum))
    }
    (during_horn,), (during_hum,) = phases.values()
    assert picture.order[during_horn] == scene.facts.box
    assert (during_hum < picture.change) == scene.facts.before
    starts = sorted(beep.start for beep in by_voice["beep"])
    ends = sorted(beep.start + beep.seconds for beep in by_voice["beep"])
    assert all(start - end >= 0.099 for end, start in zip(ends, starts[1:], strict=False))


@given(seeds)
def test_boxes_lie_inside_the_picture_and_apart_from_each_other(seed: int) -> None:
    picture = scene_of(seed).picture
    half = picture.boxes[0].half
    reach = half + picture.wobble
    places = [*((home, half) for home in picture.homes), (picture.middle, reach)]
    places.append((picture.scene.phases[0].ball, picture.scene.radius))
    for number, (centre, size) in enumerate(places):
        assert all(
            size <= c <= side - size for c, side in zip(centre, picture.scene.size, strict=True)
        )
        for other, room in places[number + 1 :]:
            assert max(abs(a - b) for a, b in zip(centre, other, strict=True)) > size + room
    assert reach - half < half, "a moving box always covers the middle"


def test_one_box_moves_in_each_phase() -> None:
    for seed in range(4):
        scene = scene_of(seed)
        frames = scene.paint()
        assert frames.dtype == np.uint8
        assert frames.shape == (scene.num_frames, scene.size[1], scene.size[0], 3)
        assert sorted(scene.picture.order) == sorted(LAMP_COLOURS)
        for index, frame in enumerate(frames):
            mover = scene.picture.order[scene.picture.scene.phase_of_frame(index)]
            assert seen_in_the_middle(frame, scene) == mover


def test_some_frames_are_those_of_all_frames_but_for_grain() -> None:
    scene = scene_of(2)
    some, every = scene.paint([3, 9]).astype(int), scene.paint()[[3, 9]]
    assert np.abs(some - every).max() < 25


def test_a_tone_has_its_pitch_level_and_place() -> None:
    tone = Tone("horn", start=0.5, seconds=0.25, pitch=750.0, level=0.2)
    sound = synthesise(Track((tone,), hiss=0.0, noise=0), 2.0)
    assert sound.samples.dtype == np.float32
    assert (sound.rate, sound.seconds) == (RATE, 2.0)
    heard = np.flatnonzero(sound.samples) / RATE
    assert heard.min() == pytest.approx(0.5, abs=0.001)
    assert heard.max() == pytest.approx(0.75, abs=0.001)
    middle = sound.samples[round(0.52 * RATE) : round(0.73 * RATE)]
    assert np.abs(middle).max() == pytest.approx(0.2, rel=0.01)
    peak = np.abs(np.fft.rfft(middle)).argmax() / (len(middle) / RATE)
    assert peak == pytest.approx(750, abs=5)


def test_the_hiss_has_its_level_and_repeats() -> None:
    track = Track((), hiss=0.01, noise=7)
    samples = synthesise(track, 3.0).samples
    assert samples.std() == pytest.approx(0.01, rel=0.03)
    assert np.array_equal(samples, synthesise(track, 3.0).samples)
    assert not np.array_equal(samples, synthesise(replace(track, noise=8), 3.0).samples)


def test_sound_goes_into_a_container_that_holds_it(tmp_path: Path) -> None:
    frames, sound = np.zeros((2, 28, 28, 3), np.uint8), Sound(np.zeros(100, np.float32), RATE)
    with pytest.raises(InvalidSetting, match=r"'webm' with sound is not one of mp4"):
        write_video(tmp_path / "x", frames, 8, "webm", sound)


def test_full_scale_does_not_wrap_around(tmp_path: Path) -> None:
    samples = np.array([2.0, 1.0, 0.0, -1.0, -2.0] * 2000, dtype=np.float32)
    write_video(tmp_path / "x", np.zeros((8, 28, 28, 3), np.uint8), 8, "mp4", Sound(samples, RATE))
    assert decode(tmp_path / "x")[1][:5].tolist() == [32767, 32767, 0, -32767, -32767]
