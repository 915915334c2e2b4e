"""The tracer: run a server program, unchanged, and stop it before each of its lines.

    python -m clients.trace.tracer SOCKET pause 01_blocking/server.py --port 3267

The tracer connects to SOCKET, a Unix socket's path, and follows the orders that come, one a line:
"pause" makes the threads of the server stop, "run" lets them run (as they do at first), "step 123"
lets thread 123 execute one line, "frames" is answered by what frames.py returns, "report" by a
Report; the connection's end ends the server. Before a line of the program's file is executed, when
a function of it is entered or left, and when a line has raised an exception, a thread that stops
sends a Snapshot, a line of JSON, and waits.

All that is imported here is in the server's process too: the standard library and no more.
"""

import dis
import json
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass, field

from clients.system import frames
from clients.trace import calls
from clients.trace.calls import TracedCall
from clients.trace.values import describe, fields_of, is_socket, remote_of, variables_of

GENERATOR = 0x20 | 0x80 | 0x200  # inspect.CO_GENERATOR, CO_COROUTINE, CO_ASYNC_GENERATOR
HIDDEN = {"<lambda>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"}
WAITING = {queue.__file__, threading.__file__}  # whose functions are named if a thread is in them


@dataclass
class Snapshot:
    """What is to be seen of one thread of the program: where it has stopped, or sleeps."""

    kind: str  # "line", "call", "return" or "exception": it has stopped there; or "sleep"
    thread: int | None = None  # the kernel's number
    name: str | None = None  # "main", or Python's
    remote: str | None = None  # "host:port" of the connection that it serves
    function: str | None = None  # the innermost one of the program's file; None outside it
    line: int | None = None  # the line that was executed, or in which it sleeps
    next_line: int | None = None  # at which it has stopped
    # "started", "resumed": a generator or a coroutine, which was called before; "callback": a call
    # from another file; "suspended" or "raised": how a function is left
    how: str = ""
    alone: bool = True  # no other thread has run while this line was executed
    # {name: text before, or None} of the variables that it is known to have changed
    changed: dict[str, str | None] = field(default_factory=dict)
    variables: dict[str, str] | None = None  # of the innermost function
    arguments: list[str] = field(default_factory=list)  # of a call: which of them are passed
    value: str | None = None  # what was returned or raised
    # The functions of queue, threading and in C that it is in: ["Queue.get", "Condition.wait", ...]
    waits_in: list[str] = field(default_factory=list)
    calls: list[TracedCall] = field(default_factory=list)  # since the last Snapshot


@dataclass
class Report:
    """What is to be seen of the process."""

    threads: dict[int, Snapshot]  # of main and of those that have stopped before
    ready: list[int]  # the descriptors in the ready lists of its epoll objects
    buffered: dict[str, int]  # {"host:port": bytes asyncio holds}


@dataclass
class Start:
    """Where a thread begins to execute a line, and what is to be seen there."""

    frame: int  # its identity
    line: int
    variables: dict[str, str]
    identities: dict[str, int]  # of the variables' values
    switches: int


