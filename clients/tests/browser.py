"""A browser without a window, for the tests of pages: it is asked and told through two pipes."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import time

import pytest

from clients.system.processes import spawn, temp_dir

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_a_browser = pytest.mark.skipif(
    not CHROMIUM, reason="there is no chromium here (apt-get install chromium)"
)
# It is spoken to through descriptors 3 and 4, and looks for no updates on a network.
LINE = (
    f"exec {CHROMIUM} --headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-pipe --user-data-dir=$0 3<&{0} 4>&{1}"
)
CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35}


class Browser:
    """A Chromium that has opened one page; asked: the addresses that it has loaded from."""

    def __init__(self, orders, answers, address):
        self.orders, self.answers, self.rest = orders, answers, b""
        self.number, self.session, self.asked = 0, {}, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": found["sessionId"]}
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)

    def call(self, method, **params):
        self.number += 1
        order = {"id": self.number, "method": method, "params": params} | self.session
        os.write(self.orders, json.dumps(order).encode() + b"\0")
        while (answer := self.told()).get("id") != self.number:
            if answer.get("method") == "Network.requestWillBeSent":
                self.asked.append(answer["params"]["request"]["url"])
        assert "error" not in answer, answer
        return answer["result"]

    def told(self):
        while b"\0" not in self.rest:
            assert select.select([self.answers], [], [], 60)[0], "the browser says nothing"
            self.rest += os.read(self.answers, 1 << 16) or pytest.fail("the browser has ended")
        text, _, self.rest = self.rest.partition(b"\0")
        return json.loads(text)

    def until(self, happens):
        deadline = time.monotonic() + 60
        while not happens():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def value(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    @contextlib.contextmanager
    def sized(self, width, height):
        """Give the window a size for a while, in pixels."""
        more = {"deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, **more)
        try:
            yield
        finally:
            self.call("Emulation.clearDeviceMetricsOverride")

    def press(self, key):
        code = {"key": key, "code": key, "windowsVirtualKeyCode": CODES.get(key, ord(key[0]))}
        text = {"text": key} if key == " " else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)


@contextlib.contextmanager
def opened(address, kind=Browser):
    """Open a page, "file://…" or "http://…", in a browser that ends with this."""
    (read, orders), (answers, write) = os.pipe(), os.pipe()
    with temp_dir() as profile:
        line = ["bash", "-c", LINE.format(read, write), profile]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # Its socket needs a short path, of 107 bytes at most (unix(7)), and must not stay in /tmp.
        place = {"cwd": profile, "env": os.environ | {"TMPDIR": "."}}
        with spawn(line, pass_fds=(read, write), **quiet, **place):
            os.close(read)
            os.close(write)
            with open(orders, "wb"), open(answers, "rb"):  # they are closed at the end
                yield kind(orders, answers, address)
