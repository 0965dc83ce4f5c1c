"""The parent's end of one decoding process: start it, ask it, kill it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from tempeval.errors import DecoderUnavailable, TempevalError
from tempeval.video.worker import READY, Header

if TYPE_CHECKING:
    from tempeval.video.clip import Clip

Reply = TypeVar("Reply")

_START_TIMEOUT_S = 120.0
_EXIT_TIMEOUT_S = 10.0
_LOG_TAIL_BYTES = 4096

# Started with -c rather than by multiprocessing's spawn, which runs the parent's main script again
# and fails when that came from stdin. The parent's sys.path makes both import the same files.
_BOOT = "import sys; sys.path[:] = {path!r}; from tempeval.video.worker import main; main({fd})"


class DecoderFailure(Exception):
    """The process hung or died; its text says how. It cannot be used again."""


class DecoderProcess:
    """One child that decodes one clip at a time. Not for use by two threads at once, except `kill`.

    Raises:
        DecoderUnavailable: the process cannot be started.
    """

    def __init__(self) -> None:
        self._connection, theirs = multiprocessing.Pipe(duplex=True)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in kill
        boot = _BOOT.format(path=sys.path, fd=theirs.fileno())
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter, our own module
                [sys.executable, "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                pass_fds=(theirs.fileno(),),
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            self._connection.close()
            self._log.close()
            raise DecoderUnavailable(f"a decoding process cannot be started: {error}") from error
        finally:
            theirs.close()
        self._ready = False

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def ask(self, request: bytes, kind: type[Reply], timeout_s: float) -> Reply | TempevalError:
        """Have something read; after a `Header`, `receive_frames` must be called.

        Args:
            request: a pickled `worker.Job` or `sound.SoundJob`.
            kind: what answers it: `Header` or `SoundTrack`.
            timeout_s: seconds until the process counts as hung; starting it is not included.

        Raises:
            DecoderFailure: the process hung or died.
            DecoderUnavailable: the process never became ready.
        """
        reply = self._reply(request, timeout_s)
        if not isinstance(reply, kind | TempevalError):
            raise TypeError(f"a decoding process answered with {type(reply).__name__}")
        return reply

    def _reply(self, request: bytes, timeout_s: float) -> object:
        self._await_ready()
        try:
            self._connection.send_bytes(request)
            if not self._connection.poll(timeout_s):
                raise DecoderFailure(
                    f"decoder timed out after {timeout_s:g} s; where the file is sound but heavy, "
                    "allow more with --decode-timeout (decode_timeout= of a model)"
                )
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise DecoderFailure(f"decoder process died ({self._cause()})") from error

    def receive_frames(self, header: Header) -> Clip:
        """Return the clip that `header` announced, with its frames.

        Raises:
            DecoderFailure: the process died.
        """
        frames = np.empty(header.shape, dtype=np.uint8)
        try:
            self._connection.recv_bytes_into(frames.data.cast("B"))
        except (EOFError, OSError) as error:
            raise DecoderFailure(f"decoder process died ({self._cause()})") from error
        return replace(header.clip, frames=frames)

    def kill(self) -> None:
        """End the process at once and wait until it is gone; a thread that waits for it wakes."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process and free what the parent holds of it."""
        self.kill()
        self._connection.close()
        self._log.close()

    def _await_ready(self) -> None:
        if self._ready:
            return
        try:
            waited = self._connection.poll(_START_TIMEOUT_S)
            self._ready = waited and self._connection.recv() == READY
        except (EOFError, OSError) as error:
            raise DecoderUnavailable(
                f"a decoding process does not start ({self._cause()}); try workers=0"
            ) from error
        if not self._ready:
            raise DecoderUnavailable(
                f"a decoding process did not start within {_START_TIMEOUT_S:g} s; try workers=0"
            )

    def _cause(self) -> str:
        """Return how the process ended: its signal, or its exit code and last line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_TIMEOUT_S)
        code = self._process.returncode
        if code is None:
            return "it closed its connection"
        if code < 0:
            return f"signal {-code}"
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _LOG_TAIL_BYTES))
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"exit code {code}: {lines[-1]}" if lines else f"exit code {code}"
