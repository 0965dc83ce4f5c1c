"""Headless Chromium for tests, spoken to by the WebDriver protocol (W3C) with urllib alone.

`.ci/run` installs Debian's `chromium` and `chromium-driver`; elsewhere a test that needs a
browser is skipped where there is none.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a web element, from the standard

# The last five keep it from looking for the network, which tests must not use.
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class WebDriverError(Exception):
    """An answer of the driver that is an error, such as 'no such element'."""


class Browser:
    """One window of a running browser."""

    def __init__(self, server: str, capabilities: dict[str, Any]) -> None:
        self._server = server
        made = _call("POST", f"{server}/session", {"capabilities": {"alwaysMatch": capabilities}})
        self._session = f"{server}/session/{made['sessionId']}"

    def open(self, url: str) -> None:
        """Load a page and wait for it."""
        self._post("url", url=url)

    def run(self, script: str, *args: Any) -> Any:
        """Run JavaScript, `return` included, and give what it returns."""
        return self._post("execute/sync", script=script, args=list(args))

    def find(self, css: str) -> list[dict[str, str]]:
        """Find elements; each can be passed to `click`, `type` and `run`."""
        found: list[dict[str, str]] = self._post("elements", using="css selector", value=css)
        return found

    def click(self, css: str) -> None:
        """Click the first element that matches, as a user would."""
        self._post(f"element/{self._first(css)}/click")

    def type(self, css: str, text: str) -> None:
        """Send keys to the first element that matches."""
        self._post(f"element/{self._first(css)}/value", text=text)

    def press(self, key: str) -> None:
        """Press and release a key in whatever has the focus (see KEYS)."""
        keys = [{"type": kind, "value": KEYS.get(key, key)} for kind in ("keyDown", "keyUp")]
        self._post("actions", actions=[{"type": "key", "id": "keyboard", "actions": keys}])

    def hover(self, css: str) -> None:
        """Move the pointer over the first element that matches."""
        element = {_ELEMENT: self._first(css)}
        move = {"type": "pointerMove", "duration": 0, "x": 0, "y": 0, "origin": element}
        self._post("actions", actions=[{"type": "pointer", "id": "mouse", "actions": [move]}])

    def size(self, width: int, height: int = 900, *, mobile: bool = False) -> None:
        """Set the size of the viewport in CSS pixels; windows themselves end at 500."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.devtools("Emulation.setDeviceMetricsOverride", **metrics)

    def media(self, media: str = "", **features: str) -> None:
        """Emulate a medium ('print') and features (prefers_color_scheme='dark')."""
        pairs = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.devtools("Emulation.setEmulatedMedia", media=media, features=pairs)

    def devtools(self, command: str, **params: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self._post("goog/cdp/execute", cmd=command, params=params)

    def log(self) -> list[str]:
        """Give and empty the console: errors, warnings, refused requests."""
        entries = self._post("se/log", type="browser")
        return [f"{entry['level']}: {entry['message']}" for entry in entries]

    def dialog(self) -> str | None:
        """Give the text of an open alert or prompt, None where none is open."""
        try:
            text: str = _call("GET", f"{self._session}/alert/text")
        except WebDriverError:
            return None
        return text

    def screenshot(self, path: Path, *, full: bool = False) -> None:
        """Save what is seen, or the full page, as PNG."""
        shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=full)
        if full:
            box = self.devtools("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": box["width"], "height": box["height"], "scale": 1}
            shot = self.devtools("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        """End the session; the browser exits."""
        _call("DELETE", self._session)

    def _first(self, css: str) -> str:
        found: dict[str, str] = self._post("element", using="css selector", value=css)
        return found[_ELEMENT]

    def _post(self, what: str, **body: Any) -> Any:
        return _call("POST", f"{self._session}/{what}", body)


KEYS = {"Enter": "\ue007", "Tab": "\ue004", "Escape": "\ue00c", "Space": "\ue00d"}
KEYS |= {"Left": "\ue012", "Up": "\ue013", "Right": "\ue014", "Down": "\ue015"}


def require_chromium() -> None:
    """Skip the test without Chromium; fail it where CI=true, which has to install it."""
    missing = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    if missing:
        reason = (
            f"{' and '.join(missing)} not installed; on Debian: "
            "apt-get install --no-install-recommends chromium chromium-driver"
        )
        if os.environ.get("CI", "").lower() in ("1", "true"):
            pytest.fail(reason)
        pytest.skip(reason)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start chromedriver on a free port and one browser; both end with the block."""
    with (
        tempfile.TemporaryDirectory(prefix="chromium-") as profile,
        contextlib.ExitStack() as stack,
    ):
        driver = stack.enter_context(
            subprocess.Popen(
                ["chromedriver", "--port=0"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        stack.callback(driver.terminate)
        browser = Browser(
            f"http://127.0.0.1:{_port(driver)}",
            {
                "goog:chromeOptions": {"args": [*_FLAGS, f"--user-data-dir={profile}"]},
                "goog:loggingPrefs": {"browser": "ALL"},
                "unhandledPromptBehavior": "ignore",
            },
        )
        stack.callback(browser.close)
        yield browser


def _port(driver: subprocess.Popen[str]) -> int:
    if driver.stdout is not None:
        for line in driver.stdout:
            if found := re.search(r"started successfully on port (\d+)", line):
                return int(found[1])
    raise WebDriverError(f"chromedriver did not start (exit code {driver.poll()})")


def _call(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, method=method)  # noqa: S310 - loopback
    # No proxy: the driver listens on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        value = json.load(error)["value"]
        raise WebDriverError(f"{value['error']}: {value['message']}") from None
