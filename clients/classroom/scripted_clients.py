"""The clients that the teacher controls: they connect, send, stop reading, leave, by a key.

Their sockets never block: move() does for each what can be done now.
"""

import contextlib
import errno
import os
import socket
import time

from clients.client import LONGEST, PREFIX
from clients.system.sockets import reset_on_close

MOST = 500  # scripted clients at once
PIECE = b"".join(b"question %d, " % n for n in range(1, 80))  # it has at most LONGEST bytes
FLOOD = 32 * 2**20  # bytes that a client sends at most without reading


class ScriptedClient:
    """One client. number: from 1, in order of arrival; name: its "host:port".

    state: "connecting", "silent", "waiting" for its greeting, "greeted", "not reading" or
    "disconnected", and then error says why. since: when it began (time.monotonic).
    times: how often it has sent a message. sent, received: the last message and greeting, as bytes.
    """

    def __init__(self, number, address):
        self.number, self.address = number, address
        self.sent, self.received, self.pending = b"", b"", b""
        self.times, self.flooded = 0, 0
        self.reading, self.error = True, ""
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(address)
        self.name = "%s:%d" % self.sock.getsockname()
        self.begin("connecting")

    @property
    def label(self):
        return f"client {self.number}"

    def begin(self, state):
        self.state, self.since = state, time.monotonic()

    def seconds(self):
        return time.monotonic() - self.since

    def talk(self):
        """Return what it sent and received last, or why it is disconnected."""
        if self.error or not self.reading:
            return self.error or f"{self.flooded // 1024:,}K sent"
        received = repr(self.received)[2:-1] if self.received else "(none yet)"
        return f"{repr(self.sent)[2:-1]} → {received}" if self.sent else ""

    def send(self):
        """Send the next message; return False if one is already in flight."""
        if self.state not in ("connecting", "silent", "greeted") or self.pending:
            return False
        self.times += 1
        self.sent = self.pending = b"hi %d" % self.times
        self.received = b""
        if self.state != "connecting":
            self.begin("waiting")
        return True

    def toggle_reading(self):
        """Send without a pause and read no answer; or, the second time, read all answers."""
        self.reading = not self.reading
        if self.state not in ("connecting", "disconnected"):
            self.begin("greeted" if self.reading else "not reading")

    def leave(self, reset=False):
        """Close the connection; with a reset (RST) bytes in flight are lost."""
        if reset:
            reset_on_close(self.sock)
        self.sock.close()

    def move(self):
        """Connect, send and receive as far as that does not block."""
        if self.state == "disconnected":
            return
        try:
            if self.state == "connecting":
                self._connect()
            if self.reading:
                self._receive()
            else:
                self._flood()
            while self.pending:
                self.pending = self.pending[self.sock.send(self.pending) :]
        except BlockingIOError:
            pass
        except OSError as error:
            self.error = str(error)
            self.begin("disconnected")

    def _connect(self):
        """Call connect() again: it reports how the handshake goes (EALREADY in connect(2))."""
        error = self.sock.connect_ex(self.address)
        if error not in (0, errno.EISCONN):  # BlockingIOError: still in SYN-SENT
            raise OSError(error, os.strerror(error))
        first = "waiting" if self.pending else "silent"
        self.begin(first if self.reading else "not reading")

    def _receive(self):
        """Read all that has arrived; a greeting is as long as its message and the prefix."""
        with contextlib.suppress(BlockingIOError):
            while chunk := self.sock.recv(65536):
                self.received = (self.received + chunk)[-LONGEST - len(PREFIX) :]
                if self.state == "waiting" and len(self.received) >= len(PREFIX + self.sent):
                    self.begin("greeted")
            raise ConnectionError("the server closed the connection")

    def _flood(self):
        """Send as much as the kernel takes, so that the answers fill the buffers."""
        while self.flooded < FLOOD:
            self.pending = self.pending or PIECE
            sent = self.sock.send(self.pending)
            self.pending = self.pending[sent:]
            self.sent, self.flooded = PIECE, self.flooded + sent
