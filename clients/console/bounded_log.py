"""A program's output, kept within bounds: endless output fills neither the memory nor a disk."""

import os
import select
import threading
import time

HEAD, TAIL = 1 << 16, 1 << 22  # bytes that are kept at least, of the beginning and of the end
PAUSE = 0.001  # seconds between two reads: endless output is slowed down and leaves us a processor


class BoundedLog:
    """The bytes written to a pipe, which a thread reads, so that the pipe is never full for long.

    At most HEAD + 2 * TAIL bytes are kept. written: the bytes that came. ended: whether every
    process has closed its end of the pipe.
    """

    def __init__(self, pipe):
        self.written, self.ended = 0, False
        self._pipe, self._lock = pipe, threading.Condition()
        self._head, self._tail = bytearray(), bytearray()
        os.set_blocking(pipe.fileno(), False)
        threading.Thread(target=self._follow, daemon=True).start()

    def text(self, last=None):
        """Return what has been written so far, or its last bytes only; a line reports a gap.

        Everything that was written before this call is included: the pipe is read once more.
        """
        self._read()
        with self._lock:
            gap = self.dropped()
            note = b"\n(%d bytes of output were not kept here)\n" % gap if gap else b""
            whole = self._head + note + self._tail
        return whole[-last if last else 0 :].decode(errors="replace")

    def dropped(self):
        """Return how many bytes were not kept."""
        return self.written - len(self._head) - len(self._tail)

    def wait(self, written, timeout):
        """Wait until more than this many bytes have come, or the end; timeout: seconds."""
        with self._lock:
            self._lock.wait_for(lambda: self.ended or self.written > written, timeout)

    def _follow(self):
        poll = select.poll()  # select() accepts no descriptor above 1,023
        poll.register(self._pipe, select.POLLIN)
        with self._pipe:
            while not self.ended:
                poll.poll()
                self._read()
                time.sleep(PAUSE)

    def _read(self):
        """Read the pipe once: one call is enough for everything that a pipe contains."""
        with self._lock:
            try:
                piece = b"" if self.ended else os.read(self._pipe.fileno(), 1 << 20)
            except BlockingIOError:
                return
            except (OSError, ValueError):
                piece = b""
            self.ended |= not piece
            self.written += len(piece)
            self._lock.notify_all()
            room = HEAD - len(self._head)
            self._head += piece[:room]
            self._tail += piece[room:]
            if len(self._tail) > 2 * TAIL:
                del self._tail[:-TAIL]
