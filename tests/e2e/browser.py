"""A real Chromium, spoken to over its DevTools pipe: no driver and no package of its own."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60.0
_SHORT = 0.1


class Browser:
    """One page of a headless browser."""

    def __init__(self, program: str, *, width: int = 1400, height: int = 900) -> None:
        self._program = program
        self._size = width, height
        self._numbers = itertools.count(1)
        self._session: str | None = None
        self._received = bytearray()

    @staticmethod
    def program() -> str | None:
        """Where a browser is installed, if one is."""
        return next(filter(None, map(shutil.which, NAMES)), None)

    def __enter__(self) -> Self:
        self._profile = tempfile.mkdtemp(prefix="livekit-backup-browser-")
        inputs, self._write = os.pipe()
        self._read, outputs = os.pipe()
        # The browser wants them as 3 and 4, so neither may be one of these before.
        inputs, outputs = (_moved_up(handle) for handle in (inputs, outputs))
        self._process = subprocess.Popen(
            [
                *(self._program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--no-first-run", "--disable-background-networking", "--hide-scrollbars", "--lang=en-US"),
                *("--remote-debugging-pipe", f"--user-data-dir={self._profile}", "about:blank"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(inputs, 3), os.dup2(outputs, 4)),  # noqa: PLW1509 - two system calls
        )
        os.close(inputs)
        os.close(outputs)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._call("Page.enable")
        self.resize(*self._size)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self._profile, ignore_errors=True)

    def resize(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        """Go to a page; what it shows comes later."""
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Return what an expression of JavaScript gives."""
        done = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def text(self) -> str:
        """All that a person can read on the page, what stands in its fields included."""
        return str(
            self.run(
                "(document.body?.innerText ?? '') + '\\n' + [...document.querySelectorAll('input, textarea')]"
                ".map(field => field.value).join('\\n')"
            )
        )

    def await_text(self, *wanted: str, seconds: float = PATIENCE) -> str:
        """Wait until all of these can be read, and return the whole text."""
        until = time.monotonic() + seconds
        while True:
            text = self.text()
            if all(part in text for part in wanted):
                return text
            assert time.monotonic() < until, f"{[part for part in wanted if part not in text]} not in:\n{text}"
            time.sleep(_SHORT)

    def click(self, text: str, *, among: str = "button, a, [role=tab], summary") -> None:
        """Click the first element with this text, as soon as it is there."""
        script = (
            f"(() => {{ const found = [...document.querySelectorAll({json.dumps(among)})]"
            f".find(one => one.innerText.trim().startsWith({json.dumps(text)}) && one.getClientRects().length);"
            " if (!found) return false; found.scrollIntoView({block: 'center'}); found.click(); return true; })()"
        )
        until = time.monotonic() + PATIENCE
        while not self.run(script):
            assert time.monotonic() < until, f"nothing to click with {text!r} in:\n{self.text()}"
            time.sleep(_SHORT)

    def take_picture(self, path: Path) -> None:
        """Store what is visible, once it has stopped moving."""
        before, until = "", time.monotonic() + 10
        while True:
            data = str(self._call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"])
            if data == before or time.monotonic() > until:
                break
            before = data
            time.sleep(0.5)
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        while True:
            answer = self._next_message()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return dict(answer["result"])

    def _next_message(self) -> dict[str, Any]:
        until = time.monotonic() + PATIENCE
        while b"\0" not in self._received:
            assert time.monotonic() < until, "the browser does not answer"
            if select.select([self._read], [], [], 1)[0]:
                piece = os.read(self._read, 1024 * 1024)
                assert piece, "the browser has ended"
                self._received += piece
        message, _, rest = bytes(self._received).partition(b"\0")
        self._received = bytearray(rest)
        return dict(json.loads(message))


def _moved_up(handle: int) -> int:
    moved = fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(handle)
    return moved
