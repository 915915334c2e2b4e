"""Monitors a server, under the tracer: its threads, its connections, its log and what it costs."""

import contextlib
import itertools
import re
import socket
import threading
from collections import ChainMap, Counter
from dataclasses import dataclass

import psutil

from clients.classroom.stepper import Stepper
from clients.console.printable import docstring_summary
from clients.system import procfs
from clients.system.processes import LaunchError, running_tree, server_name
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
    def is_half_open(self):
        """Return True if the server dropped the client's last ACK: its accept queue was full."""
        return self.client_state == "ESTABLISHED" and self.server_state in (None, "SYN-RECEIVED")


class ServerMonitor:
    """One running server program, and what the last refresh() found.

    options: {"backlog": 5, ...}, of its command line. ended: its log and how it has ended, or None.
    threads: a ThreadState for each. queue: the length of the accept queue, at most limit.
    time_wait: the number of connections in TIME-WAIT. used: {"processes", "threads", "descriptors",
    "resident" (bytes of memory): number} of the server and its children.
    """

    def __init__(self, program, options):
        self.program, self.options, self.name = program, options, server_name(program)
        text = program.read_text(errors="replace")
        self.lines = text.expandtabs().removesuffix("\n").split("\n")
        self.sentence = docstring_summary(text)
        self.limit = procfs.accept_queue_limit(options["backlog"])
        self.ended, self.threads, self.connections, self.stepper = None, [], [], None
        self.queue = self.time_wait = 0
        self.used = Counter()
        self.anchors = set()  # the lines on which a thread has slept
        self.said = {}  # {"host:port": what it said, from the server's log}
        self._stack, self._lock, self._closed = contextlib.ExitStack(), threading.Lock(), False

    def open(self):
        """Start the server, unless close() came first; ended is set if it does not listen."""
        words = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        with self._lock:
            if self._closed:
                return
            try:
                session = self._stack.enter_context(traced(self.program, *words))
            except LaunchError as error:
                self.ended = error.log, str(error).partition("\n")[0]
                return
            self.server, self.stepper = session.server, Stepper(session)
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
        process, held, used = self.server.process, {}, Counter()
        if process.poll() is not None:
            self.ended = self.server.log(LATEST), f"exit status {process.poll()}"
            self.connections = []
            return
        for one in running_tree(process):
            with contextlib.suppress(psutil.Error, OSError):  # it has just ended
                held[one.pid] = procfs.socket_fds(one.pid)
                used.update(descriptors=one.num_fds(), threads=one.num_threads())
                used.update(resident=one.memory_info().rss, processes=1)
        own, fds = held.get(process.pid, {}), dict(ChainMap(*held.values()))
        self.said |= dict(SAID.findall(self.server.log(LATEST)))
        sockets = procfs.tcp_sockets(self.port)
        sockets = [one for one in sockets if self.owns(one.local) or self.owns(one.remote)]
        self.connections = self._connections(sockets, fds)
        with contextlib.suppress(OSError):  # Python is too busy to report, or has just ended
            remotes = {one.fd: one.client for one in self.connections if one.fd in own.values()}
            self.threads = self.stepper.sample(remotes)
        self.anchors |= {one.line for one in self.threads if one.line and one.fd is not None}
        used["descriptors"] -= self.stepper.session.tracer_descriptors()
        used["threads"] -= 1  # the tracer's
        self.used = used
        self.queue = sum(one.recv_q for one in sockets if one.state == "LISTEN")
        self.time_wait = sum(one.state == "TIME-WAIT" for one in sockets)

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
