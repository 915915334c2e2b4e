"""The tracer: run a server program, unchanged, and stop it before each of its lines.

    python -m clients.trace.tracer SOCKET pause 01_blocking/server.py --port 3267

Each thread of the server has a channel, a connection to SOCKET (a Unix socket's path). Before a
line of the program's file is executed, when a function of it is entered or left, and when a line
has raised an exception, the thread sends a Snapshot, a line of JSON, and waits: "step" lets it
execute one line. The first connection begins with the number of the tracer's own thread and carries
orders for all: "pause" makes the threads stop, "run" lets them run (as they do at first), "frames"
is answered by what frames.py returns, "report" by a Report, and its end ends the server.

All that is imported here is in the server's process too: the standard library and no more.
"""

import dis
import json
import os
import signal
import sys
import threading
from dataclasses import dataclass

from clients.system import frames
from clients.trace import calls
from clients.trace.values import describe, remote_of, variables_of

FIRST_TRACER_FD = frames.FIRST_OWN_FD
GENERATOR = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
SPARE_CHANNELS = 12  # open from the beginning: later there may be no descriptor left


@dataclass
class Snapshot:
    """What is to be seen where a thread of the program has stopped."""

    thread: int  # the kernel's number
    name: str  # "main", or Python's
    event: str  # "line", "call", "return" or "exception"
    how: str  # "resumed": a generator's call; "suspended" or "raised": how a function is left
    direct: bool  # the function was called by the program itself, not by a library
    # [function, line, number of its frame] of the program's file, innermost first
    stack: list[list]
    variables: dict[str, str]  # of the innermost function
    value: str | None  # what is returned or raised
    calls: list[calls.TracedCall]  # since the last snapshot or report


@dataclass
class ThreadReport:
    """What is to be seen of a thread that has not stopped."""

    stack: list[list]  # as in Snapshot
    waits_in: str | None  # the function in C that it has called: "SimpleQueue.get"
    calls: list[calls.TracedCall]


@dataclass
class Report:
    """What is to be seen of the process."""

    threads: dict[int, ThreadReport]  # by the kernel's number
    ready: dict[int, list[int]]  # {epoll: its ready list}
    buffered: dict[str, int]  # {"host:port": bytes asyncio holds}


class Tracer:
    """What stops the threads of this process. program: the server's file."""

    def __init__(self, program, path):
        self.program, self.path = program, path
        self.stepping = False
        # All before the program begins: while connect() is under way it holds a low descriptor
        self.orders, *self.spare = (frames.connect(path) for _ in range(1 + SPARE_CHANNELS))
        self.channels = {}  # {thread: its channel}
        self.in_c = {}  # {thread's identifier: the function in C that it has called last}
        self.lock = threading.Lock()

    def stop_when_it_listens(self):
        write = sys.stdout.write

        def announce(text):
            self.stepping |= text.startswith("listening on ")
            return write(text)

        sys.stdout.write = announce

    def obey(self):
        """Follow the orders that come; when no more can come, end the server."""
        self.orders.sendall(to_line(threading.get_native_id()))
        answers = {"frames": lambda: frames.frames(self.program), "report": self.report}
        with self.orders.makefile() as lines:
            for request in map(str.strip, lines):
                if request in answers:
                    self.orders.sendall(to_line({"request": request, "answer": answers[request]()}))
                else:
                    self.stepping = request == "pause"
        os.kill(os.getpid(), signal.SIGKILL)

    def report(self):
        innermost, found = sys._current_frames(), {}
        for thread in threading.enumerate():
            if thread.ident in innermost and thread is not threading.current_thread():
                stack = self.stack(innermost[thread.ident])
                waits_in = getattr(self.in_c.get(thread.ident), "__qualname__", None)
                made = calls.take(thread.ident) if stack else []
                found[thread.native_id] = ThreadReport(stack, waits_in, made)
        epolls, transports = list(calls.interest_lists), list(calls.transports.items())
        ready = {epoll.fileno(): epoll.ready() for epoll in epolls if not epoll.closed}
        held = {remote_of(sock): buffered_by(transport) for transport, sock in transports}
        return Report(found, ready, {remote: size for remote, size in held.items() if remote})

    # What Python calls before each call, line, return and exception (sys.settrace)

    def enter(self, frame, event, value):
        return self.at(frame, event, value) if self.is_shown(frame.f_code) else None

    def is_shown(self, code):
        """Return True for a function of the program, but not for a lambda or a comprehension."""
        named = not code.co_name.startswith("<") or code.co_name == "<module>"
        return named and code.co_filename == self.program

    def at(self, frame, event, value):
        if self.stepping:
            self.stop(frame, event, value)
        return self.at

    # ... and before and after each call of a function in C (sys.setprofile)

    def note(self, frame, event, function):
        """Keep the function in C that a thread has called: the one in which it may sleep."""
        if event == "c_call":
            self.in_c[threading.get_ident()] = function
        else:
            self.in_c.pop(threading.get_ident(), None)

    def stop(self, frame, event, value):
        """Send a snapshot of this thread, and wait until it may go on."""
        channel = self.my_channel()
        channel.sendall(to_line(self.snapshot(frame, event, value)))
        if not channel.recv(16):
            os.kill(os.getpid(), signal.SIGKILL)  # the session has ended

    def my_channel(self):
        thread = threading.current_thread()
        with self.lock:
            for old in [old for old in self.channels if not old.is_alive()]:
                self.spare.append(self.channels.pop(old))
            if thread not in self.channels:
                self.channels[thread] = (self.spare or [frames.connect(self.path)]).pop()
            return self.channels[thread]

    def snapshot(self, frame, event, value):
        thread, caller = threading.current_thread(), frame.f_back
        return Snapshot(
            thread=thread.native_id,
            name="main" if thread is threading.main_thread() else thread.name,
            event=event,
            how=how_of(frame, event),
            direct=caller is not None and caller.f_code.co_filename == self.program,
            stack=self.stack(frame),
            variables=variables_of(frame),
            value=describe(value[1] if event == "exception" else value),
            calls=calls.take(thread.ident),
        )

    def stack(self, frame):
        found = []
        while frame:
            if self.is_shown(frame.f_code):
                function = frame.f_code.co_qualname.rpartition("<locals>.")[2]
                found.append([function, frame.f_lineno, id(frame)])
            frame = frame.f_back
        return found


def how_of(frame, event):
    """Return how a function is entered or left, if not by a plain call or return; else ""."""
    code, at = frame.f_code.co_code, frame.f_lasti
    operation = dis.opname[code[at]] if at >= 0 else ""
    if event == "call":
        begins = operation == "RESUME" and not code[at + 1] & 3
        return "resumed" if frame.f_code.co_flags & GENERATOR and not begins else ""
    if event == "return" and not operation.startswith("RETURN"):
        return "suspended" if operation in ("YIELD_VALUE", "RESUME") else "raised"
    return ""


def buffered_by(transport):
    """Return how many bytes asyncio holds for a connection, in both directions."""
    reader = getattr(transport.get_protocol(), "_stream_reader", None)
    return transport.get_write_buffer_size() + len(getattr(reader, "_buffer", b""))


def to_line(value):
    return json.dumps(value, default=vars).encode() + b"\n"


def main():
    _, path, order, program, *options = sys.argv
    calls.install()
    tracer = Tracer(program, path)
    threading.Thread(target=tracer.obey, name="tracer", daemon=True).start()
    if order == "pause":
        tracer.stop_when_it_listens()
    for module in (threading, sys):
        module.settrace(tracer.enter)
        module.setprofile(tracer.note)
    frames.run_program(program, options)


if __name__ == "__main__":
    main()
