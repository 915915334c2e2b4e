"""Monitors a server, under the tracer: its threads, its connections, its log and what it costs."""

import contextlib
import itertools
import re
import socket
import threading
from dataclasses import dataclass

import psutil

from clients.classroom.stepper import Stepper
from clients.console.printable import docstring_summary
from clients.system import procfs
from clients.system.processes import (
    LaunchError,
    require_access,
    running_server,
    running_tree,
    server_name,
)
from clients.trace.session import traced

SAID = re.compile(r"^(\S+:\d+) said (.{0,200})", re.MULTILINE)
LATEST = 1 << 16  # bytes of the log that are searched for SAID


@dataclass
class Connection:
    """One client's connection, as the kernel has it at both ends."""

    client: str  # "host:port"
    client_state: str | None = None  # None: its socket is on another machine, or nowhere
    server_state: str | None = None  # None: the server has no socket for it
    fd: int | None = None  # the server's
    queued: bool = False  # it waits for accept()
    recv_q: int = 0  # bytes in the server's receive buffer
    send_q: int = 0  # bytes in the server's send buffer

    @property
    def states(self):
        return self.client_state, self.server_state


class ServerMonitor:
    """One running server program, and what the last refresh() found.

    options: {"backlog": 5, ...}, of its command line. ended: its log and how it has ended, or None.
    threads: a ThreadState for each. queue: the length of the accept queue, at most limit.
    time_wait: the number of connections in TIME-WAIT. processes: the server's and its children;
    thread_count, descriptors and resident (bytes of memory) are of them all. dropped: bytes of
    its log that were not kept. is_python: its name ends in .py; otherwise only the kernel is seen,
    and stepper is None.
    """

    def __init__(self, program, options):
        self.program, self.options, self.name = program, options, server_name(program)
        self.is_python = program.suffix == ".py"
        text = program.read_text(errors="replace") if self.is_python else ""
        self.lines = text.expandtabs().removesuffix("\n").split("\n")
        self.sentence = docstring_summary(text) if self.is_python else "not a Python program"
        self.limit = procfs.accept_queue_limit(options["backlog"])
        self.ended, self.threads, self.connections, self.stepper = None, [], [], None
        self.queue = self.time_wait = self.descriptors = self.resident = self.dropped = 0
        self.thread_count, self.processes = 0, 1
        self.anchors = set()  # the lines on which a thread has slept
        self.said = {}  # {"host:port": what it said, from the server's log}
        self._stack, self._lock, self._closed = contextlib.ExitStack(), threading.Lock(), False

    def open(self):
        """Start the server, unless close() came first; ended is set if it does not listen."""
        words = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        with self._lock:
            if self._closed:
                return
            start = traced if self.is_python else running_server
            try:
                started = self._stack.enter_context(start(self.program, *words))
                self.server = started.server if self.is_python else started
                require_access(self.server.process)
            except LaunchError as error:
                self._stack.close()
                self.ended = error.log, str(error).partition("\n")[0]
                return
            self.stepper = Stepper(started) if self.is_python else None
            host, self.port = self.server.address
            self.host = socket.gethostbyname(host)
            self.hosts = {self.host, *own_addresses()}

    def close(self):
        """End the server; may be called twice, before open() and while it runs."""
        with self._lock:
            self._closed = True
            self._stack.close()

    def refresh(self):
        """Read from the kernel and the tracer how the server is now."""
        process = self.server.process
        try:
            if process.poll() is not None:
                raise psutil.NoSuchProcess(process.pid)
            own, sockets = procfs.socket_fds(process.pid), procfs.tcp_sockets(self.port)
            children = [one for one in running_tree(process) if one.pid != process.pid]
            held_by_children = [procfs.socket_fds(one.pid).items() for one in children]
            fds = dict(itertools.chain(*held_by_children)) | own
            family = [process, *children]
            self.processes = len(family)
            self.descriptors = sum(one.num_fds() for one in family)
            self.thread_count = sum(one.num_threads() for one in family)
            self.resident = sum(one.memory_info().rss for one in family)
        except (psutil.Error, OSError):
            self.ended = self.server.log(LATEST), f"exit status {process.poll()}"
            self.connections = []
            return
        self.dropped = self.server.dropped()
        self.said |= dict(SAID.findall(self.server.log(LATEST)))
        sockets = [one for one in sockets if self.owns(one.local) or self.owns(one.remote)]
        self.connections = self._connections(sockets, fds)
        if self.is_python:
            with contextlib.suppress(OSError):  # Python is too busy to report, or has just ended
                held = {row.fd: row.client for row in self.connections if row.fd in own.values()}
                self.threads = self.stepper.sample(held)
            self.anchors |= {one.line for one in self.threads if one.line and one.fd is not None}
            self.descriptors -= self.stepper.session.tracer_descriptors()
            self.thread_count += len(self.threads) - process.num_threads()  # not the tracer's
        self.queue = sum(one.recv_q for one in sockets if one.state == "LISTEN")
        self.time_wait = sum(one.state == "TIME-WAIT" for one in sockets)

    def is_visible(self):
        """Return True if there is something to be seen: threads, or that it has ended."""
        return bool(self.threads or self.ended or not self.is_python)

    def owns(self, end):
        """Return True if an end of a connection is the server's; other hosts may use its port."""
        host, port = end
        if self.host == "0.0.0.0":
            return port == self.port and (host in self.hosts or host.startswith("127."))
        return end == (self.host, self.port)

    def _connections(self, sockets, fds):
        """Return a Connection per client; fds: {inode: the server's descriptor}."""
        rows = {}
        for one in sockets:
            if one.state in ("LISTEN", "TIME-WAIT"):
                continue
            ours = self.owns(one.local)
            client = "%s:%d" % (one.remote if ours else one.local)
            row = rows.setdefault(client, Connection(client))
            if ours:
                row.server_state, row.recv_q, row.send_q = one.state, one.recv_q, one.send_q
                row.fd = fds.get(one.inode)
                row.queued = one.in_accept_queue
            else:
                row.client_state = one.state
        return list(rows.values())


def own_addresses():
    addresses = itertools.chain(*psutil.net_if_addrs().values())
    return {one.address for one in addresses if one.family == socket.AF_INET}
