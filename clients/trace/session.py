"""A server under the tracer, from outside: which thread stands where, and let one of them go on.

with traced(program, walk=True) as tracee:
    tracee.settle()
    for thread in tracee.stopped():
        tracee.go(thread)
"""

import contextlib
import json
import selectors
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import clients.system.processes as processes  # first: where Linux is missing, it says so
from clients.system import procfs
from clients.system.sockets import unix_listener
from clients.trace import tracer

LOOK = 0.001  # seconds between two looks at whether a thread sleeps
LOOKS = 3  # that many in a row find a thread asleep before it is believed
LOCKED = 60  # looks, for a lock: the interpreter's own is waited for now and then, and briefly


@dataclass
class Traced:
    """One thread of the server, as last told.

    told: what Tracer.tell() said when it stopped. stopped: it waits for "go". call, fd: the system
    call in which it sleeps if it is not stopped, and on which descriptor; None if it runs.
    """

    number: int
    told: dict
    stopped: bool = False
    call: str | None = None
    fd: int | None = None
    channel: socket.socket | None = field(default=None, repr=False)


@contextlib.contextmanager
def traced(program, *options, walk=False, limit=tracer.HIGH, **more):
    """Start a server under the tracer, yield a Tracee.

    walk: its threads stop as soon as it listens. limit: up to which descriptor the tracer looks.
    more: for processes.running_server.
    """
    with contextlib.ExitStack() as stack:
        door, path = stack.enter_context(unix_listener())
        wrapper = ("-m", tracer.__name__, "--to", path, "--limit", limit)
        wrapper += ("--walk",) if walk else ()
        tracee = Tracee(door)
        stack.callback(tracee.close)
        with processes.running_server(program, *options, wrapper=wrapper, **more) as server:
            tracee.meet(server)
            try:
                yield tracee
            finally:
                tracee.run()  # it ends itself, as at any other time


class Tracee:
    """server: a Server. threads: {the kernel's number: Traced}, those that have ever stopped."""

    def __init__(self, door):
        self.server, self.threads, self.orders, self._frames = None, {}, None, []
        self._unanswered = False
        self._heard, self._door, self._texts = selectors.DefaultSelector(), door, {}
        self._looks = Counter()  # {thread's number: how many times in a row it was asleep}
        door.setblocking(False)
        self._heard.register(door, selectors.EVENT_READ)

    def meet(self, server):
        """Wait until the tracer in the server has made itself known."""
        self.server = server
        while self.orders is None:
            self.listen(1)

    def close(self):
        for key in list(self._heard.get_map().values()):
            if key.fileobj is not self._door:
                key.fileobj.close()
        self._heard.close()

    def walk(self):
        """Make each thread stop at its next line."""
        self.orders.sendall(b"walk\n")

    def run(self):
        """Let all threads run."""
        with contextlib.suppress(OSError):  # the server has ended
            self.orders.sendall(b"run\n")
        time.sleep(0.01)  # the order comes first
        for thread in self.stopped():
            self.go(thread)

    def go(self, thread):
        """Let a stopped thread execute one line."""
        thread.stopped, thread.call = False, None
        with contextlib.suppress(OSError):  # the server has ended meanwhile
            thread.channel.sendall(b"go\n")

    def frames(self, seconds):
        """Return what frames.frames() does in the server; raise TimeoutError if that takes longer.

        There is at most one request under way; a late answer is passed over.
        """
        self.listen()
        if not self._unanswered:
            self._unanswered = True
            self.orders.sendall(b"frames\n")
            deadline = time.monotonic() + seconds
            while self._unanswered and time.monotonic() < deadline:
                self.listen(0.01)
        if self._unanswered:
            raise TimeoutError("the server does not report its frames")
        return self._frames

    def look_again(self, thread):
        """Let a stopped thread tell again how the sockets are."""
        thread.stopped = False
        thread.channel.sendall(b"look\n")
        while not thread.stopped:
            self.listen(1)

    def channels(self):
        """Return how many descriptors of the server's process are the tracer's."""
        return len(self._heard.get_map()) - 1  # one is the door, here

    def stopped(self):
        return [thread for thread in self.threads.values() if thread.stopped]

    def listen(self, seconds=0.0):
        """Take what the threads have told; say whether there was something."""
        events = self._heard.select(seconds)
        for key, _ in events:
            if key.fileobj is self._door:
                with contextlib.suppress(BlockingIOError):
                    self._heard.register(self._door.accept()[0], selectors.EVENT_READ)
            else:
                self._take(key.fileobj)
        return bool(events)

    def _take(self, channel):
        chunk = channel.recv(1 << 20)
        if not chunk:
            self._heard.unregister(channel)
            channel.close()
            return
        text = self._texts.pop(channel, b"") + chunk
        if not text.endswith(b"\n"):
            self._texts[channel] = text
            return
        for line in text.splitlines():
            self._took(channel, json.loads(line))

    def _took(self, channel, told):
        if "orders" in told:
            self.orders = channel
            return
        if "frames" in told:
            self._frames, self._unanswered = told["frames"], False
            return
        number = told["thread"]
        thread = self.threads.setdefault(number, Traced(number, told))
        thread.told, thread.stopped, thread.call, thread.channel = told, True, None, channel

    def settle(self, patience=10.0):
        """Wait until each thread of the program is stopped, or asleep in a system call.

        Raises TimeoutError if one computes for longer than patience, in seconds.
        """
        deadline = time.monotonic() + patience
        self._looks.clear()
        while self.listen(LOOK) or not self.asleep():
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not come to rest")

    def asleep(self):
        """Look once; say whether no thread runs, and for some looks none has run."""
        tasks = Path(f"/proc/{self.server.process.pid}/task")
        alive = {int(path.name) for path in tasks.iterdir()} if tasks.is_dir() else set()
        for number in set(self.threads) - alive:
            del self.threads[number]
        rest = True
        for number in alive - {thread.number for thread in self.stopped()}:
            call, fd = sleeping(tasks / str(number))
            told = fd is not None and fd >= tracer.HIGH  # it has told something, or is the tracer
            if number in self.threads:
                self.threads[number].call, self.threads[number].fd = call, fd
                asleep = call and not told
            else:
                asleep = call
            self._looks[number] = self._looks[number] + 1 if asleep else 0
            rest &= self._looks[number] >= (LOCKED if call == "futex" else LOOKS)
        return rest


def sleeping(task):
    """Return the system call in which a thread sleeps, and its descriptor; None if it runs."""
    try:
        call = procfs.parse_syscall((task / "syscall").read_text())
    except OSError:  # it has just ended
        return None, None
    if call is None or procfs.thread_state(task) not in ("S", "D"):
        return None, None
    return call.name, call.fd
