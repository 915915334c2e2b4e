"""A server under the tracer, from outside: where each thread is, and let one of them go on.

with traced(program, pause=True) as session:
    session.settle()
    for thread in session.stopped():
        session.step(thread)
"""

import contextlib
import json
import os
import re
import selectors
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

import clients.system.processes as processes  # first: where Linux is missing, it says so
from clients.system import procfs
from clients.system.sockets import unix_listener
from clients.trace import tracer
from clients.trace.calls import TracedCall

INTERVAL = 0.001  # seconds between two looks at whether a thread runs
TIMEOUT = 10.0  # seconds
STATUS = re.compile(r"^State:\s+(\w)|^(?:non)?voluntary_ctxt_switches:\s+(\d+)", re.MULTILINE)


@dataclass
class TracedThread:
    """One thread of the server that has stopped at least once."""

    id: int  # the kernel's
    snapshot: tracer.Snapshot  # where it stopped last
    stopped: bool = False  # it waits to be let go on
    call: str | None = None  # the system call in which it sleeps, if it has not stopped
    fd: int | None = None  # the descriptor that the call is about
    calls: list[TracedCall] = field(default_factory=list)  # since the last taken()
    channel: socket.socket | None = field(default=None, repr=False)

    def add(self, calls):
        """Keep calls; one that had not returned before is among them again."""
        self.calls = [call for call in self.calls if call.done]
        self.calls += [TracedCall(**row) for row in calls]

    def taken(self):
        found, self.calls = self.calls, []
        return found


@contextlib.contextmanager
def traced(program, *options, pause=False, **more):
    """Start a server under the tracer, yield a Session. pause: stop as soon as it listens."""
    with unix_listener() as (listener, path), contextlib.ExitStack() as channels:
        wrapper = ("-m", tracer.__name__, path, "pause" if pause else "run")
        more = {"wrapper": wrapper, "cwd": processes.ROOT} | more  # where -m finds the tracer
        with processes.running_server(Path(program).resolve(), *options, **more) as server:
            session = Session(server, listener, channels, pause)
            try:
                yield session
            finally:
                session.run()  # it ends itself, as at any other time


