"""Decoding processes: order, time limit, death, memory, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import video_resizes
from video_files import numbers_of, write_video

from tempeval.errors import BadVideo, InvalidSetting, UnknownName
from tempeval.video.clip import Clip, Sampling, VideoRef
from tempeval.video.decode import read_clip
from tempeval.video.pool import ClipRequest, ClipStream, default_workers
from tempeval.video.shelf import ShelfClosed
from tempeval.video.sound import SoundJob
from tempeval.video.worker import Job, time_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FRAMES_BYTES = 8 * 96 * 160 * 3
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "clip.mp4", range(30))


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A path on which every decoder hangs: a named pipe that nobody writes to."""
    path = tmp_path / "hang.mp4"
    os.mkfifo(path)
    return path


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    assert decoders_of(os.getpid()) == []


def requests_for(*paths: Path, **options: Any) -> list[ClipRequest[int]]:
    return [
        ClipRequest(key, VideoRef(str(path)), Sampling(), **options)
        for key, path in enumerate(paths)
    ]


def decoders_of(parent: int) -> list[int]:
    """Return the process ids of a process's living decoders."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z" and b"tempeval.video.worker" in command:
            found.append(int(entry.name))
    return found


def is_running(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
    return result


def reason_in(outcome: Clip | BadVideo) -> str:
    assert isinstance(outcome, BadVideo)
    return outcome.reason


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_outcomes_come_in_order_and_equal_a_plain_read(
    tmp_path: Path, video: Path, workers: int
) -> None:
    slow = write_video(tmp_path / "slow.mp4", range(300), size=(192, 320))
    missing = tmp_path / "missing.mp4"
    paths = [slow, video, missing, video, slow, missing, video, video]
    with ClipStream(requests_for(*paths), workers=workers) as stream:
        outcomes = list(stream)
    assert [key for key, _ in outcomes] == list(range(len(paths)))
    for path, (_, outcome) in zip(paths, outcomes, strict=True):
        if path == missing:
            assert reason_in(outcome) == "no such file or folder"
            continue
        assert isinstance(outcome, Clip)
        plain = read_clip(VideoRef(str(path)), Sampling())
        np.testing.assert_array_equal(outcome.frames, plain.frames)
        np.testing.assert_array_equal(outcome.timestamps, plain.timestamps)
        assert (outcome.source, outcome.flags) == (plain.source, plain.flags)
        assert outcome.frames.flags.writeable


def test_resize_and_decoder_reach_the_process(video: Path) -> None:
    with ClipStream(
        requests_for(video, resize=video_resizes.halve, decoder="pyav"), workers=1
    ) as stream:
        ((_, clip),) = stream
    assert isinstance(clip, Clip)
    assert clip.frames.shape == (8, 48, 80, 3)


def test_processes_load_neither_torch_nor_transformers(video: Path) -> None:
    request = requests_for(video, resize=video_resizes.one_pixel_if_torch_is_loaded)
    with ClipStream(request, workers=1) as stream:
        ((_, clip),) = stream
    assert isinstance(clip, Clip)
    assert clip.frames.shape == (8, 96, 160, 3)


def test_a_hanging_decoder_costs_one_sample(video: Path, pipe: Path) -> None:
    paths = [video, pipe, video, video, pipe, video]
    with ClipStream(requests_for(*paths), workers=2, timeout_s=1.0) as stream:
        outcomes = [outcome for _, outcome in stream]
    for path, outcome in zip(paths, outcomes, strict=True):
        if path == pipe:
            assert reason_in(outcome).startswith("decoder timed out after 1 s; ")
            assert "--decode-timeout" in reason_in(outcome)
        else:
            assert isinstance(outcome, Clip)
            assert numbers_of(outcome) == list(outcome.indices)


def test_the_limit_grows_with_the_work_asked_for(tmp_path: Path, pipe: Path) -> None:
    def limit(path: Path, sampling: Sampling, **part: float) -> float:
        job = Job(VideoRef(str(path), **part), sampling, None, "auto")
        return time_limit(job, 30.0)

    assert limit(pipe, Sampling("uniform", 32)) == 30.0
    assert limit(tmp_path / "missing.mp4", Sampling("uniform", 8)) == 30.0
    assert limit(pipe, Sampling("uniform", 128)) == 120.0
    assert limit(pipe, Sampling("fps", 512, fps=2.0)) == 480.0
    assert limit(pipe, Sampling("fps", 512, fps=2.0), start=10.0, end=12.0) == 30.0
    large = tmp_path / "large.mp4"
    with large.open("wb") as file:
        file.truncate(2**30)  # takes no room on the disk
    assert limit(large, Sampling("uniform", 8)) == 240.0
    assert time_limit(SoundJob(str(large), 16000), 30.0) == 240.0


def test_a_request_of_more_frames_is_waited_for_longer(pipe: Path) -> None:
    request = ClipRequest(0, VideoRef(str(pipe)), Sampling("uniform", 96))
    with ClipStream([request], workers=1, timeout_s=0.5) as stream:
        ((_, outcome),) = stream
    assert reason_in(outcome).startswith("decoder timed out after 1.5 s; ")


def test_a_killed_decoder_costs_one_sample(video: Path, pipe: Path) -> None:
    with ClipStream(requests_for(video, pipe, video), workers=1) as stream:
        assert isinstance(next(stream)[1], Clip)
        writer = wait_until(lambda: opened_for_writing(pipe))
        (decoder,) = decoders_of(os.getpid())
        os.kill(decoder, signal.SIGKILL)
        os.close(writer)
        assert reason_in(next(stream)[1]) == "decoder process died (signal 9)"
        assert isinstance(next(stream)[1], Clip)


def opened_for_writing(pipe: Path) -> int | None:
    """Open a named pipe if somebody reads it: from then on the reader waits for data."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


