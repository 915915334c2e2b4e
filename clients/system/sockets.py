"""What several programs need of a socket."""

import contextlib
import os
import socket
import struct

from clients.system.processes import temp_dir


def reset_on_close(sock):
    """Make close() reset the connection (RST): bytes in flight are lost.

    A linger time of 0 seconds does that: SO_LINGER in socket(7).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextlib.contextmanager
def unix_listener():
    """Yield a listening Unix socket and its path, which is deleted afterwards.

    The path leads through /proc, so that it is short wherever the folder is: unix(7) allows 107
    bytes.
    """
    with contextlib.ExitStack() as stack:
        fd = os.open(stack.enter_context(temp_dir()), os.O_RDONLY)
        stack.callback(os.close, fd)
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        path = f"/proc/{os.getpid()}/fd/{fd}/socket"
        listener.bind(path)
        listener.listen(1024)
        yield listener, path
