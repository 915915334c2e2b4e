"""Chat, an event loop: each line that a client sends goes to all clients.

Run it: python3 load_tests/alternatives/chat_loop.py --queue 65536 --port 3267

Each client has a queue of what the kernel has not taken yet. Only a bound limits how much memory a
client that does not read costs; beyond it that client is dropped, and nobody waits for it.
"""

import contextlib
import logging
import socket

import selectors_loop
from selectors_loop import READ, WRITE, run_loop

QUEUE = {"type": int, "default": 65536, "help": "bytes that may wait for one client"}
LONGEST = 1024  # bytes of a line


class Loop(selectors_loop.Loop):
    """An event loop whose clients wait to read and to write at the same time."""

    def handle(self, conn, client):
        """Send what waits for a client, and its lines to all; return False at its end."""
        try:
            self.flush(conn, client)
            chunk = conn.recv(1024)
        except BlockingIOError:  # there was only room to send
            return True
        except OSError as error:
            logging.info("%s:%d connection lost: %s", *client.remote, error)
            return False
        client.received += len(chunk)
        *lines, client.line = (getattr(client, "line", b"") + chunk).split(b"\n")
        for line in lines:
            if len(line) >= LONGEST:
                return False
            self.send_to_all(line + b"\n")
        return len(client.line) < LONGEST and chunk != b""

    def send_to_all(self, line):
        for conn, client in self.clients().items():
            client.unsent += line
            with contextlib.suppress(OSError):  # it has left: the selector reports that as well
                self.flush(conn, client)
                if len(client.unsent) > self.options.queue:
                    logging.info("%s:%d dropped: it does not read", *client.remote)
                    client.unsent = b""
                    conn.shutdown(socket.SHUT_RDWR)  # reported by the selector, and then closed

    def flush(self, conn, client):
        """Send what the kernel takes; watch for room while something is left."""
        with contextlib.suppress(BlockingIOError):
            while client.unsent:
                client.unsent = client.unsent[conn.send(client.unsent) :]
        events = READ | WRITE if client.unsent else READ
        if events != self.selector.get_key(conn).events:
            self.selector.modify(conn, events, client)


if __name__ == "__main__":
    run_loop(Loop, __doc__, queue=QUEUE)
