"""Graceful shutdown (drain): at SIGTERM it accepts no more, answers what was asked, and then ends.

Run it: python3 load_tests/alternatives/graceful.py --deadline 5 --port 3267

A connection is closed when its client has asked nothing for --idle seconds. A question that comes
at that moment is lost: HTTP can announce the close with the answer before, this protocol cannot.
"""

import logging
import os
import signal
import socket
import time

import selectors_loop

OPTIONS = {
    "idle": {"type": float, "default": 0.25, "help": "seconds until an idle connection is closed"},
    "deadline": {"type": int, "default": 5, "help": "seconds from SIGTERM to the end at most"},
    "reuse_port": {"action": "store_true", "help": "SO_REUSEPORT: others may use the same port"},
}


class Loop(selectors_loop.Loop):
    """An event loop that drains at SIGTERM."""

    def __init__(self, listener, options):
        super().__init__(listener, options)
        self.draining = False
        # A signal does not end select(): Python writes a byte to this socket, which does.
        self.wakeup, writer = socket.socketpair()
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach())
        self.selector.register(self.wakeup, selectors_loop.READ)
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))  # even if it waits for its log
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_):
        self.draining = True
        signal.alarm(self.options.deadline)

    def wake(self, sock):
        if sock is self.wakeup:
            sock.recv(1024)
        else:
            super().wake(sock)

    def run(self):
        while not self.draining:
            self.run_once()
        self.accept_all()  # their handshakes are complete: close() would reset them
        if self.resume is None:
            self.selector.unregister(self.listener)
        self.resume = None
        self.listener.close()
        while self.clients():
            self.close_idle()
        logging.info("all connections are closed")

    def close_idle(self):
        """Serve for --idle seconds; close the connections that asked nothing in that time."""
        idle, until = self.clients(), time.monotonic() + self.options.idle
        while (left := until - time.monotonic()) > 0:
            for key in self.run_once(left):
                idle.pop(key.fileobj, None)
        asked = {key.fileobj for key, _ in self.selector.select(0)}  # while the last was answered
        for conn, client in idle.items():
            if conn not in asked and not client.unsent:
                self.close(conn, client)


if __name__ == "__main__":
    selectors_loop.run_loop(Loop, __doc__, **OPTIONS)
