"""Which line, and which system call, each thread of a server is in.

Lines of Python are known only inside the server: frames.py, in its process, reports them. System
calls and sockets are read from /proc by the program that asks, so that it takes no descriptor from
the server.
"""

from dataclasses import dataclass

from clients.system import procfs


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
