"""A server under the tracer, from outside: where each thread is, and let one of them go on."""

import contextlib
import json
import os
import select
import time
from dataclasses import dataclass, field
from pathlib import Path

import clients.system.processes as processes  # first: where Linux is missing, it says so
from clients.system import procfs
from clients.system.frames import FIRST_OWN_FD
from clients.system.sockets import unix_listener
from clients.trace import tracer
from clients.trace.calls import TracedCall

INTERVAL = 0.001  # seconds between two looks at whether a thread runs
TIMEOUT = 10.0  # seconds
ENDED = "-1 0x0 0x0"  # of a thread that has ended, in /proc/PID/task/TID/syscall (proc(5))


@dataclass
class TracedThread:
    """One thread of the server: the main one, or one that has stopped at least once."""

    id: int  # the kernel's
    begins: bool = False  # it has started since the threads were at rest, and not stopped before
    snapshot: tracer.Snapshot | None = None  # the last one
    stopped: bool = False  # it waits to be let go on
    call: str | None = None  # the system call in which it sleeps, if it has not stopped
    fd: int | None = None  # the descriptor that the call is about
    calls: list[TracedCall] = field(default_factory=list)  # since the last taken()

    def see(self, snapshot):
        """Keep a snapshot, and its calls; one that had not returned before is among them again."""
        self.snapshot = snapshot
        self.calls = [call for call in self.calls if call.done]
        self.calls += [TracedCall(**row) for row in snapshot.calls]

    def taken(self):
        found, self.calls = self.calls, []
        return found


@contextlib.contextmanager
def traced(program, *options, pause=False, **more):
    """Start a server under the tracer, yield a Session. pause: stop as soon as it listens."""
    with unix_listener() as (listener, path), contextlib.ExitStack() as stack:
        wrapper = ("-m", tracer.__name__, path, "pause" if pause else "run")
        more = {"wrapper": wrapper, "cwd": processes.ROOT} | more  # where -m finds the tracer
        with processes.running_server(Path(program).resolve(), *options, **more) as server:
            session = Session(server, stack.enter_context(listener.accept()[0]), pause)
            try:
                yield session
            finally:
                session.run()  # it ends itself, as at any other time


class Session:
    """server: a Server. threads: {the kernel's number: TracedThread}."""

    def __init__(self, server, channel, paused):
        self.server, self.paused, self._channel = server, paused, channel
        main = server.process.pid
        self.threads, self._alive = {main: TracedThread(main)}, procfs.syscalls(main)
        self._answers, self._unanswered, self._has_ended, self._rest = {}, set(), False, b""
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)

    def _order(self, text):
        with contextlib.suppress(OSError):  # the server has ended
            self._channel.sendall(text.encode() + b"\n")

    def pause(self):
        """Make each thread stop at its next line."""
        self.paused = True
        self._order("pause")

    def run(self):
        self.paused = False
        for thread in self.stopped():
            self.step(thread)
        self._order("run")
        with contextlib.suppress(OSError):  # the server has ended, or computes
            self.frames(1.0)  # whose answer comes when the order has been obeyed

    def step(self, thread):
        thread.stopped = thread.begins = False
        self._order(f"step {thread.id}")

    def report(self, seconds=TIMEOUT):
        """Return a tracer.Report, and see the threads that have not stopped."""
        report = tracer.Report(**self.ask("report", seconds))
        for number, row in report.threads.items():
            thread = self.threads.get(int(number))
            if thread and not thread.stopped:
                thread.see(tracer.Snapshot(**row))
        return report

    def frames(self, seconds=TIMEOUT):
        """Return frames.frames() of the server."""
        return self.ask("frames", seconds)

    def ask(self, request, seconds):
        """Return the tracer's answer to "frames" or "report"; raise TimeoutError after seconds."""
        self.receive()
        if request not in self._unanswered:  # or else its answer is late, and is waited for again
            self._unanswered.add(request)
            self._order(request)
        deadline = time.monotonic() + seconds
        while request in self._unanswered:
            if self._has_ended:
                raise BrokenPipeError("the server has ended")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server does not answer a request for {request}")
            self.receive(0.01)
        return self._answers[request]

    def tracer_descriptors(self):
        """Return how many descriptors of the server's process are the tracer's."""
        with contextlib.suppress(OSError):
            held = os.listdir(f"/proc/{self.server.process.pid}/fd")
            return sum(int(fd) >= FIRST_OWN_FD for fd in held)
        return 0  # it has ended

    def stopped(self):
        return [thread for thread in self.threads.values() if thread.stopped]

    def receive(self, seconds=0.0):
        """Take what the tracer has sent; return whether there was something."""
        if not self._poll.poll(seconds * 1000):
            return False
        chunk = b""
        with contextlib.suppress(ConnectionError):
            chunk = self._channel.recv(1 << 20)
        if not chunk:
            self._has_ended = True
            self._poll.unregister(self._channel)
        *messages, self._rest = (self._rest + chunk).split(b"\n")
        for message in map(json.loads, messages):
            match message:
                case {"request": request, "answer": answer}:
                    self._answers[request] = answer
                    self._unanswered.discard(request)
                case _:
                    self._stop(tracer.Snapshot(**message))
        return True

    def _stop(self, snapshot):
        number = snapshot.thread
        new = TracedThread(number, begins=number not in self._alive)
        thread = self.threads.setdefault(number, new)
        thread.see(snapshot)
        thread.stopped, thread.call, thread.fd = True, None, None
        if not self.paused:  # it stopped before the order to run was obeyed
            self.step(thread)

    def settle(self, timeout=TIMEOUT):
        """Wait until all threads are stopped or sleep; raise TimeoutError if one still computes."""
        deadline, before = time.monotonic() + timeout, None
        while (now := None if self.receive(INTERVAL) else self.look()) is None or now != before:
            before = now
            if time.monotonic() > deadline:
                raise TimeoutError("the server does not come to rest")
        self._alive = now

    def look(self):
        """Return {thread: text for procfs.parse_syscall} if all threads sleep now, or else None."""
        texts = procfs.syscalls(self.server.process.pid)
        texts = {number: text for number, text in texts.items() if not text.startswith(ENDED)}
        for number in set(self.threads) - texts.keys():
            del self.threads[number]
        found = {number: procfs.parse_syscall(text) for number, text in texts.items()}
        is_unreadable = not texts and self.server.process.poll() is None
        if is_unreadable or not all(found.values()):
            return None
        for number, thread in self.threads.items():
            if not thread.stopped:
                thread.call, thread.fd = found[number].name, found[number].fd
        return texts
