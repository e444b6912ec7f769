"""Drives a real Chromium over its debugging pipe: pages, clicks, screenshots, and everything the page said or asked for."""

import base64
import fcntl
import io
import json
import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-pipe",
]
BINARY = shutil.which("chromium")


@dataclass
class Page:
    """One tab. ``complaints``: console errors and warnings, exceptions, CSP violations. ``requests``: every URL asked for."""

    browser: "Browser"
    session: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Go to a page."""
        self.call("Page.navigate", url=url)

    def call(self, method: str, **parameters):
        """Send one command of the DevTools protocol to this tab."""
        return self.browser.call(method, self.session, **parameters)

    def evaluate(self, expression: str):
        """Value of a JavaScript expression, promises awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, timeout_s: float = 30.0):
        """Poll until the expression is truthy; its value."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            value = self.evaluate(f"Promise.resolve({expression}).then((value) => (value instanceof Node ? true : value))")
            if value:
                return value
            time.sleep(0.1)
        raise AssertionError(
            f"never came true: {expression}; the page said {self.complaints}; text: {self.evaluate('document.body.innerText')}"
        )

    def choose_files(self, selector: str, files: list[Path]) -> None:
        """Put files into an <input type=file>."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def screenshot(self, save_as: Path | None = None) -> np.ndarray:
        """What the window shows, [H, W, 3] uint8."""
        png = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if save_as:
            save_as.write_bytes(png)
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def hear(self, method: str, data: dict) -> None:
        """Note what matters of an event."""
        if method == "Network.requestWillBeSent":
            self.requests.append(data["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(data["exceptionDetails"])[:500])
        elif method == "Runtime.consoleAPICalled" and data["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(each.get("value", each.get("description"))) for each in data["args"]))
        elif method == "Log.entryAdded" and data["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{data['entry']['text']} {data['entry'].get('url', '')}")


class Browser:
    """A Chromium with a fresh profile; a context manager."""

    def __init__(self, width: int = 800, height: int = 600) -> None:
        self.size = (width, height)
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-")
        self._pages: dict[str, Page] = {}
        self._last_id = 0
        self._buffer = b""

    def __enter__(self) -> "Browser":
        child_in, self._to = os.pipe()
        self._from, child_out = os.pipe()
        # Chromium reads its file descriptor 3 and writes 4; numbers from 10 up keep the copies out of each other's way.
        high_in, high_out = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (child_in, child_out))

        def connect() -> None:
            os.dup2(high_in, 3)
            os.dup2(high_out, 4)

        command = [BINARY, *FLAGS, f"--user-data-dir={self._profile.name}", f"--window-size={self.size[0]},{self.size[1]}", "about:blank"]
        null = subprocess.DEVNULL
        self._process = subprocess.Popen(
            command,
            stdin=null,
            stdout=null,
            stderr=null,
            preexec_fn=connect,  # noqa: PLW1509 (two system calls)
            pass_fds=(3, 4),
            start_new_session=True,
        )
        for fd in (child_in, child_out, high_in, high_out):
            os.close(fd)
        return self

    def __exit__(self, *_error: object) -> None:
        self.call("Browser.close")
        self._process.wait(15)
        os.close(self._to)
        os.close(self._from)
        for _ in range(20):  # its helpers write a last file or two
            shutil.rmtree(self._profile.name, ignore_errors=True)
            if not Path(self._profile.name).exists():
                break
            time.sleep(0.1)
        self._profile.cleanup()

    def new_page(self, scheme: str = "light") -> Page:
        """Open a tab and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=self.size[0], height=self.size[1], deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        return page

    def call(self, method: str, session: str | None = None, **parameters):
        """Send a command and return its result, noting the events that come before it."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": parameters, **({"sessionId": session} if session else {})}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == message["id"]:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if "method" in answer and answer.get("sessionId") in self._pages:
                self._pages[answer["sessionId"]].hear(answer["method"], answer["params"])

    def _read(self) -> dict:
        while b"\0" not in self._buffer:
            part = os.read(self._from, 1 << 16)
            assert part, "Chromium ended"
            self._buffer += part
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)