def test_a_crash_and_a_bug_in_the_process_cost_one_sample_each(video: Path) -> None:
    sampling, ref = Sampling(), VideoRef(str(video))
    requests = [
        ClipRequest("crash", ref, sampling, video_resizes.crash),
        ClipRequest("sound", ref, sampling),
        ClipRequest("bug", ref, sampling, video_resizes.fail),
        ClipRequest("sound again", ref, sampling),
    ]
    with ClipStream(requests, workers=1) as stream:
        outcomes = dict(stream)
    assert reason_in(outcomes["crash"]) == "decoder process died (signal 11)"
    assert reason_in(outcomes["bug"]) == (
        "decoder process died (exit code 1: ZeroDivisionError: a bug in resize)"
    )
    assert isinstance(outcomes["sound"], Clip)
    assert isinstance(outcomes["sound again"], Clip)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_setting_is_raised_rather_than_counted(video: Path, workers: int) -> None:
    requests = requests_for(video, video, resize=video_resizes.impossible)
    with (
        ClipStream(requests, workers=workers) as stream,
        pytest.raises(InvalidSetting, match="resize gave 0x160 pixels"),
    ):
        next(stream)


def test_settings_that_cannot_work_are_refused_at_once(video: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"cannot be sent to a decoding process.*lambda"):
        ClipStream(requests_for(video, resize=lambda *_: (1, 1)), workers=1)
    with pytest.raises(UnknownName, match="no decoder 'decored'; did you mean 'decord'"):
        ClipStream(requests_for(video, decoder="decored"), workers=1)
    for wrong in (
        {"workers": -1},
        {"timeout_s": 0.0},
        {"timeout_s": float("nan")},
        {"memory_limit": 0},
    ):
        with pytest.raises(InvalidSetting, match="must be"):
            ClipStream(requests_for(video), **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("limit", "most"), [(int(2.5 * FRAMES_BYTES), 2), (1, 1)])
def test_memory_is_bounded_while_decoding_runs_ahead(video: Path, limit: int, most: int) -> None:
    seen = []
    with ClipStream(requests_for(*[video] * 8), workers=2, memory_limit=limit) as stream:
        for _ in range(8):
            remaining = 8 - len(seen)
            expected = min(most, remaining) * FRAMES_BYTES
            # Nothing is consumed meanwhile: clips appear by themselves, up to the limit.
            wait_until(lambda expected=expected: stream.held_bytes == expected)
            time.sleep(0.02)
            seen.append(stream.held_bytes)
            next(stream)
    assert max(seen) == most * FRAMES_BYTES


