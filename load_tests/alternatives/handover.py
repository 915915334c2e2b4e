"""A restart without a gap: a new server takes over the listening socket; the old one drains.

Run it, and again to restart it: python3 load_tests/alternatives/handover.py --control /tmp/control

The new server gets a copy of the listening socket (SCM_RIGHTS, unix(7)). The socket and its accept
queue never close: a connection that the old server does not accept waits for the new one. Under
load no answer was lost (notebook 6). A message to an idle connection that is just closed can be.
"""

import contextlib
import socket
from pathlib import Path

import common
import graceful
from selectors_loop import READ, run_loop

CONTROL = {"help": "path of the Unix socket at which a new server asks; None: none can"}


def listen(options):
    """Return the old server's listening socket, or a new one if there is no old server."""
    if not options.control:
        return common.listen(options)
    options.old, place = socket.socket(socket.AF_UNIX), Path(options.control)
    try:
        options.old.connect(options.control)
        _, [fd], *_ = socket.recv_fds(options.old, 1, 1)
        listener = socket.socket(fileno=fd)
    except (FileNotFoundError, ConnectionRefusedError):
        listener = common.listen(options)
    if place.is_socket():
        place.unlink()
    options.control = socket.socket(socket.AF_UNIX)
    options.control.bind(str(place))
    options.control.listen()
    return listener


class Loop(graceful.Loop):
    """An event loop that drains at SIGTERM, and when a new server has taken over."""

    def __init__(self, listener, options):
        super().__init__(listener, options)
        if options.control:
            self.selector.register(options.control, READ)
            with contextlib.suppress(OSError):  # there is no old server
                options.old.send(b"ready")

    def wake(self, sock):
        if sock in (self.listener, self.wakeup):
            super().wake(sock)
        elif sock is self.options.control:
            new, _ = sock.accept()
            socket.send_fds(new, [b"."], [self.listener.fileno()])
            self.selector.register(new, READ)
        else:
            self.selector.unregister(sock)
            if sock.recv(5) == b"ready":  # and not its end: then this server goes on
                self.stop()


if __name__ == "__main__":
    run_loop(Loop, __doc__, listen=listen, **graceful.OPTIONS, control=CONTROL)
