"""What has happened between two snapshots of a thread, and the types of a recording."""

import re
from dataclasses import dataclass, field

from clients.system.sampler import ThreadState
from clients.trace.calls import TracedCall

PYTHON_NAMES = {"accept4": "accept", "recvfrom": "recv", "sendto": "send"}
PYTHON_NAMES |= {"epoll_wait": "epoll.poll", "clock_nanosleep": "time.sleep"}
# Lines at which nothing happens that a reader would want to see
QUIET = re.compile(r"\s*(try:|else:|finally:|pass|while True:)\s*(#.*)?$")


def called(thread):
    """Return "accept()" for a ThreadState as data that is blocked in the system call accept4."""
    return f"{PYTHON_NAMES.get(thread['call'], thread['call'])}()"


@dataclass
class Connection:
    """One client's connection, as the kernel has it at both ends."""

    client: int
    client_state: str | None = None  # None: there is no such socket
    server_state: str | None = None
    fd: int | None = None  # the server's descriptor
    queued: bool = False  # in the accept queue
    in_program: int = 0  # bytes that the server's program holds: the kernel has not taken them
    # Bytes in the client's send buffer, the server's receive buffer, the server's send buffer and
    # the client's receive buffer
    buffers: list[int] = field(default_factory=lambda: [0, 0, 0, 0])


@dataclass
class Interest:
    """One descriptor in an interest list of epoll."""

    fd: int
    events: str  # the event mask: "IN", "IN OUT ET", ...; "" for none
    ready: bool  # it is in the ready list


@dataclass
class KernelState:
    queue: int  # connections in the accept queue
    limit: int  # how many it holds
    listener: int | None  # the listening socket's descriptor
    connections: list[Connection]  # one for each client
    descriptors: list[int]  # the server's
    epoll: list[Interest] | None = None  # if the server has an epoll object


@dataclass
class ClientState:
    """What a client has sent and received so far."""

    client: int
    sent: str
    received: str
    left: str  # "", "left" or "reset"


@dataclass
class TraceEvent:
    """One step of a recording, and the state after it."""

    # Snapshot's events; "sleep"; "end" of a thread; "client": a client acts; "time": time passes
    kind: str
    thread: int | None = None  # its ThreadState.id
    name: str | None = None  # the thread's name after this step
    action: int = 0  # the number of the scenario's action, from 1; 0 before the first
    function: str | None = None
    line: int | None = None  # the line that was executed, or in which the thread sleeps
    next_line: int | None = None
    how: str = ""  # as in Snapshot; "begins": a new thread's first call; "callback": a library's
    changed: list[str] = field(default_factory=list)  # variables
    was: dict[str, str] = field(default_factory=dict)  # variables as they were seen last
    variables: dict[str, str] | None = None
    value: str | None = None  # what was returned or raised
    calls: list[TracedCall] = field(default_factory=list)
    call: str | None = None  # the system call in which the thread sleeps
    fd: int | None = None  # of that call
    waits_in: str | None = None  # the function in C that has made it: "SimpleQueue.get"
    actors: list[int] = field(default_factory=list)  # the clients that act
    does: str | None = None  # what they do: see scenarios.Action
    words: str | None = None  # what they send
    sent: int = 0  # bytes
    received: int = 0
    log: str = ""  # what the server has logged
    threads: list[ThreadState] = field(default_factory=list)
    kernel: KernelState | None = None
    clients: list[ClientState] = field(default_factory=list)
    sentence: str = ""  # what has happened
    skipped: int = 0  # iterations of a loop that are left out after this step


def interpret(before, after, known, calls, lines):
    """Return the TraceEvent between two snapshots of one thread; None if a reader sees nothing.

    before: None if the thread has just begun. known: the function's variables as they were seen
    last. lines: the program's.
    """
    [function, here, _], *callers = after.stack
    how, line = after.how, here
    if after.event == "call" and not after.direct:
        how = how or ("callback" if before else "begins")
    elif before:
        line = callers[0][1] if after.event == "call" else resume_point(before)[1]
    if before and before.event == "return":  # what it has changed was seen to change
        known = known | {
            name: text
            for name, text in before.variables.items()
            if before.variables.get(root := name.partition(".")[0]) == after.variables.get(root)
        }
    event = TraceEvent(after.event, function=function, line=line, next_line=here, how=how)
    event.variables, event.value, event.calls = after.variables, after.value, calls
    if before:
        new = after.variables
        event.changed = [name for name, text in new.items() if known.get(name) != text]
        event.was = {name: known[name] for name in event.changed if name in known}
    return event if is_worth_seeing(event, before, lines) else None


def is_worth_seeing(event, before, lines):
    if before and before.event in ("call", "exception") and not event.calls:
        # The first line of a function comes next, or the handler of the exception.
        return event.kind == "call" or (event.kind == "return" and before.event == "call")
    if event.kind == "exception" and event.value.startswith(("StopIteration", "StopAsync")):
        return False  # so a coroutine hands over its result
    idle = event.kind == "line" and not event.calls and not event.changed
    return not (idle and QUIET.match(lines[event.line - 1]))


def resume_point(snapshot):
    """Return the [function, line, frame] from which a thread goes on: one that is left is over."""
    left = snapshot.event == "return" and len(snapshot.stack) > 1
    return snapshot.stack[1 if left else 0]