class Session:
    """server: a Server. threads: {the kernel's number: TracedThread}."""

    def __init__(self, server, listener, channels, paused):
        self.server, self.threads, self.paused = server, {}, paused
        self._listener, self._stack, self._has_ended = listener, channels, False
        self._answers, self._unanswered = {}, set()
        self._channels = channels.enter_context(selectors.DefaultSelector())
        self._channels.register(listener, selectors.EVENT_READ)
        self._orders = self._accept()
        self._tracer = int(self._orders.recv(64))  # the number of its thread

    def _accept(self):
        """Return the next connection from the tracer; it is closed at the end."""
        channel = self._stack.enter_context(self._listener.accept()[0])
        self._channels.register(channel, selectors.EVENT_READ, bytearray())
        return channel

    def pause(self):
        """Make each thread stop at its next line."""
        self.paused = True
        self._orders.sendall(b"pause\n")

    def run(self):
        self.paused = False
        for thread in self.stopped():
            self.step(thread)
        with contextlib.suppress(OSError):  # the server has ended, or computes
            self._orders.sendall(b"run\n")
            self.ask("frames", 1.0)  # whose answer comes when the order has been obeyed

    def step(self, thread):
        thread.stopped = False
        with contextlib.suppress(OSError):  # the server has ended meanwhile
            thread.channel.sendall(b"step\n")

    def report(self, seconds=TIMEOUT):
        """Return a tracer.Report, and keep the calls of the threads."""
        report = tracer.Report(**self.ask("report", seconds))
        rows, report.threads = report.threads, {}
        for number, row in rows.items():
            found = report.threads[int(number)] = tracer.ThreadReport(**row)
            thread = self.threads.get(int(number))
            if thread and not thread.stopped:
                thread.add(found.calls)
        report.ready = {int(fd): ready for fd, ready in report.ready.items()}
        return report

    def ask(self, request, seconds):
        """Return the tracer's answer to "frames" or "report"; raise TimeoutError after seconds."""
        self.receive()
        if request not in self._unanswered:  # or else its answer is late, and is waited for again
            self._unanswered.add(request)
            self._orders.sendall(request.encode() + b"\n")
        deadline = time.monotonic() + seconds
        while request in self._unanswered:
            if self._has_ended:
                raise BrokenPipeError("the server has ended")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not answer a request for {request}")
            self.receive(0.01)
        return self._answers[request]

    def frames(self, seconds=TIMEOUT):
        """Return frames.frames() of the server."""
        return self.ask("frames", seconds)

    def tracer_descriptors(self):
        """Return how many descriptors of the server's process are the tracer's."""
        with contextlib.suppress(OSError):
            held = os.listdir(f"/proc/{self.server.process.pid}/fd")
            return sum(int(fd) >= tracer.FIRST_TRACER_FD for fd in held)
        return 0  # it has ended

    def stopped(self):
        return [thread for thread in self.threads.values() if thread.stopped]

    def receive(self, seconds=0.0):
        """Take what the tracer has sent; return whether there was something."""
        events = self._channels.select(seconds)
        for key, _ in events:
            if key.fileobj is self._listener:
                self._accept()
            else:
                self._read(key.fileobj, key.data)
        return bool(events)

    def _read(self, channel, text):
        """Take what a channel has; text: what has come before of a message."""
        chunk = b""
        with contextlib.suppress(ConnectionError):
            chunk = channel.recv(1 << 20)
        if not chunk:
            self._has_ended |= channel is self._orders
            self._channels.unregister(channel)
        text += chunk
        if not chunk.endswith(b"\n"):
            return
        for message in map(json.loads, text.splitlines()):
            match message:
                case {"request": request, "answer": answer}:
                    self._answers[request] = answer
                    self._unanswered.discard(request)
                case _:
                    self._stop(channel, tracer.Snapshot(**message))
        text.clear()

    def _stop(self, channel, snapshot):
        thread = self.threads.setdefault(snapshot.thread, TracedThread(snapshot.thread, snapshot))
        thread.snapshot, thread.stopped, thread.channel = snapshot, True, channel
        thread.call = thread.fd = None
        thread.add(snapshot.calls)
        if not self.paused:  # it stopped before the order to run was obeyed
            self.step(thread)

    def settle(self, timeout=TIMEOUT):
        """Wait until all threads are stopped or sleep; raise TimeoutError if one still computes."""
        deadline, before = time.monotonic() + timeout, None
        while (now := None if self.receive(INTERVAL) else self.look()) is None or now != before:
            before = now
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not come to rest")

    def look(self):
        """Return {thread: its context switches} if all threads sleep now, or else None.

        All have slept between two looks if no thread has been switched to meanwhile.
        """
        tasks = Path(f"/proc/{self.server.process.pid}/task")
        alive = {int(path.name) for path in tasks.iterdir()} if tasks.is_dir() else set()
        for number in set(self.threads) - alive:
            del self.threads[number]
        found = {}
        for number in alive:
            try:
                status = STATUS.findall((tasks / str(number) / "status").read_text())
                if status[0][0] in ("Z", "X"):  # it has ended
                    continue
                call = procfs.parse_syscall((tasks / str(number) / "syscall").read_text())
            except OSError:  # it has just ended
                return None
            if call is None or status[0][0] not in ("S", "D"):
                return None
            thread = self.threads.get(number)
            ours = call.fd is not None and call.fd >= tracer.FIRST_TRACER_FD
            if ours and number != self._tracer and not (thread and thread.stopped):
                return None  # its snapshot is under way
            if thread and not thread.stopped:
                thread.call, thread.fd = call.name, call.fd
            found[number] = [switches for _, switches in status[1:]]
        return found
