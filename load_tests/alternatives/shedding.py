"""Load shedding: an event loop that answers "Sorry, bob" at once when it has too much to do.

Run it: python3 load_tests/alternatives/shedding.py --compute 0.01 --max-age 0.1 --port 3267

Such an answer costs nearly nothing and is as long as a greeting: the client may ask again.
"""

import socket
import struct
import time

import selectors_loop

SO_TIMESTAMPNS = 35  # <asm-generic/socket.h>; Python has no name for it
CLIENTS = {"type": int, "help": "greet at most this many clients at the same time"}
MAX_AGE = {"type": float, "help": "do not greet what was asked this many seconds ago, or earlier"}


class Loop(selectors_loop.Loop):
    """An event loop with a bound on clients, and a deadline for work."""

    def __init__(self, listener, options):
        super().__init__(listener, options)
        self.admitted, self.age = set(), 0.0
        if options.max_age is not None:  # also of what comes before accept(): sockets inherit it
            listener.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def receive(self, conn):
        """Receive a chunk; the kernel says when its last byte came (recvmsg(2), socket(7))."""
        chunk, stamps, *_ = conn.recvmsg(1024, socket.CMSG_SPACE(16))
        for _, _, stamp in stamps:
            seconds, nanoseconds = struct.unpack("ll", stamp)
            self.age = time.time() - seconds - nanoseconds / 1e9
        return chunk

    def answer(self, chunk, client):
        late = self.options.max_age is not None and self.age >= self.options.max_age
        full = self.options.clients is not None and len(self.admitted) >= self.options.clients
        if not (late or full):
            self.admitted.add(client.remote)  # until it leaves
        if late or client.remote not in self.admitted:
            return b"Sorry, " + chunk
        return super().answer(chunk, client)

    def close(self, conn, client):
        self.admitted.discard(client.remote)
        super().close(conn, client)


if __name__ == "__main__":
    selectors_loop.run_loop(Loop, __doc__, clients=CLIENTS, max_age=MAX_AGE)
