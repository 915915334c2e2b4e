"""Simulates the clients of a crowd, a thread for each, and records what happens to them."""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from clients.client import Client
from clients.system.processes import LaunchError, raise_nofile_limit

MOST = 1000  # clients: each has a thread here, and a descriptor
OTHER_DESCRIPTORS = 30  # that this process needs besides its connections
ENDS = ("left", "cut off", "failed")


@dataclass(frozen=True)
class Config:
    clients: int = 5
    every: float = 0.5  # seconds between two arrivals
    greetings: int = 3  # per client
    think: float = 0.5  # seconds from an answer to the next question
    silent: int | None = None  # number of a client, from 1: greets once and leaves last
    seconds: float = 30.0  # then clients that are still there are cut off


class Event(NamedTuple):
    at: float  # seconds since the start of the crowd
    what: str  # "connects", "connected", "asked", "answered" or one of ENDS


@dataclass
class ClientRecord:
    number: int  # from 1
    silent: bool
    error: str | None = None  # why it failed
    events: list[Event] = field(default_factory=list)  # none: it had not come at the end


@dataclass
class CrowdResult:
    seconds: float  # from the start to the end, or to now
    clients: list[ClientRecord]
    interrupted: bool = False  # by Ctrl-C


def crowd(address, clients=Config.clients, progress=lambda result: None, **config):
    """Send a crowd of clients to the server at address (host, port); return a CrowdResult.

    config: the other fields of Config. progress: called with the result so far about ten times
    per second. Ctrl-C cuts all clients off. Raises LaunchError if this process may not have as
    many descriptors or threads.
    """
    raise_nofile_limit(clients + OTHER_DESCRIPTORS)
    run = _Run(address, Config(clients, **config))
    try:
        run.follow(progress)
    except KeyboardInterrupt:
        return run.end(interrupted=True)
    return run.end()


class _Run:
    """The clients of one crowd and their threads; only a client's own thread writes its events."""

    def __init__(self, address, config):
        self.address, self.config = address, config
        numbers = range(1, config.clients + 1)
        self.clients = [ClientRecord(number, number == config.silent) for number in numbers]
        self.over, self.others_gone = threading.Event(), threading.Event()
        self.connections = []  # a Client for each one that came
        self.began = time.perf_counter()

    def now(self):
        return time.perf_counter() - self.began

    def left(self):
        """Return the seconds until all are cut off, more than 0 as a timeout must be."""
        return max(0.001, self.config.seconds - self.now())

    def rest(self, seconds):
        """Sleep; raise TimeoutError when the time of the crowd is over."""
        if self.over.wait(min(seconds, self.left())) or self.now() >= self.config.seconds:
            raise TimeoutError

    def follow(self, progress):
        """Start a thread for each client, and call progress until all have ended."""
        threads = {
            one.number: threading.Thread(target=self.run_client, args=[one], daemon=True)
            for one in self.clients
        }
        try:
            for thread in threads.values():
                thread.start()
        except RuntimeError as error:
            self.end()
            limits = "raise the limit (ulimit -u, or pids.max of the cgroup)"
            raise LaunchError(f"{error} for each of {len(threads)} clients: {limits}") from error
        while alive := {number for number, thread in threads.items() if thread.is_alive()}:
            progress(self.so_far())
            if alive == {self.config.silent}:
                self.others_gone.set()
            threads[min(alive)].join(0.1)

    def run_client(self, client):
        """Run one client from its arrival to its end, and record each step."""

        def record(what):
            client.events.append(Event(self.now(), what))

        try:
            self.rest((client.number - 1) * self.config.every)
            record("connects")
            with Client(*self.address, self.left()) as connection:
                self.connections.append(connection)
                record("connected")
                self.talk(client, connection, record)
                record("left")  # before close(): the server may answer the next one at once
        except TimeoutError:
            if client.events:  # or else it never came
                record("cut off")
        except (OSError, ValueError) as error:
            client.error = str(error)
            record("cut off" if self.over.is_set() else "failed")

    def talk(self, client, connection, record):
        """Greet and think; raise TimeoutError when the time of the crowd is over."""
        for greeting in range(1 if client.silent else self.config.greetings):
            if greeting:
                self.rest(self.config.think)
            connection.socket.settimeout(self.left())
            record("asked")
            connection.greet(b"client %d, greeting %d" % (client.number, greeting + 1))
            self.rest(0)  # an answer that came only because others were cut off is too late
            record("answered")
        if client.silent:
            self.others_gone.wait()

    def so_far(self):
        clients = [replace(client, events=[*client.events]) for client in self.clients]
        return CrowdResult(self.now(), clients)

    def end(self, interrupted=False):
        """Cut off all clients that are still there; return the CrowdResult, each with an end."""
        result = self.so_far()  # before the first is cut off: a server then turns to the next one
        result.interrupted = interrupted
        self.over.set()
        self.others_gone.set()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):  # it has left
                connection.socket.shutdown(socket.SHUT_RDWR)
        for client in result.clients:
            if client.events and client.events[-1].what not in ENDS:
                client.events.append(Event(result.seconds, "cut off"))
        return result
