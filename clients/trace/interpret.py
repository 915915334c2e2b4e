"""The types of a recording, and which snapshots of a thread are steps of it."""

import re
from dataclasses import dataclass, field

from clients.system.sampler import ThreadState
from clients.trace.tracer import Snapshot

# Lines at which nothing happens that a reader would want to see
QUIET = re.compile(r"\s*(try:|else:|finally:|pass|while True:)\s*(#.*)?$")


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
class TraceEvent(Snapshot):
    """One step of a recording, and the state after it.

    kind: a Snapshot's; "end" of a thread; "client": a client acts; "time": time passes. thread: its
    ThreadState.id. name: the thread's name after this step. how: also "begins", of a new thread's
    first call.
    """

    action: int = 0  # the number of the scenario's action, from 1; 0 before the first
    call: str | None = None  # the system call in which the thread sleeps
    fd: int | None = None  # of that call
    starts: bool = False  # a new thread has started
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


def is_worth_seeing(event, before, lines):
    """Return True if a reader sees something in an event. before: its thread's Snapshot before."""
    if before and before.kind in ("call", "exception") and not event.calls:
        # The first line of a function comes next, or the handler of the exception.
        return event.kind == "call" or (event.kind == "return" and before.kind == "call")
    if event.kind == "exception" and event.value.startswith(("StopIteration", "StopAsync")):
        return False  # so a coroutine hands over its result
    idle = event.kind == "line" and not event.calls and not event.changed
    return not (idle and QUIET.match(lines[event.line - 1]))
