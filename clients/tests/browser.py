"""A browser without a window, for the tests of pages: two pipes carry commands and replies."""

import contextlib
import json
import os
import select
import shutil
import subprocess

import pytest

from clients.system.processes import spawn, temp_dir
from conftest import DEADLINE, wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
in_a_browser = pytest.mark.skipif(
    not CHROMIUM, reason="there is no chromium here (apt-get install chromium)"
)
# Its commands and replies use descriptors 3 and 4; it looks for no updates on a network.
LINE = (
    f"exec {CHROMIUM} --headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--remote-debugging-pipe --user-data-dir=$0 3<&{0} 4>&{1}"
)
CODES = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35}


class Browser:
    """A Chromium that has opened one page; requested_urls: what it has loaded."""

    def __init__(self, commands, replies, address):
        self.commands, self.replies, self.buffer = commands, replies, b""
        self.number, self.session, self.requested_urls = 0, {}, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": found["sessionId"]}
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)

    def call(self, method, **params):
        self.number += 1
        command = {"id": self.number, "method": method, "params": params} | self.session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while (reply := self.next_message()).get("id") != self.number:
            if reply.get("method") == "Network.requestWillBeSent":
                self.requested_urls.append(reply["params"]["request"]["url"])
        assert "error" not in reply, reply
        return reply["result"]

    def next_message(self):
        while b"\0" not in self.buffer:
            assert select.select([self.replies], [], [], DEADLINE)[0], "the browser is silent"
            self.buffer += os.read(self.replies, 1 << 16) or pytest.fail("the browser has ended")
        text, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(text)

    until = staticmethod(wait_until)

    def value(self, expression):
        reply = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    @contextlib.contextmanager
    def sized(self, width, height):
        """Give the window this size, in pixels, until the end of the block."""
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
    (read, commands), (replies, write) = os.pipe(), os.pipe()
    with temp_dir() as profile:
        line = ["bash", "-c", LINE.format(read, write), profile]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        # Its socket needs a path of at most 107 bytes (unix(7)), and must not stay in /tmp.
        place = {"cwd": profile, "env": os.environ | {"TMPDIR": "."}}
        with spawn(line, pass_fds=(read, write), **quiet, **place):
            os.close(read)
            os.close(write)
            with open(commands, "wb"), open(replies, "rb"):  # they are closed at the end
                yield kind(commands, replies, address)