def test_without_requests_nothing_starts() -> None:
    with ClipStream([], workers=2) as stream:
        assert list(stream) == []


def test_leaving_early_ends_everything(video: Path, pipe: Path) -> None:
    began = time.monotonic()
    with ClipStream(requests_for(video, pipe, pipe, video), workers=2) as stream:
        next(stream)
    assert time.monotonic() - began < 20
    assert decoders_of(os.getpid()) == []
    with pytest.raises(ShelfClosed):
        next(stream)
    stream.close()


def test_an_exception_ends_everything(video: Path, pipe: Path) -> None:
    def consume() -> None:
        with ClipStream(requests_for(video, pipe), workers=2) as stream:
            next(stream)
            raise KeyError("in the consumer")

    with pytest.raises(KeyError):
        consume()


def test_the_default_number_of_workers_is_at_most_two() -> None:
    assert default_workers() in (1, 2)


SCRIPT = """
import sys
from tempeval.video.clip import Sampling, VideoRef
from tempeval.video.pool import ClipRequest, ClipStream
print("main runs")
requests = [ClipRequest(i, VideoRef(p), Sampling()) for i, p in enumerate(PATHS)]
with ClipStream(requests, workers=2, timeout_s=60) as stream:
    for key, outcome in stream:
        print(key, type(outcome).__name__, flush=True)
print("torch" in sys.modules)
"""


def script_for(*paths: Path) -> str:
    return f"PATHS = {[str(path) for path in paths]!r}\n" + textwrap.dedent(SCRIPT)


@pytest.mark.parametrize("how", ["stdin", "module", "file"])
def test_a_main_without_a_guard_is_not_run_again(tmp_path: Path, video: Path, how: str) -> None:
    (tmp_path / "unguarded.py").write_text(script_for(video, video))
    arguments = {
        "stdin": ["-"],
        "module": ["-m", "unguarded"],
        "file": ["unguarded.py"],
    }[how]
    done = subprocess.run(
        [sys.executable, *arguments],
        input=script_for(video, video) if how == "stdin" else None,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.splitlines() == ["main runs", "0 Clip", "1 Clip", "False"]
    assert done.stderr == ""


def test_a_resize_of_the_main_script_is_refused_with_advice(tmp_path: Path, video: Path) -> None:
    script = f"""
    from tempeval.errors import InvalidSetting
    from tempeval.video.clip import Sampling, VideoRef
    from tempeval.video.pool import ClipRequest, ClipStream
    def here(height, width, num_frames):
        return height, width
    with ClipStream([ClipRequest(0, VideoRef({str(video)!r}), Sampling(), here)]) as stream:
        try:
            next(stream)
        except InvalidSetting as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-"],
        input=textwrap.dedent(script),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    assert "define resize in a module that can be imported" in done.stdout


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_no_decoder_outlives_its_parent(video: Path, pipe: Path, end: signal.Signals) -> None:
    """The parent is stopped while one decoder hangs and the other one waits for work or room."""
    parent = subprocess.Popen(
        [sys.executable, "-c", script_for(video, pipe, video)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    with parent:
        assert parent.stdout.readline() == "main runs\n"
        assert parent.stdout.readline() == "0 Clip\n"
        decoders = decoders_of(parent.pid)
        assert decoders
        if end is signal.SIGINT:
            os.killpg(parent.pid, end)  # as Ctrl-C does
        else:
            parent.send_signal(end)
        assert parent.wait(PATIENCE_S) != 0
        wait_until(lambda: not any(is_running(decoder) for decoder in decoders))


def test_importing_the_video_room_loads_no_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, tempeval.video as room\n"
        "for module in pkgutil.iter_modules(room.__path__):\n"
        "    importlib.import_module('tempeval.video.' + module.name)\n"
        "print(sorted({'torch', 'transformers', 'lmms_eval', 'decord'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout == "[]\n"
