"""What a program writes, within bounds: endless output fills neither our memory nor a disk."""

import os
import select
import threading
import time

FIRST, LATEST = 1 << 16, 1 << 22  # bytes that are kept at least, from the beginning and the end
PAUSE = 0.001  # seconds: who writes without end is slowed down, and does not take our processor


class Output:
    """What has been written to a pipe, read by a thread of its own, so that it never fills up.

    At most FIRST + 2 * LATEST bytes of it are kept. written: how many bytes came. ended: whether
    all who could write have closed it.
    """

    def __init__(self, pipe):
        self.written, self.ended = 0, False
        self._pipe, self._lock = pipe, threading.Lock()
        self._first, self._latest = bytearray(), bytearray()
        os.set_blocking(pipe.fileno(), False)
        threading.Thread(target=self._follow, daemon=True).start()

    def text(self, last=None):
        """Return what has been written so far, or its last bytes only; a gap says how long it is.

        What the program wrote before this call is in it: the pipe is looked into once more.
        """
        self._take()
        with self._lock:
            gap = self.dropped()
            note = b"\n(%d bytes of output were not kept here)\n" % gap if gap else b""
            whole = self._first + note + self._latest
        return whole[-last if last else 0 :].decode(errors="replace")

    def dropped(self):
        """Return how many bytes were not kept."""
        return self.written - len(self._first) - len(self._latest)

    def _follow(self):
        poll = select.poll()  # select() takes no descriptor above 1,023
        poll.register(self._pipe, select.POLLIN)
        with self._pipe:
            while not self.ended:
                poll.poll()
                self._take()
                time.sleep(PAUSE)

    def _take(self):
        """Read what is in the pipe now: one call is enough for all that a pipe holds."""
        with self._lock:
            try:
                piece = b"" if self.ended else os.read(self._pipe.fileno(), 1 << 20)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                piece = b""
            self.ended |= not piece
            self.written += len(piece)
            room = FIRST - len(self._first)
            self._first += piece[:room]
            self._latest += piece[room:]
            if len(self._latest) > 2 * LATEST:
                del self._latest[:-LATEST]
