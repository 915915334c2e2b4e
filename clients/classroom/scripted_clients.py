"""The clients that a teacher conducts: they connect, speak, stop reading, leave, at a word.

Their sockets never block: move() does for each what can be done now.
"""

import contextlib
import errno
import os
import socket
import time

from clients.client import LONGEST, PREFIX
from clients.system.sockets import reset_on_close

MOST = 500  # puppets at once
PIECE = b"".join(b"question %d, " % n for n in range(1, 80))  # it has at most LONGEST bytes
FLOOD = 32 * 2**20  # bytes at most that a puppet asks without reading


class Puppet:
    """One client. number: its place in the cast; name: its "host:port".

    doing: "connecting", "silent", "waiting" for its greeting, "greeted", "not reading", or
    "broke off", and then why says why. since: when that began (time.monotonic). times: how often
    it spoke. said, told: the last message and the last greeting, as bytes.
    """

    def __init__(self, number, address):
        self.number, self.address = number, address
        self.said, self.told, self.unsent, self.flooded, self.times = b"", b"", b"", 0, 0
        self.reading, self.why = True, ""
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.connect_ex(address)
        self.name = "%s:%d" % self.sock.getsockname()
        self.begin("connecting")

    def begin(self, doing):
        self.doing, self.since = doing, time.monotonic()

    def waited(self):
        """Return for how many seconds it has done what it does."""
        return time.monotonic() - self.since

    def speak(self):
        """Say the next message; return False if it may not: one message is in flight."""
        if self.doing not in ("connecting", "silent", "greeted") or self.unsent:
            return False
        self.times += 1
        self.said = self.unsent = b"hi %d" % self.times
        self.told = b""
        if self.doing != "connecting":
            self.begin("waiting")
        return True

    def stop_reading(self):
        """Go on asking, and read no answer; or, the second time, read them all."""
        self.reading = not self.reading
        if self.doing not in ("connecting", "broke off"):
            self.begin("greeted" if self.reading else "not reading")

    def leave(self):
        """Close the connection in the ordinary way."""
        self.sock.close()

    def reset(self):
        """Close the connection with a reset (RST): what is in flight is thrown away."""
        reset_on_close(self.sock)
        self.sock.close()

    def move(self):
        """Do what can be done without waiting: finish to connect, send, receive."""
        if self.doing == "broke off":
            return
        try:
            if self.doing == "connecting":
                self._connect()
            if self.reading:
                self._receive()
            else:
                self._flood()
            self._send()
        except BlockingIOError:
            pass
        except OSError as error:
            self.why = str(error)
            self.begin("broke off")

    def _connect(self):
        """Ask how the handshake goes: connect(), called again, tells (EALREADY in connect(2))."""
        error = self.sock.connect_ex(self.address)
        if error not in (0, errno.EISCONN):  # BlockingIOError: still in SYN-SENT
            raise OSError(error, os.strerror(error))
        first = "waiting" if self.unsent else "silent"
        self.begin(first if self.reading else "not reading")

    def _send(self):
        while self.unsent:
            self.unsent = self.unsent[self.sock.send(self.unsent) :]

    def _receive(self):
        """Read all that is there; the greeting is whole when it has as many bytes as it must."""
        with contextlib.suppress(BlockingIOError):
            while chunk := self.sock.recv(65536):
                self.told = (self.told + chunk)[-LONGEST - len(PREFIX) :]
                if self.doing == "waiting" and len(self.told) >= len(PREFIX + self.said):
                    self.begin("greeted")
            raise ConnectionError("the server closed the connection")

    def _flood(self):
        """Ask as much as the kernel takes, so that the answers pile up."""
        while self.flooded < FLOOD:
            self.unsent = self.unsent or PIECE
            sent = self.sock.send(self.unsent)
            self.unsent = self.unsent[sent:]
            self.said, self.flooded = PIECE, self.flooded + sent
