"""Headless Chromium over its debugging pipe: pages, keys, screenshots; the standard library alone.

Run by hand it takes screenshots of a page::

    python tests/sdk/browser.py report.html 1440 report_1440.png [light|dark]
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome")
SILENT = ("--disable-background-networking", "--disable-component-update", "--no-first-run")


def find() -> str | None:
    """Path of a Chromium, where one is installed."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One tab of a headless Chromium; `events` holds what the page did."""

    def __init__(self, program: str) -> None:
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (commands, self._write), (self._read, answers) = os.pipe(), os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        script = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
        options = (
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            *SILENT,
        )
        home = f"--user-data-dir={self._home.name}"
        self._process = subprocess.Popen(
            ["bash", "-c", script, program, *options, home, "--remote-debugging-pipe"],
            pass_fds=(commands, answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(answers)
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._home.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, url: str, width: int, height: int = 900, *, scheme: str = "light") -> None:
        """Load a page in a window of so many px."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, expression: str) -> Any:
        """Evaluate JavaScript in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait_until(self, expression: str, seconds: float = 30) -> None:
        """Evaluate JavaScript until it is true; TimeoutError after so many seconds."""
        end = time.monotonic() + seconds
        while not self.run(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"still not true after {seconds} s: {expression}")
            time.sleep(0.01)

    def press(self, key: str, code: int = 0) -> None:
        """Press a key; `code` for those that are not a character."""
        event = {"key": key, "windowsVirtualKeyCode": code or ord(key.upper())}
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def screenshot(self, *, whole: bool = True) -> bytes:
        """PNG of the page, or of what is seen of it."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole, format="png")
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            answer = self.call(
                "Page.captureScreenshot", captureBeyondViewport=True, format="png", clip=clip
            )
        return base64.b64decode(answer["data"])


def main() -> None:
    """Take a screenshot of a whole page."""
    page, width, out, *scheme = sys.argv[1:]
    program = find()
    if program is None:
        sys.exit("no Chromium found; install the package chromium")
    with Browser(program) as browser:
        browser.open(Path(page).resolve().as_uri(), int(width), scheme=(scheme or ["light"])[0])
        Path(out).write_bytes(browser.screenshot())


if __name__ == "__main__":
    main()
