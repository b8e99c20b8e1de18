"""Debian's Chromium, driven over a pipe by its DevTools protocol: no port, no driver, no package.

A test module states `pytest_plugins = ("browser",)` to use the fixtures; without Chromium its tests are skipped.
(PYTEST_DONT_REWRITE: imported by name as well as as a plugin.)
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SECONDS = 30.0
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server"),
    *("--remote-debugging-pipe", "--lang=zh-CN"),
)


#: Chromium reads from descriptor 3 and writes to 4.
_INHERIT = (
    "import os, sys; a = sys.argv; os.dup2(int(a[1]), 3); os.dup2(int(a[2]), 4); os.execvp(a[3], a[3:])"
)


class BrowserError(AssertionError):
    """The browser did not do what it was asked to do."""


class Browser:
    """A running Chromium."""

    def __init__(self, program: str, profile: Path) -> None:
        commands, self._commands = _high_pipe()
        self._replies, replies = _high_pipe()
        words = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-c", _INHERIT, str(commands), str(replies), *words],
            pass_fds=(commands, replies),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for descriptor in (commands, replies):
            os.close(descriptor)
        self._buffer, self._number = b"", 0
        #: The events that the browser has sent.
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> Any:
        """Have the browser do something and return what it says."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._next()
            if reply.get("id") != number:
                self.events.append(reply)
            elif "error" in reply:
                raise BrowserError(reply["error"]["message"])
            else:
                return reply["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._replies], [], [], SECONDS)
            piece = os.read(self._replies, 1 << 20) if ready else b""
            if not piece:
                raise BrowserError("the browser says nothing more")
            self._buffer += piece
        text, _, self._buffer = self._buffer.partition(b"\0")
        reply: dict[str, Any] = json.loads(text)
        return reply

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._replies)


class Tab:
    """One page of a browser, with its own storage."""

    def __init__(self, browser: Browser, url: str, width: int = 1000, height: int = 800) -> None:
        self._browser = browser
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        self.go(url)

    def call(self, method: str, **parameters: Any) -> Any:
        """Have the browser do something with this page."""
        return self._browser.call(method, self._session, **parameters)

    def resize(self, width: int, height: int = 800) -> None:
        """Give the page a window of that size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def go(self, url: str) -> None:
        """Open an address."""
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def reload(self) -> None:
        """Load the page again."""
        self.run("window.before = true")
        self.call("Page.reload")
        self.wait_for("document.readyState === 'complete' && !window.before")

    def run(self, script: str) -> Any:
        """Return the value of an expression. Raises BrowserError for what it throws."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise BrowserError(json.dumps(result["exceptionDetails"], ensure_ascii=False)[:500])
        return result["result"].get("value")

    def wait_for(self, condition: str, seconds: float = SECONDS) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while True:
            try:
                if self.run(condition):
                    return
            except BrowserError:  # between two pages there is no document
                pass
            if time.monotonic() > end:
                raise BrowserError(f"never true: {condition}")
            time.sleep(0.03)

    def text(self, selector: str = "body") -> str:
        """Return what a person reads there."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """Press and release a key."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        """Type a text where the cursor is."""
        self.call("Input.insertText", text=text)

    def enter(self) -> None:
        """Press Enter."""
        self.press("Enter", 13, "\r")

    def screenshot(self, file: Path) -> None:
        """Write a picture of the page."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def complaints(self) -> list[str]:
        """Return what the browser complained of since this was last asked: exceptions, refusals of its policy."""
        self.run("1")
        found, events = [], self._browser.events
        self._browser.events = []
        for event in events:
            if event.get("sessionId") == self._session:
                about = event["params"]
                if event["method"] == "Runtime.exceptionThrown":
                    found.append(json.dumps(about["exceptionDetails"])[:300])
                elif event["method"] == "Log.entryAdded" and about["entry"]["level"] == "error":
                    found.append(about["entry"]["text"])
        return found


def _high_pipe() -> tuple[int, int]:
    """Return a pipe whose numbers are none of those that the browser reads and writes."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Give a running Chromium; skip where none is installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("Chromium is not installed (Debian: apt-get install chromium)")
    running = Browser(program, tmp_path_factory.mktemp("profile"))
    try:
        yield running
    finally:
        running.close()
