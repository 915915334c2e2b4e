"""What several programs ask of a socket."""

import socket
import struct


def reset_on_close(sock):
    """Let close() break off the connection with a reset (RST): what is in flight is thrown away.

    A linger time of 0 seconds does that: SO_LINGER in socket(7).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
