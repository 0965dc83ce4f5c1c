"""Defective sources are flagged, or refused with a reason that a person can act on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest
from video_files import cut_without_encoding, numbers_of, write_audio, write_video

from tempeval.errors import BadVideo
from tempeval.video import flags
from tempeval.video.clip import Clip, Sampling, VideoRef
from tempeval.video.decode import read_clip

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 150
FASTSTART = {"movflags": "faststart"}
PYRAMID = {
    "preset": "ultrafast",
    "x264-params": "bframes=3:b-adapt=0:b-pyramid=none:keyint=500",
}
VP9 = {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime", "g": "30"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def clip_of(path: Path, k: int = 8, **where: Any) -> Clip:
    return read_clip(VideoRef(str(path), **where), Sampling("uniform", k))


def cut_bytes(path: Path, fraction: float) -> Path:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def assert_true_to_time(clip: Clip) -> None:
    """Every frame is the one that the undamaged file shows at its timestamp.

    Of the last one only half may be there (-1).
    """
    numbers = np.array(numbers_of(clip))
    readable = numbers >= 0
    assert readable[:-1].all()
    np.testing.assert_allclose(clip.timestamps[readable] * 30, numbers[readable], atol=0.05)


@pytest.mark.parametrize("name", ["cut.mkv", "cut.webm", "cut.mp4", "cut.avi"])
def test_a_file_that_ends_early_is_flagged(folder: Path, name: str) -> None:
    how: dict[str, Any] = {
        "cut.webm": VP9,
        "cut.mp4": {"container": FASTSTART},
        "cut.avi": {"codec": "mpeg4"},
    }.get(name, {})
    whole = write_video(folder / name, range(COUNT), **how)
    assert clip_of(whole).flags == ()
    clip = clip_of(cut_bytes(whole, 0.6), COUNT)
    assert flags.TRUNCATED in clip.flags
    assert flags.REPEATED_FRAMES in clip.flags
    assert 30 < clip.source_frames < COUNT - 20
    assert_true_to_time(clip)


def test_audio_that_outlasts_the_video_is_not_a_truncation(folder: Path) -> None:
    for name in ("outlast.mkv", "outlast.mp4"):
        clip = clip_of(write_video(folder / name, range(60), audio_seconds=6.0))
        assert clip.flags == ()


def test_dropped_frames_of_an_avi_are_not_a_truncation(folder: Path) -> None:
    """The muxer fills the holes in time with empty packets, which its header counts as frames."""
    how = {"codec": "mjpeg", "pixel_format": "yuvj420p"}
    whole = write_video(folder / "full.avi", range(90), **how)  # type: ignore[arg-type]
    path = cut_without_encoding(
        whole, folder / "dropped.avi", 0.0, lambda n, packet: None if n % 10 == 5 else packet
    )
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames > 81
    clip = clip_of(path, 81)
    assert (clip.source_frames, clip.flags) == (81, ())
    assert_true_to_time(clip)


def test_an_empty_sample_is_a_dropped_frame_rather_than_an_end(folder: Path) -> None:
    options = {"preset": "ultrafast", "g": "10", "x264-params": "bframes=0"}
    path = write_video(folder / "empty_sample.mp4", range(30), options=options)
    data = bytearray(path.read_bytes())
    sizes = data.index(b"stsz") + 16
    assert int.from_bytes(data[sizes - 4 : sizes], "big") == 30
    data[sizes + 29 * 4 : sizes + 30 * 4] = bytes(4)
    path.write_bytes(bytes(data))
    for k in (8, 29):
        clip = clip_of(path, k)
        assert (clip.source_frames, clip.flags) == (29, ())
        assert_true_to_time(clip)


def test_garbage_inside_is_skipped_and_flagged(folder: Path) -> None:
    for name in ("garbage.mp4", "garbage.mkv"):
        path = write_video(folder / name, range(COUNT), container=FASTSTART)
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 2000] = random.Random(0).randbytes(2000)  # noqa: S311
        path.write_bytes(bytes(data))
        clip = clip_of(path, COUNT)
        assert set(clip.flags) & flags.DAMAGE
        assert clip.source_frames > COUNT // 2


def test_a_hole_in_time_is_flagged(folder: Path) -> None:
    whole = write_video(folder / "whole.mp4", range(COUNT))
    path = cut_without_encoding(
        whole, folder / "hole.mp4", 0.0, lambda n, packet: None if 30 <= n < 60 else packet
    )
    clip = clip_of(path, 120)
    assert clip.flags == (flags.TIME_GAP,)
    assert_true_to_time(clip)


def test_a_change_of_size_is_flagged_and_scaled(folder: Path) -> None:
    small = write_video(folder / "small.ts", range(30))
    large = write_video(folder / "large.ts", range(30, 60), size=(192, 320))
    joined = folder / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    clip = clip_of(joined, 60)
    assert flags.SIZE_CHANGES in clip.flags
    assert clip.frames.shape == (60, 96, 160, 3)
    assert numbers_of(clip) == list(range(60))


@pytest.mark.parametrize("name", ["late.mkv", "late.webm", "late.mp4", "late.flv", "late.nut"])
def test_a_late_start_is_no_truncation_and_a_cut_is(folder: Path, name: str) -> None:
    """Matroska, NUT and ASF say when they end, MP4 how long they are."""
    how: dict[str, Any] = VP9 if name == "late.webm" else {}
    path = write_video(folder / name, range(60), first_ms=3000, **how)
    clip = clip_of(path, 60)
    assert (clip.source_frames, clip.flags) == (60, ())
    assert clip.timestamps[0] == 0


def test_the_first_picture_of_a_matroska_file_may_come_late() -> None:
    clip = clip_of(Path(__file__).parent.parent / "reference" / "video" / "late_start.mkv")
    assert clip.flags == ()


#: Files that lose their last bytes, of which times say nothing.
ENDINGS: dict[str, dict[str, Any]] = {
    "end.gif": {"codec": "gif", "pixel_format": "rgb8", "rate": 10},
    "end.webm": {"codec": "libvpx", "options": {"cpu-used": "8", "g": "40"}},
    "end.mkv": {},
    "end.mp4": {"container": FASTSTART},
    "fragmented_end.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "end.avi": {"codec": "mpeg4"},
    "end.asf": {"codec": "msmpeg4"},
    "end.ogg": {"codec": "libvpx", "options": {"cpu-used": "8", "g": "40"}},
    "end.apng": {"codec": "apng", "pixel_format": "rgb24"},
}


@pytest.mark.parametrize("name", ENDINGS)
@pytest.mark.parametrize("lost", [20, 400])
def test_a_file_that_is_shorter_than_its_container_says_is_flagged(
    folder: Path, name: str, lost: int
) -> None:
    path = write_video(folder / f"{lost}{name}", range(30), **ENDINGS[name])
    assert clip_of(path, 30).flags == ()
    data = path.read_bytes()
    if name.startswith("fragmented"):  # its last box is an index of the fragments
        data = data[: data.rindex(b"mfra") - 4]
    if name == "end.asf":  # and so is its last object
        data = data[: data.rindex(bytes.fromhex("90080033b1e5cf1189f400a0c90349cb"))]
    path.write_bytes(data[:-lost])
    assert flags.TRUNCATED in clip_of(path, 30).flags


def test_a_gif_that_lacks_its_trailer_alone_is_flagged(folder: Path) -> None:
    path = write_video(folder / "trailer.gif", range(5), **ENDINGS["end.gif"])
    path.write_bytes(path.read_bytes() + bytes(7))  # padding is no cut
    assert clip_of(path, 5).flags == ()
    path.write_bytes(path.read_bytes()[:-8])
    assert clip_of(path, 5).flags == (flags.TRUNCATED,)


def test_a_recording_of_unknown_length_is_not_judged(folder: Path) -> None:
    path = write_video(folder / "live.mkv", range(30), container={"live": "1"})
    assert clip_of(path, 30).flags == ()


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("lost", [range(40, 43), range(50, 58)])
def test_frames_lost_from_a_steady_clock_are_flagged(folder: Path, codec: str, lost: range) -> None:
    """A decoder of VP8 or VP9 does not notice; a tenth of a second is no gap in time otherwise."""
    how: dict[str, Any] = {"codec": codec, "options": {"cpu-used": "8", "deadline": "realtime"}}
    whole = write_video(folder / f"{codec}.webm", range(60), **how)
    path = cut_without_encoding(
        whole, folder / f"{codec}_lost.webm", 0.0, lambda n, p: None if n in lost else p
    )
    assert clip_of(whole).flags == ()
    assert clip_of(path).flags == (flags.TIME_GAP,)


def test_dropped_frames_and_pauses_that_are_meant_are_no_gap(folder: Path) -> None:
    steps = [33] * 60
    for name, long in {
        "one_dropped.mkv": {20: 67},
        "still.mkv": {20: 133, 40: 233, 50: 100},
    }.items():
        times = np.cumsum([0, *[long.get(place, step) for place, step in enumerate(steps)]])
        path = write_video(folder / name, range(61), milliseconds=times.tolist())
        assert clip_of(path).flags == (), name
    whole = write_video(folder / "b_frames.mp4", range(60), options=PYRAMID)
    path = cut_without_encoding(
        whole, folder / "cut_b.mp4", 0.0, lambda n, packet: packet if n < 54 else None
    )
    clip = clip_of(path, 60)
    assert np.diff(numbers_of(clip)).max() > 2
    assert clip.flags == (flags.REPEATED_FRAMES,)
    pauses = [100 * n + (400 if n > 15 else 0) for n in range(30)]
    path = write_video(folder / "pause.gif", range(30), milliseconds=pauses, **ENDINGS["end.gif"])
    assert clip_of(path).flags == ()


def test_one_frame_of_a_video_whose_others_are_hidden_is_a_failure(folder: Path) -> None:
    """A time scale of 0 is read as 1, so that the edit list hides all frames but the first."""
    path = write_video(folder / "timescale.mp4", range(30))
    data = bytearray(path.read_bytes())
    place = data.index(b"mdhd") + 16
    data[place : place + 4] = bytes(4)
    path.write_bytes(bytes(data))
    for sampling in (Sampling("uniform", 8), Sampling("uniform", 1), Sampling("fps", 8, fps=2.0)):
        with pytest.raises(BadVideo, match="only 1 of its 30 frames can be shown"):
            read_clip(VideoRef(str(path)), sampling)


def test_one_frame_that_a_cut_has_left_is_a_failure(folder: Path) -> None:
    path = write_video(folder / "stump.mkv", range(60), options={"preset": "ultrafast"})
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        second = sorted(packet.pos for packet in packets)[1]
    path.write_bytes(path.read_bytes()[:second])
    with pytest.raises(BadVideo, match="only 1 frame is left of it"):
        clip_of(path)


def test_pictures_that_look_alike_are_a_video(folder: Path) -> None:
    path = write_video(folder / "static.mp4", [7] * 30)
    clip = clip_of(path)
    assert (numbers_of(clip), clip.flags) == ([7] * 8, ())


NO_PICTURES = "(not a readable video: |has no video stream, )"


def noise(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(9999)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing.mp4": (lambda path: None, "no such file or folder"),
    "nowhere/missing.mp4": (lambda path: None, "no such file, and no such folder '.*nowhere'"),
    "empty.mp4": (lambda path: path.write_bytes(b""), r"the file is empty \(0 bytes\)"),
    "text.mp4": (lambda path: path.write_text("not a video\n" * 99), "not a readable video: "),
    "noise.mkv": (lambda path: path.write_bytes(noise(0)), "not a readable video: "),
    # FFmpeg takes one file of noise in 280 for a container: of nothing, or of sound.
    "nothing.mkv": (lambda path: path.write_bytes(noise(289)), NO_PICTURES),
    "noise.mp3": (lambda path: path.write_bytes(noise(1053)), NO_PICTURES),
    "moov_missing.mp4": (
        lambda path: cut_bytes(write_video(path, range(COUNT)), 0.6),
        "not a readable video: Invalid data",
    ),
    "sound.m4a": (write_audio, "has no video stream, only audio"),
    "folder.mp4": (lambda path: path.mkdir(), "the folder holds no images"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_unusable_files_say_why(tmp_path: Path, name: str, decoder: Any) -> None:
    make, reason = BAD[name]
    path = tmp_path / name
    make(path)
    where = {"fps": 1.0} if path.is_dir() else {}
    with pytest.raises(BadVideo, match=f"cannot decode '{path}': {reason}") as caught:
        read_clip(VideoRef(str(path), **where), Sampling(), decoder=decoder)
    assert caught.value.source == str(path)


def test_cover_art_is_not_a_video(folder: Path) -> None:
    path = folder / "cover.m4a"
    with av.open(str(path), "w", format="mp4") as out:
        art = out.add_stream("mjpeg", rate=1)
        art.width, art.height, art.pix_fmt = 64, 64, "yuvj420p"
        out.mux(art.encode(av.VideoFrame(64, 64, "yuvj420p")))
        out.mux(art.encode(None))
    data = path.read_bytes()
    art_bytes = data[data.index(b"\xff\xd8") : data.index(b"\xff\xd9") + 2]
    tagged = write_audio(folder / "tagged.m4a")
    tagged.write_bytes(_with_cover(tagged.read_bytes(), art_bytes))
    with av.open(str(tagged)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(BadVideo, match="only an attached picture"):
        clip_of(tagged)


def _with_cover(data: bytes, jpeg: bytes) -> bytes:
    """Add an iTunes cover to an MP4 whose `moov` box comes last."""

    def box(kind: bytes, body: bytes) -> bytes:
        return (len(body) + 8).to_bytes(4, "big") + kind + body

    cover = box(b"covr", box(b"data", (13).to_bytes(4, "big") + bytes(4) + jpeg))
    handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
    meta = box(b"udta", box(b"meta", bytes(4) + handler + box(b"ilst", cover)))
    moov = data.index(b"moov") - 4
    length = int.from_bytes(data[moov : moov + 4], "big")
    assert moov + length == len(data)
    return data[:moov] + (length + len(meta)).to_bytes(4, "big") + data[moov + 4 :] + meta


def test_an_unknown_codec_is_refused_before_it_can_crash(folder: Path) -> None:
    path = write_video(folder / "codec.mkv", range(30))
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_NONSENSE/CODE"))
    with pytest.raises(BadVideo, match="codec is unknown to this build of FFmpeg"):
        clip_of(path)


def test_a_damaged_tag_does_not_hide_the_video(folder: Path) -> None:
    path = folder / "tag.mkv"
    with av.open(str(path), "w") as out:
        out.metadata["title"] = "abcdefgh"
        stream = out.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        out.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
        out.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"\xff\xfe\xfa\xc0\xc1\xf5\xff\xff"))
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    assert clip_of(path).num_frames == 8


def test_a_file_without_a_sound_frame_is_refused(folder: Path) -> None:
    path = write_video(folder / "zeros.mp4", range(30), container=FASTSTART)
    data = path.read_bytes()
    start = data.index(b"mdat") + 4
    path.write_bytes(data[:start] + bytes(len(data) - start))
    with pytest.raises(BadVideo, match=r"no frame can be decoded \(\d+ damaged packets\)"):
        clip_of(path)


def test_a_name_is_never_taken_for_a_protocol(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "http:clip.mp4", range(30), container_format="mp4")
    assert numbers_of(clip_of("http:clip.mp4"))[-1] == 29  # type: ignore[arg-type]
    with pytest.raises(BadVideo, match="no such file"):
        clip_of("http://localhost:9/clip.mp4")  # type: ignore[arg-type]


@pytest.mark.parametrize("decoder", ["auto", "decord"])
def test_a_missing_folder_of_frames_is_missing(tmp_path: Path, decoder: Any) -> None:
    for name, reason in {
        "gone": "no such file or folder",
        "nowhere/gone": "no such file or folder, and no such folder '.*nowhere'",
    }.items():
        with pytest.raises(BadVideo, match=f"gone': {reason}$"):
            read_clip(VideoRef(str(tmp_path / name), fps=12.0), Sampling(), decoder=decoder)


def test_a_rate_for_a_file_is_refused(folder: Path) -> None:
    path = write_video(folder / "rate.mp4", range(30))
    with pytest.raises(BadVideo, match="fps=2 was given, but a video file has its own timestamps"):
        clip_of(path, fps=2.0)


def test_missing_timestamps_refuse_what_needs_time(folder: Path) -> None:
    path = write_video(folder / "raw.h264", range(30), container_format="h264")
    assert np.isnan(clip_of(path).timestamps).all()
    with pytest.raises(BadVideo, match="30 of 30 frames have no timestamp"):
        clip_of(path, start=0.5)


def test_randomly_damaged_files_are_never_silently_wrong_in_time(folder: Path) -> None:
    """Flips bytes of headers and cuts; pixels may suffer unnoticed, but order and time may not."""
    dice = random.Random(7)  # noqa: S311
    for name, how in {"a.mp4": {}, "a.mkv": {}, "a.avi": {"codec": "mpeg4"}}.items():
        whole = write_video(folder / name, range(60), **how).read_bytes()
        for trial in range(8):
            data = bytearray(whole)
            for _ in range(4):
                data[dice.randrange(min(600, len(data)))] = dice.randrange(256)
            if trial % 2:
                del data[int(len(data) * dice.uniform(0.3, 0.95)) :]
            path = folder / f"damaged{trial}_{name}"
            path.write_bytes(bytes(data))
            try:
                clip = clip_of(path)
            except BadVideo:
                continue
            if not set(clip.flags) & flags.DAMAGE and clip.frames.shape[1:] == (96, 160, 3):
                assert numbers_of(clip) == sorted(numbers_of(clip))