class Tracer:
    """What stops the threads of this process. program: the server's file."""

    def __init__(self, program, path):
        self.program, self.stepping, self.channel = program, False, frames.connect(path)
        self.sending, self.gates = threading.Lock(), {}  # {thread: a lock that it waits for}
        self.starts = {}  # {thread: Start}
        self.in_c = {}  # {thread's identifier: the function in C that it has called last}
        self.running, self.switches = None, 0  # the thread that ran last, how often it was another

    def stop_when_it_listens(self):
        write = sys.stdout.write

        def announce(text):
            self.stepping |= text.startswith("listening on ")
            return write(text)

        sys.stdout.write = announce

    def obey(self):
        """Follow the orders that come; when no more can come, end the server."""
        sys.settrace(None)  # this thread is not the program's
        sys.setprofile(None)
        answers = {"frames": lambda: frames.frames(self.program), "report": self.report}
        with self.channel.makefile() as lines:
            for order, *thread in map(str.split, lines):
                if order in answers:
                    self.send({"request": order, "answer": answers[order]()})
                elif thread:
                    self.gates.pop(int(thread[0])).release()
                else:
                    self.stepping = order == "pause"
        os.kill(os.getpid(), signal.SIGKILL)

    def send(self, message):
        line = json.dumps(message, default=vars).encode() + b"\n"
        with self.sending:
            self.channel.sendall(line)

    def report(self):
        innermost, threads = sys._current_frames(), {}
        for thread in threading.enumerate():
            has_stopped = thread.native_id in self.starts and thread.native_id not in self.gates
            if thread.ident in innermost and (has_stopped or thread is threading.main_thread()):
                found = self.snapshot(thread, innermost[thread.ident], "sleep")
                threads[thread.native_id] = found
        ready = [fd for epoll in list(calls.interest_lists) for fd in epoll.ready()]
        held = {remote_of(one): buffered_by(by) for by, one in list(calls.transports.items())}
        return Report(threads, ready, {remote: size for remote, size in held.items() if remote})

    # What Python calls before each call, line, return and exception (sys.settrace)

    def enter(self, frame, event, value):
        if not self.is_shown(frame.f_code):
            return None
        if self.stepping:
            self.stop(frame, event, value)
        return self.enter

    def is_shown(self, code):
        """Return True for a function of the program, but not for a lambda or a comprehension."""
        return code.co_filename == self.program and code.co_name not in HIDDEN

    # ... and before and after each call of any function (sys.setprofile)

    def note(self, frame, event, function):
        """Keep which thread runs, and the function in C that it has called and may sleep in."""
        thread = threading.get_ident()
        if thread != self.running:
            self.running, self.switches = thread, self.switches + 1
        if event == "c_call":
            self.in_c[thread] = function
        else:
            self.in_c.pop(thread, None)

    def stop(self, frame, event, value):
        """Send a snapshot of this thread, and wait until it may go on."""
        thread, gate = threading.current_thread(), threading.Lock()
        self.gates[thread.native_id] = gate
        gate.acquire()
        self.send(self.snapshot(thread, frame, event, value))
        gate.acquire()
        # What other threads have changed meanwhile is not this one's doing.
        here = next(self.shown(frame.f_back if event == "return" else frame), None)
        identities = {name: id(value) for name, value in here.f_locals.items()} if here else {}
        place = here and (id(here), here.f_lineno, variables_of(here))
        self.starts[thread.native_id] = here and Start(*place, identities, self.switches)
        self.running = thread.ident

    def snapshot(self, thread, frame, event, value=None):
        """Return a Snapshot of a thread, which is in this frame."""
        shown = list(self.shown(frame))
        found = Snapshot(event, thread.native_id, thread.name, calls=calls.take(thread.ident))
        if thread is threading.main_thread():
            found.name = "main"
        elif thread.native_id not in calls.acceptors:
            found.remote = next(filter(None, map(served_in, reversed(shown))), None)
        if shown:
            found.function = shown[0].f_code.co_qualname.rpartition("<locals>.")[2]
            found.line, found.variables = shown[0].f_lineno, variables_of(shown[0])
        if event == "sleep":
            found.waits_in = self.waits_in(thread, frame)
            return found
        found.value = describe(value[1] if event == "exception" else value)
        found.next_line, found.how = found.line, how_of(frame, event)
        caller = by = frame.f_back
        while caller and caller.f_code.co_name in HIDDEN:
            caller = caller.f_back
        is_direct = caller and self.is_shown(caller.f_code)
        if event == "call":
            found.arguments = [one for one in found.variables if one in frame.f_code.co_varnames]
            # A lambda of the program, which another file has called
            is_lambda = not is_direct and by is not caller and by.f_code.co_filename == self.program
            found.line = by.f_lineno if is_lambda else found.line
            found.how = found.how or ("" if is_direct or is_lambda else "callback")
        if start := self.starts.get(thread.native_id):
            if event != "call" or is_direct:
                found.line = start.line
            self.compare(found, frame, start)
        return found

    def compare(self, found, frame, start):
        """Find what a thread has changed since it went on; other threads may have run as well."""
        found.alone = start.switches == self.switches
        if found.kind == "call" and found.how != "resumed":
            found.changed = dict.fromkeys(found.variables)
        elif id(frame) == start.frame:
            own = set(frame.f_code.co_varnames) - set(frame.f_code.co_cellvars)
            for name, text in found.variables.items():
                before = start.variables.get(name)
                is_assigned = name in own and id(frame.f_locals[name]) != start.identities.get(name)
                if before != text and (found.alone or is_assigned):
                    found.changed[name] = before

    def shown(self, frame):
        """Yield the frames of the program's functions, innermost first."""
        while frame:
            if self.is_shown(frame.f_code):
                yield frame
            frame = frame.f_back

    def waits_in(self, thread, frame):
        function = getattr(self.in_c.get(thread.ident), "__qualname__", None)
        names = [function] if function else []
        while frame and frame.f_code.co_filename in WAITING:
            names.insert(0, frame.f_code.co_qualname)
            frame = frame.f_back
        return names


def how_of(frame, event):
    """Return how a function is entered or left, if not by a plain call or return; else ""."""
    code, at = frame.f_code.co_code, frame.f_lasti
    operation = dis.opname[code[at]] if at >= 0 else ""
    if event == "call":
        how = "resumed" if operation != "RESUME" or code[at + 1] & 3 else "started"
        return how if frame.f_code.co_flags & GENERATOR else ""
    if event == "return" and not operation.startswith("RETURN"):
        return "suspended" if operation in ("YIELD_VALUE", "RESUME") else "raised"
    return ""


def served_in(frame):
    """Return "host:port" of the first connection among a function's variables and their fields."""
    for value in list(frame.f_locals.values()):
        for one in (value, *fields_of(value).values()):
            if is_socket(one) and one.fileno() >= 0 and (remote := remote_of(one)):
                return remote
    return None


def buffered_by(transport):
    """Return how many bytes asyncio holds for a connection, in both directions."""
    reader = getattr(transport.get_protocol(), "_stream_reader", None)
    return transport.get_write_buffer_size() + len(getattr(reader, "_buffer", b""))


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
