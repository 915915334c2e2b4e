"""What an experiment on TCP observes: typed data, from the kernel to the picture.

All times are in seconds since the experiment began; an end is "client" or "server".
"""

import json
from dataclasses import dataclass, field


@dataclass
class Packet:
    """A TCP segment in an IPv4 packet, as the emulated link carried it."""

    sender: str  # an end
    sent: float
    arrived: float | None  # None: it was lost, or is still on its way
    lost: bool
    port: int  # the client's
    flags: str  # "SYN-ACK"
    seq: int  # both numbers are relative to the first of their direction, as in Wireshark
    ack: int | None
    length: int  # bytes of data


@dataclass
class StateChange:
    at: float
    end: str
    port: int  # of this end
    remote_port: int
    state: str  # RFC 9293; CLOSED when the kernel's list has no such connection any more

    @property
    def client_port(self):
        return self.port if self.end == "client" else self.remote_port


@dataclass
class Call:
    end: str  # that makes this system call
    name: str  # "send(b'bob')"
    began: float
    ended: float | None = None
    result: str | None = None  # what it returned, or the name of the exception


@dataclass
class Client:
    port: int
    began: float
    connected: float | None  # None: it was not while the experiment lasted
    error: str | None


@dataclass(kw_only=True)
class Observation:
    """The packets, states and calls of an experiment, where it has them."""

    packets: list[Packet] = field(default_factory=list)
    states: list[StateChange] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    error: str | None = None  # that a program got in the end
    source: str = ""  # for captions: whether this was observed now, when, and on which kernel
    when: str = ""


@dataclass(kw_only=True)
class TimeWait(Observation):
    timer: float  # seconds that the kernel would keep TIME-WAIT, at first
    errors: dict[str, list[str | None]]  # "with" and "without" SO_REUSEADDR: of each attempt


@dataclass(kw_only=True)
class Lookup(Observation):
    addresses: list[str]  # "127.0.0.5:80"
    queries: list[tuple[str, str]]  # (name, record type) that reached the DNS server


@dataclass(kw_only=True)
class AcceptQueue(Observation):
    clients: list[Client]
    queue: int  # connections in the accept queue at the end
    counters: dict[str, int]  # by how much the server's TCP counters grew
    watched: float


@dataclass(kw_only=True)
class SynQueue(Observation):
    clients: int
    unfinished: int  # in SYN-RECEIVED at the server, before the link carries everything again
    established: int  # at the clients, at the same moment
    queue: int  # connections in the accept queue at the end
    counters: dict[str, int]
    limit: int  # net.ipv4.tcp_max_syn_backlog


@dataclass(kw_only=True)
class Vanished(Observation):
    watched: float
    state: str  # of the connection at the server, at the end
    sent: int  # packets that the server sent to the vanished client
    timer_runs: bool  # of the kernel, for this connection, at the end
    noticed: float | None  # after how many seconds the server's program got the error


@dataclass(kw_only=True)
class PortUse(Observation):
    count: int  # connections until the error, or until there were enough
    time_wait: dict[str, int]  # connections in TIME-WAIT at each end, 1.2 s later
    later: str | None  # the error of one more connection then


@dataclass(kw_only=True)
class NatForgets(Observation):
    client: tuple[str, float]  # what its recv() returned or raised, and after how many seconds
    server: tuple[str, float]  # the same of the server, which sends in between
    lost: int  # packets


TYPES = {name: kind for name, kind in globals().items() if hasattr(kind, "__dataclass_fields__")}


def to_json(observation):
    return json.dumps(observation, default=lambda one: {"type": type(one).__name__} | vars(one))


def from_json(text):
    """Return the observations in a text of to_json()."""

    def typed(found):
        return TYPES[found.pop("type")](**found) if "type" in found else found

    return json.loads(text, object_hook=typed)
