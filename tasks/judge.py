"""A judge for texts that no rule can score: a command, or an OpenAI-compatible endpoint. Off.

Nothing is asked unless the user names a judge in `$TEMPEVAL_JUDGE`: a command line that reads the
prompt from its standard input and writes its answer, or the URL of a chat-completions endpoint.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

from tempeval.errors import TempevalError

VARIABLE, MODEL, KEY = "TEMPEVAL_JUDGE", "TEMPEVAL_JUDGE_MODEL", "TEMPEVAL_JUDGE_KEY"
_TIMEOUT_S, _TRIES = 120.0, 3
#: HTTP states that another try does not change.
_REFUSED = (400, 401, 403, 404)


class JudgeMissing(TempevalError):
    """A task that needs a judge, and none is named."""


class JudgeFailed(TempevalError):
    """A judge that gave no answer; the sample counts as wrong and is counted."""


@dataclass(frozen=True)
class Judge:
    """What is asked.

    Attributes:
        place: command line or URL.
        model: sent to an endpoint; empty for a command.
        key: sent to an endpoint as bearer token; never written anywhere.
    """

    place: str
    model: str = ""
    key: str = ""

    @property
    def name(self) -> str:
        """What a sample says it was judged by; of a command the program only, not its arguments."""
        if self.is_endpoint:
            return f"{self.place} {self.model}"
        return shlex.split(self.place)[0]

    @property
    def is_endpoint(self) -> bool:
        """Whether it is asked over HTTP."""
        return self.place.startswith(("http://", "https://"))

    def ask(self, prompt: str) -> str:
        """Return the judge's answer, without outer blanks.

        Raises:
            JudgeFailed: if the command or the endpoint fails, or takes more than two minutes.
        """
        return (self._post(prompt) if self.is_endpoint else self._call(prompt)).strip()

    def _call(self, prompt: str) -> str:
        try:
            done = subprocess.run(  # noqa: S603  # the user's own command, without a shell
                shlex.split(self.place),
                input=prompt,
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise JudgeFailed(f"the judge {self.place!r} cannot be run: {error}") from error
        if done.returncode:
            raise JudgeFailed(
                f"the judge {self.place!r} ended with {done.returncode}: {done.stderr[-300:]}"
            )
        return done.stdout

    def _post(self, prompt: str) -> str:
        body = {
            "model": self.model,
            "temperature": 0,
            "max_tokens": 128,
            "messages": [{"role": "user", "content": prompt}],
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        data = json.dumps(body).encode()
        opener = urllib.request.build_opener()
        request = urllib.request.Request(self.place, data, headers)  # noqa: S310  # http(s) only
        for left in reversed(range(_TRIES)):
            try:
                with opener.open(request, timeout=_TIMEOUT_S) as reply:
                    return str(json.load(reply)["choices"][0]["message"]["content"] or "")
            except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
                refused = isinstance(error, urllib.error.HTTPError) and error.code in (
                    400,
                    401,
                    403,
                )
                if refused or not left:
                    raise JudgeFailed(f"the judge at {self.place} failed: {error}") from error
                time.sleep(1.0)
        raise JudgeFailed(f"the judge at {self.place} was not asked")


def named_judge() -> Judge:
    """Return the judge that the environment names.

    Raises:
        JudgeMissing: if it names none, or an endpoint without a model.
    """
    place = os.environ.get(VARIABLE, "").strip()
    if not place:
        raise JudgeMissing(
            f"this task needs a judge and {VARIABLE} names none. Set it to a command that reads a "
            "prompt and writes an answer, or to the URL of an OpenAI-compatible chat-completions "
            f"endpoint (with {MODEL}, and {KEY} if it wants one). Without a judge: "
            "tempeval_tempcompass_captioning_mcq"
        )
    found = Judge(place, os.environ.get(MODEL, "").strip(), os.environ.get(KEY, "").strip())
    if found.is_endpoint and not found.model:
        raise JudgeMissing(f"{VARIABLE} is an endpoint, so {MODEL} must name its model")
    return found
