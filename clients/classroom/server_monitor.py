"""A server on the stage: under the tracer, seen from inside and from outside."""

import contextlib
import re
from dataclasses import dataclass

import psutil

from clients.classroom.stepper import Walk
from clients.console.printable import first_sentence
from clients.system import procfs
from clients.system.processes import LaunchError, name_of, running_server, tail
from clients.system.sampler import thread_states
from clients.trace.session import traced

SAID = re.compile(r"^(\S+:\d+) said (.{0,200})", re.MULTILINE)
REPORT = 0.1  # seconds that the server's Python may take to report its frames: the screen waits
LATEST = 1 << 16  # bytes of the log in which to look for who said what


@dataclass
class Connection:
    """One client's connection, as the kernel has it at both ends.

    client: "host:port". theirs: the state of the client's end, if that is on this machine; ours:
    of the server's; each None where there is no such socket. fd: the server's descriptor, or None.
    queued: whether it waits for accept(). unread, unsent: bytes in the server's buffers.
    """

    client: str
    theirs: str | None = None
    ours: str | None = None
    fd: int | None = None
    queued: bool = False
    unread: int = 0
    unsent: int = 0

    @property
    def states(self):
        """The client's end, the server's."""
        return self.theirs, self.ours


class Stage:
    """One server program that runs, and what there is to see of it since the last look().

    options: {"backlog": 5, ...}, of its command line. ended: its last words, if it has ended.
    threads: a ThreadState for each. queue: the length of the accept queue, which holds
    limit. time_wait: how many connections are in TIME-WAIT. resident: bytes of memory.
    dropped: bytes of its log that were not kept. plain: it is no Python program, as its name says
    (.py): only the kernel tells of it, and walk is None.
    """

    def __init__(self, program, options):
        self.program, self.options, self.name = program, options, name_of(program)
        self.plain = program.suffix != ".py"
        text = "" if self.plain else program.read_text(errors="replace")
        self.lines, self.sentence = (
            text.expandtabs().removesuffix("\n").split("\n"),
            "not a Python program" if self.plain else first_sentence(text),
        )
        self.limit = procfs.queue_limit(options["backlog"])
        self.ended, self.threads, self.connections, self.walk = "", [], [], None
        self.queue = self.time_wait = self.descriptors = self.resident = self.dropped = 0
        self.thread_count = 0
        self.anchors = set()  # the lines on which a thread has slept
        self.said = {}  # {"host:port": what the server's log says that it said}
        self._stack = contextlib.ExitStack()

    def open(self):
        """Start the server; if it does not come to listen it has ended."""
        words = [word for name, value in self.options.items() for word in (f"--{name}", value)]
        try:
            if self.plain:
                self.server = self._stack.enter_context(running_server(self.program, *words))
                return
            traces = traced(self.program, *words, limit=0)
            self.walk = Walk(self._stack.enter_context(traces))
            self.server = self.walk.tracee.server
        except LaunchError as error:
            self.ended = str(error)

    def close(self):
        """End the server; may be called twice, and before open()."""
        self._stack.close()

    def look(self):
        """See what there is to see at this moment."""
        process, port = self.server.process, self.server.address[1]
        try:
            if process.poll() is not None:
                raise psutil.NoSuchProcess(process.pid)
            held, lines = procfs.descriptors(process.pid), procfs.tcp(port)
            self.descriptors = process.num_fds()
            self.thread_count = process.num_threads()
            self.resident = process.memory_info().rss
        except (psutil.Error, OSError):
            words = tail(self.server.log(2000), 12)
            self.ended, self.connections = f"exit status {process.poll()}\n  {words}", []
            return
        if not self.plain:
            self.look_inside()
        self.dropped = self.server.dropped()
        self.said |= dict(SAID.findall(self.server.log(LATEST)))
        self.connections = connections(lines, port, held)
        self.queue = sum(line.unread for line in lines if line.state == "LISTEN")
        self.time_wait = sum(line.state == "TIME-WAIT" for line in lines)

    def look_inside(self):
        """See on which line each thread is, without the tracer's; as before if it is too busy."""
        with contextlib.suppress(OSError):
            pid, tracee = self.server.process.pid, self.walk.tracee
            self.threads = self.walk.look(thread_states(pid, lambda: tracee.frames(REPORT)))
        self.anchors |= {one.line for one in self.threads if one.line and one.fd is not None}
        self.descriptors -= self.walk.tracee.channels()
        self.thread_count = len(self.threads)


def connections(lines, port, held):
    """Return a Connection a client; held: {inode: the server's descriptor}."""
    rows = {}
    for line in lines:
        if line.state in ("LISTEN", "TIME-WAIT"):
            continue
        ours = line.local[1] == port
        client = "%s:%d" % (line.remote if ours else line.local)
        row = rows.setdefault(client, Connection(client))
        if ours:
            row.ours, row.unread, row.unsent = line.state, line.unread, line.unsent
            row.fd = held.get(line.inode)
            row.queued = line.queued
        else:
            row.theirs = line.state
    return list(rows.values())
