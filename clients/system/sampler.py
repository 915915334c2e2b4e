"""The sampler: on which line, and in which system call, each thread of a server is.

Lines of Python are known only inside the server: frames.py reports them on request. System calls
and sockets are read from /proc by the program that asks, so that it takes no descriptor from the
server.
"""

import contextlib
import json
import socket
from dataclasses import dataclass

from clients.system import frames, procfs
from clients.system.processes import Server, running_server
from clients.system.sockets import unix_listener

TIMEOUT = 10.0  # seconds that a server's Python may take to report its frames


@dataclass(frozen=True)
class ThreadState:
    """Where one thread of a server is."""

    id: int  # the kernel's
    name: str  # "main", or Python's
    function: str | None  # of the program's file; None outside it
    line: int | None
    call: str | None = None  # the system call in which it sleeps, or "running"; None: not readable
    fd: int | None = None  # the descriptor that the call is about
    remote: str | None = None  # "host:port" of the other end of that descriptor's connection


def thread_states(pid, report, remote_addresses=procfs.remote_addresses):
    """Return a ThreadState for each thread of a process. report: returns its frames.frames().

    A thread sleeps if its system call, arguments and stack are the same before and after the
    report: then its line is the one on which it sleeps. Otherwise it is running.
    """
    before = procfs.syscalls(pid)
    rows = report()
    after, remotes = procfs.syscalls(pid), remote_addresses(pid)
    states = []
    for row in rows:
        text, same = before.get(row["id"]), before.get(row["id"]) == after.get(row["id"])
        call = procfs.parse_syscall(text) if text and same else None
        if call:
            found = {"call": call.name, "fd": call.fd, "remote": remotes.get(call.fd)}
        else:
            found = {"call": "running" if text or not same else None}  # None: no /proc here
        states.append(ThreadState(**row, **found))
    return states


@dataclass
class Sampler:
    """A server that runs with frames.py in its process."""

    server: Server
    _channel: socket.socket

    def sample(self):
        """Return a ThreadState for each thread of the server, as it is now."""
        return thread_states(self.server.process.pid, self._report)

    def _report(self):
        self._channel.sendall(b"frames\n")
        with self._channel.makefile() as lines:
            return json.loads(lines.readline())


@contextlib.contextmanager
def sampled_server(program, *options):
    """Start a server program with frames.py in its process, and yield a Sampler."""
    with unix_listener() as (listener, path):
        wrapper = (frames.__file__, path)
        with running_server(program, *options, wrapper=wrapper) as server:
            with listener.accept()[0] as channel:
                channel.settimeout(TIMEOUT)
                yield Sampler(server, channel)
