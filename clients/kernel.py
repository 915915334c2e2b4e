"""What the kernel tells of TCP connections, from /proc/net/tcp: the one parser of that file.

Linux only; it lists the IPv4 sockets of a network namespace, and needs no root.
"""

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

# The kernel's numbers (include/net/tcp_states.h) and the names of RFC 9293.
STATES = {
    "01": "ESTABLISHED",
    "02": "SYN-SENT",
    "03": "SYN-RECEIVED",
    "04": "FIN-WAIT-1",
    "05": "FIN-WAIT-2",
    "06": "TIME-WAIT",
    "07": "CLOSED",
    "08": "CLOSE-WAIT",
    "09": "LAST-ACK",
    "0A": "LISTEN",
    "0B": "CLOSING",
    "0C": "SYN-RECEIVED",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One socket, as /proc/net/tcp shows it (Documentation/networking/proc_net_tcp.rst).

    local, remote: (host, port). unsent: bytes that the other side has not acknowledged.
    unread: bytes that the program has not read; for a listener, the length of its accept
    queue. inode: 0 for a socket that no program holds, as one that accept() has not taken yet.
    """

    local: tuple[str, int]
    remote: tuple[str, int]
    state: str
    unsent: int
    unread: int
    inode: int


def tcp(port, pid="self"):
    """Return a Line for each socket that has port at one of its two ends.

    pid: a process in whose network namespace to look.
    """
    wanted = f":{port:04X}"
    lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return [_line(text) for text in lines if wanted in text[:35]]


def _line(text):
    _, local, remote, state, queues, *_, inode = text.split()[:10]
    unsent, unread = (int(number, 16) for number in queues.split(":"))
    return Line(_address(local), _address(remote), STATES[state], unsent, unread, int(inode))


def _address(text):
    """Return (host, port) from eight digits, in this machine's byte order, and four more."""
    host, port = text.split(":")
    return socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(port, 16)


def descriptors(pid):
    """Return {inode: descriptor} of the sockets that a process holds."""
    held = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            held[int(target[8:-1])] = int(fd)
    return held


def queue_limit(backlog):
    """Return how many connections an accept queue holds: min(backlog, somaxconn) + 1.

    Source: listen(2); the kernel compares with ">", so one more than the number fits.
    """
    return min(backlog, int(Path("/proc/sys/net/core/somaxconn").read_text())) + 1
