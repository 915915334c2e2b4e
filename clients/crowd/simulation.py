"""The lives of the clients of a crowd: a thread for each, and a note of each step."""

import contextlib
import socket
import threading
import time
from dataclasses import asdict, dataclass

from clients.client import Client

MOST = 1000  # clients: each has a thread here, and a descriptor
ENDS = ("left", "cut off", "failed")


@dataclass(frozen=True)
class Plan:
    """What a crowd does.

    clients: how many come. every: seconds between two arrivals. greetings: how often each one
    greets. think: seconds from each answer to its next question. silent: the number of a client,
    from 1, that greets once and stays until all others are gone. seconds: after so many, those
    who are still there are cut off.
    """

    clients: int = 5
    every: float = 0.5
    greetings: int = 3
    think: float = 0.5
    silent: int | None = None
    seconds: float = 30.0


def crowd(address, clients=Plan.clients, look=lambda data: None, **plan):
    """Send so many clients to the server at address (host, port); return what happened to each.

    plan: the other fields of Plan. look: called with the data so far about ten times a second.
    Ctrl-C cuts all off.

    The returned data is plain: {"address", "options", "interrupted", "seconds": how long it took,
    "clients": [{"number", "silent", "port": its own, "error", "events": [[at, what], ...]}, ...]}.
    at is in seconds since the start; what is "connects", "connected", "asked", "answered", "left",
    "cut off" or "failed" (then error says why). A client that had not come yet at the end has no
    events.
    """
    plan = Plan(clients, **plan)
    run, interrupted = _Run(address, plan), False
    try:
        run.follow(look)
    except KeyboardInterrupt:
        interrupted = True
    head = {"address": list(address), "options": asdict(plan), "interrupted": interrupted}
    return head | run.end()


class _Run:
    """The clients of one crowd and their threads; only a client's own thread writes its events."""

    def __init__(self, address, plan):
        self.address, self.plan = address, plan
        self.clients = [
            {
                "number": number,
                "silent": number == plan.silent,
                "port": None,
                "error": None,
                "events": [],
            }
            for number in range(1, plan.clients + 1)
        ]
        self.over, self.others_gone = threading.Event(), threading.Event()
        self.lines = []  # a Client for each one that came
        self.began = time.perf_counter()

    def now(self):
        return time.perf_counter() - self.began

    def left(self):
        """Return the seconds until everybody is cut off, more than 0 as a timeout must be."""
        return max(0.001, self.plan.seconds - self.now())

    def rest(self, seconds):
        """Let so many seconds go by; raise TimeoutError when the time of the crowd is over."""
        if self.over.wait(min(seconds, self.left())) or self.now() >= self.plan.seconds:
            raise TimeoutError

    def follow(self, look):
        """Start a thread for each client, and call look until all have ended."""
        threads = {
            client["number"]: threading.Thread(target=self.live, args=(client,), daemon=True)
            for client in self.clients
        }
        for thread in threads.values():
            thread.start()
        while alive := {number for number, thread in threads.items() if thread.is_alive()}:
            look(self.so_far())
            if alive == {self.plan.silent}:
                self.others_gone.set()
            threads[min(alive)].join(0.1)

    def live(self, client):
        """Live the life of one client, and note each step of it."""

        def note(what):
            client["events"].append([self.now(), what])

        try:
            self.rest((client["number"] - 1) * self.plan.every)
        except TimeoutError:  # it never came
            return
        note("connects")
        try:
            with Client(*self.address, self.left()) as line:
                self.lines.append(line)
                client["port"] = line.socket.getsockname()[1]
                note("connected")
                self.talk(client, line, note)
                note("left")  # before close(): the server may answer the next one at once
        except TimeoutError:
            note("cut off")
        except (OSError, ValueError) as error:
            client["error"] = str(error)
            note("cut off" if self.over.is_set() else "failed")

    def talk(self, client, line, note):
        """Greet and think; raise TimeoutError when the time of the crowd is over."""
        for greeting in range(1 if client["silent"] else self.plan.greetings):
            if greeting:
                self.rest(self.plan.think)
            line.socket.settimeout(self.left())
            note("asked")
            line.greet(b"client %d, greeting %d" % (client["number"], greeting + 1))
            self.rest(0)  # who is answered only since others were cut off was not served in time
            note("answered")
        if client["silent"]:
            self.others_gone.wait()

    def so_far(self):
        """Return a copy of the clients as they are now, and how long it has been."""
        clients = [{**client, "events": [*client["events"]]} for client in self.clients]
        return {"seconds": self.now(), "clients": clients}

    def end(self):
        """End all clients that are still there; return what happened, each with an end."""
        data = self.so_far()  # before the first is cut off: a server then turns to the next one
        self.over.set()
        self.others_gone.set()
        for line in list(self.lines):
            with contextlib.suppress(OSError):  # it has left
                line.socket.shutdown(socket.SHUT_RDWR)
        for client in data["clients"]:
            if client["events"] and client["events"][-1][1] not in ENDS:
                client["events"].append([data["seconds"], "cut off"])
        return data
